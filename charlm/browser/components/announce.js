/* What a screen reader is told: the outcome of a click, and of lines that change many times a second not each character,
   but what they say when they rest. */

import { isDisplayed, make } from "./text.js";

const REST = 1000; // milliseconds without a change

let region; // has a line for each element
let spoken; // the line for what is told at once

/** Return a function that tells a screen reader some words at once. */
export function makeAnnouncer() {
  spoken ??= make("div");
  addLine(spoken); // now, since a region that comes with its words is not read out
  return (words) => spoken.replaceChildren(make("span", "", words)); // the same words again are a change, too
}

/** Tell a screen reader what an element says once it has not changed for a while. */
export function announceAtRest(element) {
  const line = make("div");
  addLine(line);
  let timer;
  const changed = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (isDisplayed(element)) line.textContent = element.textContent;
    }, REST);
  };
  new MutationObserver(changed).observe(element, { childList: true, characterData: true, subtree: true });
}

function addLine(line) {
  region ??= makeRegion();
  if (!region.isConnected) document.body.append(region);
  region.append(line);
}

function makeRegion() {
  const made = make("div", "announced");
  made.setAttribute("aria-live", "polite"); // and of its lines only the one that is new
  return made;
}
