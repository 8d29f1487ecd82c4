/* The fields of the view *Write*. */

import { checkSettings } from "./address.js";
import { byId } from "./components/text.js";

const FIELD_IDS = { model_a: "model-a", model_b: "model-b", top_k: "top-k", top_p: "top-p" }; // others: as the settings
const SHOWN_VALUES = ["temperature", "top-k", "top-p"]; // whose values are shown beside them

const fieldValue = (id) => byId(id).value;

/** Return what the fields ask for. Throws an Error for a value that is not allowed. */
export function readFields() {
  const length = fieldValue("length").trim() === "" ? NaN : Number(fieldValue("length"));
  return checkSettings({ ...valuesOfFields(), length, seed: fieldValue("seed") });
}

/** Return the values of the fields, without the length, which `Continue` may have changed. seed: for an empty field. */
export function valuesOfFields(seed = "") {
  return {
    model_a: fieldValue("model-a"),
    model_b: fieldValue("model-b"),
    prompt: fieldValue("prompt"),
    temperature: Number(fieldValue("temperature")),
    top_k: Number(fieldValue("top-k")),
    top_p: Number(fieldValue("top-p")),
    seed: fieldValue("seed").trim().replace(/^0+(?=.)/, "") || seed,
  };
}

export function fillFields(settings) {
  for (const [name, value] of Object.entries(settings)) byId(FIELD_IDS[name] ?? name).value = value;
  SHOWN_VALUES.forEach(showValue);
}

/** Show the values of the sliders beside them. */
export function connectSliders() {
  for (const id of SHOWN_VALUES) byId(id).addEventListener("input", () => showValue(id));
}

function showValue(id) {
  byId(`${id}-value`).textContent = Number(fieldValue(id)).toString();
}
