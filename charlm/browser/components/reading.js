/* What loss curves show, in lines that point at them: pointing at a line or reaching it with Tab marks its places. */

import { make, makeLine, readable } from "./text.js";

/** Return the elements of remarks, each {text, model, places} as charlm/analysis/diagnosis.py describes them.

    curves: the Curves in which a line marks its places. A click keeps the mark until another line is clicked. */
export function makeReading(remarks, curves) {
  if (!remarks.length) return [makeLine("Choose a model that has a record.")];
  const groups = new Map(); // by model, in the order of the remarks; "" compares models
  for (const remark of remarks) groups.set(remark.model, [...(groups.get(remark.model) ?? []), remark]);
  const lines = [];
  let kept = null; // the line whose mark stays
  const mark = (line) => curves.mark((line ?? kept)?.places ?? []);
  const keep = (line) => {
    kept = kept === line ? null : line;
    for (const each of lines) each.button.setAttribute("aria-pressed", String(each === kept));
    mark(line);
  };
  return [...groups].map(([model, said]) => {
    const group = make("section", "reading-group");
    group.dataset.colour = curves.colourOf(model) ?? "";
    if (model) group.append(make("h3", "reading-model", readable(model)));
    const list = make("ul", "reading-lines");
    for (const { text, places } of said) {
      const item = make("li");
      if (places.length) {
        const line = { places, button: make("button", "reading-line", readable(text)) };
        lines.push(line);
        line.button.type = "button";
        line.button.setAttribute("aria-pressed", "false");
        for (const event of ["pointerenter", "focus"]) line.button.addEventListener(event, () => mark(line));
        for (const event of ["pointerleave", "blur"]) line.button.addEventListener(event, () => mark(null));
        line.button.addEventListener("click", () => keep(line));
        item.append(line.button);
      } else item.append(make("p", "reading-line", readable(text)));
      list.append(item);
    }
    group.append(list);
    return group;
  });
}
