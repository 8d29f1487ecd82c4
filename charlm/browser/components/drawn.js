/* How a character was drawn: logits, divided by the temperature, cut by top-k and top-p, and the place of the random
   number among the probabilities that are left, one after another. Sliders redraw it with other settings. */

import { placesToOffer } from "./alternatives.js";
import { drawnPlace, stepsOfDraw } from "./sampling.js";
import { decimal, label, make, named, readable } from "./text.js";

const LEAST_NAMED = 0.03; // share of the bar from which a symbol's name fits into its part
const SLIDERS = [
  ["temperature", "Temperature", 2, 0.05],
  ["top_k", "Top-k", 100, 1],
  ["top_p", "Top-p", 1, 0.01],
];

/** The draw of one character, in an element.

    onNext: called when the next symbol is to be drawn. onChoose: called with the symbol that other settings draw, if
    the visitor wants it in the text. */
export class Drawn {
  constructor(element, { onNext, onChoose }) {
    Object.assign(this, { onNext, onChoose, details: null, settings: null, tried: {} });
    element.classList.add("drawn");
    this.steps = make("div", "drawn-steps");
    this.bar = make("div", "drawn-bar");
    this.line = make("p", "drawn-line");
    element.replaceChildren(this.makeHead(), this.steps, this.bar, this.line, this.makeSliders());
    this.show(null);
  }

  makeHead() {
    const head = make("div", "drawn-head");
    this.next = makeButton("Next", () => this.onNext());
    this.next.classList.add("drawn-next");
    this.next.title = "Draw one symbol";
    this.reset = makeButton("As it was drawn", () => this.try({}));
    this.take = makeButton("", () => this.onChoose(this.take.dataset.symbol));
    head.append(make("h3", "", "How this character was drawn"), this.take, this.reset, this.next);
    return head;
  }

  makeSliders() {
    const row = make("div", "drawn-sliders");
    this.sliders = {};
    for (const [name, words, most, step] of SLIDERS) {
      const field = make("label", "drawn-slider", `${words} `);
      const output = make("output");
      const input = make("input");
      Object.assign(input, { type: "range", min: 0, max: most, step });
      input.addEventListener("input", () => this.try({ ...this.tried, [name]: Number(input.value) }));
      field.append(output, input);
      row.append(field);
      this.sliders[name] = { input, output };
    }
    return row;
  }

  /** Show the draw of a character with details as sampling.js describes them; null if there is none.

      settings: with which it was drawn. side: of the model that wrote it, a or b, for the colour. */
  show(details, settings = null, side = "") {
    Object.assign(this, { details, settings });
    this.steps.parentElement.dataset.side = side;
    this.update();
  }

  /** Draw with these settings in place of those of the text. */
  try(tried) {
    this.tried = tried;
    this.update();
  }

  update() {
    const focused = [this.reset, this.take].find((button) => button === document.activeElement);
    this.draw();
    if (focused?.hidden) this.next.focus(); // it would fall to the page
  }

  draw() {
    const { details, settings, tried } = this;
    const used = { temperature: 1, top_k: 0, top_p: 1, ...settings, ...tried };
    const isTried = details !== null && SLIDERS.some(([name]) => used[name] !== settings[name]);
    for (const [name, { input, output }] of Object.entries(this.sliders)) {
      input.value = used[name];
      input.disabled = details === null;
      output.textContent = used[name] || name !== "top_k" ? used[name] : "off";
    }
    this.reset.hidden = !isTried;
    this.steps.parentElement.classList.toggle("empty", details === null);
    this.take.hidden = true;
    if (!details) {
      this.steps.replaceChildren();
      this.bar.replaceChildren();
      this.line.textContent = "“Next” draws one symbol at a time.";
      return;
    }
    const steps = stepsOfDraw(details, used);
    this.steps.replaceChildren(...this.makeRows(steps, used));
    this.showBar(steps, isTried);
  }

  /** Return the rows of bars: symbols, logits, divided logits, and what top-k and top-p leave of the probabilities. */
  makeRows(steps, { temperature }) {
    const { symbols, symbol, logits } = this.details;
    const shown = placesToOffer(this.details, steps);
    const row = (title, values, figures, isCut = () => false) => {
      const element = make("div", "drawn-row");
      const lowest = Math.min(...values, 0);
      const range = Math.max(...values) - lowest || 1;
      const columns = values.map((value, rank) => {
        const place = shown[rank];
        const column = make("span", `drawn-column${symbols[place] === symbol ? " there" : ""}`);
        const bar = make("span", `drawn-column-bar${isCut(place) ? " cut" : ""}`);
        bar.style.height = `${Math.max((100 * (value - lowest)) / range, 2).toFixed(1)}%`;
        column.append(bar, make("span", "drawn-figure", figures[rank]));
        return column;
      });
      element.append(make("span", "drawn-title", title), ...columns);
      return element;
    };
    const names = make("div", "drawn-row names");
    const headings = shown.map((place) =>
      make("span", `drawn-column${symbols[place] === symbol ? " there" : ""}`, label(symbols[place])),
    );
    names.append(make("span", "drawn-title", "symbol"), ...headings);
    const of = (numbers) => shown.map((place) => numbers[place]);
    const decimals = (numbers) => numbers.map((number) => decimal(number, 1));
    const shares = of(steps.shares);
    return [
      names,
      row("logit", of(logits), decimals(of(logits))),
      row(temperature === 0 ? "÷ 0: largest" : `÷ ${temperature}`, of(steps.scaled), decimals(of(steps.scaled))),
      row(
        "softmax, %",
        shares,
        shown.map((place, rank) => (steps.kept[place] ? (100 * shares[rank]).toFixed(1) : "cut")),
        (place) => !steps.kept[place],
      ),
    ];
  }

  /** Show the probabilities one after another in the order of ids, and where the random number falls. */
  showBar(steps, isTried) {
    const { symbols, symbol, random, forced } = this.details;
    const drawn = drawnPlace(steps, random);
    const parts = [];
    steps.probabilities.forEach((share, place) => {
      if (share < 0.002 && place !== drawn) return; // of less than a pixel
      const part = make("span", `drawn-part${place === drawn ? " drawn-here" : ""}`);
      part.style.left = `${(100 * (steps.cumulative[place] - share)).toFixed(2)}%`;
      part.style.width = `${(100 * share).toFixed(2)}%`;
      if (share >= LEAST_NAMED) part.textContent = label(symbols[place]);
      parts.push(part);
    });
    if (drawn >= 0) {
      const mark = make("span", "drawn-mark");
      mark.style.left = `${(100 * random).toFixed(2)}%`;
      parts.push(mark);
    }
    this.bar.replaceChildren(...parts);
    this.line.textContent = readable(lineOf(this.details, steps, drawn, isTried));
    const isOther = isTried && drawn >= 0 && symbols[drawn] !== symbol && !forced;
    this.take.hidden = !isOther;
    if (!isOther) return;
    this.take.textContent = `Write ${named(symbols[drawn])}`;
    this.take.dataset.symbol = symbols[drawn];
  }
}

function makeButton(words, action) {
  const button = make("button", "quiet", words);
  button.type = "button";
  button.addEventListener("click", action);
  return button;
}

/** Return what the random number drew, in words. */
function lineOf({ symbols, symbol, random, forced }, steps, drawn, isTried) {
  const number = `random number ${random.toFixed(4)}`;
  if (drawn < 0) return `${number}; the vocabulary is too large to show the place of each symbol`;
  const from = steps.cumulative[drawn] - steps.probabilities[drawn];
  const part = `${from.toFixed(4)} to ${steps.cumulative[drawn].toFixed(4)}`;
  const words = `${number} → ${named(symbols[drawn])} (${part})`;
  if (forced) return `${words}; you chose ${named(symbol)}`;
  return isTried && symbols[drawn] !== symbol ? `${words}; the text has ${named(symbol)}` : words;
}
