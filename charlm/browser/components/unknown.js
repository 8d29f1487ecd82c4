/* Symbols that a model does not know, marked in a field while somebody types, with a substitute at a click. */

import { label, make, named } from "./text.js";

const SUBSTITUTES = {
  "‘’‚‛`´′": "'",
  "“”„‟«»″": '"',
  '"': "'",
  "–—‒―−‐‑": "-",
  "…": "...",
  "\u00a0\u2002\u2003\u2009\u202f\t": " ",
  "ßẞ": "ss",
  "æ": "ae",
  "Æ": "AE",
  "œ": "oe",
  "Œ": "OE",
  "øØ": "o",
  "łŁ": "l",
  "đĐð": "d",
  "þÞ": "th",
  "ı": "i",
  "×": "x",
  "•·": "-",
};
const MOST_OFFERED = 8; // distinct symbols that the line names; “all” is for the others, too
const MOST_MARKED = 2000; // runs of unknown symbols: each is an element, which the browser lays out again at each key

/** Return what a model that knows `vocab`, a Set, can read in place of a symbol; "" if nothing is like it. */
export function substituteFor(symbol, vocab) {
  const replaced = (each) => Object.entries(SUBSTITUTES).find(([all]) => each && all.includes(each))?.[1] ?? "";
  const bare = symbol.normalize("NFKD").replace(/\p{M}/gu, "");
  const found = [replaced(symbol), bare, replaced(replaced(symbol))];
  const candidates = found.flatMap((each) => [each, each.toLowerCase(), each.toUpperCase()]);
  const isKnown = (each) => each !== "" && Array.from(each).every((one) => vocab.has(one));
  return candidates.find(isKnown) ?? "";
}

/** Return the distinct symbols of a text that are not in `vocab`, a Set, each with its substitute and its count. */
function unknownSymbols(text, vocab) {
  const counts = new Map();
  for (const symbol of text) if (!vocab.has(symbol)) counts.set(symbol, (counts.get(symbol) ?? 0) + 1);
  return [...counts].map(([symbol, count]) => ({ symbol, count, substitute: substituteFor(symbol, vocab) }));
}

/** Marks the unknown symbols of a textarea, and names them in a line below it.

    vocab: gives the Set of symbols that all models know which are to read the text. */
export class UnknownMarks {
  constructor(field, line, vocab) {
    Object.assign(this, { field, line, vocab });
    line.classList.add("unknown");
    line.setAttribute("role", "status");
    this.backdrop = make("div", "unknown-backdrop");
    this.backdrop.setAttribute("aria-hidden", "true");
    field.before(this.backdrop);
    field.parentElement.classList.add("unknown-field");
    field.addEventListener("input", () => this.update());
    field.addEventListener("scroll", () => this.follow());
    new ResizeObserver(() => this.follow()).observe(field);
    this.draw();
  }

  /** Mark what is unknown, once a frame: call it when the text or the models have been changed by a script. */
  update() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      this.draw();
    });
  }

  draw() {
    const vocab = this.vocab();
    const found = unknownSymbols(this.field.value, vocab);
    this.line.hidden = !found.length;
    this.backdrop.hidden = !found.length;
    this.name(found);
    if (!found.length) return;
    const unknown = found.map(({ symbol }) => escaped(symbol)).join("");
    const split = this.field.value.split(new RegExp(`([${unknown}]+)`, "u"));
    // every second part is a run of unknown symbols
    const parts = split.slice(0, Math.min(split.length - 1, 2 * MOST_MARKED));
    // with a line break at the end, so that a last empty line has its height
    const rest = `${split.slice(parts.length).join("")}\n`;
    this.backdrop.replaceChildren(
      ...[...parts, rest].map((part, number) => {
        const element = make(number % 2 ? "mark" : "span");
        element.dataset.text = part; // which the style shows, so that a search in the page finds the text only once
        return element;
      }),
    );
    this.follow();
  }

  /** Name the unknown symbols in the line, if they are others: a screen reader would repeat the line at each key. */
  name(found) {
    const key = JSON.stringify(found);
    if (key === this.named) return;
    this.named = key;
    const offers = found.slice(0, MOST_OFFERED).map((each) => this.makeOffer(each));
    this.line.replaceChildren("A model does not know: ", ...offers);
    if (found.length > 1) this.line.append(this.makeButton("Replace all", "Replace all unknown symbols", found));
  }

  makeOffer({ symbol, count, substitute }) {
    const words = `${label(symbol)} → ${substitute === "" ? "leave out" : label(substitute)}`;
    const times = count === 1 ? "" : `, ${count} times`;
    const spoken =
      substitute === "" ? `Leave out ${named(symbol)}` : `Replace ${named(symbol)} by ${named(substitute)}`;
    return this.makeButton(words, spoken + times, [{ symbol, substitute }]);
  }

  makeButton(words, spoken, found) {
    const button = make("button", "quiet unknown-offer", words);
    button.type = "button";
    button.setAttribute("aria-label", spoken);
    button.addEventListener("click", () => this.replace(found));
    return button;
  }

  replace(found) {
    let text = this.field.value;
    for (const { symbol, substitute } of found) text = text.replaceAll(symbol, () => substitute);
    this.field.value = text;
    this.field.dispatchEvent(new Event("input", { bubbles: true }));
    this.field.focus();
  }

  /** Lay the marks behind the text of the field. */
  follow() {
    const { field, backdrop } = this;
    const style = getComputedStyle(field);
    const copied = ["font", "padding", "lineHeight", "letterSpacing", "borderWidth", "textAlign", "tabSize"];
    for (const name of copied) backdrop.style[name] = style[name];
    backdrop.style.left = `${field.offsetLeft}px`;
    backdrop.style.top = `${field.offsetTop}px`;
    const borders = parseFloat(style.borderLeftWidth) + parseFloat(style.borderRightWidth);
    backdrop.style.width = `${field.clientWidth + borders}px`; // without the bar that scrolls the field
    backdrop.style.height = `${field.offsetHeight}px`;
    backdrop.scrollTop = field.scrollTop;
  }
}

function escaped(symbol) {
  return `\\u{${symbol.codePointAt(0).toString(16)}}`;
}
