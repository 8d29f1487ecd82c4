/* The models of the page: what it says of them, the engine that runs them, their weights, loaded when first used. */

import { byId, fillSelect } from "./components/text.js";

/** The models in their order, each as `page_data` of charlm/browser/page.py describes it. */
export const models = [];

/** What the curves of the models show: `own` paragraphs by name, and `pairs`, each [name, name, sentences]. */
export const reading = { own: {}, pairs: [] };

/** The `losses` that others published, and the `run` of a record that they can be compared with. */
export const published = {};

/** The lesson of the page, as charlm/browser/lesson.py reads it, if there is one. */
export let lesson;

/** A text to look into that no model was trained on. */
export const scene = { text: "" };

/** Read what the page knows of its models. Throws what the browser throws if it cannot. */
export async function readPage() {
  const data = JSON.parse(await contentOf(byId("data")));
  models.push(...data.models);
  Object.assign(reading, data.reading);
  Object.assign(published, data.published);
  scene.text = data.scene;
  lesson = data.lesson;
  hubAddress = data.hub;
}

let hubAddress; // of the Hub, if this page may load models from there

/** Tell whether this page may load models from the Hub: on a static Space, not in a file that holds its models. */
export function hasHub() {
  return Boolean(hubAddress);
}

/** Return a function that returns the promise of the first call of `make`, or of the next one if that has failed. */
function once(make) {
  let made;
  return () =>
    (made ??= make().catch((error) => {
      made = undefined;
      throw error;
    }));
}

/** Return the way to the Hub, on a page that has one. */
export const openHub = once(importHub);

async function importHub() {
  const { Hub } = await import("./hub.js");
  return new Hub(hubAddress, models.filter(({ loadedAs }) => !loadedAs));
}

/** Return the text that an element holds, as it is or as base64 of gzip. */
async function contentOf(element) {
  if (element.dataset.encoding !== "gzip") return element.textContent;
  const packed = new Blob([fromBase64(element.textContent)]).stream();
  return new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
}

const loaded = new Map(); // by name, {lm: a promise of CharLM, listeners: those who are told of its progress}
const lent = new Set(); // names of the models that scripts hold, which are never closed
const holders = []; // functions that name the models which a view is using

/** Return the entry of a model. Throws an Error, with the names there are, if there is none. */
export function entryOf(name) {
  const found = models.find((model) => model.name === name);
  if (found) return found;
  throw new Error(`there is no model '${name}' here; choose one of ${models.map((model) => model.name).join(", ")}`);
}

/** Say what a model is: its cell, its size, and its validation loss. */
export function inShort({ about, history }) {
  const loss = history ? ` · validation loss ${history.best.val_loss.toFixed(2)}` : "";
  return about.replace(/^Char| · [\d,]+ parameters$/g, "") + loss;
}

/** Put the names of the models into a list of choices. */
export function offerModels(select, chosen) {
  const options = models.map(({ name }) => [name, name]);
  fillSelect(select, options, chosen);
}

const watchers = [];

/** Call a function with the entry of each model that is added from now on. */
export function whenAdded(watcher) {
  watchers.push(watcher);
}

/** Return whether an address names a model that is not here and may still be added: by `model=`, see load.js. */
export function isAwaited(name, query) {
  return hasHub() && query.has("model") && Boolean(name) && !models.some((model) => model.name === name);
}

/** Add a model that the page did not come with. lm: the model, ready to write. */
export function addModel(entry, lm) {
  models.push(entry);
  loaded.set(entry.name, { lm: Promise.resolve(lm), listeners: new Set() });
  for (const watcher of watchers) watcher(entry);
}

/** Return the module of the engine: charlm.js, which lies beside the page or in it. */
export const loadEngine = once(importEngine);

async function importEngine() {
  const element = byId("engine");
  if (!element) return import("./charlm.js");
  return import(URL.createObjectURL(new Blob([await contentOf(element)], { type: "text/javascript" })));
}

/** Return a model, ready to write. Loading it again after a failure tries again.

    onProgress: called, while it is loaded, with the bytes that are there and those of the whole. */
export function getModel(name, onProgress = () => {}) {
  const entry = entryOf(name);
  if (!loaded.has(name)) loaded.set(name, startLoading(entry));
  const { lm, listeners } = loaded.get(name);
  const stop = () => listeners.delete(onProgress);
  listeners.add(onProgress);
  lm.then(stop, stop);
  return lm;
}

function startLoading(entry) {
  const listeners = new Set();
  const lm = load(entry, (...progress) => listeners.forEach((listener) => listener(...progress)));
  lm.catch(() => loaded.get(entry.name)?.lm === lm && loaded.delete(entry.name));
  return { lm, listeners };
}

/** Return a model for a script, which may hold it as long as it likes. */
export function lendModel(name) {
  lent.add(name);
  return getModel(name);
}

/** Keep the models that a function names, which is asked before models are closed. */
export function holdModels(holder) {
  holders.push(holder);
}

/** Free the memory of the models that are neither among these names, nor held by a view, nor lent. */
export function keepModels(names) {
  const needed = new Set([...names, ...lent, ...holders.flatMap((holder) => holder())]);
  for (const [name, { lm: loading }] of loaded) {
    if (needed.has(name)) continue;
    loaded.delete(name);
    loading.then(
      (lm) => lm.close(),
      () => {},
    );
  }
}

async function load(entry, onProgress) {
  const { CharLM } = await loadEngine();
  const { name, config, history } = entry;
  const open = (weights) => CharLM.from({ config, weights, history }, { name });
  if (entry.address) return (await openHub()).withWeights(entry, open, { onProgress });
  return open(await decodeWeights(models.indexOf(entry), entry.size, onProgress));
}

/** Return the weights that stand in the page as base64, decoded piece by piece so that the page goes on meanwhile. */
async function decodeWeights(place, size, onProgress) {
  const weights = new Uint8Array(size);
  let done = 0;
  for (const element of document.querySelectorAll(`script[data-weights="${place}"]`)) {
    const text = element.textContent;
    const step = Uint8Array.fromBase64 ? 4 << 20 : 1 << 18; // characters: some milliseconds of work
    for (let begin = 0; begin < text.length; begin += step) {
      const bytes = fromBase64(text.slice(begin, begin + step));
      if (done + bytes.length > size) break;
      weights.set(bytes, done);
      done += bytes.length;
      onProgress(done, size);
      await nextTask();
    }
  }
  if (done !== size)
    throw new Error(`this page is not whole: ${done} of ${size} bytes of a model are in it; get it again`);
  return weights;
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (symbol) => symbol.charCodeAt(0));
}

/** Let the browser draw and react before the next step. */
function nextTask() {
  return new Promise((resolve) => setTimeout(resolve));
}
