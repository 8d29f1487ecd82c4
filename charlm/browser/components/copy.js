/* Buttons that put a text on the clipboard, and say whether that worked. */

import { makeAnnouncer } from "./announce.js";
import { toClipboard } from "./text.js";

const SHOWN_MS = 1500; // for which a button says what came of the last click

/** Let a button copy what a function returns. refused: what to do where the browser gives no access to the clipboard. */
export function copyOnClick(button, getText, refused) {
  const words = button.textContent;
  const announce = makeAnnouncer(); // a screen reader calls the button by its aria-label, whatever it says
  let timer;
  button.addEventListener("click", async () => {
    const outcome = (await toClipboard(getText())) ? "Copied" : refused;
    clearTimeout(timer);
    button.textContent = outcome;
    announce(outcome);
    timer = setTimeout(() => {
      button.textContent = words;
      announce("");
    }, SHOWN_MS);
  });
}
