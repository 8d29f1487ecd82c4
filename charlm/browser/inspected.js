/* A text that two models have read: what each expected at each character, what their units did, and the colours. */

import { encodeShades, MOST_DIFFERENCE, MOST_NATS } from "./components/heat.js";
import { amount, grouped } from "./components/text.js";
import { getModel } from "./models.js";

const LONGEST_INSPECTED = 5000; // characters, as in the Gradio page
const LONGEST_SEARCHED = 20000; // characters in which a pattern is searched
const FIRST_PLACES = 200;
const NOTHING = "there is nothing to read: enter a text of characters that both models know";

/** A text as two models read it: of the characters that both know, so that a place is the same in both.

    names: of model A and model B. text: as it was entered. symbols: the N characters that are shown; of a longer text
      `searched` has more. skipped: for each model, the distinct characters of what is shown that it does not know, in a
      string. unknown: all such characters of what is searched.
    inspections: for each model, what `CharLM.inspect` returns. */
export class Inspected {
  /** Read a text. onProgress: called with the number of the model, and the bytes of it that are there and of the whole.

      Throws Error if there is no character that both models know, and what loading a model throws. */
  static async read(names, text, onProgress) {
    const load = (name, model) => getModel(name, (...progress) => onProgress(model, ...progress));
    const lms = await Promise.all(names.map(load));
    const entered = Array.from(text).slice(0, LONGEST_SEARCHED);
    const unknown = new Set(lms.map((lm) => lm.unknown(entered.join(""))).join(""));
    const shown = entered.slice(0, LONGEST_INSPECTED);
    const [symbols, searched] = [shown, entered].map((all) => all.filter((symbol) => !unknown.has(symbol)));
    if (!symbols.length) throw new Error(NOTHING);
    const skipped = lms.map((lm) => lm.unknown(shown.join("")));
    const inspections = await Promise.all(lms.map((lm) => lm.inspect(symbols.join(""))));
    return new Inspected({ names, text, lms, symbols, searched, unknown, skipped, inspections });
  }

  constructor(read) {
    Object.assign(this, read, { key: "", gates: undefined, asking: new AbortController() });
  }

  /** Return whether this is what these models read in a text. */
  isOf(names, text) {
    return this.text === text && this.names.every((name, model) => name === names[model]);
  }

  /** Return where a place lies in the text as it was entered, in UTF-16 units. */
  offsetOf(place) {
    let offset = 0;
    let left = place;
    for (const symbol of this.text) {
      if (!this.unknown.has(symbol) && left-- === 0) break;
      offset += symbol.length;
    }
    return offset;
  }

  /** Return a promise of what `CharLM.gates` returns of a unit, {cell, gates}. The last ones are kept, and who asks for
      another unit waits no longer for the one before. */
  gatesOf({ model, layer, unit }) {
    const key = [model, layer, unit].join();
    if (key !== this.key) {
      this.asking.abort();
      this.asking = new AbortController();
      const { signal } = this.asking;
      Object.assign(this, { key, gates: this.lms[model].gates(this.symbols.join(""), { layer, unit, signal }) });
      this.gates.catch(() => (this.key = this.key === key ? "" : this.key));
    }
    return this.gates;
  }

  /** Return what `CharLM.findPattern` returns of a stretch. */
  findPattern(model, request) {
    return this.lms[model].findPattern(this.searched.join(""), request);
  }

  /** Return the Heat of a model's text. coloured: {kind, shades} of it. */
  heatOf(model, { kind, shades }) {
    const { likeliest } = this.inspections[model];
    const name = `${this.names[model]}-${kind}`;
    return { text: this.symbols.join(""), shades: encodeShades(shades), kind, details: likeliest, name };
  }

  /** Return the colours of a model's text by its surprisal. */
  surprisal(model) {
    return { kind: "surprisal", shades: this.inspections[model].surprisals.map((nats) => nats / MOST_NATS) };
  }

  /** Return the colours of both texts by how much more surprising a character was to model A. */
  difference() {
    const [a, b] = this.inspections.map(({ surprisals }) => surprisals);
    return { kind: "difference", shades: a.map((nats, place) => ((nats - b[place]) / MOST_DIFFERENCE + 1) / 2) };
  }

  /** Return the place, among the first ones, at which the surprisals differ most; 0 in a text of one character. */
  mostDifferent() {
    const sizes = Array.from(this.difference().shades.slice(1, FIRST_PLACES), (shade) => Math.abs(2 * shade - 1));
    return sizes.length ? sizes.indexOf(Math.max(...sizes)) + 1 : 0;
  }

  /** Say in a line how well a model read the text. */
  describe(model) {
    const { surprisals } = this.inspections[model];
    const parts = [amount(this.symbols.length, "character")];
    if (surprisals.length > 1) {
      const bits = surprisals.slice(1).reduce((sum, nats) => sum + nats, 0) / (surprisals.length - 1) / Math.LN2;
      parts.push(`${bits.toFixed(2)} bits per character, perplexity ${(2 ** bits).toFixed(1)}`);
    }
    const whole = Array.from(this.text).length;
    if (whole > LONGEST_INSPECTED) {
      const [first, all] = [LONGEST_INSPECTED, whole].map(grouped);
      parts.push(`the first ${first} of ${all} are shown`);
    }
    // a model that is both A and B is named once
    const skipped = new Map(this.names.map((name, number) => [name, this.skipped[number]]));
    for (const [name, unknown] of skipped) {
      if (unknown) parts.push(`skipped, as ${name} does not know it: '${unknown}'`);
    }
    return parts.join(" · ");
  }
}

/** Return the colours of a text by a gate or a state of a unit. The largest size of a state has the full shade. */
export function coloursOfGate(numbers, isSigmoid) {
  if (isSigmoid) return { kind: "gate", shades: numbers };
  const largest = numbers.reduce((most, number) => Math.max(most, Math.abs(number)), 1e-12);
  return { kind: "activation", shades: numbers.map((number) => (number / largest + 1) / 2) };
}
