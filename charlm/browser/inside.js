/* The view *Look inside*: what a model expected at each character of a text, and what one of its units did. */

import { changes } from "./components/changes.js";
import { encodeShades, HeatText, MOST_NATS } from "./components/heat.js";
import { byId, make, readable } from "./components/text.js";
import { entryOf, getModel, keepModels, models, whenAdded } from "./models.js";
import { offerModels, sentence } from "./write.js";

const LONGEST_INSPECTED = 5000; // characters, as in the Gradio page
const WRITTEN = 1500; // characters of the text that a model writes to be looked into
const SURPRISAL = "surprisal";
const HINT =
  "Point at a character, or move there with the arrow keys, to see which characters the model held likeliest there.";

/** The view.

    seen: what it shows, {name, inspection, text, units}: by which model, of which text, and the activations of the
      units once they were asked for. */
class InsideView {
  constructor(tell) {
    this.tell = tell;
    this.props = { heading: "What the model expected", explained: HINT, value: {} };
    this.heat = new HeatText(byId("seen"), this.props, () => {});
    this.asked = 0; // questions; an answer is shown if it is that to the last
    byId("inside-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.inspect();
    });
    byId("write-text").addEventListener("click", () => this.writeText());
    byId("inspect-model").addEventListener("change", () => {
      this.offerUnits();
      this.inspect();
    });
    byId("colour").addEventListener("change", () => this.paint());
    byId("unit-number").addEventListener("input", () => this.paint());
    byId("inspect-text").addEventListener("input", () => this.compare());
  }

  get model() {
    return entryOf(byId("inspect-model").value);
  }

  /** Offer the states of the chosen model, layer by layer. */
  offerUnits() {
    const { cell, num_layers: layers, hidden_size: units } = this.model.config;
    const states = cell === "lstm" ? ["hidden", "cell"] : ["hidden"];
    const names = states.flatMap((state) => Array.from({ length: layers }, (_, layer) => `${state} ${layer}`));
    const options = [SURPRISAL, ...names].map((name) => {
      const option = make("option", "", name === SURPRISAL ? name : `a unit of ${name.replace(" ", " layer ")}`);
      option.value = name;
      return option;
    });
    byId("colour").replaceChildren(...options);
    byId("unit-number").max = units - 1;
    byId("unit-number").value = Math.min(Number(byId("unit-number").value), units - 1);
    this.showField();
  }

  showField() {
    byId("unit-field").hidden = byId("colour").value === SURPRISAL;
    byId("unit-value").textContent = `${byId("colour").value}:${byId("unit-number").value}`;
  }

  /** Read the text with the model, and show what it expected. */
  async inspect() {
    const asked = ++this.asked;
    const { name } = this.model;
    const whole = Array.from(byId("inspect-text").value);
    const text = whole.slice(0, LONGEST_INSPECTED).join("");
    try {
      if (text === "") throw new Error("there is nothing to read: enter a text of characters that the model knows");
      byId("seen-line").textContent = readable(`${name} · reading`);
      keepModels([name, byId("model-a").value, byId("model-b").value]);
      const lm = await getModel(name);
      const inspection = await lm.inspect(text);
      if (asked !== this.asked) return;
      if (!inspection.symbols.length) {
        throw new Error("there is nothing to read: enter a text of characters that the model knows");
      }
      this.seen = { name, inspection, text: byId("inspect-text").value };
      this.tell("");
      this.paint();
      byId("seen-line").textContent = readable(describe(inspection, whole.length));
    } catch (error) {
      if (asked !== this.asked) return;
      byId("seen-line").textContent = "";
      this.tell(sentence(error));
    }
  }

  /** Colour what was read by surprisal, or by the activation of the chosen unit. */
  async paint() {
    this.showField();
    const { seen } = this;
    if (!seen || seen.name !== this.model.name) return;
    const [state, layer] = byId("colour").value.split(" ");
    const isUnit = state !== SURPRISAL;
    if (isUnit && !(await this.readUnits(seen))) return;
    const unit = Number(byId("unit-number").value); // now, as it may have been moved meanwhile
    const { symbols, likeliest } = seen.inspection;
    this.props.value = {
      text: symbols.join(""),
      shades: encodeShades(isUnit ? activations(seen.units, state, Number(layer), unit) : surprisals(seen.inspection)),
      kind: isUnit ? "activation" : SURPRISAL,
      details: likeliest,
      name: `${seen.name}-${isUnit ? `${state}-${layer}-${unit}` : SURPRISAL}`,
    };
    this.heat.update();
    this.compare();
  }

  /** Have the activations of all units in what is shown; return whether they are there and still wanted. */
  async readUnits(seen) {
    try {
      seen.reading ??= getModel(seen.name).then((lm) => lm.units(seen.inspection.symbols.join("")));
      seen.units ??= await seen.reading;
    } catch (error) {
      seen.reading = undefined;
      this.tell(sentence(error));
    }
    return seen.units && seen === this.seen && byId("colour").value !== SURPRISAL;
  }

  /** Say whether the text or the model is another one than what is shown. */
  compare() {
    if (!this.seen) return;
    const now = { model: this.model.name, text: byId("inspect-text").value };
    const asked = { model: this.seen.name, text: this.seen.text };
    byId("seen-changed").textContent = changes(asked, now, "“Look inside” reads the text as it is now.");
  }

  async writeText() {
    try {
      const lm = await getModel(this.model.name);
      byId("inspect-text").value = await lm.generate("", { length: WRITTEN });
    } catch (error) {
      return this.tell(sentence(error));
    }
    await this.inspect();
  }

  /** Begin with what the model wrote when it was best: a text that it was not trained on. */
  async open() {
    const { history } = this.model;
    const best = history?.epochs.find(({ epoch }) => epoch === history.best.epoch);
    this.offerUnits();
    if (!best?.sample) return this.writeText();
    byId("inspect-text").value = best.sample;
    return this.inspect();
  }
}

function surprisals(inspection) {
  return Array.from(inspection.surprisals, (nats) => nats / MOST_NATS);
}

/** Return the activations of a unit after each symbol, scaled from [-a, a] to [0, 1]; a is the largest in size. */
function activations(read, state, layer, unit) {
  const found = read.symbols.map((_, place) => read[state][(place * read.layers + layer) * read.units + unit]);
  const largest = found.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-12);
  return found.map((value) => (value / largest + 1) / 2);
}

function describe(inspection, length) {
  const read = inspection.symbols.length;
  const parts = [`${read.toLocaleString("en")} characters`];
  if (read > 1) {
    const nats = Array.from(inspection.surprisals).slice(1);
    const bits = nats.reduce((sum, each) => sum + each, 0) / nats.length / Math.LN2;
    parts.push(`${bits.toFixed(2)} bits per character, perplexity ${(2 ** bits).toFixed(1)}`);
  }
  if (length > LONGEST_INSPECTED) {
    parts.push(`the first ${LONGEST_INSPECTED.toLocaleString("en")} of ${length.toLocaleString("en")} are shown`);
  }
  if (inspection.skipped) parts.push(`skipped, as the model does not know it: '${inspection.skipped}'`);
  return parts.join(" · ");
}

/** Open the view. */
export function openInside(tell) {
  offerModels(byId("inspect-model"), models[0].name);
  whenAdded(() => offerModels(byId("inspect-model"), byId("inspect-model").value));
  new InsideView(tell).open();
}
