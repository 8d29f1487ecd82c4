/* The page's address: which view it opens, and the settings of a shared text.

   Names and meanings are those of the Gradio page, charlm/web/address.py. */

import { encodeChoices, MOST_CHOICES } from "./components/branches.js";
import { SIDES } from "./components/heat.js";
import { EMBEDDED, viewOf } from "./components/state.js";
import { entryOf } from "./models.js";

const VIEWS = ["write", "learn", "inside", "about"];

// The bounds of what can be asked for, as in charlm/web/answers/write.py.
export const LONGEST_TEXT = 5000;
const LONGEST_PROMPT = 20000;
const HIGHEST_TEMPERATURE = 2;
const LARGEST_TOP_K = 100;
const SEED_DIGITS = 40;

/** The parameters of a share link, and the setting that each is. */
const PARAMETERS = {
  a: "model_a",
  b: "model_b",
  prompt: "prompt",
  length: "length",
  temperature: "temperature",
  top_k: "top_k",
  top_p: "top_p",
  seed: "seed",
};

/** Return {view, embedded, settings, problem} of an address; settings are undefined unless it shares a text. */
export function readAddress(query) {
  const embedded = EMBEDDED.includes(query.get("embed"));
  const wanted = viewOf(query);
  const found = { view: VIEWS.includes(wanted) ? wanted : "write", embedded, problem: "" };
  if (!Object.keys(PARAMETERS).every((name) => query.has(name))) return found;
  const settings = {};
  for (const [name, setting] of Object.entries(PARAMETERS)) settings[setting] = query.get(name);
  for (const name of ["length", "temperature", "top_k", "top_p"]) {
    const number = settings[name].trim() === "" ? NaN : Number(settings[name]);
    if (!Number.isFinite(number))
      return { ...found, problem: "The link is damaged: one of its numbers cannot be read." };
    settings[name] = number;
  }
  try {
    const checked = checkSettings(settings);
    const forced = Object.fromEntries(SIDES.map((side) => [side, readChoices(query.get(`f${side}`), checked)]));
    return { ...found, settings: { ...checked, forced } };
  } catch (error) {
    return { ...found, problem: `The link cannot be opened here: ${error.message}.` };
  }
}

/** Return checked settings; the number of an empty field is NaN. Throws an Error that names the value and its bounds. */
export function checkSettings(settings) {
  const { model_a, model_b, prompt, length, temperature, top_k, top_p } = settings;
  for (const name of [model_a, model_b]) entryOf(name);
  if (Array.from(prompt).length > LONGEST_PROMPT)
    throw new Error(`prompt has over ${LONGEST_PROMPT} characters; shorten it`);
  checkNumber("length", length, 1, LONGEST_TEXT, true);
  checkNumber("temperature", temperature, 0, HIGHEST_TEMPERATURE);
  checkNumber("top_k", top_k, 0, LARGEST_TOP_K, true);
  checkNumber("top_p", top_p, 0, 1);
  return { ...settings, seed: readSeed(settings.seed) };
}

function checkNumber(name, value, low, high, whole = false) {
  if (Number.isFinite(value) && value >= low && value <= high && (!whole || Number.isInteger(value))) return;
  const said = Number.isNaN(value) ? "empty" : value;
  throw new Error(`${name} is ${said}; it must be a ${whole ? "whole " : ""}number from ${low} to ${high}`);
}

/** Return the choices of a text, [[place, symbol], …], as `encodeChoices` writes them. Throws an Error if it cannot. */
function readChoices(encoded, { length }) {
  if (!encoded) return [];
  const choices = encoded.split("-").map((choice) => {
    const [, place, code] = /^(\d{1,9})\.([0-9a-f]{1,6})$/i.exec(choice) ?? [];
    if (place === undefined || parseInt(code, 16) > 0x10ffff) {
      throw new Error(`its choice '${choice.slice(0, 20)}' is none: a choice is PLACE.CODEPOINT, such as 12.65`);
    }
    return [Number(place), String.fromCodePoint(parseInt(code, 16))];
  });
  if (choices.length > MOST_CHOICES) throw new Error(`it has ${choices.length} choices; ${MOST_CHOICES} are allowed`);
  choices.forEach(([place], index) => {
    if (index && place <= choices[index - 1][0]) throw new Error("its choices are not in the order of their places");
    if (place >= length) throw new Error(`its choice at ${place} lies beyond the text of ${length} characters`);
  });
  return choices;
}

/** Return the digits of a seed; one is drawn if there are none. Throws an Error if it is no whole number. */
function readSeed(typed) {
  const digits = typed.trim();
  if (digits === "") return String(crypto.getRandomValues(new Uint32Array(1))[0]);
  if (!/^\d+$/.test(digits) || typed.length > SEED_DIGITS) {
    throw new Error(`seed is '${typed.slice(0, 50)}'; it must be a whole number from 0, or empty for any`);
  }
  return digits.replace(/^0+(?=.)/, "");
}

/** Return the parameters of a shared text.

    settings: with `forced`, {a, b}, the choices of the visitor in both texts. */
export function parametersOf(settings) {
  const parameters = Object.entries(PARAMETERS).map(([name, setting]) => [name, settings[setting]]);
  const choices = Object.entries(settings.forced ?? {}).map(([side, forced]) => [
    `f${side}`,
    forced.length ? encodeChoices(forced) : undefined,
  ]);
  return Object.fromEntries([...parameters, ...choices]);
}
