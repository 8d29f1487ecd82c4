/* The view *Write*: two models continue the same prompt with the same seed, side by side. */

import { checkSettings, linkTo, LONGEST_TEXT, readAddress } from "./address.js";
import { changes } from "./components/changes.js";
import { encodeShades, HeatText, MOST_NATS, setPace } from "./components/heat.js";
import { byId, make, readable } from "./components/text.js";
import { entryOf, getModel, keepModels, models, whenAdded } from "./models.js";

const PROMPTS = ["ROMEO:\n", "To be, or not to be", "Apple", "University", "Seoul", "Coffee", "Computer"];
const DEFAULTS = { length: 500, temperature: 0.8, top_k: 0, top_p: 1 };
const TEMPERATURES = [0.5, 1, 1.5];
const LONGEST_AT_TEMPERATURES = 1000;
const PAUSE = 50; // milliseconds between two lines about a text
const REMEDY = "“Continue” and “Share” keep to the texts that are shown.";

/** A text that one model writes, and the line about it.

    value: the Heat of the text. run: its settings. */
class Panel {
  constructor(output, line, heading) {
    this.props = { heading, paced: true, value: {} };
    this.heat = new HeatText(output, this.props, () => {});
    this.line = line;
  }

  get value() {
    return this.heat.value;
  }

  /** Let a model write. before: what the same settings and seed have written already, as a Heat, or {}.

      Throws what the model throws, unless the signal has stopped it. */
  async write(name, settings, before, signal) {
    const { text = "", shades = "" } = before;
    this.show({ prompt: before.prompt ?? "", text, shades });
    const lm = await this.load(name);
    if (signal.aborted) return this.say("");
    const skipped = lm.unknown(settings.prompt);
    const prompt = Array.from(settings.prompt)
      .filter((symbol) => !skipped.includes(symbol))
      .join("");
    this.show({ prompt, text, shades, kind: "surprisal", name: `${name}-${settings.seed}`, run: settings });
    const count = Array.from(text).length;
    const figures = {
      name,
      seed: settings.seed,
      skipped,
      kernel: lm.kernel,
      count,
      fresh: 0,
      nats: 0,
      begin: performance.now(),
    };
    const length = settings.length - count;
    try {
      for await (const piece of lm.write(settings.prompt, { ...requestOf(settings), length, after: text, signal })) {
        if (signal.aborted) break;
        this.append(piece, figures);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    this.tellFigures(figures);
  }

  /** Return a model; meanwhile the line tells how much of it is there. */
  async load(name) {
    this.say(`${name} · loading`);
    try {
      return await getModel(name, (there, whole) => this.say(`${name} · ${percent(there, whole)} loaded`));
    } catch (error) {
      this.say("");
      throw error;
    }
  }

  append({ text, surprisals }, figures) {
    figures.count += surprisals.length;
    figures.fresh += surprisals.length;
    figures.nats += surprisals.reduce((sum, nats) => sum + nats, 0);
    const { value } = this.props;
    const shades = encodeShades(surprisals.map((nats) => nats / MOST_NATS));
    this.show({ ...value, text: value.text + text, shades: value.shades + shades });
    if (performance.now() - (figures.told ?? -PAUSE) >= PAUSE) this.tellFigures(figures);
  }

  tellFigures(figures) {
    figures.told = performance.now();
    const { name, seed, count, fresh, nats, skipped } = figures;
    const rate = fresh / Math.max((figures.told - figures.begin) / 1000, 1e-3);
    const parts = [
      name,
      `${count.toLocaleString("en")} characters, ${Math.round(rate).toLocaleString("en")} per second`,
      `${(nats / Math.max(fresh, 1) / Math.LN2).toFixed(2)} bits per character`,
      `seed ${seed}`,
    ];
    if (figures.kernel === "javascript")
      parts.push("slower than it could be: this browser has no WebAssembly with SIMD");
    if (skipped) parts.push(`skipped in the prompt, as the model does not know it: '${skipped}'`);
    this.say(parts.join(" · "));
  }

  show(value) {
    this.props.value = value;
    this.heat.update();
  }

  say(words) {
    if (this.line) this.line.textContent = readable(words);
  }
}

function percent(there, whole) {
  return `${Math.round((100 * there) / Math.max(whole, 1))} %`;
}

function requestOf({ temperature, top_k, top_p, seed }) {
  return { temperature, topK: top_k, topP: top_p, seed: BigInt(seed) };
}

/** The events of the view, and the state between them.

    running: the AbortController of what is being written. */
class WriteView {
  constructor(tell) {
    this.tell = tell;
    this.running = new AbortController();
    this.panels = ["a", "b"].map(
      (side) => new Panel(byId(`output-${side}`), byId(`progress-${side}`), `What model ${side.toUpperCase()} writes`),
    );
    this.connect();
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
    for (const id of ["model-a", "model-b", "prompt", "temperature", "top-k", "top-p", "seed"]) {
      byId(id).addEventListener("input", () => this.compareSettings());
    }
    for (const id of ["temperature", "top-k", "top-p"]) byId(id).addEventListener("input", () => showValue(id));
    for (const side of "ab") byId(`model-${side}`).addEventListener("change", () => this.tellModel(side));
  }

  /** Return what the fields ask for. Throws an Error for a value that is not allowed. */
  read() {
    const number = (id) => (byId(id).value.trim() === "" ? NaN : Number(byId(id).value));
    return checkSettings({
      model_a: byId("model-a").value,
      model_b: byId("model-b").value,
      prompt: byId("prompt").value,
      length: number("length"),
      temperature: number("temperature"),
      top_k: number("top-k"),
      top_p: number("top-p"),
      seed: byId("seed").value,
    });
  }

  fill(settings) {
    const ids = { model_a: "model-a", model_b: "model-b", top_k: "top-k", top_p: "top-p" };
    for (const [name, value] of Object.entries(settings)) byId(ids[name] ?? name).value = value;
    for (const id of ["temperature", "top-k", "top-p"]) showValue(id);
    for (const side of "ab") this.tellModel(side);
  }

  tellModel(side) {
    const { about, source } = entryOf(byId(`model-${side}`).value);
    const shortened = source.replace(/(?<=@[0-9a-f]{7})[0-9a-f]{33}$/, ""); // the commit, as it is usually written
    byId(`about-${side}`).textContent = readable([about, shortened].filter(Boolean).join(" · "));
  }

  async generate() {
    await this.run(this.read, (settings, signal) =>
      ["model_a", "model_b"].map((side, place) => this.panels[place].write(settings[side], settings, {}, signal)),
    );
  }

  /** Continue both texts with the settings that they began with, behind what the visitor sees. */
  async more() {
    this.stop();
    const before = this.panels.map((panel) => panel.value);
    const { run } = before[0];
    if (!run) return this.tell("There is no text to continue yet: let the models write one first.");
    const written = before.map(({ text }) => Array.from(text).length);
    const added = () => checkSettings({ ...run, length: Number(byId("length").value) }).length;
    await this.run(
      () => ({ ...run, length: Math.min(added() + Math.max(...written), LONGEST_TEXT) }),
      (settings, signal) =>
        ["model_a", "model_b"].map((side, place) => {
          const length = Math.min(written[place] + added(), LONGEST_TEXT);
          return this.panels[place].write(settings[side], { ...settings, length }, before[place], signal);
        }),
    );
  }

  /** Let both models write at each of TEMPERATURES, in panels below the texts. */
  async compareTemperatures() {
    byId("temperatures").hidden = false;
    this.small ??= makeSmallPanels(byId("temperatures"));
    const write = (settings, signal) =>
      this.small.map(({ panel, side, temperature }) => {
        const length = Math.min(settings.length, LONGEST_AT_TEMPERATURES);
        return panel.write(settings[side], { ...settings, length, temperature }, {}, signal);
      });
    await this.run(this.read, write, byId("temperatures"));
  }

  /** Stop what is being written, and write something else.

      ask: gives its settings. write: gives its promises. place: what to bring into view. */
  async run(ask, write, place = byId("output-a")) {
    this.stop();
    const running = (this.running = new AbortController());
    try {
      const settings = ask.call(this);
      this.tell("");
      byId("shared").hidden = true; // its link belongs to the texts before
      keepModels([settings.model_a, settings.model_b, byId("inspect-model-a").value, byId("inspect-model-b").value]);
      document.body.classList.add("writing");
      place.scrollIntoView({ block: "nearest" });
      const results = await Promise.allSettled(write(settings, running.signal));
      const failed = results.find(({ status, reason }) => status === "rejected" && reason?.name !== "AbortError");
      if (failed && running === this.running) throw failed.reason;
    } catch (error) {
      this.tell(sentence(error));
    }
    if (running !== this.running) return;
    document.body.classList.remove("writing");
    this.compareSettings();
  }

  stop() {
    this.running.abort();
    document.body.classList.remove("writing");
    for (const { heat } of [...this.panels, ...(this.small ?? []).map(({ panel }) => panel)]) heat.stop();
  }

  setPace(charactersPerSecond) {
    setPace(charactersPerSecond);
    for (const panel of this.panels) panel.heat.update();
  }

  /** Say which settings of the texts are no longer those of the fields. */
  compareSettings() {
    const { run } = this.panels[0].value;
    if (!run) return;
    const value = (id) => byId(id).value;
    const now = {
      model_a: value("model-a"),
      model_b: value("model-b"),
      prompt: value("prompt"),
      temperature: Number(value("temperature")),
      top_k: Number(value("top-k")),
      top_p: Number(value("top-p")),
      seed:
        value("seed")
          .trim()
          .replace(/^0+(?=.)/, "") || run.seed,
    };
    byId("texts-changed").textContent = changes(run, now, REMEDY);
  }

  /** Show a link to the texts, or to the fields if there are none yet. */
  share() {
    let settings;
    try {
      settings = this.panels[0].value.run ?? this.read();
    } catch (error) {
      return this.tell(sentence(error));
    }
    byId("shared").hidden = false;
    const link = (byId("link").value = linkTo(settings));
    const source = linkTo(settings, { embed: "write" }).replaceAll("&", "&amp;").replaceAll('"', "&quot;");
    byId("embed-code").value = `<iframe src="${source}" width="100%" height="640" title="charlm"></iframe>`;
    byId("share-hint").textContent = link.startsWith("file:")
      ? "The link opens this file where it lies. Put the file on a web server, and others can open the link, too."
      : "Who opens it sees the same texts: they are written again, by the same models with the same seed.";
    navigator.clipboard?.writeText(link).catch(() => {});
    byId("link").select();
  }
}

/** Return six panels, two for each of TEMPERATURES, in an element. */
function makeSmallPanels(element) {
  element.append(make("h2", "", "The same prompt and seed at three temperatures"));
  return TEMPERATURES.flatMap((temperature) => {
    const row = make("div", "sides");
    element.append(row);
    return ["a", "b"].map((side) => {
      const output = make("div", `side small ${side}`);
      output.id = `board-${side}-${temperature}`.replace(".", "-");
      output.append(make("div", "heat"));
      row.append(output);
      const panel = new Panel(output, null, `Model ${side.toUpperCase()} at ${temperature}`);
      return { panel, side: `model_${side}`, temperature };
    });
  });
}

function showValue(id) {
  byId(`${id}-value`).textContent = Number(byId(id).value).toString();
}

/** Return an error as a sentence. */
export function sentence(error) {
  const words = String(error?.message || error);
  const start = words.replace(/^[a-z](?=[a-z]*[ ,])/, (letter) => letter.toUpperCase()); // not a/b or a.b, names
  return start + (/[.!?]$/.test(words) ? "" : ".");
}

/** Put the names of the models into a list of choices. */
export function offerModels(select, chosen) {
  select.replaceChildren(
    ...models.map(({ name }) => {
      const option = make("option", "", readable(name));
      option.value = name;
      return option;
    }),
  );
  select.value = chosen;
}

/** Return those of PROMPTS whose symbols all models know. */
function knownPrompts() {
  const knows = (prompt) =>
    models.every(({ config }) => Array.from(prompt).every((each) => config.vocab.includes(each)));
  return PROMPTS.filter(knows);
}

/** Open the view. settings: of a shared text, which is written at once. */
export function openWrite(tell, settings) {
  offerModels(byId("model-a"), models[0].name);
  offerModels(byId("model-b"), models[Math.min(1, models.length - 1)].name);
  const view = new WriteView(tell);
  const prompts = knownPrompts();
  for (const prompt of prompts) {
    const button = make("button", "quiet", prompt.trim());
    button.type = "button";
    button.addEventListener("click", () => {
      byId("prompt").value = prompt;
      view.compareSettings();
    });
    byId("examples").append(button);
  }
  view.fill({ ...DEFAULTS, prompt: prompts[0] ?? "", ...settings });
  if (settings) view.generate();
  whenAdded(({ name }) => {
    for (const side of "ab") offerModels(byId(`model-${side}`), byId(`model-${side}`).value);
    const { settings: shared, problem } = readAddress(new URLSearchParams(location.search)); // it may name that model
    view.fill(shared ?? { model_a: name });
    if (shared) view.generate();
    else if (problem) tell(problem);
  });
}
