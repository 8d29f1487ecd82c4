/* Texts with a background colour for each character: by its surprisal, what a unit or a gate did, or its influence. */

import { copyOnClick } from "./copy.js";
import { decimal, isShortcut, label, make, named, percentOf, readable, save, visible } from "./text.js";

/* A shade, from 0 to 1, is one printable symbol: LOWEST for 0, HIGHEST for 1, equal steps between them. MOST_NATS is
   the surprisal that has shade 1. charlm/web/heat.py has the same numbers. */
const LOWEST = 48;
const HIGHEST = 126;
export const MOST_NATS = 7.8;

export const SIDES = ["a", "b"]; // model A and model B, in ids, addresses and classes

/* The difference of two models' surprisals, that of A minus that of B, which has shade 1; its negative has shade 0. */
export const MOST_DIFFERENCE = 5;

const SIGNED = ["activation", "difference"]; // kinds whose shades below 0.5 are of negative numbers

const DESCRIPTIONS = {
  difference: (shade) => {
    const nats = (2 * shade - 1) * MOST_DIFFERENCE;
    if (Math.abs(nats) < MOST_DIFFERENCE / (HIGHEST - LOWEST)) return "as surprising to model A as to B";
    return `${Math.abs(nats).toFixed(1)} nats less surprising to model ${nats < 0 ? "A" : "B"}`;
  },
  gate: (shade) => `gate ${shade.toFixed(2)}`,
  surprisal: (shade) => `surprisal ${(shade * MOST_NATS).toFixed(1)} nats`,
  activation: (shade) => `activation ${decimal(2 * shade - 1, 2)} × the largest in this text`,
  influence: (shade) => `influence ${percentOf(shade, 0)} of the strongest`,
};

const NEAR_END = 30; // pixels: a text that is scrolled so near to its end stays there while it grows

let pace = 0; // characters that appear per second in a paced text; 0 shows the text as it comes

export function setPace(charactersPerSecond) {
  pace = charactersPerSecond;
}

/** Return N numbers from 0 to 1 as N shades; numbers outside are clipped, and NaN becomes a space, no shade. */
export function encodeShades(fractions) {
  return Array.from(fractions, (fraction) => {
    if (Number.isNaN(fraction)) return " ";
    return String.fromCharCode(LOWEST + Math.round(Math.min(Math.max(fraction, 0), 1) * (HIGHEST - LOWEST)));
  }).join("");
}

/** Return the number that a shade stands for, null for no shade. */
export function decodeShade(symbol) {
  const code = symbol?.charCodeAt(0);
  return code >= LOWEST && code <= HIGHEST ? (code - LOWEST) / (HIGHEST - LOWEST) : null;
}

/** Return the place of the character that an element shows; undefined if it shows none. */
function placeOf(element) {
  return element.dataset.place === undefined ? undefined : Number(element.dataset.place);
}

/** A text whose characters have shades, in an element that holds a `div` of the class `heat`.

    props: heading, called (what a screen reader calls the text; by default the heading), empty (what stands there while
      there is no text), explained (a hint below the text; with one, pointing at a character explains it), paced, and
      value, a Heat of charlm/web/heat.py. After a change of the value, `update` shows it.
    trigger: called with "select" and {index} when a character is chosen.
    onPoint: called with the place of a character when it is pointed at or reached with the arrow keys.
    onChoose: called with its place, and whether it was Enter that chose it and no click. It is then held: pointing
      elsewhere does not call onPoint until it is clicked again, or Escape is pressed, so that the pointer can go to
      what is known of it. The characters that `run.forced` of the value lists, [[place, symbol], …], are marked as
      choices.
    onRelease: called when Escape has let go of the one that was held.
    isOtherHeld: returns whether a text is held whose characters are explained in the same place: the pointer may cross
      this one on its way there.

    text, detail: the elements of the text and of the explanation below it.
    symbols: the characters of the value. shown: how many of them are on the page.
    cursor: the place of the character that is explained, -1 if there is none. isHeld: whether it is held.
    whole, shades, prompt, kind, details: of the value that was last shown.
    marks: the combining marks at the end of what is shown. due: the time of the last paced step.
    end: how far the text could be scrolled when that was measured last, in pixels.
    isFollowing: whether it is to be scrolled to its end in the next frame. */
export class HeatText {
  constructor(element, props, trigger, { onPoint, onChoose, onRelease, isOtherHeld } = {}) {
    Object.assign(this, { props, trigger, onPoint, onChoose, onRelease, isOtherHeld, isHeld: false });
    Object.assign(this, { shown: 0, symbols: [], forced: new Map(), cursor: -1, marks: 0, due: 0 });
    Object.assign(this, { end: 0, isFollowing: false });
    this.build(element.querySelector(".heat"));
    element.heatText = this;
    this.update();
  }

  build(frame) {
    const { heading, called = heading, explained } = this.props;
    const head = make("div", "heat-head");
    const [copy, keep] = ["Copy", "Save"].map((name) => {
      const button = make("button", `heat-${name.toLowerCase()}`, name);
      button.type = "button";
      button.setAttribute("aria-label", `${name}: ${called}`);
      return button;
    });
    copyOnClick(copy, () => this.value.text, "Select and copy by hand");
    keep.addEventListener("click", () => save(this.value.text, `${this.value.name}.txt`));
    head.append(make("span", "heat-label", heading), copy, keep);
    this.text = make("div", "heat-text");
    this.text.tabIndex = 0;
    this.text.dataset.empty = this.props.empty ?? "";
    const aria = { role: "textbox", "aria-readonly": "true", "aria-multiline": "true", "aria-label": called };
    for (const [name, value] of Object.entries(aria)) this.text.setAttribute(name, value);
    this.text.addEventListener("mouseover", ({ target }) => {
      if (!this.isHeld && !this.isOtherHeld?.()) this.point(placeOf(target));
    });
    this.text.addEventListener("click", (event) => this.choose(placeOf(event.target)));
    this.text.addEventListener("keydown", (event) => this.type(event));
    frame.replaceChildren(head, this.text);
    new ResizeObserver(() => this.measure()).observe(this.text);
    if (!explained) return;
    this.detail = make("div", "heat-detail");
    this.detail.setAttribute("role", "status");
    this.detail.dataset.hint = explained;
    frame.append(this.detail);
  }

  get value() {
    return { prompt: "", text: "", shades: "", kind: "surprisal", name: "text", ...(this.props.value || {}) };
  }

  get pace() {
    return this.props.paced ? pace : 0;
  }

  /** Show the value: what it has in common with what is shown stays, and the rest is appended. */
  update() {
    const { prompt, text, shades, kind, details, run } = this.value;
    const forced = new Map(run?.forced ?? []);
    const symbols = Array.from(text);
    const isShown = text === this.whole && prompt === this.prompt && this.shown === symbols.length;
    if (isShown && details && details === this.details) return this.recolour(kind, shades);
    const isOther = kind !== this.kind || prompt !== this.prompt || details;
    const isLonger = !isOther && text.startsWith(this.whole) && shades.startsWith(this.shades);
    if (isOther) this.clear();
    else if (!isLonger) this.cut(this.countCommon(symbols, shades, forced));
    Object.assign(this, { whole: text, shades, kind, prompt, symbols, forced, details });
    this.text.dataset.prompt = readable(prompt);
    this.text.dataset.kind = kind;
    if (!isLonger) this.measure();
    if (this.pace) this.showAtPace();
    else this.show(this.symbols.length);
  }

  /** Show the same characters in other colours. */
  recolour(kind, shades) {
    Object.assign(this, { kind, shades });
    this.text.dataset.kind = kind;
    Array.from(this.text.children, (span, place) => {
      const shade = decodeShade(shades[place]);
      span.style.removeProperty("--shade");
      span.classList.remove("negative");
      if (shade !== null) this.paint(span, shade);
    });
    if (this.detail && this.cursor >= 0) this.explain(this.cursor, this.describe(this.cursor));
  }

  clear() {
    this.text.replaceChildren();
    Object.assign(this, { shown: 0, marks: 0, cursor: -1, isHeld: false, due: 0 });
    if (this.detail) this.detail.replaceChildren();
  }

  /** Return how many of the characters that are shown are those of another text, in the same colours. */
  countCommon(symbols, shades, forced) {
    const isSame = (place) =>
      symbols[place] === this.symbols[place] &&
      shades[place] === this.shades[place] &&
      forced.has(place) === this.forced.has(place);
    let count = 0;
    while (count < this.shown && isSame(count)) count++;
    return count;
  }

  /** Leave the first characters, and drop those after them. */
  cut(count) {
    if (!count) return this.clear();
    while (this.text.children.length > count) this.text.lastChild.remove();
    this.shown = count;
    this.marks = /\p{M}*$/u.exec(this.symbols.slice(0, count).join(""))[0].length;
    if (this.cursor > count) Object.assign(this, { cursor: -1, isHeld: false });
  }

  /** Append characters at the chosen pace until all are shown. */
  showAtPace() {
    if (this.timer) return;
    this.due = performance.now();
    const tick = (now) => {
      if (this.shown >= this.symbols.length || !this.pace) {
        this.timer = null;
        if (!this.pace) this.show(this.symbols.length);
        return;
      }
      const steps = Math.floor(((now - this.due) / 1000) * this.pace);
      if (steps > 0) {
        this.due += (steps * 1000) / this.pace;
        this.show(Math.min(this.shown + steps, this.symbols.length));
      }
      this.timer = requestAnimationFrame(tick);
    };
    this.timer = requestAnimationFrame(tick);
  }

  /** Drop what is not shown yet, so that the text continues from what the visitor sees. */
  stop() {
    if (this.timer) cancelAnimationFrame(this.timer);
    this.timer = null;
    this.symbols = this.symbols.slice(0, this.shown);
    this.whole = this.symbols.join("");
    this.shades = this.value.shades.slice(0, this.shown);
    if (this.whole !== this.value.text) this.props.value = { ...this.value, text: this.whole, shades: this.shades };
  }

  /** Append the characters up to a place. */
  show(end) {
    const { shades } = this.value;
    const added = document.createDocumentFragment();
    for (let place = this.shown; place < end; place++) {
      const symbol = this.symbols[place];
      const isMark = /\p{M}/u.test(symbol);
      const span = make("span", symbol === "\n" ? "newline" : "", visible(symbol, this.marks));
      this.marks = isMark ? this.marks + 1 : 0;
      if (span.textContent !== symbol) span.className = "escape";
      span.dataset.place = place;
      span.classList.toggle("forced", this.forced.has(place));
      if (place === this.cursor) this.mark(span);
      const shade = decodeShade(shades[place]);
      if (shade !== null) this.paint(span, shade);
      added.append(span);
    }
    this.text.append(added);
    this.shown = Math.max(this.shown, end);
    this.follow();
  }

  measure() {
    this.end = this.text.scrollHeight - this.text.clientHeight;
  }

  /** Scroll to the end of the text in the next frame, unless the visitor has scrolled away from it or holds a character.

      Measuring makes the browser lay out the page. In a frame it does so once for all texts, and has to do it anyway;
      at each update it would do so once for each text. */
  follow() {
    if (this.isFollowing || this.value.details) return; // a text with details is read, not written
    this.isFollowing = true;
    requestAnimationFrame(() => {
      this.isFollowing = false;
      const wasAtEnd = this.text.scrollTop > this.end - NEAR_END;
      this.measure();
      if (wasAtEnd && !this.isHeld) this.text.scrollTop = this.end;
    });
  }

  /** Colour a character. Negative numbers have their own colour. */
  paint(span, shade) {
    if (!SIGNED.includes(this.kind)) return span.style.setProperty("--shade", shade.toFixed(3));
    span.style.setProperty("--shade", Math.abs(2 * shade - 1).toFixed(3));
    span.classList.toggle("negative", shade < 0.5);
  }

  /** Say in words what the colour of a character means. */
  describe(place) {
    const shade = decodeShade(this.value.shades[place]);
    return shade === null ? "" : `: ${DESCRIPTIONS[this.kind](shade)}`;
  }

  /** Describe the character at a place. */
  point(place) {
    if (place === undefined || place >= this.shown) return;
    const words = this.describe(place);
    this.text.children[place].title = named(this.symbols[place]) + words;
    if (!this.detail && !this.onPoint) return;
    this.text.children[this.cursor]?.classList.remove("cursor", "held");
    this.cursor = place;
    this.mark(this.text.children[place]);
    if (this.detail) this.explain(place, words);
    this.onPoint?.(place);
  }

  /** Mark the character at the cursor. */
  mark(span) {
    span.classList.add("cursor");
    span.classList.toggle("held", this.isHeld);
  }

  /** Hold the character at a place, or let go of the one that is held (place -1). */
  hold(place) {
    this.isHeld = place >= 0;
    if (this.isHeld) this.point(place);
    else if (this.cursor >= 0) this.text.children[this.cursor]?.classList.remove("held");
  }

  release() {
    this.hold(-1);
    this.onRelease?.();
  }

  /** Take the mark from the character that was pointed at. */
  leave() {
    this.text.children[this.cursor]?.classList.remove("cursor", "held");
    Object.assign(this, { cursor: -1, isHeld: false });
  }

  /** List below the text which characters the model held likeliest at a place. */
  explain(place, words) {
    const rows = (this.value.details?.[place] ?? []).map(([symbol, probability]) => {
      const row = make("div", "bar-row" + (symbol === this.symbols[place] ? " true" : ""));
      const bar = make("span", "bar");
      bar.style.width = `${(100 * probability).toFixed(1)}%`;
      const track = make("span", "bar-track");
      track.append(bar);
      row.append(make("span", "bar-symbol", label(symbol)), track, make("span", "bar-figure", percentOf(probability)));
      return row;
    });
    this.detail.replaceChildren(make("div", "detail-line", named(this.symbols[place]) + words), ...rows);
  }

  /** Report that a character was chosen, by click or Enter. With `onChoose` it is also held. */
  choose(place, isKey = false) {
    if (place === undefined || place >= this.shown) return;
    const isLetGo = !isKey && this.isHeld && place === this.cursor;
    if (this.onChoose) this.hold(isLetGo ? -1 : place);
    else this.point(place);
    this.trigger("select", { index: place });
    if (!isLetGo) this.onChoose?.(place, isKey);
  }

  /** Scroll the text so that a character is in sight; the page stays where it is. */
  reveal(place) {
    const [outer, inner] = [this.text, this.text.children[place]].map((element) => element.getBoundingClientRect());
    if (inner.top < outer.top) this.text.scrollTop += inner.top - outer.top - 8;
    else if (inner.bottom > outer.bottom) this.text.scrollTop += inner.bottom - outer.bottom + 8;
  }

  /** Move the cursor with the keyboard. */
  type(event) {
    if ((!this.detail && !this.onPoint) || !this.shown || isShortcut(event)) return;
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -this.shown, End: this.shown }[event.key];
    if (step !== undefined) this.point(Math.min(Math.max(this.cursor + step, 0), this.shown - 1));
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") this.point(this.besides(event.key === "ArrowDown"));
    else if (event.key === "Enter" && this.cursor >= 0) this.choose(this.cursor, true);
    else if (event.key === "Escape" && this.isHeld) this.release();
    else return;
    event.preventDefault();
    this.text.children[this.cursor]?.scrollIntoView({ block: "nearest" });
  }

  /** Return the place of the character below or above the one at the cursor; undefined if there is none. */
  besides(isBelow) {
    const here = this.text.children[this.cursor]?.getBoundingClientRect();
    if (!here) return 0;
    const step = isBelow ? 1 : -1;
    let line; // the upper edge of the next line
    for (let place = this.cursor + step; place >= 0 && place < this.shown; place += step) {
      const box = this.text.children[place].getBoundingClientRect();
      if (line === undefined && Math.abs(box.top - here.top) > here.height / 2) line = box.top;
      if (line === undefined) continue;
      if (Math.abs(box.top - line) > here.height / 2) return place - step; // the line was shorter
      if (isBelow ? box.left >= here.left - 1 : box.left <= here.left + 1) return place;
    }
    return line === undefined ? undefined : isBelow ? this.shown - 1 : 0;
  }
}
