/* What the page says once its fields hold other values than those that a text or an answer was made for. */

import { changes, TEXTS_REMEDY } from "../../browser/components/changes.js";
import { looking } from "./inside.js";

/** Return the settings in the fields of *Write* that the page compares with those of a text, its `run`.

    An empty field for the seed fits every seed, and the length shows. */
function comparedFields(run, [model_a, model_b, prompt, , temperature, top_k, top_p, typed]) {
  const seed = typed.trim().replace(/^0+(?=.)/, "") || run?.seed;
  return { model_a, model_b, prompt, top_k, top_p, seed, temperature };
}

/** Handlers of the events that change a field or what is shown. Each gets what was made, null if nothing was yet, and
    the fields for it, and returns what the page says. */
export const changed = {
  texts: (heat, ...fields) => changes(heat?.run, comparedFields(heat?.run, fields), TEXTS_REMEDY),

  temperatures(heat, ...fields) {
    const compared = comparedFields(heat?.run, fields);
    delete compared.temperature;
    return changes(heat?.run, compared, "Press “Three temperatures” to write again.");
  },

  /** While a text is read, the fields are compared with those that were asked for.

      stage: the value of the component. found: the model and the text in which the units on offer were found. */
  seen(stage, found, model_a, model_b, text, colour) {
    const remedy = "Press “Look inside” to read the text with the present settings.";
    const words = [
      changes(looking.wanted ?? stage?.run, { model_a, model_b, text, colour }, remedy),
      changes(found ?? undefined, { model: model_a, text }, "The units on offer were found before that."),
    ];
    return words.filter(Boolean).join(" ");
  },

  contexts: (compared, models, text) =>
    changes(compared ?? undefined, { models, text }, "Press “Compare effective contexts” to measure again."),

  /** started: the fields when the training began. */
  training: (started, text, start, cell, size, minutes) =>
    changes(
      started ?? undefined,
      { text, start, cell, size, minutes },
      "The results below are those of the training before.",
    ),
};
