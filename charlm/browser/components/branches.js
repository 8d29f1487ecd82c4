/* The branches of a text: each choice of the visitor cuts it and writes on, and each text that was written so is kept.

   A branch is known by its choices, [[place, symbol], …] in the order of their places: none for the text as it was
   drawn. Its parent is the branch that has all of its choices but the last, or the next shorter one that there is. */

import { make, named } from "./text.js";

export const MOST_CHOICES = 64; // in one text, so that a link can hold them
const MOST_BRANCHES = 64; // of one model
const BOTH_SIDES = ["a", "b"];

/** Return choices as an address holds them: PLACE.CODEPOINT, the code point in hexadecimal, joined by `-`. */
export function encodeChoices(forced) {
  return forced.map(([place, symbol]) => `${place}.${symbol.codePointAt(0).toString(16)}`).join("-");
}

/** Return the choices of a text after one more: those that lie behind it go, since the text is cut there. */
export function withChoice(forced, place, symbol) {
  return [...forced.filter(([earlier]) => earlier < place), [place, symbol]];
}

/** The branches of both texts, and the order in which they were looked at, for undo and redo.

    A branch is an object with `forced`, its choices, and what the page keeps of it, `bits` per character among it. */
export class BranchHistory {
  constructor() {
    this.start();
  }

  /** Forget all: both models begin a text. */
  start() {
    this.branches = { a: new Map(), b: new Map() };
    this.visits = [{ a: "", b: "" }]; // keys of what both sides showed, one after another
    this.at = 0;
  }

  /** Keep what is known of a branch now. */
  record(side, branch) {
    const kept = this.branches[side];
    kept.set(encodeChoices(branch.forced), branch);
    const shown = new Set(["", this.visits[this.at][side], encodeChoices(branch.forced)]);
    const oldest = [...kept.keys()].find((key) => !shown.has(key));
    if (kept.size > MOST_BRANCHES && oldest !== undefined) this.forget(side, oldest);
  }

  forget(side, key) {
    this.branches[side].delete(key);
    const current = this.visits[this.at];
    this.visits = this.visits.filter((visit) => visit[side] !== key);
    this.at = this.visits.indexOf(current);
  }

  /** Note that a side shows the branch with these choices now; what was undone cannot be redone any more. */
  visit(side, forced) {
    const key = encodeChoices(forced);
    if (this.visits[this.at][side] === key) return;
    this.visits = [...this.visits.slice(0, this.at + 1), { ...this.visits[this.at], [side]: key }];
    this.at++;
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at + 1 < this.visits.length;
  }

  /** Go back by one visit (-1) or forth (1); return the side that changes with its branch, null if there is none. */
  step(by) {
    const [before, after] = [this.visits[this.at], this.visits[this.at + by]];
    if (!after) return null;
    this.at += by;
    const side = BOTH_SIDES.find((each) => before[each] !== after[each]);
    return { side, branch: this.branches[side].get(after[side]) };
  }

  /** Return the tree of a side as rows {branch, depth, isCurrent}, each branch before those that go out from it. */
  rows(side) {
    const kept = this.branches[side];
    const children = new Map();
    for (const branch of kept.values()) {
      if (!branch.forced.length) continue;
      const parent = parentOf(branch, kept);
      children.set(parent, [...(children.get(parent) ?? []), branch]);
    }
    const from = (branch, depth) => {
      const key = encodeChoices(branch.forced);
      const row = { branch, depth, isCurrent: key === this.visits[this.at][side] };
      const below = (children.get(key) ?? []).sort(byPlace);
      return [row, ...below.flatMap((each) => from(each, depth + 1))];
    };
    return kept.has("") ? from(kept.get(""), 0) : [];
  }
}

function parentOf({ forced }, kept) {
  let length = forced.length - 1;
  while (length > 0 && !kept.has(encodeChoices(forced.slice(0, length)))) length--;
  return encodeChoices(forced.slice(0, length));
}

function byPlace({ forced: one }, { forced: other }) {
  return one.at(-1)[0] - other.at(-1)[0];
}

/** The tree of both texts with undo and redo, in an element.

    onGo: called with a side and the branch of it that is to be shown. */
export class Branches {
  constructor(element, history, { onGo }) {
    Object.assign(this, { history, onGo });
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
      const found = this.history.step(by);
      if (found) this.onGo(found.side, found.branch);
    });
    return button;
  }

  /** Show the history as it is now. */
  update() {
    this.undo.disabled = !this.history.canUndo;
    this.redo.disabled = !this.history.canRedo;
    const rows = BOTH_SIDES.flatMap((side) => this.history.rows(side).map((row) => this.makeRow(side, row)));
    this.tree.replaceChildren(...rows);
  }

  makeRow(side, { branch, depth, isCurrent }) {
    const [place, symbol] = branch.forced.at(-1) ?? [];
    const words = symbol === undefined ? `${side.toUpperCase()} as drawn` : `${named(symbol)} at ${place + 1}`;
    const button = make("button", "branch");
    button.type = "button";
    button.dataset.side = side;
    button.style.setProperty("--depth", Math.min(depth, 6));
    if (isCurrent) button.setAttribute("aria-current", "true");
    button.append(make("span", "", words), make("span", "branch-bits", `${branch.bits.toFixed(2)} bits`));
    const spoken = symbol === undefined ? `Text ${words}` : `Text ${side.toUpperCase()} with ${words}`;
    button.setAttribute("aria-label", `${spoken}, ${branch.bits.toFixed(2)} bits per character`);
    button.addEventListener("click", () => {
      this.history.visit(side, branch.forced);
      this.onGo(side, branch);
    });
    return button;
  }
}
