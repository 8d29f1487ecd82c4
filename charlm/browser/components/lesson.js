/* A lesson: a panel at the bottom of the page whose steps say what to do, and whether it was done. */

import { CHECKS, Deeds, isCalled, recordedLoss } from "./deeds.js";
import { putAddress } from "./state.js";
import { byId, make, named, readable } from "./text.js";

const LOOKS = 250; // milliseconds between two looks at the page
const DEEDS = ["click", "input", "change", "keydown"];
const QUESTIONS = ["number", "bits", "loss", "predict"]; // the kinds of checks for which something is typed

/** A lesson on the page.

    lesson: as charlm/browser/lesson.py reads it. names, frame: as of openLesson. onEnd: called when it has been ended.
    number: of the step that is shown, from 1.
    items: its checks on the page, each {check, element, mark, isDone}; one for which something is typed has the field
    `input` and, in `said`, what is answered. */
class Lesson {
  constructor(lesson, names, frame, onEnd) {
    Object.assign(this, { lesson, names, onEnd, number: 1, items: [] });
    frame.append(this.build());
    this.listen = (event) => {
      this.deeds.keep();
      this.deeds.use(event);
    };
    for (const deed of DEEDS) document.addEventListener(deed, this.listen, true);
    this.show(Number(new URLSearchParams(location.search).get("lesson")) || 1);
    this.timer = setInterval(() => this.look(), LOOKS);
  }

  build() {
    const panel = make("aside", "lesson");
    panel.id = "lesson";
    panel.setAttribute("aria-label", `Lesson: ${readable(this.lesson.title)}`);
    const head = make("div", "lesson-head");
    this.title = make("h2", "lesson-title");
    this.title.tabIndex = -1;
    this.state = make("span", "lesson-state");
    this.state.setAttribute("role", "status");
    const buttons = make("div", "lesson-buttons");
    this.back = button("lesson-back", "Back", () => this.go(-1));
    this.next = button("lesson-next", "Next step", () => this.go(1));
    this.fold = button("lesson-fold", "Fold", () => this.toggle());
    this.fold.setAttribute("aria-controls", "lesson-body");
    buttons.append(this.back, this.next, this.fold, button("lesson-end", "End the lesson", () => this.end()));
    head.append(this.title, this.state, buttons);
    this.body = make("div", "lesson-body");
    this.body.id = "lesson-body";
    panel.append(head, this.body);
    this.panel = panel;
    this.toggle(true);
    return panel;
  }

  toggle(isOpen = this.body.hidden) {
    this.body.hidden = !isOpen;
    this.fold.textContent = isOpen ? "Fold" : "Unfold";
    this.fold.setAttribute("aria-expanded", String(isOpen));
  }

  /** Show a step before or after this one, and let a screen reader read its heading. */
  go(steps) {
    this.show(this.number + steps);
    this.title.focus();
  }

  /** Show a step, the nearest one there is, and begin to look for what is done. */
  show(number) {
    const { steps, models } = this.lesson;
    this.number = Math.min(Math.max(Math.trunc(number), 1), steps.length);
    const step = steps[this.number - 1];
    this.deeds = new Deeds();
    this.title.textContent = readable(`${this.number} of ${steps.length}: ${step.title}`);
    this.back.disabled = this.number === 1;
    this.next.disabled = this.number === steps.length;
    const text = make("div", "lesson-text");
    const paragraph = make("p", "", readable(`${step.text} `));
    if (step.open) paragraph.append(this.makeLink(step.open));
    text.append(paragraph);
    const missing = models.filter((model) => !this.names.some((name) => isCalled(name, model)));
    if (missing.length) {
      text.append(make("p", "hint", readable(`The lesson uses models that this page lacks: ${missing.join(", ")}.`)));
    }
    const list = make("ul", "lesson-checks");
    this.items = step.checks.map((check) => this.makeItem(check));
    list.append(...this.items.map(({ element }) => element));
    this.result = make("p", "lesson-result", readable(step.done));
    this.result.hidden = true;
    const outcome = make("div");
    outcome.append(list, this.result);
    this.body.replaceChildren(text, outcome);
    this.tell();
    this.keepAddress();
  }

  /** Return the link to the state that a step needs, which keeps the theme and the lesson. open: its parameters. */
  makeLink(open) {
    const [query, fragment = ""] = open.split("#");
    const address = new URL(location.href);
    const theme = address.searchParams.get("__theme");
    address.search = query;
    address.hash = fragment;
    for (const [name, value] of [...address.searchParams]) {
      const resolved = value.split(",").map((each) => this.nameOf(each));
      address.searchParams.set(name, resolved.join(","));
    }
    if (theme) address.searchParams.set("__theme", theme);
    address.searchParams.set("lesson", this.number);
    const link = make("a", "lesson-open", "Open what this step needs");
    link.id = "lesson-open";
    link.href = address.href;
    return link;
  }

  /** Return the name that a model of the lesson has on this page; any other word as it is. */
  nameOf(word) {
    if (!this.lesson.models.includes(word) || this.names.includes(word)) return word;
    return this.names.find((name) => isCalled(name, word)) ?? word;
  }

  /** Return the item of a check, with its elements. */
  makeItem(check) {
    const element = make("li", "lesson-check");
    const mark = make("span", "lesson-mark");
    const words = make(QUESTIONS.includes(check.kind) ? "label" : "span", "", readable(check.words));
    element.append(mark, words);
    const item = { check, element, mark, isDone: false };
    if (words.tagName === "LABEL") {
      item.input = make("input", "lesson-field");
      Object.assign(item.input, { type: "text", autocomplete: "off", maxLength: 20, spellcheck: false });
      if (check.kind !== "predict") item.input.inputMode = "decimal";
      item.said = make("span", "hint lesson-said");
      item.said.setAttribute("role", "status");
      item.input.addEventListener("focus", () => this.look()); // what was written before is not what is guessed
      words.append(item.input);
      element.append(item.said);
    }
    return item;
  }

  /** Find out which checks of the step are done by now. */
  look() {
    this.keepAddress();
    const guessing = this.items.find(({ check, isDone }) => check.kind === "predict" && !isDone);
    const guess = guessing?.input.value.replace(/^(\\n|↵)$/, "\n").slice(0, 2) ?? "";
    const hasGrown = this.deeds.look(Array.from(guess)[0]);
    if (guessing && hasGrown) tellGuess(guessing, this.deeds.guesses, guess);
    let isChanged = false;
    for (const item of this.items) {
      if (item.isDone) continue;
      const typed = item.input?.value.trim() ? Number(item.input.value.trim().replace(",", ".")) : NaN;
      item.isDone = CHECKS[item.check.kind](item.check.arguments, this.deeds, typed);
      isChanged ||= item.isDone;
      if (item.input && item.check.kind !== "predict") tellNumber(item, typed);
    }
    if (isChanged) this.tell();
  }

  /** Show which checks are done. */
  tell() {
    const done = this.items.filter(({ isDone }) => isDone).length;
    for (const { element, mark, isDone } of this.items) {
      element.classList.toggle("done", isDone);
      mark.textContent = isDone ? "✓" : "○";
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", isDone ? "done" : "to do");
    }
    const isDone = done === this.items.length;
    this.state.textContent = isDone ? "Done" : `${done} of ${this.items.length} done`;
    this.panel.classList.toggle("done", isDone);
    this.result.hidden = !(isDone && this.result.textContent);
    this.next.classList.toggle("primary", isDone);
  }

  /** Keep the step in the address, whatever else the page puts there. */
  keepAddress() {
    const address = new URL(location.href);
    if (address.searchParams.get("lesson") === String(this.number)) return;
    address.searchParams.set("lesson", this.number);
    putAddress(address);
  }

  end() {
    clearInterval(this.timer);
    for (const deed of DEEDS) document.removeEventListener(deed, this.listen, true);
    this.panel.remove();
    const address = new URL(location.href);
    address.searchParams.delete("lesson");
    putAddress(address);
    this.onEnd();
  }
}

function button(id, words, action) {
  const element = make("button", "quiet", words);
  Object.assign(element, { id, type: "button" });
  element.addEventListener("click", action);
  return element;
}

/** Say, when the text has grown, whether the guess was right, and clear its field for the next one. */
function tellGuess({ input, said }, guesses, guess) {
  if (!guess) {
    if (guesses.length) said.textContent = "Type your guess before the model writes.";
    return;
  }
  const { symbol } = guesses.at(-1);
  const right = guesses.filter(({ isRight }) => isRight).length;
  said.textContent = `The model wrote ${named(symbol)}. Right: ${right} of ${guesses.length}.`;
  input.value = "";
}

/** Say what is wrong with a number that was typed, once its field has been left. */
function tellNumber({ check, input, said, isDone }, typed) {
  const isUnknown = check.kind === "loss" && Number.isNaN(recordedLoss(check.arguments));
  let words = "";
  if (!isDone && input.value.trim() !== "" && document.activeElement !== input) {
    if (isUnknown) words = `The curves of ${readable(check.arguments.model)} are not shown in this view.`;
    else words = Number.isNaN(typed) ? "Type a number." : "Not this number: look again.";
  }
  if (said.textContent !== words) said.textContent = words;
}

/** Offer a lesson in the bar at the top, once, and show it if the address asks for it: `lesson=N` is its step.

    names: of the page's models. frame: the element around the page, at whose end the panel stands. */
export function openLesson({ lesson, names }, frame) {
  if (!lesson || byId("lesson-start")) return;
  const onEnd = () => {
    start.hidden = false;
    start.focus(); // the button that had the focus is gone
  };
  const begin = () => {
    start.hidden = true;
    return new Lesson(lesson, names, frame, onEnd);
  };
  const start = button("lesson-start", "Lesson", () => begin().next.focus());
  start.className = "lesson-start";
  start.title = readable(lesson.title);
  document.querySelector(".top")?.append(start);
  if (new URLSearchParams(location.search).has("lesson")) begin();
}
