/* Lines that change many times a second, told to a screen reader when they rest: not each character, but the outcome. */

import { isDisplayed, make } from "./text.js";

const REST = 1000; // milliseconds without a change

let region; // has a line for each element

/** Tell a screen reader what an element says once it has not changed for a while. */
export function announceAtRest(element) {
  region ??= makeRegion();
  const line = make("div");
  region.append(line);
  let timer;
  const changed = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (isDisplayed(element)) line.textContent = element.textContent;
    }, REST);
  };
  new MutationObserver(changed).observe(element, { childList: true, characterData: true, subtree: true });
}

function makeRegion() {
  const made = make("div", "announced");
  made.setAttribute("aria-live", "polite"); // and of its lines only the one that is new
  document.body.append(made);
  return made;
}
