/* The view *Look inside*: what two models expected at each character of a text, and what a unit of one of them did. */

import { CellPanel } from "./components/cell.js";
import { SIDES } from "./components/heat.js";
import { TextPair } from "./components/pair.js";
import { ReplacedText } from "./components/replaced.js";
import { keepState } from "./components/state.js";
import { byId, readable, sentence, shareLoaded } from "./components/text.js";
import { textToRead } from "./examples.js";
import { coloursOfGate, Inspected } from "./inspected.js";
import {
  entryOf,
  getModel,
  holdModels,
  inShort,
  isAwaited,
  keepModels,
  models,
  offerModels,
  scene,
  whenAdded,
} from "./models.js";
import { Stretches } from "./stretches.js";
import { DIFFERENCE, FIRST_UNIT, SURPRISAL, UnitFields } from "./unit.js";

const STATES = { h: "hidden", c: "cell" }; // as an address calls them, for example "B hidden 0:17"
const UNIT = /^(?:([AB]) )?(\w+) (\d{1,3}):(\d{1,5})$/;
const WRITTEN = 1500; // characters of the text that a model writes to be looked into
const HINT = "Point at a character, or go to it with the arrow keys.";

/** The view.

    seen: the text that the models have read, an Inspected. pair: the texts.
    offered: the text that the page put there, which it exchanges when another model A is chosen.
    replaced: the visitor's text that one of model A has replaced, a ReplacedText.
    awaited: the parameters of an address that names a model which is still to be added, null if there is none, or the
      visitor has done something since. Until then the address stays as it is.
    hasFailed: whether what is told last is an error of this view. */
class InsideView {
  constructor(tell) {
    this.tell = tell;
    this.hasFailed = false;
    this.awaited = null;
    this.replaced = new ReplacedText();
    this.asked = 0; // questions; an answer is shown if it is that to the last
    this.fields = new UnitFields({
      configs: () => this.names.map((name) => entryOf(name).config),
      onChange: () => this.paint(),
    });
    const headings = SIDES.map((side) => `What model ${side.toUpperCase()} expected`);
    this.pair = new TextPair(
      SIDES.map((side) => byId(`seen-${side}`)),
      headings.map((heading) => ({ heading, explained: HINT, value: {} })),
      { onPlace: (place) => this.cell.place !== place && this.cell.point(place), onHold: () => this.keep() },
    );
    this.cell = new CellPanel(byId("cell"), { onPlace: (place) => this.goTo(place) });
    this.stretches = new Stretches(this.pair.texts, {
      onPlace: (place) => this.goTo(place),
      onUnit: (unit) => {
        this.fields.choose(unit);
        this.paint();
      },
    });
    this.connect();
    holdModels(() => this.seen?.names ?? []);
  }

  connect() {
    byId("inside-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.inspect();
    });
    byId("inspect-text").addEventListener("keydown", (event) => {
      if (event.key === "Escape" || (event.key === "Enter" && (event.ctrlKey || event.metaKey))) this.inspect();
    });
    byId("edit-text").addEventListener("click", () => this.edit());
    byId("write-text").addEventListener("click", () => this.writeText());
    byId("restore-text").addEventListener("click", () => this.restoreText());
    const deeds = {
      input: () => true,
      change: () => true,
      click: ({ target }) => target.closest("button, svg, [data-place]"),
      keydown: ({ key }) => ["Enter", "Escape"].includes(key) || key.startsWith("Arrow"),
    };
    for (const [type, decides] of Object.entries(deeds)) {
      byId("view-inside").addEventListener(type, (event) => {
        if (decides(event)) this.awaited = null;
      }, true);
    }
    for (const side of SIDES) byId(`inspect-model-${side}`).addEventListener("change", () => this.chooseModel());
  }

  get names() {
    return SIDES.map((side) => byId(`inspect-model-${side}`).value);
  }

  /** Go on with the models that are chosen now, and with another text unless the visitor has typed it. */
  chooseModel() {
    const text = byId("inspect-text").value;
    const isOffered = text === this.offered;
    return isOffered && (text === "" || text !== this.ownText) ? this.open() : this.inspect();
  }

  /** The text that model A begins with, "" if the page has none for it. */
  get ownText() {
    return textToRead(entryOf(this.names[0]), scene.text);
  }

  /** Let both models read the text, and show what they expected. Return whether it is shown. */
  async inspect() {
    const asked = ++this.asked;
    const { names } = this;
    const text = byId("inspect-text").value;
    names.forEach((name, model) => {
      byId(`inspect-about-${SIDES[model]}`).textContent = readable(inShort(entryOf(name)));
    });
    this.freeModels(names);
    if (this.seen?.isOf(names, text)) {
      this.showSeen();
      this.pair.texts[0].reveal(this.pair.place); // what was hidden has been scrolled to its beginning
      this.paint();
      return true;
    }
    SIDES.forEach((_, model) => this.say(model, "reading"));
    try {
      const seen = await Inspected.read(names, text, (model, there, whole) => {
        if (asked === this.asked) this.say(model, shareLoaded(there, whole));
      });
      if (asked !== this.asked) return false;
      this.seen = seen;
      this.freeModels(names); // of what was shown before
      this.pair.place = Math.min(this.pair.place ?? seen.mostDifferent(), seen.symbols.length - 1);
      this.showSeen();
      this.stretches.reset(seen);
      this.fields.choose(this.fields.unit);
      this.paint();
      return true;
    } catch (error) {
      if (asked !== this.asked) return false;
      SIDES.forEach((_, model) => this.say(model, ""));
      this.fail(error);
      return false;
    }
  }

  /** Free the models that neither this view needs, which reads with these, nor *Write*. */
  freeModels(names) {
    keepModels([...names, ...SIDES.map((side) => byId(`model-${side}`).value)]);
  }

  fail(error) {
    this.hasFailed = true;
    this.tell(sentence(error));
  }

  /** Show the texts that were read in place of the field. What is told of other things than this view stays. */
  showSeen() {
    if (this.hasFailed) this.tell("");
    this.hasFailed = false;
    this.stopEditing();
    this.describe();
  }

  /** Say how well the models have read the texts that are shown. */
  describe() {
    SIDES.forEach((_, model) => this.say(model, this.seen?.describe(model) ?? ""));
  }

  /** Say something in the line about a model's text. */
  say(model, words) {
    byId(`seen-line-${SIDES[model]}`).textContent = readable(words);
  }

  /** Hold a character, and show what is known of it, in both texts and of the unit. */
  goTo(place) {
    if (this.seen && place < this.seen.symbols.length) this.pair.goTo(place, true);
  }

  /** Keep what is shown in the address, unless that is still waiting for a model. */
  keep() {
    if (this.awaited) return;
    const { colour, unit } = this.fields;
    const [a, b] = this.names;
    const text = this.seen.text === this.ownText ? undefined : this.seen.text;
    const isOfText = [SURPRISAL, DIFFERENCE].includes(colour) && this.fields.isFirst;
    const words = `${unit.model ? "B " : ""}${STATES[colour] ?? colour} ${unit.layer}:${unit.unit}`;
    keepState("inside", { a, b, colour: isOfText ? colour : words, place: this.pair.held, text });
  }

  /** Show what an address holds: the models, the text, the colours, the unit, the place. */
  async restore(query) {
    this.awaited = SIDES.some((side) => isAwaited(query.get(side), query)) ? query : null;
    this.hasFailed = false; // what is told now is about the address
    for (const side of SIDES) {
      if (models.some(({ name }) => name === query.get(side))) byId(`inspect-model-${side}`).value = query.get(side);
    }
    const text = query.get("text");
    if (text) byId("inspect-text").value = text;
    const [, side, name, layer, number] = UNIT.exec(query.get("colour") ?? "") ?? [];
    const unit = { model: side === "B" ? 1 : 0, layer: Number(layer), unit: Number(number) };
    this.fields.choose(name ? unit : FIRST_UNIT);
    const gate = Object.keys(STATES).find((each) => STATES[each] === name) ?? name;
    this.fields.colour = gate ?? query.get("colour") ?? SURPRISAL;
    const isShown = await (text ? this.inspect() : this.open());
    const place = Number(query.get("place") ?? NaN);
    if (isShown && Number.isInteger(place) && place >= 0) this.goTo(place);
  }

  /** Colour the texts, and show the unit step by step once its gates are known. */
  async paint() {
    const { seen } = this;
    const { unit, colour } = this.fields;
    if (!seen) return;
    this.keep();
    if ([SURPRISAL, DIFFERENCE].includes(colour)) this.colour({});
    try {
      const { cell, gates } = await seen.gatesOf(unit);
      if (seen !== this.seen || unit !== this.fields.unit) return; // another one was chosen meanwhile
      const title = `${seen.names[unit.model]}, layer ${unit.layer}, unit ${unit.unit}`;
      byId("cell").dataset.side = SIDES[unit.model];
      this.cell.place = this.pair.place;
      this.cell.show({ title, symbols: seen.symbols, cell, gates });
      this.colour(gates);
    } catch (error) {
      if (unit === this.fields.unit) this.fail(error);
    }
  }

  /** Colour the texts. gates: of the unit, by name, as far as they are known. */
  colour(gates) {
    const { seen } = this;
    const { unit, colour } = this.fields;
    this.pair.texts.forEach((text, model) => {
      const isOfUnit = colour in gates && model === unit.model;
      let colours = isOfUnit ? coloursOfGate(gates[colour], this.fields.isSigmoid(colour)) : seen.surprisal(model);
      if (colour === DIFFERENCE) colours = seen.difference();
      text.props.value = seen.heatOf(model, colours);
      text.update();
    });
    const { texts, place } = this.pair;
    const isOther = texts.some(({ cursor }) => cursor !== place); // a text was made anew
    if (isOther) this.pair.goTo(place);
  }

  /** Put the text into a field in its own place. What is being read or written meanwhile does not replace it. */
  edit() {
    this.asked++;
    this.describe();
    byId("view-inside").classList.add("editing");
    byId("inspect-text").hidden = false;
    byId("seen").hidden = true;
    const before = this.seen?.offsetOf(this.pair.place) ?? 0;
    byId("inspect-text").setSelectionRange(before, before);
    byId("inspect-text").focus(); // which scrolls to the character
  }

  stopEditing() {
    const hadFocus = document.activeElement === byId("inspect-text");
    byId("view-inside").classList.remove("editing");
    byId("inspect-text").hidden = true;
    byId("seen").hidden = false;
    if (hadFocus) this.pair.texts[0].text.focus();
  }

  /** Put a text into the field, and show the button that puts the visitor's text back if there is one. */
  putText(text) {
    byId("inspect-text").value = text;
    byId("restore-text").hidden = this.replaced.text === undefined;
  }

  restoreText() {
    this.putText(this.replaced.restore(byId("inspect-text").value, [this.offered]));
    if (byId("restore-text").hidden) byId("edit-text").focus(); // the focus would fall to the page
    this.inspect();
  }

  /** Let model A write a text to look into. Return whether it is shown. */
  async writeText() {
    const asked = ++this.asked;
    this.describe();
    this.say(0, "writing");
    try {
      const lm = await getModel(this.names[0]);
      const text = await lm.generate("", { length: WRITTEN });
      if (asked !== this.asked) return false;
      this.replaced.write(text, byId("inspect-text").value, [this.offered]);
      this.putText(text);
    } catch (error) {
      if (asked !== this.asked) return false;
      this.say(0, "");
      this.fail(error);
      return false;
    }
    return this.inspect();
  }

  /** Begin with the text of model A, or let it write one if there is none. Return whether it is shown. */
  async open() {
    byId("inspect-text").value = this.offered = this.ownText;
    return this.offered ? this.inspect() : this.writeText();
  }
}

/** Open the view, with the models of *Write*. */
export function openInside(tell, settings, query) {
  const offer = (side, name) => offerModels(byId(`inspect-model-${side}`), name);
  const first = (side, number) => byId(`model-${side}`).value || models[Math.min(number, models.length - 1)].name;
  SIDES.forEach((side, number) => offer(side, first(side, number)));
  const view = new InsideView(tell);
  whenAdded(({ name }) => {
    SIDES.forEach((side) => offer(side, byId(`inspect-model-${side}`).value));
    if (SIDES.some((side) => view.awaited?.get(side) === name)) view.restore(view.awaited);
  });
  view.restore(query);
  return view;
}
