/* The view *Write*: two models continue the same prompt with the same seed, side by side. */

import { checkSettings, LONGEST_TEXT, parametersOf, readAddress } from "./address.js";
import { areOfOneLink, TWO_TEXTS } from "./components/branches.js";
import { changes, TEXTS_REMEDY } from "./components/changes.js";
import { Choices } from "./components/choices.js";
import { setPace, SIDES } from "./components/heat.js";
import { showLegend } from "./components/legend.js";
import { keepState } from "./components/state.js";
import { byId, grouped, make, readable, sentence } from "./components/text.js";
import { UnknownMarks } from "./components/unknown.js";
import { nextPrompt, sharedPrompts } from "./examples.js";
import { connectSliders, fillFields, readFields, readLength, valuesOfFields } from "./fields.js";
import { entryOf, holdModels, keepModels, models, offerModels, whenAdded } from "./models.js";
import { makeSmallPanels, Panel } from "./panel.js";
import { showLink } from "./share.js";

const DEFAULTS = { length: 500, temperature: 0.8, top_k: 0, top_p: 1 };
const TEMPERATURES = [0.5, 1, 1.5];
const LONGEST_AT_TEMPERATURES = 1000;
const FULL = `A text has at most ${grouped(LONGEST_TEXT)} characters: generate a new one.`;
const NO_TEXTS = { forced: { a: [], b: [] } }; // in an address

/** The events of the view, and its panels, {a, b}. small: those of compareTemperatures. offered: prompts. */
class WriteView {
  constructor(tell) {
    this.tell = tell;
    this.panels = Object.fromEntries(SIDES.map((side) => [side, this.makePanel(side)]));
    this.small = [];
    this.offered = [];
    this.choices = new Choices(this.panels, {
      write: (panel, ...text) => this.run(() => panel.value.run, () => [panel.write(...text)], panel.heat.text),
      extend: () => (this.panels.a.value.run ? this.more(1) : this.generate({ length: 1 })),
      fail: (error) => this.tell(sentence(error)),
      showed: () => this.showed(),
    });
    this.unknown = new UnknownMarks(byId("prompt"), byId("unknown"), () => this.commonVocab());
    this.connect();
    holdModels(() => this.all.filter(({ isWriting }) => isWriting).map(({ wanted }) => wanted));
  }

  makePanel(side) {
    const options = {
      line: byId(`progress-${side}`),
      about: byId(`about-${side}`),
      onPoint: (place) => this.choices.point(this.panels[side], place),
      onChoose: (place, isKey) => this.choices.enter(this.panels[side], place, isKey),
      isOtherHeld: () => this.choices.isOtherHeld(this.panels[side]),
    };
    return new Panel(side, byId(`output-${side}`), `What model ${side.toUpperCase()} writes`, options);
  }

  get both() {
    return [this.panels.a, this.panels.b];
  }

  get all() {
    return [...this.both, ...this.small.map(({ panel }) => panel)];
  }

  connect() {
    byId("write-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.generate();
    });
    byId("prompt").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.generate();
    });
    byId("stop").addEventListener("click", () => this.stop());
    byId("continue").addEventListener("click", () => this.more());
    byId("board").addEventListener("click", () => this.compareTemperatures());
    byId("share").addEventListener("click", () => this.share());
    byId("pace").addEventListener("change", ({ target }) => this.setPace(Number(target.value)));
    byId("colours").addEventListener("change", ({ target }) => {
      document.body.classList.toggle("plain-texts", !target.checked);
    });
    showLegend(byId("colours-legend"), "surprisal");
    connectSliders();
    for (const id of ["model-a", "model-b", "prompt", "temperature", "top-k", "top-p", "seed"]) {
      byId(id).addEventListener("input", () => this.compareSettings());
    }
    for (const side of SIDES) byId(`model-${side}`).addEventListener("change", () => this.chooseModels({}));
  }

  /** Fill fields, and offer the prompts of the models that are chosen then. */
  fill(settings) {
    fillFields(settings);
    for (const side of SIDES) this.tellModel(side);
    this.offered = sharedPrompts(...this.chosen);
    byId("examples").replaceChildren(...this.offered.map((prompt) => this.makeExample(prompt)));
  }

  /** Fill fields that choose models, and exchange the prompt unless the visitor has typed it. */
  chooseModels(settings) {
    const before = this.offered;
    this.fill(settings);
    this.enterPrompt(nextPrompt(byId("prompt").value, before, this.offered));
  }

  makeExample(prompt) {
    const button = make("button", "quiet", readable(prompt.trim()));
    button.type = "button";
    button.addEventListener("click", () => this.enterPrompt(prompt));
    return button;
  }

  enterPrompt(prompt) {
    byId("prompt").value = prompt;
    this.compareSettings();
    this.unknown.update();
  }

  /** Whether the visitor is at work: texts are shown or written. */
  get isAtWork() {
    return this.all.some(({ value, isWriting }) => isWriting || value.run);
  }

  /** Show the settings of a shared text, and write it. */
  open({ forced, ...settings }) {
    this.fill(settings);
    this.generate({ forced });
  }

  tellModel(side) {
    const { about, source, history } = entryOf(byId(`model-${side}`).value);
    const shortened = source.replace(/(?<=@[0-9a-f]{7})[0-9a-f]{33}$/, ""); // the commit, as it is usually written
    byId(`about-${side}`).textContent = readable([about, shortened].filter(Boolean).join(" · "));
    byId(`loss-${side}`).textContent = history ? `validation loss ${history.best.val_loss.toFixed(2)}` : "";
    this.unknown.update();
  }

  /** The entries of both models. */
  get chosen() {
    return SIDES.map((side) => entryOf(byId(`model-${side}`).value));
  }

  /** Return the symbols that both chosen models know. */
  commonVocab() {
    const [one, other] = this.chosen.map(({ config }) => new Set(config.vocab));
    return new Set([...one].filter((symbol) => other.has(symbol)));
  }

  /** Let both models write what the fields ask for. length: instead of theirs. forced: the choices of a shared text. */
  async generate({ length, forced = { a: [], b: [] } } = {}) {
    this.stop();
    const ask = () => ({ ...readFields(), ...(length && { length }) });
    await this.run(ask, (settings) => {
      this.choices.start();
      return this.both.map((panel) => panel.write(settings, {}, forced[panel.side]));
    });
    this.both.forEach((panel) => this.choices.keep(panel));
  }

  /** Continue both texts with the settings that they began with, behind what the visitor sees.

      added: how many characters, by default as many as the field says. */
  async more(added = readLength()) {
    this.stop();
    const settings = this.panels.a.value.run;
    if (!settings) return this.tell("There is no text to continue yet: let the models write one first.");
    const growing = this.both.filter((panel) => panel.symbols.length < LONGEST_TEXT);
    if (!growing.length) return this.tell(FULL);
    const lengthOf = (panel) => Math.min(panel.symbols.length + added, LONGEST_TEXT);
    const ask = () => checkSettings({ ...settings, length: added });
    await this.run(ask, () =>
      growing.map((panel) => {
        const { run = { ...settings, forced: [] } } = panel.value;
        return panel.write({ ...run, length: lengthOf(panel) }, panel.value, run.forced);
      }),
    );
    this.both.forEach((panel) => this.choices.keep(panel));
  }

  /** Let both models write at each of TEMPERATURES, in panels below the texts. */
  async compareTemperatures() {
    this.stop();
    byId("temperatures").hidden = false;
    if (!this.small.length) this.small = makeSmallPanels(byId("temperatures"), TEMPERATURES);
    const ask = () => ({ ...readFields(), length: Math.min(readFields().length, LONGEST_AT_TEMPERATURES) });
    const write = (settings) => this.small.map(({ panel, temperature }) => panel.write({ ...settings, temperature }));
    await this.run(ask, write, byId("temperatures"));
  }

  /** Write something.

      ask: gives its settings. write: gives its promises. place: what to bring into view. */
  async run(ask, write, place = byId("output-a")) {
    try {
      const settings = ask();
      this.tell("");
      byId("shared").hidden = true; // its link belongs to the texts before
      keepModels([settings.model_a, settings.model_b, byId("inspect-model-a").value, byId("inspect-model-b").value]);
      document.body.classList.add("writing");
      place.scrollIntoView({ block: "nearest" });
      const results = await Promise.allSettled(write(settings));
      const failed = results.find(({ status }) => status === "rejected");
      if (failed) throw failed.reason;
    } catch (error) {
      this.tell(sentence(error));
    }
    this.showed();
  }

  /** Let the page and its address tell what the texts are now. */
  showed() {
    this.showWriting();
    this.compareSettings();
    if (this.panels.a.value.run) keepState("write", parametersOf(this.hasLink ? this.shared() : NO_TEXTS));
  }

  /** Whether a link can hold the texts. */
  get hasLink() {
    return areOfOneLink(this.both.map(({ value }) => value.run));
  }

  /** Show the text of an address, unless it is shown. */
  restore(query) {
    const { settings } = readAddress(query);
    const isShown = () => JSON.stringify(parametersOf(this.shared())) === JSON.stringify(parametersOf(settings));
    if (settings && !(this.panels.a.value.run && this.hasLink && isShown())) this.open(settings);
  }

  showWriting() {
    document.body.classList.toggle("writing", this.all.some(({ isWriting }) => isWriting));
  }

  stop() {
    for (const { panel } of this.small) panel.stop();
    this.choices.stop();
    this.showWriting();
  }

  setPace(charactersPerSecond) {
    setPace(charactersPerSecond);
    for (const panel of this.both) panel.heat.update();
  }

  /** Say which settings of the texts are no longer those of the fields. */
  compareSettings() {
    const { run } = this.panels.a.value;
    const words = run ? changes(run, valuesOfFields(run.seed), TEXTS_REMEDY) : "";
    // a screen reader would repeat the same words at each key
    if (byId("texts-changed").textContent !== words) byId("texts-changed").textContent = words;
  }

  /** Return the settings of the texts, or of the fields if there are none yet. Throws an Error for one that is wrong. */
  shared() {
    const [a, b] = this.both.map(({ value }) => value.run?.forced ?? []);
    const length = Math.max(...this.both.map(({ value }) => value.run?.length ?? 0));
    return { ...(this.panels.a.value.run ?? readFields()), ...(length && { length }), forced: { a, b } };
  }

  /** Show a link to the texts. */
  async share() {
    if (!this.hasLink) return this.tell(TWO_TEXTS);
    try {
      await showLink(this.shared());
    } catch (error) {
      this.tell(sentence(error));
    }
  }
}

/** Open the view. settings: of a shared text, which is written at once. query: the parameters of the address. */
export function openWrite(tell, settings, query) {
  const added = models.findLast(({ loadedAs }) => loadedAs); // the model that the address names
  offerModels(byId("model-a"), (added ?? models[0]).name);
  offerModels(byId("model-b"), models[Math.min(1, models.length - 1)].name);
  const view = new WriteView(tell);
  view.chooseModels(DEFAULTS);
  byId("write-form").inert = false; // what is typed before would be replaced by the defaults
  if (settings) view.open(settings);
  whenAdded(({ name }) => {
    for (const side of SIDES) offerModels(byId(`model-${side}`), byId(`model-${side}`).value);
    if (view.isAtWork) return;
    const { settings: shared, problem } = readAddress(query); // it may have waited for that model
    if (shared) return view.open(shared);
    view.chooseModels({ model_a: name });
    if (problem) tell(problem);
  });
  return view;
}
