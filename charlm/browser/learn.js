/* The view *Learn*: the loss curves of the training records, what they show, what the models wrote meanwhile. */

import { AXES, Curves, LOSS_UNITS, LOSSES } from "./components/curves.js";
import { SIDES } from "./components/heat.js";
import { makeReading } from "./components/reading.js";
import { keepState } from "./components/state.js";
import { byId, make, makeCard, readable } from "./components/text.js";
import { isAwaited, models, published, reading, whenAdded } from "./models.js";

const SHOWN_FIRST = 3; // models
const UNREAD = "What the curves of this model show was not worked out, since it was loaded after the page was made.";

/** Return a radio button or a checkbox with its label. */
function makeChoice(type, name, value, checked) {
  const label = make("label", "check");
  const input = make("input");
  Object.assign(input, { type, name, value, checked });
  label.append(input, make("span", "", readable(value)));
  return label;
}

function offer(id, values) {
  values.forEach((value, place) => byId(id).append(makeChoice("radio", id, value, place === 0)));
}

function chosen(id) {
  return [...byId(id).querySelectorAll("input:checked")].map((input) => input.value);
}

/** Return the first models that were measured as the first one was: on the same text, with the same protocol. */
function comparable(recorded) {
  const isAlike = ({ history: { run } }, { history: { run: first } }) =>
    run.text === first.text && run.protocol === first.protocol;
  return recorded.filter((each) => isAlike(each, recorded[0])).slice(0, SHOWN_FIRST);
}

/** Return remarks on some models: on each alone, then on neighbours by their losses. */
function readingOf(shown) {
  const ranked = [...shown].sort((one, other) => one.history.best.val_loss - other.history.best.val_loss);
  const compared = ranked.slice(1).flatMap(({ name }, place) => {
    const names = [ranked[place].name, name];
    return reading.pairs.find(([one, other]) => names.includes(one) && names.includes(other))?.[2] ?? [];
  });
  const texts = new Set(); // two pairs may say the same, for example that their losses can't be compared
  const others = compared.filter(({ text }) => !texts.has(text) && texts.add(text));
  const own = ({ name }) => reading.own[name] ?? [{ model: name, text: UNREAD, places: [] }];
  return [...shown.flatMap(own), ...others];
}

/** Return the losses that others published, if all these models were measured on the same text as they. */
function publishedFor(shown) {
  const { text_sha256, protocol, split } = published.run;
  const isComparable = ({ history: { run } }) => {
    const own = run.split ?? {};
    const isSplitAlike = Object.keys({ ...own, ...split }).every((part) => own[part] === split[part]);
    return run.text_sha256 === text_sha256 && run.protocol === protocol && isSplitAlike;
  };
  return shown.length > 0 && shown.every(isComparable) ? published.losses : [];
}

/** Return as cards what each model wrote after an epoch, or after the last one before it that has a sample. */
function samplesAt(shown, epoch) {
  return shown.map(({ name, history }) => {
    const written = history.epochs.filter((each) => each.sample !== "");
    const past = written.filter((each) => each.epoch <= epoch);
    const found = past.at(-1) ?? written[0] ?? history.epochs[0];
    const losses = Object.entries(LOSSES).filter(([loss]) => found[loss] != null);
    const said = losses.map(([loss, [label]]) => `${label} ${found[loss].toFixed(4)}`).join(", ");
    return { title: name, about: `after epoch ${found.epoch}: ${said}`, text: found.sample };
  });
}

/** Return the models that the parameters of an address name. */
function namesIn(parameters) {
  return parameters.get("models")?.split(",") ?? [];
}

/** The view.

    recorded: the models that have a record, of which the visitor chooses some. props: those of the curves.
    awaited: the parameters of an address that names a model which is still to be added, null if there is none, or the
      visitor has chosen something since. Until then the address stays as it is. */
class LearnView {
  constructor() {
    this.recorded = models.filter(({ history }) => history);
    this.props = {};
    this.awaited = null;
    const first = comparable(this.recorded);
    for (const model of this.recorded) this.offerRecord(model, first.includes(model));
    offer("unit", Object.keys(LOSS_UNITS));
    offer("axis", Object.keys(AXES));
    offer("scale", ["linear", "log"]);
    this.curves = new Curves(byId("loss-curves"), this.props);
    this.connect();
  }

  connect() {
    whenAdded((model) => this.add(model));
    for (const id of ["unit", "axis", "scale", "model-a", "model-b"]) {
      byId(id).addEventListener("change", () => this.draw());
    }
    byId("learn-models").addEventListener("change", () => this.showModels());
    byId("epoch").addEventListener("input", () => this.showSamples());
    byId("view-learn").addEventListener("change", () => {
      this.awaited = null;
      this.keep(); // after what shows it
    });
    byId("save-png").addEventListener("click", () => this.curves.savePng("curves.png"));
    byId("save-csv").addEventListener("click", () => this.curves.saveCsv("curves.csv"));
  }

  /** The models that are chosen. */
  get shown() {
    return chosen("learn-models").map((name) => this.recorded.find((model) => model.name === name));
  }

  /** The unit of the losses, what they are shown over, and the scale. */
  get settings() {
    return Object.fromEntries(["unit", "axis", "scale"].map((id) => [id, chosen(id)[0]]));
  }

  offerRecord(model, isChosen) {
    byId("learn-models").append(makeChoice("checkbox", "model", model.name, isChosen));
  }

  /** Offer a model that was added to the page; show what the address says if it was waiting for that model. */
  add(model) {
    if (model.history) {
      this.recorded.push(model);
      this.offerRecord(model, false);
    }
    if (!this.awaited || !namesIn(this.awaited).includes(model.name)) return;
    this.restore(this.awaited);
    this.keep();
  }

  draw() {
    const sides = SIDES.map((side, place) => byId(`model-${side}`).value || (models[place] ?? models[0]).name);
    const records = this.shown.map(({ name, history }) => [name, history]);
    this.props.value = { records, ...this.settings, sides, published: publishedFor(this.shown) };
    this.curves.update();
    byId("reading").replaceChildren(...makeReading(readingOf(this.shown), this.curves));
  }

  showSamples() {
    byId("epoch-value").textContent = byId("epoch").value;
    byId("samples").replaceChildren(...samplesAt(this.shown, Number(byId("epoch").value)).map(makeCard));
  }

  /** Show the models that are chosen, and what they wrote after the last epoch. */
  showModels() {
    this.draw();
    const last = Math.max(1, ...this.shown.map(({ history }) => history.epochs.at(-1).epoch));
    byId("epoch").max = last;
    byId("epoch").value = last;
    this.showSamples();
  }

  /** Keep what is shown in the address, unless that is still waiting for a model. */
  keep() {
    if (this.awaited) return;
    keepState("learn", { models: chosen("learn-models").join(","), ...this.settings, epoch: byId("epoch").value });
  }

  /** Show what an address holds: the models, the unit, the axis and the scale of the curves, the epoch. */
  restore(parameters) {
    const names = namesIn(parameters);
    this.awaited = names.some((name) => isAwaited(name, parameters)) ? parameters : null;
    const wanted = { unit: [parameters.get("unit")], axis: [parameters.get("axis")], scale: [parameters.get("scale")] };
    for (const [id, values] of Object.entries({ ...wanted, "learn-models": names })) {
      const inputs = [...byId(id).querySelectorAll("input")];
      if (!inputs.some(({ value }) => values.includes(value))) continue;
      for (const input of inputs) input.checked = values.includes(input.value);
    }
    this.showModels();
    if (parameters.has("epoch")) byId("epoch").value = parameters.get("epoch");
    this.showSamples();
  }
}

/** Open the view as the parameters of an address ask for. */
export function openLearn(tell, settings, query) {
  const view = new LearnView();
  view.restore(query);
  view.keep();
  return view;
}
