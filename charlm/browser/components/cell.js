/* One unit of a model, step by step: its gates at a character, its equation with their numbers, each over the line. */

import {
  decimal,
  grouped,
  isShortcut,
  make,
  makeSvg,
  MOST_MARKS,
  named,
  percentOf,
  readable,
  visible,
} from "./text.js";

/* A gate is saturated where it is below LEFT or above RIGHT (Karpathy, Johnson and Fei-Fei, 2015): it blocks all, or
   lets all through. */
const LEFT = 0.1;
const RIGHT = 0.9;
/* Pixels at least of a character below the plots; a Chinese, Japanese or Korean one and an emoji are wide. */
const [NARROW, WIDE] = [7, 13];
const IS_WIDE = /[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{sc=Hang}\p{Emoji_Presentation}\u3000-\u303f\uff01-\uff60]/u;
const [FEWEST_SHOWN, MOST_SHOWN] = [16, 72]; // narrow characters of a line
const BEFORE = "before"; // a state of the step before, 0 at the first character

/* The cells as torch.nn has them. gates: name, what it is called, and whether it is a sigmoid, which can be saturated.
   equations: each a list of names of gates, of [state, BEFORE] and of what stands between them. */
const CELL_PARTS = {
  lstm: {
    gates: [
      ["i", "input gate", true],
      ["f", "forget gate", true],
      ["g", "candidate", false],
      ["o", "output gate", true],
      ["c", "cell state", false],
      ["h", "hidden state", false],
    ],
    equations: [
      ["c", " = ", "f", " · ", ["c", BEFORE], " + ", "i", " · ", "g"],
      ["h", " = ", "o", " · tanh ", "c"],
    ],
  },
  gru: {
    gates: [
      ["r", "reset gate", true],
      ["z", "update gate", true],
      ["n", "candidate", false],
      ["h", "hidden state", false],
    ],
    equations: [["h", " = (1 − ", "z", ") · ", "n", " + ", "z", " · ", ["h", BEFORE]]],
  },
  rnn: {
    gates: [
      ["sum", "before tanh", false],
      ["h", "hidden state", false],
    ],
    equations: [["h", " = tanh ", "sum"]],
  },
};

/** Return the gates of a cell, [name, what it is called, whether it is a sigmoid], in the order of computing. */
export function gatesOfCell(cell) {
  return CELL_PARTS[cell].gates;
}

/** Return the shares of the numbers (N,) of a gate that are below LEFT and above RIGHT. */
function saturation(numbers) {
  const share = (isSaturated) => Array.prototype.filter.call(numbers, isSaturated).length / Math.max(numbers.length, 1);
  return [share((number) => number < LEFT), share((number) => number > RIGHT)];
}

/** A panel in an element.

    onPlace: called with a place when the visitor goes to it in the panel, which then shows it.
    value: {title, symbols, cell, gates}: what the unit is called, the N characters of the text, `lstm`, `gru` or `rnn`,
      and after each character the numbers of each gate by name, (N,), as `CharLM.gates` returns them.
    place: the character that is shown. */
export class CellPanel {
  constructor(element, { onPlace = () => {} } = {}) {
    Object.assign(this, { onPlace, value: null, place: 0, width: 0 });
    this.build(element);
    element.cellPanel = this;
    new ResizeObserver(() => this.resize()).observe(element);
  }

  build(element) {
    element.classList.add("cell");
    element.tabIndex = 0;
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", "One unit, step by step: the left and right arrow keys go through the text");
    element.addEventListener("keydown", (event) => this.type(event));
    this.title = make("span", "cell-title");
    this.where = make("span", "cell-where");
    this.said = make("span", "cell-said");
    this.said.setAttribute("role", "status");
    const head = make("div", "cell-head");
    const steps = [this.makeStep("←", "Previous", -1), this.makeStep("→", "Next", 1)];
    head.append(this.title, this.where, ...steps, this.said);
    this.equations = make("div", "cell-equations");
    this.table = make("table", "cell-gates");
    element.replaceChildren(head, this.equations, this.table);
  }

  makeStep(arrow, name, step) {
    const button = make("button", "cell-step", arrow);
    button.type = "button";
    button.setAttribute("aria-label", `${name} character`);
    button.addEventListener("click", () => this.go(this.place + step));
    return button;
  }

  /** Show another unit or another text, at the same place as far as the text goes. */
  show(value) {
    this.value = value;
    this.title.textContent = readable(value.title);
    this.parts = CELL_PARTS[value.cell];
    const rows = this.parts.gates.map((gate) => this.makeRow(...gate));
    const head = make("tr", "cell-names");
    head.append(...["gate", "over this line", "here", `below ${LEFT} · above ${RIGHT}`].map(makeColumnName));
    this.line = make("td", "cell-line");
    this.line.setAttribute("aria-hidden", "true");
    const foot = make("tr");
    foot.append(make("td"), this.line, make("td"), make("td"));
    this.table.replaceChildren(head, ...rows.map(({ row }) => row), foot);
    this.rows = rows;
    this.width = 0;
    this.point(Math.min(this.place, value.symbols.length - 1));
  }

  /** Make the row of a gate: its name, its plot, its number, and how often it is saturated in the whole text. */
  makeRow(name, called, isSigmoid) {
    const numbers = this.value.gates[name];
    const row = make("tr");
    const heading = make("th", "cell-name");
    heading.scope = "row";
    heading.append(make("b", "", name), " ", make("span", "cell-called", called));
    const svg = makeSvg("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.addEventListener("click", (event) => {
      const { left, width } = svg.getBoundingClientRect();
      this.go(this.first + Math.floor(((event.clientX - left) / width) * (this.end - this.first)));
    });
    const plot = make("td", "cell-plot");
    plot.append(svg);
    const here = make("td", "cell-here");
    const shares = make("td", "cell-saturated");
    if (isSigmoid) shares.append(...makeShares(...saturation(numbers)));
    row.append(heading, plot, here, shares);
    // of the others, the middle of the plot is 0
    const most = isSigmoid ? 1 : numbers.reduce((largest, number) => Math.max(largest, Math.abs(number)), 1);
    return { row, svg, here, numbers, isSigmoid, most };
  }

  /** Show a place. */
  point(place) {
    if (!this.value?.symbols.length || place < 0 || place >= this.value.symbols.length) return;
    this.place = place;
    const { symbols } = this.value;
    const count = grouped(symbols.length);
    this.where.textContent = `at ${named(symbols[place])}, ${grouped(place + 1)} of ${count}`;
    this.equations.replaceChildren(...this.parts.equations.map((equation) => this.makeEquation(equation)));
    this.width ||= this.line.clientWidth || 40 * NARROW;
    [this.first, this.end] = this.lineOf(place);
    this.drawLine();
    for (const row of this.rows) {
      row.here.textContent = threeDecimals(row.numbers[place]);
      this.drawPlot(row);
    }
  }

  /** Return where the part of a place's line begins and ends that can be read below the plots. */
  lineOf(place) {
    const { symbols } = this.value;
    const width = Math.min(Math.max(this.width, FEWEST_SHOWN * NARROW), MOST_SHOWN * NARROW);
    const [first, end] = lineAround(symbols, place, Math.floor(width / NARROW));
    const isWide = symbols.slice(first, end).some((symbol) => IS_WIDE.test(symbol));
    return isWide ? lineAround(symbols, place, Math.floor(width / WIDE)) : [first, end];
  }

  /** Return an equation: each number above the name that it has. */
  makeEquation(equation) {
    const element = make("p", "cell-equation");
    element.append(
      ...equation.map((part) => {
        const isBetween = typeof part === "string" && !(part in this.value.gates);
        if (isBetween) return make("span", "cell-between", part);
        const [name, number] = this.numberOf(part);
        const term = make("span", "cell-term");
        term.append(make("span", "cell-term-name", name), " ", make("span", "cell-number", threeDecimals(number)), " ");
        return term;
      }),
    );
    return element;
  }

  numberOf(part) {
    const [name, when] = [part].flat();
    const place = when ? this.place - 1 : this.place;
    return [when ? `${name} ${when}` : name, place < 0 ? 0 : this.value.gates[name][place]];
  }

  /** Show the characters of the line below the plots. */
  drawLine() {
    const shown = this.value.symbols.slice(this.first, this.end).map((symbol, step) => {
      const isHere = this.first + step === this.place;
      const letter = { "\n": "↵", "\t": "→", " ": isHere ? "␣" : " " }[symbol] ?? visible(symbol, MOST_MARKS);
      return make("span", isHere ? "here" : "", letter.length > 2 ? "□" : letter);
    });
    this.line.replaceChildren(...shown);
  }

  /** Draw a bar for each character of the line: those of a saturated gate stand out. */
  drawPlot({ svg, numbers, isSigmoid, most }) {
    const places = Array.from({ length: this.end - this.first }, (_, step) => this.first + step);
    const zero = isSigmoid ? 1 : 0.5;
    const bar = (place) => {
      const height = (isSigmoid ? -1 : -0.5 / most) * numbers[place];
      const least = Math.abs(height) < 0.04 ? -0.04 : height; // so that a zero is seen
      return `M${place - this.first + 0.12} ${zero}h.76v${least.toFixed(3)}h-.76z`;
    };
    const isStrong = (place) => isSigmoid && (numbers[place] < LEFT || numbers[place] > RIGHT);
    svg.setAttribute("viewBox", `0 0 ${places.length} 1`);
    svg.replaceChildren(
      makeSvg("rect", { class: "cell-cursor", x: this.place - this.first, y: 0, width: 1, height: 1 }),
      makeSvg("path", { class: "cell-bar", d: places.filter((place) => !isStrong(place)).map(bar).join("") }),
      makeSvg("path", { class: "cell-bar saturated", d: places.filter(isStrong).map(bar).join("") }),
    );
  }

  /** Go to a place at the visitor's wish, and say what is there. */
  go(place) {
    if (!this.value || place < 0 || place >= this.value.symbols.length) return;
    this.point(place);
    this.onPlace(place);
    this.said.textContent = `${this.where.textContent}: ${this.equations.textContent}`;
  }

  type(event) {
    const last = (this.value?.symbols.length ?? 0) - 1;
    const { place } = this;
    const next = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: last }[event.key];
    if (next === undefined || isShortcut(event)) return;
    event.preventDefault();
    this.go(next);
  }

  resize() {
    this.width = 0;
    if (this.value) this.point(this.place);
  }
}

/** Return where the line of a place begins and ends; of a longer one, `most` characters around the place. */
function lineAround(symbols, place, most) {
  const begin = symbols.lastIndexOf("\n", place - 1) + 1;
  const isFirst = place === 0; // lastIndexOf would look for a place from the end
  const next = symbols.indexOf("\n", place);
  const [start, end] = [isFirst ? 0 : begin, next < 0 ? symbols.length : next + 1];
  if (end - start <= most) return [start, end];
  const first = Math.min(Math.max(place - (most >> 1), start), end - most);
  return [first, first + most];
}

function makeColumnName(words) {
  const heading = make("th", "", words);
  heading.scope = "col";
  return heading;
}

/** Return how often a gate is saturated, as a bar and in figures. */
function makeShares(left, right) {
  const bar = make("span", "cell-shares");
  for (const [side, share] of Object.entries({ left, right })) {
    const part = make("span", side);
    part.style.width = `${(100 * share).toFixed(1)}%`;
    bar.append(part);
  }
  return [make("span", "", percentOf(left, 0)), bar, make("span", "", percentOf(right, 0))];
}

const threeDecimals = (number) => decimal(number, 3);
