/* The view *Write* of the Gradio page: both texts, what could stand at a character, how it was drawn, the branches.

   Texts come from events of the page. What a character was drawn from is asked by functions, which have no queue. */

import { areOfOneLink, encodeChoices, TWO_TEXTS } from "../../browser/components/branches.js";
import { Choices } from "../../browser/components/choices.js";
import { decodeShade, HeatText, MOST_NATS, SIDES } from "../../browser/components/heat.js";
import { keepState, shareView } from "../../browser/components/state.js";
import { byId, sentence, toClipboard } from "../../browser/components/text.js";
import { UnknownMarks } from "../../browser/components/unknown.js";

const NO_ANSWER = "the server did not answer: try again in some seconds";
const SHORTEST_READ = 64; // characters from which it takes time to read a text for the first time

const texts = {}; // the WrittenText of each side, a and b
const progress = {}; // what is said about the text of each side, {props, update}
const vocabs = new Map(); // by a model's name, the symbols that it knows
let choices = null; // once the page is open
let unknown = null;
let isOpening = false; // whether the text of a link is to be written

/** The text of one model, as charlm/browser/components/choices.js uses it.

    side: a or b.
    wanted: while more of it is written, its choices as an address has them, null if it may have any, and what to call
      at the end.
    restored: the Heat of the branch that is shown since an event that wrote was ended, null if none is: what that event
      has still sent does not replace it. */
export class WrittenText {
  constructor(side, element, { props, trigger, watch, server }) {
    Object.assign(this, { side, props, trigger, server, wanted: null, restored: null, read: "" });
    texts[side] = this;
    this.heat = new HeatText(element, props, () => {}, {
      onPoint: (place) => choices?.point(this, place),
      onChoose: (place, isKey) => choices?.enter(this, place, isKey),
      isOtherHeld: () => choices?.isOtherHeld(this),
    });
    watch("value", () => {
      if (this.restored && this.restored.text !== this.props.value.text) return this.show(this.restored);
      this.wait(false);
      this.heat.update();
    });
    for (const event of ["pointerenter", "focusin"]) element.addEventListener(event, () => this.readAhead());
  }

  /** Show whether the text has yet to begin: others may be written first, or its model may be loading. */
  wait(isWaiting) {
    this.heat.text.parentElement.classList.toggle("waiting", isWaiting);
  }

  /** The Heat that is shown, and the line about it. */
  get value() {
    return { ...this.heat.value, line: progress[this.side].props.value };
  }

  get symbols() {
    return Array.from(this.heat.value.text);
  }

  get isWriting() {
    return this.wanted !== null;
  }

  /** The mean surprisal in bits per character: as the server tells it, or of a text that was cut, by its shades. */
  get bits() {
    const { shades, bits } = this.heat.value;
    const [mean, count] = bits ?? [0, 0];
    if (count === shades.length) return mean;
    const nats = Array.from(shades, (shade) => decodeShade(shade) * MOST_NATS);
    return nats.reduce((sum, each) => sum + each, 0) / Math.max(nats.length, 1) / Math.LN2;
  }

  /** Write the rest of a text; the promise ends with it. before: the Heat of what stays. */
  write(run, before, forced) {
    this.end();
    this.restored = null;
    this.show({ ...before, kind: "surprisal", name: this.heat.value.name, run: { ...run, forced } });
    return new Promise((resolve) => {
      this.wanted = { forced: encodeChoices(forced), resolve };
      this.trigger("select", { forced });
    });
  }

  /** Called at the end of an event that writes the rest of this text: is it the one that is waited for? */
  branchEnded() {
    if (this.wanted?.forced === encodeChoices(this.heat.value.run?.forced ?? [])) this.end();
  }

  end() {
    this.wanted?.resolve();
    this.wanted = null;
  }

  stop() {
    this.heat.stop();
    this.end();
  }

  /** Show a text that was written before, by default none. */
  restore({ line, ...value } = {}) {
    this.restored = value;
    this.show(value);
    progress[this.side].props.value = line;
    progress[this.side].update();
  }

  show(value) {
    this.props.value = value;
    this.heat.update();
  }

  /** Return what a character was drawn from, as components/sampling.js describes it. */
  async look(place) {
    const { run } = this.heat.value;
    const text = this.symbols.slice(0, place + 1).join("");
    const found = await this.server.look_at(this.side, place, { text, shades: "", run });
    if (!found || found.error) throw new Error(found?.error ?? NO_ANSWER);
    return found;
  }

  /** Let the server read the text before a character of it is pointed at: the first time takes the longest. */
  readAhead() {
    const { text, run } = this.heat.value;
    if (this.isWriting || !run || text === this.read || text.length < SHORTEST_READ) return;
    this.read = text;
    this.look(this.symbols.length - 1).catch(() => {}); // whoever points is told what is wrong
  }
}

/** Tell the server's functions which symbols a chosen model knows, so that others are marked in the prompt. */
async function modelChosen(name) {
  if (!vocabs.has(name)) {
    const symbols = await texts.a.server.symbols_of(name);
    if (typeof symbols === "string") vocabs.set(name, new Set(symbols));
  }
  unknown?.update();
}

/** Return the set of the symbols that both chosen models know; of all while that is not known. */
function commonVocab() {
  const [one, other] = SIDES.map((side) => vocabs.get(byId(`model-${side}`).querySelector("input").value));
  return { has: (symbol) => (one?.has(symbol) ?? true) && (other?.has(symbol) ?? true) };
}

function both() {
  return [texts.a, texts.b];
}

/** Keep both texts as branches: they have been written, or stopped. */
function keepBoth() {
  for (const text of both()) choices.keep(text);
  keepAddress();
}

/** Return the parameters of an address that writes both texts again, null if there are none; without values if no
    address can hold both. */
function parameters() {
  const { model_a: a, model_b: b, forced, ...settings } = texts.a.heat.value.run ?? {};
  if (a === undefined) return null;
  const found = { a, b, ...settings, fa: undefined, fb: undefined, ...forcedParameters(settings.length) };
  return writing.noLink() ? Object.fromEntries(Object.keys(found).map((name) => [name, undefined])) : found;
}

/** Return the parameters of an address that hold the choices in both texts, those that lie in its length. */
function forcedParameters(length) {
  const held = SIDES.map((side) => {
    const forced = texts[side].heat.value.run?.forced ?? [];
    return [`f${side}`, encodeChoices(forced.filter(([place]) => place < length))];
  });
  return Object.fromEntries(held.filter(([, encoded]) => encoded));
}

function keepAddress() {
  const kept = parameters();
  if (kept) keepState("write", kept);
}

/** Write one symbol more; the promise ends with it. */
function extend() {
  both().forEach((text) => text.end());
  return new Promise((resolve) => {
    texts.a.wanted = { forced: null, resolve };
    texts.a.trigger("submit", {});
  });
}

/** Called when the page shows what its address says. hasText: whether the text of the address is to be written. */
export function openWrite(hasText) {
  isOpening = hasText;
  if (choices) return;
  choices = new Choices(texts, {
    write: (text, run, before, forced) => text.write(run, before, forced),
    extend,
    fail: (error) => (choices.alternatives.line.textContent = sentence(error)),
    end: () => byId("stop").click(), // which cancels the events
  });
  unknown = new UnknownMarks(byId("prompt").querySelector("textarea"), byId("unknown"), commonVocab);
  for (const side of SIDES) modelChosen(byId(`model-${side}`).querySelector("input").value);
}

/** What the events of the view call; see charlm/web/views/write.py. */
export const writing = {
  /** Begin to write: return the values of the fields, with choices only if they are those of a link. */
  start: (...values) => {
    const forced = isOpening ? values.at(-1) : null;
    isOpening = false;
    choices?.stop();
    choices?.start();
    for (const text of both()) {
      text.restored = null;
      text.wait(true);
    }
    return [...values.slice(0, -1), forced];
  },
  /** Return what the texts go on from, what the visitor sees of them, and the other values of the event. */
  goOn: (a, b, ...others) => {
    for (const text of both()) {
      text.restored = null;
      text.heat.stop();
    }
    return [...both().map(({ heat }) => heat.value), ...others];
  },
  /** Return the update that hides the link of *Share* when other texts are written, since it opens those before. */
  hideLink: () => ({ __type__: "update", value: "", visible: false }),
  /** Return what stays of a text whose rest is to be written, and the choices in the whole. */
  before: (side) => {
    const { value } = texts[side].heat;
    return [value, value.run?.forced ?? []];
  },
  /** Called at the end of an event of views/write.py that writes texts, if it was cancelled or has failed, too.

      name: of the event. One that is cancelled ends while the one that is waited for has begun. */
  ended: (name) => {
    const [kind, side] = name.split(" ");
    if (kind === "run") both().forEach((text) => text.wait(false));
    else if (kind === "one") both().forEach((text) => text.wanted?.forced === null && text.end());
    else if (kind === "branch") texts[side].branchEnded();
  },
  /** Called when such an event has written them. */
  written: keepBoth,
  stopped: () => choices?.stop(),
  /** Return whether the texts of an address are shown already, or it has none. */
  shows: (query) => {
    const shown = Object.entries(parameters() ?? { seed: undefined });
    return shown.every(([name, value]) => (query.get(name) ?? "") === String(value ?? ""));
  },
  /** Say why no link can hold the texts; "" if one can. */
  noLink: () => (areOfOneLink(both().map((text) => text.heat.value.run)) ? "" : TWO_TEXTS),
  modelChosen,
  mark: () => unknown?.update(),
  line: (side, line) => (progress[side] = line),
  /** Return a link to both texts, or to the settings of the fields if there are none yet, and copy it if the browser
      allows; or say why there is no link. heat: the text of model A. */
  link: async (heat, a, b, prompt, length, temperature, top_k, top_p, seed) => {
    const fields = { prompt, length, temperature, top_k, top_p, seed };
    const { model_a = a, model_b = b, forced, ...settings } = heat?.run ?? fields;
    if (writing.noLink()) return writing.noLink();
    const query = { a: model_a, b: model_b, ...settings, ...forcedParameters(settings.length) };
    const { link, tooLong } = await shareView("write", query);
    if (tooLong) return `The ${tooLong} is too long for a link.`;
    await toClipboard(link);
    return link;
  },
};
