/* The menu *Link*: the address of what is shown, and the code that shows it alone in another page. */

import { copyOnClick } from "./copy.js";
import { shareState } from "./state.js";
import { make } from "./text.js";

/** Fill an element with the menu. */
export function makeLinkMenu(element) {
  const menu = make("details", "menu");
  const body = make("div", "menu-body");
  const link = makeField("A link to this view", "input", "view-link");
  const code = makeField("Code that shows it in another page", "textarea", "view-code");
  code.field.rows = 4;
  const note = make("p", "hint");
  body.append(link.label, note, code.label);
  menu.append(make("summary", "", "Link"), body);
  menu.addEventListener("toggle", async () => {
    if (!menu.open) return;
    const shared = await shareState();
    link.field.value = shared.link;
    code.field.value = shared.code;
    code.label.hidden = !shared.code;
    note.hidden = !shared.tooLong;
    note.textContent = `The ${shared.tooLong} is too long for a link, which opens without it.`;
    link.field.select();
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
  document.addEventListener("click", ({ target }) => {
    if (!menu.contains(target)) menu.open = false;
  });
  element.replaceChildren(menu);
}

function makeField(words, tag, id) {
  const label = make("label", "menu-field", words);
  const field = make(tag);
  const copy = make("button", "quiet", "Copy");
  Object.assign(field, { id, readOnly: true, spellcheck: false });
  copy.type = "button";
  copy.setAttribute("aria-label", `Copy: ${words}`);
  copy.addEventListener("click", () => field.select());
  copyOnClick(copy, () => field.value, "Press Ctrl + C");
  const row = make("span", "menu-row");
  row.append(field, copy);
  label.append(row);
  return { label, field };
}
