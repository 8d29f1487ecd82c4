/* The fields of the view *Write*. */

import { checkSettings } from "./address.js";
import { byId } from "./components/text.js";

const FIELD_IDS = { model_a: "model-a", model_b: "model-b", top_k: "top-k", top_p: "top-p" }; // others: as the settings
const SHOWN_VALUES = ["temperature", "top-k", "top-p"]; // whose values are shown beside them

const fieldValue = (id) => byId(id).value;

/** Return the length that the field asks for; NaN if it is empty. */
export function readLength() {
  return fieldValue("length").trim() === "" ? NaN : Number(fieldValue("length"));
}

/** Return what the fields ask for. Throws an Error for a value that is not allowed. */
export function readFields() {
  return checkSettings({ ...valuesOfFields(), length: readLength(), seed: fieldValue("seed") });
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
  for (const [name, value] of Object.entries(settings)) fillField(byId(FIELD_IDS[name] ?? name), value);
  SHOWN_VALUES.forEach(showValue);
}

/** Give a field a value; a slider also gets one between its steps, to which the browser would round it. */
function fillField(field, value) {
  field.value = value;
  if (field.type !== "range" || Number(field.value) === value) return;
  field.step = "any";
  field.value = value;
}

/** Show the values of the sliders beside them. A slider that is moved goes in its steps. */
export function connectSliders() {
  for (const id of SHOWN_VALUES) {
    const { step } = byId(id);
    byId(id).addEventListener("input", ({ target }) => {
      target.step = step;
      showValue(id);
    });
  }
}

function showValue(id) {
  byId(`${id}-value`).textContent = Number(fieldValue(id)).toString();
}
