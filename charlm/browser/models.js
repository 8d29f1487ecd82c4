/* The models of the page: what it says of them, the engine that runs them, and their weights, loaded when first used. */

import { byId } from "./components/text.js";

/** The models in their order, each as `page_data` of charlm/browser/page.py describes it. */
export const models = [];

/** What the curves of the models show: `own` paragraphs by name, and `pairs`, each [name, name, sentences]. */
export const reading = { own: {}, pairs: [] };

/** Read what the page knows of its models. Throws what the browser throws if it cannot. */
export async function readPage() {
  const data = JSON.parse(await contentOf(byId("data")));
  models.push(...data.models);
  Object.assign(reading, data.reading);
}

/** Return the text that an element holds, as it is or as base64 of gzip. */
async function contentOf(element) {
  if (element.dataset.encoding !== "gzip") return element.textContent;
  const packed = new Blob([fromBase64(element.textContent)]).stream();
  return new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
}

let engine; // a promise of the module charlm.js
const loaded = new Map(); // by name, promises of CharLM
const lent = new Set(); // names of the models that scripts hold, which are never closed

/** Return the entry of a model. Throws an Error, with the names there are, if there is none. */
export function entryOf(name) {
  const found = models.find((model) => model.name === name);
  if (found) return found;
  throw new Error(`there is no model '${name}' here; choose one of ${models.map((model) => model.name).join(", ")}`);
}

/** Add a model that the page did not come with, or replace the one of its name. */
export function addModel(entry) {
  const place = models.findIndex((model) => model.name === entry.name);
  if (place < 0) models.push(entry);
  else models[place] = entry;
}

/** Return the module of the engine: charlm.js, which lies beside the page or in it. */
export function loadEngine() {
  engine ??= importEngine();
  return engine;
}

async function importEngine() {
  const element = byId("engine");
  if (!element) return import("./charlm.js");
  return import(URL.createObjectURL(new Blob([await contentOf(element)], { type: "text/javascript" })));
}

/** Return a model, ready to write. Loading it again after a failure tries again.

    onProgress: called with the bytes that are there and those of the whole. */
export function getModel(name, onProgress = () => {}) {
  const entry = entryOf(name);
  if (!loaded.has(name)) {
    const loading = load(entry, onProgress);
    loaded.set(name, loading);
    loading.catch(() => loaded.delete(name));
  }
  return loaded.get(name);
}

/** Return a model for a script, which may hold it as long as it likes. */
export function lendModel(name) {
  lent.add(name);
  return getModel(name);
}

/** Free the memory of the models that are neither among these names nor lent. */
export function keepModels(names) {
  for (const [name, loading] of loaded) {
    if (names.includes(name) || lent.has(name)) continue;
    loaded.delete(name);
    loading.then((lm) => lm.close(), () => {});
  }
}

async function load(entry, onProgress) {
  const { CharLM } = await loadEngine();
  if (entry.address) return CharLM.load(entry.address, { sha256: entry.sha256, onProgress });
  const weights = await decodeWeights(models.indexOf(entry), entry.size, onProgress);
  return CharLM.from({ config: entry.config, weights, history: entry.history });
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
  if (done !== size) throw new Error(`this page is not whole: ${done} of ${size} bytes of a model are in it; get it again`);
  return weights;
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (symbol) => symbol.charCodeAt(0));
}

/** Let the browser draw and react before the next step. */
export function nextTask() {
  return new Promise((resolve) => setTimeout(resolve));
}
