/* What a visitor has done in a step of a lesson, found by looking at the page, so that no view knows of lessons.

   charlm/browser/lesson.py lists the checks with their arguments. */

import { decodeShade, SIDES } from "./heat.js";
import { byId, isDisplayed } from "./text.js";

const FEWEST_PLACES = 100; // characters by which a unit is judged
const PASSING = ["Tab", "Shift", "Control", "Alt", "Meta"]; // keys that do nothing to what has the focus

const FORMER_IDS = { "inspect-model": "inspect-model-a" }; // in lessons that were written before
const presentId = (id) => FORMER_IDS[id] ?? id;

/** Return the values of a field: of a group of choices those that are chosen. */
function valuesOf(id) {
  const element = byId(presentId(id));
  if (!element) return [];
  if (element.matches("input, select, textarea")) return [element.value];
  const choices = [...element.querySelectorAll("input:is([type=radio], [type=checkbox])")];
  if (choices.length) return choices.filter(({ checked }) => checked).map(({ value }) => value);
  const field = element.querySelector("textarea, select, input:not([type=range])") ?? element.querySelector("input");
  return field ? [field.value] : [];
}

/** Return the Heat of a text that a model has written, and `key`, the same for all texts with its settings, or "". */
function writtenBy(side) {
  const value = byId(`output-${side}`)?.querySelector(".heat")?.parentElement.heatText?.value;
  if (!value?.run) return { text: "", key: "" };
  const { length, forced, ...settings } = value.run;
  return { ...value, key: JSON.stringify([side, settings]) };
}

/** Return what the line about a text says of its bits per character; NaN if it says nothing. */
function bitsOf(side) {
  return Number(/([\d.]+) bits per character/.exec(byId(`progress-${side}`)?.textContent)?.[1] ?? NaN);
}

/** Return a loss of a model after an epoch, in nats; NaN if the curves do not show it. */
export function recordedLoss({ model, curve, epoch }) {
  const { curves } = byId("loss-curves")?.querySelector(".curves")?.parentElement ?? {};
  const [, record] = curves?.props.value?.records?.find(([name]) => isCalled(name, model)) ?? [];
  return record?.epochs.find((each) => each.epoch === epoch)?.[curve] ?? NaN;
}

/** Return whether the name of a model, USER/NAME@REVISION on a Space, is one that a lesson gives in short. */
export function isCalled(name, wanted) {
  return name === wanted || name.replace(/@.*$/, "").endsWith(`/${wanted}`);
}

/** Return R² of the position in the line and the activations that colour a text: 1 if one line explains all. */
export function followsLine({ text, shades }) {
  let position = 0;
  const pairs = [];
  Array.from(text).forEach((symbol, place) => {
    position = symbol === "\n" ? 0 : position + 1;
    const shade = decodeShade(shades[place]);
    if (shade !== null) pairs.push([position, shade]);
  });
  if (pairs.length < FEWEST_PLACES) return 0;
  const mean = (which) => pairs.reduce((sum, pair) => sum + pair[which], 0) / pairs.length;
  const means = [mean(0), mean(1)];
  const product = (one, other) =>
    pairs.reduce((sum, pair) => sum + (pair[one] - means[one]) * (pair[other] - means[other]), 0);
  return product(0, 1) ** 2 / Math.max(product(0, 0) * product(1, 1), 1e-12);
}

/** Return the Heats on the page that show a unit. */
function unitsShown() {
  return [...document.querySelectorAll(".heat")]
    .filter(isDisplayed)
    .map((element) => element.parentElement.heatText?.value)
    .filter((value) => value?.kind === "activation");
}

/** Return whether a model wrote the same to two prompts that differ in their first lines, the speakers. */
function hasForgotten(texts, side, count) {
  const rest = (prompt) => prompt.slice(prompt.indexOf("\n") + 1);
  const start = (text) => Array.from(text).slice(0, count).join("");
  const long = texts.filter((each) => each.side === side && Array.from(each.text).length >= count);
  const settings = ({ run: { prompt, length, forced, ...others } }) => JSON.stringify(others);
  return long.some((one) =>
    long.some(
      (other) =>
        one.run.prompt !== other.run.prompt &&
        one.run.prompt.includes("\n") &&
        rest(one.run.prompt) === rest(other.run.prompt) &&
        settings(one) === settings(other) &&
        start(one.text) === start(other.text),
    ),
  );
}

const isWithin = (number, low, high) => number >= low && number <= high;
const isNear = (typed, number, tolerance) => Math.abs(typed - number) <= tolerance * (1 + 1e-9);

/** For each kind of check, whether it is done. deeds: what was done since the step began. typed: in its field. */
export const CHECKS = {
  view: ({ name }) => [...document.querySelectorAll(`#view-${name}`)].some(isDisplayed),
  set: ({ id, low, high }) => valuesOf(id).some((value) => value !== "" && isWithin(Number(value), low, high)),
  choose: ({ id, value }) => valuesOf(id).some((chosen) => isCalled(chosen, value)),
  use: ({ id }, { used }) => used.has(presentId(id)),
  written: ({ setting, low, high }, { texts }) =>
    [...texts.values()].some(({ text, run }) =>
      isWithin(setting === "length" ? Array.from(text).length : run[setting], low, high),
    ),
  force: ({ count }) => SIDES.some((side) => (writtenBy(side).run?.forced?.length ?? 0) >= count),
  predict: ({ count }, { guesses }) => guesses.length >= count,
  forget: ({ side, count }, { texts }) => hasForgotten([...texts.values()], side, count),
  track: ({ score }) => unitsShown().some((value) => followsLine(value) >= score),
  number: ({ value, tolerance }, _, typed) => isNear(typed, value, tolerance),
  bits: ({ side, tolerance }, _, typed) => isNear(typed, bitsOf(side), tolerance),
  loss: (wanted, _, typed) => isNear(typed, recordedLoss(wanted), wanted.tolerance),
};

/** What was done since a step began.

    used: the ids of the elements in which something was clicked, typed or chosen.
    texts: the texts that were written, by their settings, each {side, text, run}.
    before: the texts that stood there when the step began.
    seen: how much of model A's text was there at the last look. guesses: of its next symbols, {symbol, isRight}. */
export class Deeds {
  constructor() {
    Object.assign(this, { used: new Set(), texts: new Map(), guesses: [] });
    this.before = SIDES.map((side) => writtenBy(side));
    this.seen = this.before[0];
  }

  use(event) {
    if (event.type === "keydown" && PASSING.includes(event.key)) return;
    for (const { id } of event.composedPath()) if (id) this.used.add(id);
  }

  /** Remember the texts that stand there: what is clicked next may replace them. */
  keep() {
    SIDES.forEach((side, place) => {
      const { text, key, run } = writtenBy(side);
      const { before } = this;
      if (text === "" || (key === before[place].key && text === before[place].text)) return;
      this.texts.set(key, { side, text, run });
    });
  }

  /** Look at the texts; return whether model A's has grown. guess: the symbol that is expected next, if one was typed. */
  look(guess) {
    this.keep();
    const { text, key } = writtenBy("a");
    const isSame = key === this.seen.key;
    // while a text is being continued, it has no settings or is shorter until its model writes again
    if (key === "" || (isSame && this.seen.text.startsWith(text))) return false;
    const start = isSame && text.startsWith(this.seen.text) ? this.seen.text.length : 0;
    const symbol = Array.from(text.slice(start))[0];
    if (symbol !== undefined && guess) this.guesses.push({ symbol, isRight: symbol === guess });
    this.seen = { text, key };
    return symbol !== undefined;
  }
}
