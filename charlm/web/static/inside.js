/* What the view *Look inside* shows: a text read by two models side by side, one unit of a model step by step, and the
   pattern of a stretch of the text. */

import { CellPanel } from "../../browser/components/cell.js";
import { decodeShade, SIDES } from "../../browser/components/heat.js";
import { showLegend } from "../../browser/components/legend.js";
import { TextPair } from "../../browser/components/pair.js";
import { PatternPanel, StretchPicker } from "../../browser/components/pattern.js";
import { ReplacedText } from "../../browser/components/replaced.js";
import { keepState } from "../../browser/components/state.js";
import { byId, make, readable } from "../../browser/components/text.js";

const FIRST_PLACE = 120; // the character that is explained at first
const READING = "Reading the text";
const SEEN_HINT = "Point at a character, or move there with the arrow keys; a click holds it.";

/** The text as one model read it, and the influence of the characters before the one that is pointed at.

    influence: the server's answer for (model, text, place). text: the HeatText.
    wanted: the place whose influence is to be shown; isAsking: whether the server is being asked, which it is once at a
    time. */
class InsideText {
  constructor(element, text, influence) {
    Object.assign(this, { element, text, influence, wanted: 0, isAsking: false, traced: [] });
    this.line = make("div", "inside-influence");
    element.querySelector(".heat").append(this.line);
  }

  get model() {
    return this.side?.model;
  }

  show(side) {
    const before = this.side?.heat;
    this.side = side;
    const { heat } = side;
    // the same object tells the HeatText that only the colours are new
    if (before?.text === heat.text && before.name === heat.name) heat.details = before.details;
    this.text.props.value = heat;
    this.element.querySelector(".heat-label").textContent = readable(side.model);
    this.text.update();
  }

  /** Show the influence on the prediction at a place, unless another place is pointed at meanwhile. */
  async trace(place) {
    this.wanted = place;
    if (this.isAsking) return;
    this.isAsking = true;
    for (let asked; asked !== `${this.wanted} ${this.model} ${this.side.heat.text}`; ) {
      const { model, wanted } = this;
      const { text } = this.side.heat;
      asked = `${wanted} ${model} ${text}`;
      const found = wanted > 0 ? await this.influence(model, text, wanted).catch(() => undefined) : undefined;
      if (text === this.side.heat.text) this.paint(found);
    }
    this.isAsking = false;
  }

  paint({ first = 0, shades = "", line = "", error } = {}) {
    for (const span of this.traced) span.classList.remove("traced");
    this.traced = [...this.text.text.children].slice(first, first + shades.length);
    this.traced.forEach((span, step) => {
      span.classList.add("traced");
      span.style.setProperty("--trace", (decodeShade(shades[step]) ?? 0).toFixed(3));
    });
    this.line.textContent = error ?? line;
  }
}

/** All that the view shows.

    server: the functions `influence` and `pattern` of charlm/web/answers/inside.py.
    trigger: called with "select" when a unit is to be looked at. value: what `Inspector.look` returned.
    searched: the letter of the model whose pattern is shown. pair: the texts. sides: an InsideText for each of them;
    shown: those that are, without that of model B if there is none. */
class InsideStage {
  constructor(element, trigger, server) {
    Object.assign(this, { element, trigger, server, value: {}, shown: [] });
    const find = (id) => element.querySelector(`#${id}`);
    const elements = SIDES.map((letter) => find(`seen-${letter}`));
    const names = SIDES.map((letter) => `The text as model ${letter.toUpperCase()} read it`);
    const props = names.map((called) => ({ heading: "", called, explained: SEEN_HINT, value: {} }));
    this.pair = new TextPair(elements, props, { onPlace: (place) => this.explain(place), onHold: () => this.keep() });
    this.sides = this.pair.texts.map((text, number) => {
      return new InsideText(elements[number], text, (...all) => server.influence(...all));
    });
    this.cell = new CellPanel(find("cell"), { onPlace: (place) => this.goTo(place) });
    this.pattern = new PatternPanel(find("pattern"), {
      search: (stretch) => this.search(stretch),
      onPlace: (start, end) => this.goTo(start, end),
      onUnit: ([layer, unit]) => {
        // in what is shown, which the fields may not hold now
        const colour = `${this.searched === "b" ? "B " : ""}hidden ${layer}:${unit}`;
        looking.next = { ...this.value.a.heat.run, colour };
        trigger("select", {});
      },
    });
    this.pickers = this.sides.map(({ text }, number) => {
      return new StretchPicker(text, (stretch) => this.showPattern(stretch, SIDES[number]));
    });
  }

  update(value) {
    const isOther = value.a.heat.text !== this.value.a?.heat.text;
    const isSearched = !isOther && value[this.searched]?.model === this.value[this.searched]?.model;
    if (!isSearched) {
      this.pattern.show(null);
      for (const picker of this.pickers) picker.mark(-1, -1);
    }
    const isFirst = !this.value.a;
    this.value = value;
    // the text that the page begins with is in no address
    if (isFirst && !location.hash) this.first = value.a.heat.run.text;
    this.element.classList.toggle("single", !value.b);
    this.shown = value.b ? this.sides : this.sides.slice(0, 1);
    this.shown.forEach((side, number) => side.show(value[SIDES[number]]));
    this.describe();
    this.symbols = Array.from(value.a.heat.text);
    const cell = this.element.querySelector("#cell");
    for (const letter of SIDES) cell.classList.toggle(letter, value.unit.side === letter);
    this.cell.show({ ...value.unit, symbols: this.symbols });
    const { kind } = value[value.unit.side].heat;
    showLegend(byId("legend").querySelector(".legend"), kind, value.unit.side);
    const last = this.symbols.length - 1;
    if (isOther) this.pair.goTo(Math.min(FIRST_PLACE, last), false);
    else this.pair.explain(this.pair.place);
    const wanted = Number(new URLSearchParams(location.search).get("place") ?? NaN);
    if (isFirst && wanted >= 0 && wanted <= last) this.pair.goTo(wanted, true);
    this.keep();
  }

  /** Say what is known of each text as a whole, or that another is being read. */
  describe() {
    const isReading = looking.wanted !== null;
    this.element.querySelector("#seen").setAttribute("aria-busy", String(isReading));
    for (const letter of SIDES) {
      const line = isReading ? READING : (this.value[letter]?.line ?? "");
      this.element.querySelector(`#seen-line-${letter}`).textContent = readable(line);
    }
  }

  /** Return the parameters of an address that shows the same. */
  get parameters() {
    const { model_a: a, model_b: b, text, colour } = this.value.a?.heat.run ?? {};
    const place = this.pair.held;
    return { a, b, colour, place, text: text === this.first ? undefined : text };
  }

  keep() {
    keepState("inside", this.parameters);
  }

  /** Show the influence on a character that the texts explain, and the unit there. */
  explain(place) {
    for (const side of this.shown) side.trace(place);
    this.cell.point(place);
  }

  /** Go to a place, and mark the stretch that begins there. */
  goTo(place, end) {
    if (place >= this.symbols.length) return;
    if (end) this.pickers[SIDES.indexOf(this.searched)].mark(place, Math.min(end, this.symbols.length));
    this.pair.goTo(place);
  }

  showPattern({ start, end }, letter) {
    this.searched = letter;
    const { model, units, heat } = this.value[letter];
    const symbols = Array.from(this.value.longer || heat.text);
    this.pattern.show({ title: model, symbols, shown: this.symbols.length, start, end, units });
  }

  async search({ start, end, threshold }) {
    const { model, heat } = this.value[this.searched];
    const failed = { error: "The server did not answer: try again." };
    const request = [model, heat.text, this.value.longer, start, end, threshold];
    return (await this.server.pattern(...request).catch(() => failed)) ?? failed;
  }
}

const replaced = new ReplacedText();
const putText = (text) => [text, { __type__: "update", visible: replaced.text !== undefined }];

/** Handlers of the events that put a text into the field. Each returns the values of the field and of the button that
    puts the visitor's text back, which shows if model A has replaced one.

    field: the text that is replaced. offered: the texts that the page has put there, null if there is none. */
export const fieldTexts = {
  /** Put a text that model A has written, in a list, into the field. */
  write([written], field, offered) {
    replaced.write(written, field, offered ?? []);
    return putText(written);
  },

  restore(field, offered) {
    const values = putText(replaced.restore(field, offered ?? []));
    if (replaced.text === undefined) document.querySelector("#inspect").focus(); // the button vanishes
    return values;
  },
};

let stage; // of the page

/** What the view asks the server to read: the event `looking` of charlm/web/views/inside.py, which runs once at a time.

    wanted: the fields for which a look was asked for last, null once it is there; {} while those of another model A are
      being filled in. asked: the same, also when it is there. sent: those of the looks that have not ended.
    next: those to ask for, null for what the fields hold. */
class Looking {
  constructor() {
    Object.assign(this, { wanted: null, asked: {}, sent: [], next: null });
  }

  /** Let the view show that it reads; null: that it does not. */
  want(fields) {
    this.wanted = fields;
    stage?.describe();
  }

  /** Ask for what the fields hold, or for the unit that was chosen in a pattern; return the value of the field `colour`. */
  ask(model_a, model_b, text, colour) {
    this.asked = this.next ?? { model_a, model_b, text, colour };
    this.next = null;
    this.want(this.asked);
    return this.asked.colour;
  }

  /** Return the values to send. */
  send() {
    const { model_a, model_b, text, colour } = this.asked;
    this.sent.push(this.asked);
    return [model_a, model_b, text, colour];
  }

  /** Called when a look has ended; return whether another one was asked for meanwhile. */
  ended() {
    const isLast = this.sent.shift() === this.wanted;
    if (isLast) this.want(null);
    return !isLast;
  }

  /** Called when a look has failed. Gradio's client has then dropped the one that waited for its end. */
  failed() {
    const { wanted } = this;
    if (!this.ended() || wanted?.text === undefined) return;
    this.next = wanted;
    stage.trigger("select", {});
  }
}

export const looking = new Looking();

/** Return whether what an address holds is shown already. A text that it does not name may be any. */
export function insideShows(query) {
  const { text, ...shown } = stage.parameters;
  if (shown.a === undefined || (query.get("text") ?? "") !== (text ?? "")) return false;
  return Object.entries(shown).every(([name, value]) => !query.has(name) || query.get(name) === String(value ?? ""));
}

/** The component of components.py. */
export function insideStage(element, props, trigger, watch, server) {
  stage = new InsideStage(element, trigger, server);
  const update = () => {
    if (props.value?.seen) stage.update(JSON.parse(props.value.seen));
  };
  watch("value", update);
  update();
}
