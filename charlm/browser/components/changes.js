/* Which fields have changed since an answer was given. */

/** What to do about texts, whose settings are another's by now. */
export const TEXTS_REMEDY = "“Continue” and “Share” still use the settings of the texts that are shown.";

const FIELD_NAMES = { model_a: "model A", model_b: "model B", top_k: "top-k", top_p: "top-p" }; // others: as they are

/** Say which fields hold another value now than the one that an answer was given for; "" if none does.

    asked: the values then, by field, undefined without an answer. now: the values now. remedy: what to do about it. */
export function changes(asked, now, remedy) {
  const isChanged = (name) => name in asked && JSON.stringify(asked[name]) !== JSON.stringify(now[name]);
  const names = asked ? Object.keys(now).filter(isChanged) : [];
  return names.length ? `Changed since: ${names.map((name) => FIELD_NAMES[name] ?? name).join(", ")}. ${remedy}` : "";
}
