/* Taking part in the writing: what else could stand at a character, how it was drawn, and the branches of a text. */

import { Alternatives } from "./alternatives.js";
import { Branches, BranchHistory, MOST_CHOICES, withChoice } from "./branches.js";
import { Drawn } from "./drawn.js";
import { drawnPlace, stepsOfDraw } from "./sampling.js";
import { byId } from "./text.js";

/** The panels below the texts, for the panels of both texts, {a, b}.

    write: called with a panel, settings, the Heat of what stays and choices, to write the rest of a text.
    extend: called to write one symbol more. fail: called with an error. showed: called when another branch is shown.
    end: called before another branch is shown, to cancel a request that `panel.stop` does not cancel.
    shown: the panel and the details of the character that is described, null if there is none. */
export class Choices {
  constructor(panels, { write, extend, fail, showed = () => {}, end = () => {} }) {
    Object.assign(this, { panels, write, extend, fail, showed, end, shown: null, wanted: null, isLooking: false });
    this.history = new BranchHistory();
    const onChoose = (symbol) => this.choose(symbol);
    this.alternatives = new Alternatives(byId("alternatives"), { onChoose, onLeave: () => this.leave() });
    this.drawn = new Drawn(byId("drawn"), { onChoose, onNext: () => this.next() });
    const onGo = (side, branch) => this.go(this.panels[side], branch);
    this.branches = new Branches(byId("branches"), this.history, { onGo, onLeave: () => this.leaveBranch() });
  }

  /** Both models begin a text. */
  start() {
    this.history.start();
    this.forget();
    this.branches.update();
  }

  /** Return whether the other text is held, so that crossing this panel's text with the pointer changes nothing. */
  isOtherHeld(panel) {
    return Object.values(this.panels).some((other) => other !== panel && other.heat.isHeld);
  }

  /** Show nothing of a character, and hold none. The keyboard goes from its alternatives, which vanish, to the text. */
  forget() {
    if (byId("alternatives").contains(document.activeElement)) this.shown?.panel.heat.text.focus();
    for (const { heat } of Object.values(this.panels)) heat.hold(-1);
    this.shown = this.wanted = null;
    this.alternatives.show(null);
    this.drawn.show(null);
  }

  /** Keep what a panel shows as a branch. */
  keep(panel) {
    const { run } = panel.value;
    if (!run) return;
    this.history.record(panel.side, { forced: run.forced, value: panel.value, bits: panel.bits });
    this.branches.update();
  }

  /** Describe the character at a place of a panel's text. While one is looked up, only the last wanted one waits. */
  async point(panel, place) {
    this.wanted = { panel, place };
    if (this.isLooking) return;
    this.isLooking = true;
    while (this.wanted) {
      const wanted = this.wanted;
      try {
        const details = await wanted.panel.look(wanted.place);
        if (wanted === this.wanted && wanted.panel.value.run) this.show(wanted.panel, details);
      } catch (error) {
        if (wanted === this.wanted) this.fail(error);
      }
      if (wanted === this.wanted) this.wanted = null;
    }
    this.isLooking = false;
  }

  show(panel, details) {
    const other = this.panels[panel.side === "a" ? "b" : "a"];
    other.heat.leave();
    this.shown = { panel, details };
    this.alternatives.show(details, panel.value.run, panel.side);
    this.drawn.show(details, panel.value.run, panel.side);
  }

  /** Bring the alternatives of a character that was chosen into view once they are there; the keyboard goes to them. */
  async enter(panel, place, isKey) {
    while (this.isLooking) await new Promise(requestAnimationFrame);
    if (this.shown?.panel !== panel || this.shown.details.place !== place) return;
    byId("alternatives").scrollIntoView({ block: "nearest" });
    if (isKey) this.alternatives.focus();
  }

  /** Go back from the alternatives to the text. */
  leave() {
    if (!this.shown) return;
    const { heat } = this.shown.panel;
    heat.hold(-1);
    heat.text.focus();
  }

  /** Put a symbol in the place of the character that is shown, and let the model write on from it. */
  async choose(symbol) {
    if (!this.shown) return;
    const { panel, details } = this.shown;
    const { place } = details;
    if (panel.symbols[place] === symbol) return;
    const { run } = panel.value;
    const drawn = details.symbols[drawnPlace(stepsOfDraw(details, run), details.random)];
    const chosen = withChoice(run.forced, place, symbol);
    const forced = symbol === drawn ? chosen.slice(0, -1) : chosen; // what is drawn anyway is no choice
    if (forced.length > MOST_CHOICES) {
      return this.fail(new Error(`a text holds at most ${MOST_CHOICES} choices; undo some, or generate a new text`));
    }
    panel.stop();
    const { text, shades, surprisals, prompt } = panel.value;
    const symbols = Array.from(text);
    this.keep(panel);
    const before = { prompt, text: symbols.slice(0, place).join(""), shades: shades.slice(0, place), surprisals };
    before.run = { ...run, forced }; // so that the choices that stay keep their mark
    this.history.visit(panel.side, forced);
    const written = this.write(panel, run, before, forced);
    await this.first(panel, place);
    this.describeAgain(panel, place);
    await written;
    this.keep(panel);
  }

  /** Wait until the character at a place is shown, or the text has ended before. */
  async first(panel, place) {
    const isComing = () => panel.isWriting || panel.symbols.length > place;
    while (isComing() && panel.heat.shown <= place) await new Promise(requestAnimationFrame);
  }

  /** Keep what was written so far, and write no more of it. */
  stop() {
    for (const panel of Object.values(this.panels)) {
      panel.stop();
      this.keep(panel);
    }
  }

  /** Stop and keep the texts, so that what would still be written does not replace the branch that is shown next. */
  leaveBranch() {
    this.stop();
    this.end();
  }

  /** Show another branch of a panel's text; none, the empty text, where writing had failed before anything came. */
  go(panel, branch) {
    panel.restore(branch?.value);
    this.branches.update();
    if (this.shown?.panel === panel) this.describeAgain(panel, this.shown.details.place);
    this.showed();
  }

  describeAgain(panel, place) {
    if (place < panel.symbols.length) panel.heat.hold(place);
    else this.forget();
  }

  /** Go to the next character; at the end of the text it is drawn first. */
  async next() {
    const panel = this.shown?.panel ?? this.panels.a;
    const place = this.shown ? this.shown.details.place + 1 : 0;
    if (place >= panel.symbols.length) await this.extend();
    if (place >= panel.symbols.length) return;
    panel.heat.hold(place);
    if (place < panel.heat.shown) panel.heat.reveal(place);
  }
}
