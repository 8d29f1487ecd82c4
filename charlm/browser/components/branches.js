/* The branches of a text: each choice of the visitor cuts it and writes on, and each text that was written so is kept.

   A branch is known by its choices, [[place, symbol], …] in the order of their places: none for the text as it was
   drawn. It goes out from the branch that has all of its choices but the last, or from the next shorter one there is. */

import { SIDES } from "./heat.js";
import { make, named } from "./text.js";

export const MOST_CHOICES = 64; // in one text, so that a link can hold them
export const TWO_TEXTS = "A link holds one set of settings: show branches of the same text on both sides.";
const MOST_BRANCHES = 64; // of one model

/** Return choices as an address holds them: PLACE.CODEPOINT, the code point in hexadecimal, joined by `-`. */
export function encodeChoices(forced) {
  return forced.map(([place, symbol]) => `${place}.${symbol.codePointAt(0).toString(16)}`).join("-");
}

/** Return the choices of a text after one more: those that lie behind it go, since the text is cut there. */
export function withChoice(forced, place, symbol) {
  return [...forced.filter(([earlier]) => earlier < place), [place, symbol]];
}

/** Return whether a link can hold two texts: their settings differ in nothing but the length and the choices.

    runs: of both, with the settings; undefined for a text that is not there. */
export function areOfOneLink(runs) {
  const [a, b] = runs.map((run) => run && JSON.stringify({ ...run, length: 0, forced: [] }));
  return !a || !b || a === b;
}

/** The branches of both texts since the page was opened, and the order in which they were looked at, for undo and redo.

    A branch is an object with `forced`, its choices, `value`, the Heat that shows it, and `bits` per character. Its key
    is NUMBER:CHOICES; texts that were begun together, by the same click, have the same number. */
export class BranchHistory {
  constructor() {
    Object.assign(this, { branches: { a: new Map(), b: new Map() }, visits: [], at: -1, begun: 0 });
    this.start();
  }

  /** Both models begin a text. */
  start() {
    const key = `${this.begun}:`;
    const isUsed = SIDES.some((side) => [...this.branches[side].keys()].some((each) => each.startsWith(key)));
    if (isUsed) this.begun++;
    if (isUsed || this.at < 0) this.push({ a: `${this.begun}:`, b: `${this.begun}:` });
  }

  /** The keys of what both sides show, {a, b}. */
  get current() {
    return this.visits[this.at];
  }

  /** Return the key of the branch with some choices, of the text that a side shows. */
  keyOf(side, forced) {
    return `${this.current[side].split(":")[0]}:${encodeChoices(forced)}`;
  }

  /** What was undone cannot be redone after this visit. */
  push(visit) {
    this.visits = [...this.visits.slice(0, this.at + 1), visit];
    this.at++;
  }

  /** Keep what is known of a branch of the text that a side shows. */
  record(side, branch) {
    const kept = this.branches[side];
    const key = this.keyOf(side, branch.forced);
    kept.set(key, branch);
    if (!kept.has(this.current[side])) this.current[side] = key; // it began with choices, those of a link
    const needed = [this.current[side], this.keyOf(side, []), key];
    const oldest = [...kept.keys()].find((each) => !needed.includes(each));
    if (kept.size > MOST_BRANCHES && oldest !== undefined) this.forget(side, oldest);
  }

  forget(side, key) {
    this.branches[side].delete(key);
    const { current } = this;
    this.visits = this.visits.filter((visit) => visit[side] !== key);
    this.at = this.visits.indexOf(current);
  }

  /** Note that a side shows another branch now, the one with these choices of its text. */
  visit(side, forced) {
    this.visitKey(side, this.keyOf(side, forced));
  }

  visitKey(side, key) {
    if (this.current[side] !== key) this.push({ ...this.current, [side]: key });
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at + 1 < this.visits.length;
  }

  /** Go back by one visit (-1) or forth (1); return the sides that change with their branches, [{side, branch}, …]. */
  step(by) {
    const [before, after] = [this.visits[this.at], this.visits[this.at + by]];
    if (!after) return [];
    this.at += by;
    const changed = SIDES.filter((side) => before[side] !== after[side]);
    return changed.map((side) => ({ side, branch: this.branches[side].get(after[side]) }));
  }

  /** Return the trees of a side, those of the last text first: rows {key, branch, depth, isCurrent}, from the root on. */
  rows(side) {
    const kept = this.branches[side];
    const children = new Map();
    for (const [key, branch] of kept) {
      const parent = parentOf(key, branch, kept);
      children.set(parent, [...(children.get(parent) ?? []), key]);
    }
    const byPlace = (one, other) => kept.get(one).forced.at(-1)[0] - kept.get(other).forced.at(-1)[0];
    const from = (key, depth) => {
      const row = { key, branch: kept.get(key), depth, isCurrent: key === this.current[side] };
      return [row, ...(children.get(key) ?? []).sort(byPlace).flatMap((each) => from(each, depth + 1))];
    };
    return (children.get(null) ?? []).reverse().flatMap((root) => from(root, 0));
  }
}

/** Return the key of the branch that another one goes out from; null if there is none. */
function parentOf(key, { forced }, kept) {
  for (let length = forced.length - 1; length >= 0; length--) {
    const parent = `${key.split(":")[0]}:${encodeChoices(forced.slice(0, length))}`;
    if (kept.has(parent)) return parent;
  }
  return null;
}

/** The tree of both texts with undo and redo, in an element.

    onLeave: called before another branch is shown. onGo: called with a side and the branch of it that is to be shown. */
export class Branches {
  constructor(element, history, { onLeave, onGo }) {
    Object.assign(this, { history, onLeave, onGo });
    element.classList.add("branches");
    this.undo = this.makeStep("undo", "Undo", -1);
    this.redo = this.makeStep("redo", "Redo", 1);
    this.tree = make("div", "branches-tree");
    const head = make("div", "branches-head");
    head.append(make("h3", "", "Branches"), this.undo, this.redo);
    element.replaceChildren(head, this.tree);
    this.update();
  }

  makeStep(id, words, by) {
    const button = make("button", "quiet", words);
    Object.assign(button, { id, type: "button" });
    button.addEventListener("click", () => {
      this.onLeave();
      for (const { side, branch } of this.history.step(by)) this.onGo(side, branch);
    });
    return button;
  }

  /** Show the history as it is now. */
  update() {
    const steps = [this.undo, this.redo];
    const left = steps.find((step) => step === document.activeElement);
    this.undo.disabled = !this.history.canUndo;
    this.redo.disabled = !this.history.canRedo;
    if (left?.disabled) steps.find((step) => !step.disabled)?.focus(); // a disabled button loses the focus
    const rows = SIDES.flatMap((side) => this.history.rows(side).map((row) => this.makeRow(side, row)));
    const focused = this.tree.querySelector(":focus")?.value;
    this.tree.replaceChildren(...rows);
    rows.find(({ value }) => value === focused)?.focus({ preventScroll: true }); // it went with the row
  }

  makeRow(side, { key, branch, depth, isCurrent }) {
    const [place, symbol] = branch.forced.at(-1) ?? [];
    const number = Number(key.split(":")[0]) + 1;
    const drawn = `${side.toUpperCase()}${this.history.begun ? `, text ${number}` : ""} as drawn`;
    const words = symbol === undefined ? drawn : `${named(symbol)} at ${place + 1}`;
    const button = make("button", "branch");
    Object.assign(button, { type: "button", value: `${side} ${key}` });
    button.dataset.side = side;
    button.style.setProperty("--depth", Math.min(depth, 6));
    if (isCurrent) button.setAttribute("aria-current", "true");
    button.append(make("span", "", words), make("span", "branch-bits", `${branch.bits.toFixed(2)} bits`));
    const spoken = symbol === undefined ? `Text ${words}` : `Text ${side.toUpperCase()} with ${words}`;
    button.setAttribute("aria-label", `${spoken}, ${branch.bits.toFixed(2)} bits per character`);
    button.addEventListener("click", () => {
      this.onLeave();
      this.history.visitKey(side, key);
      this.onGo(side, branch);
    });
    return button;
  }
}
