/* A text that one model writes, coloured by the surprisal of each character, and the line about it. */

import { encodeShades, HeatText, MOST_NATS, SIDES } from "./components/heat.js";
import { amount, grouped, make, named, readable, shareLoaded } from "./components/text.js";
import { getModel } from "./models.js";

const PAUSE = 50; // milliseconds between two lines about a text

/** side: a or b, of the model whose text it is. line: an element that says how the text is doing. about: one that says
    what the model is, for the head of the text. Others: the callbacks of a HeatText.

    value: the Heat of the text. Its `run` has the settings and `forced`, the choices of the visitor; its `surprisals`
      are those of the characters in nats. wanted: the name of the model that writes, or wrote, last. */
export class Panel {
  constructor(side, output, heading, { line, about, ...callbacks } = {}) {
    this.side = side;
    this.props = { heading, empty: "“Generate” lets the model continue the prompt.", paced: true, value: {} };
    this.heat = new HeatText(output, this.props, () => {}, callbacks);
    if (about) output.querySelector(".heat-label").replaceChildren(about);
    this.line = line;
    this.running = new AbortController();
    this.isWriting = false;
  }

  get value() {
    return this.heat.value;
  }

  /** The text as a list of symbols. */
  get symbols() {
    return Array.from(this.value.text);
  }

  /** The mean surprisal of what is shown, in bits per character; 0 of an empty text. */
  get bits() {
    const surprisals = (this.value.surprisals ?? []).slice(0, this.symbols.length);
    return surprisals.reduce((sum, nats) => sum + nats, 0) / Math.max(surprisals.length, 1) / Math.LN2;
  }

  /** The name of the model that has written the text. */
  get model() {
    return this.value.run[`model_${this.side}`];
  }

  /** Let the model write. before: what the same settings, seed and choices have written already, as a Heat, or {}.

      forced: the choices of the visitor, [[place, symbol], …]. Throws what the model throws, unless it was stopped. */
  async write(settings, before = {}, forced = []) {
    this.stop();
    const { signal } = (this.running = new AbortController());
    this.wanted = settings[`model_${this.side}`];
    this.isWriting = true;
    try {
      await this.writeUntil(signal, settings, before, forced);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      if (!signal.aborted) this.isWriting = false;
    }
  }

  async writeUntil(signal, settings, { prompt = "", text = "", shades = "", surprisals = [], run: before }, forced) {
    const name = this.wanted;
    const count = Array.from(text).length;
    const written = { text, shades, surprisals: surprisals.slice(0, count) };
    this.show({ prompt, ...written, run: before });
    const lm = await this.load(name, signal);
    if (signal.aborted) return;
    checkChoices(forced, lm.vocab, name);
    const skipped = lm.unknown(settings.prompt);
    const read = Array.from(settings.prompt).filter((symbol) => !skipped.includes(symbol));
    const run = { ...settings, forced };
    this.show({ prompt: read.join(""), ...written, kind: "surprisal", name: `${name}-${settings.seed}`, run });
    const figures = { skipped, kernel: lm.kernel, fresh: 0, begin: performance.now() };
    const request = { ...requestOf(settings), length: settings.length - count, after: text, forced, signal };
    for await (const piece of lm.write(settings.prompt, request)) {
      if (signal.aborted) return;
      this.append(piece, figures);
    }
    this.tellFigures(figures);
  }

  /** Stop writing, and drop what is not shown yet. */
  stop() {
    this.running.abort();
    this.isWriting = false;
    this.heat.stop();
  }

  /** Show a text that was written before, by default none. */
  restore(value = {}) {
    this.stop();
    this.show(value);
    if (value.run) this.tellFigures({});
    else this.say("");
  }

  /** Return what a character was drawn from, as components/sampling.js describes it. */
  async look(place) {
    const { run } = this.value;
    const symbols = this.symbols;
    const lm = await getModel(this.model);
    const after = symbols.slice(0, place).join("");
    const { logits, random } = await lm.predict(run.prompt, { after, seed: BigInt(run.seed) });
    const forced = run.forced.some(([chosen]) => chosen === place);
    return { place, symbol: symbols[place], symbols: lm.vocab, logits: Array.from(logits), forced, random };
  }

  /** Return a model; meanwhile the line tells how much of it is there, until the signal. */
  async load(name, signal) {
    const clear = () => this.say("");
    const say = (words) => signal.aborted || this.say(words); // the line belongs to what is written next
    signal.addEventListener("abort", clear);
    say(`${name} · loading`);
    try {
      return await getModel(name, (there, whole) => say(`${name} · ${shareLoaded(there, whole)}`));
    } catch (error) {
      say("");
      throw error;
    } finally {
      signal.removeEventListener("abort", clear);
    }
  }

  append({ text, surprisals }, figures) {
    figures.fresh += surprisals.length;
    const { value } = this.props;
    const shades = value.shades + encodeShades(surprisals.map((nats) => nats / MOST_NATS));
    this.show({ ...value, text: value.text + text, shades, surprisals: [...value.surprisals, ...surprisals] });
    if (performance.now() - (figures.told ?? -PAUSE) >= PAUSE) this.tellFigures(figures);
  }

  /** Say how long the text is and how surprising, how fast it was written, and what was left out. */
  tellFigures(figures) {
    figures.told = performance.now();
    const { fresh, begin, skipped, kernel } = figures;
    const rate = fresh === undefined ? "" : `, ${perSecond(fresh, figures.told - begin)} per second`;
    const { run } = this.value;
    const parts = [
      this.model,
      `${amount(this.symbols.length, "character")}${rate}`,
      `${this.bits.toFixed(2)} bits per character`,
      `seed ${run.seed}`,
    ];
    if (run.forced.length) parts.push(`${run.forced.length} chosen by you`);
    if (kernel === "javascript") parts.push("slower than it could be: this browser has no WebAssembly with SIMD");
    if (skipped) parts.push(`skipped in the prompt, as the model does not know it: '${skipped}'`);
    this.say(parts.join(" · "));
  }

  show(value) {
    this.props.value = value;
    this.heat.update();
  }

  say(words) {
    if (this.line) this.line.textContent = readable(words);
  }
}

/** Throw an Error if a model does not know a symbol that is to stand in its text. */
function checkChoices(forced, vocab, name) {
  const [place, symbol] = forced.find(([, each]) => !vocab.includes(each)) ?? [];
  if (place === undefined) return;
  throw new Error(
    `the text has ${named(symbol)} as a choice at character ${place + 1}, which ${name} does not know; ` +
      "choose the model that the text was made with",
  );
}

function perSecond(count, milliseconds) {
  return grouped(Math.round(count / Math.max(milliseconds / 1000, 1e-3)));
}

function requestOf({ temperature, top_k, top_p, seed }) {
  return { temperature, topK: top_k, topP: top_p, seed: BigInt(seed) };
}

/** Return panels for both models at each of some temperatures, in an element: {panel, temperature}. */
export function makeSmallPanels(element, temperatures) {
  element.append(make("h2", "", "The same prompt and seed at three temperatures"));
  return temperatures.flatMap((temperature) => {
    const row = make("div", "sides");
    element.append(row);
    return SIDES.map((side) => {
      const output = make("div", `side small ${side}`);
      output.id = `board-${side}-${temperature}`.replace(".", "-");
      output.append(make("div", "heat"));
      row.append(output);
      return { panel: new Panel(side, output, `Model ${side.toUpperCase()} at ${temperature}`), temperature };
    });
  });
}
