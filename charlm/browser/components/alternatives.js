/* What could have stood at a character: the likeliest symbols as they were sampled, each to be chosen in its place. */

import { surprisalAt, stepsOfDraw } from "./sampling.js";
import { grouped, isShortcut, label, make, named, percentOf } from "./text.js";

const SHOWN_ALTERNATIVES = 10;
const POINT_AT =
  "Point at a character, or move to it with the arrow keys, to see what else the model could have written there.";

/** Return the places of the symbols to offer: the ten likeliest, and the one that stands there. */
export function placesToOffer({ symbols, symbol }, { ranked }) {
  const offered = ranked.slice(0, SHOWN_ALTERNATIVES);
  const there = symbols.indexOf(symbol);
  return there < 0 || offered.includes(there) ? offered : [...offered, there];
}

/** The alternatives of one character, in an element.

    onChoose: called with the symbol that is to stand in its place. onLeave: called when Escape is pressed. */
export class Alternatives {
  constructor(element, { onChoose, onLeave = () => {} }) {
    Object.assign(this, { onChoose, onLeave });
    this.line = make("p", "alternatives-line");
    this.line.setAttribute("role", "status");
    this.list = make("div", "alternatives-list");
    this.list.setAttribute("role", "group");
    this.list.setAttribute("aria-label", "What else could stand there; a choice writes on from it");
    this.list.addEventListener("keydown", (event) => this.type(event));
    element.classList.add("alternatives");
    element.replaceChildren(this.line, this.list);
    this.show(null);
  }

  /** Show the details of a drawn character, as sampling.js describes them; null shows a hint.

      settings: with which it was drawn. side: of the model that wrote it, a or b, for the colour. */
  show(details, settings, side = "") {
    this.list.dataset.side = side;
    if (!details) {
      this.line.textContent = POINT_AT;
      return this.list.replaceChildren();
    }
    const steps = stepsOfDraw(details, settings);
    const hadFocus = this.list.contains(document.activeElement);
    this.line.textContent = describeDrawn(details);
    this.list.replaceChildren(...placesToOffer(details, steps).map((place) => this.makeButton(place, details, steps)));
    if (hadFocus) this.focus();
  }

  makeButton(place, { symbols, symbol, forced }, { kept, probabilities }) {
    const isThere = symbols[place] === symbol;
    const share = kept[place] ? percentOf(probabilities[place]) : "cut";
    const button = make("button", `alternative${kept[place] ? "" : " cut"}`);
    button.type = "button";
    button.dataset.symbol = symbols[place];
    const bar = make("span", "alternative-bar");
    bar.style.width = `${(100 * probabilities[place]).toFixed(1)}%`;
    button.append(bar, make("span", "alternative-symbol", label(symbols[place])), make("span", "", share));
    const words = kept[place] ? share : "cut by top-k or top-p";
    const standing = !isThere ? "" : forced ? ", stands there, chosen by you" : ", stands there";
    button.setAttribute("aria-label", `${named(symbols[place])}, ${words}${standing}`);
    if (isThere) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => this.onChoose(symbols[place]));
    return button;
  }

  /** Give the focus to the symbol that stands there. */
  focus() {
    (this.list.querySelector("[aria-current]") ?? this.list.firstElementChild)?.focus();
  }

  type(event) {
    if (isShortcut(event)) return;
    const buttons = [...this.list.children];
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") this.onLeave();
    else if (step) buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length].focus();
    else return;
    event.preventDefault();
  }
}

/** Return a line about a character: how surprising it was, and who drew it. */
function describeDrawn(details) {
  const { place, symbol, symbols, forced } = details;
  const at = symbols.indexOf(symbol);
  const bits = at < 0 ? "" : ` · ${(surprisalAt(details, at) / Math.LN2).toFixed(2)} bits`;
  return `${named(symbol)}, character ${grouped(place + 1)}${bits}${forced ? " · your choice" : ""}`;
}
