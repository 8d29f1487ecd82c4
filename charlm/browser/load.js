/* A model that the page's address names, `?model=USER/NAME[@REVISION]`: described, and loaded from the Hub if the visitor
   wants that. */

import { megabytes } from "./hub.js";
import { addModel, loadEngine, models, openHub } from "./models.js";
import { announceAtRest } from "./components/announce.js";
import { joinRuns } from "./components/curves.js";
import { pinModel } from "./components/state.js";
import { byId, grouped, make, makeLine, readable, sentence, shareLoaded } from "./components/text.js";

const LABELS = { rnn: "CharRNN", lstm: "CharLSTM", gru: "CharGRU" };
const FORMAT = { model_type: "charlm", format_version: 1 }; // what config.json says besides the fields of a model
const UNSTATED = ["", "not-stated"]; // the second by the card of a model whose author has stated none

/** Describe a model below the notices and offer to load it; one that this browser has kept is loaded at once. */
export async function offerModel(name) {
  const panel = new LoadPanel();
  try {
    const found = await (await openHub()).describe(name);
    const here = models.find(({ address }) => address === found.address);
    if (here) return panel.end(`${here.name} is among the models of this page.`);
    panel.describe(found);
    if (found.isKept) await panel.load();
  } catch (error) {
    panel.end(sentence(error));
  }
}

/** What is shown of the model. found: its description. running: the AbortController of the download, if there is one. */
class LoadPanel {
  constructor() {
    this.element = make("section", "notice");
    this.element.id = "load";
    this.element.setAttribute("aria-label", "A model from the Hub");
    this.card = make("div");
    this.card.id = "load-card";
    this.status = make("p", "hint figures");
    this.status.id = "load-status";
    this.status.tabIndex = -1;
    announceAtRest(this.status); // the share that is loaded changes all the time
    this.button = make("button", "primary", "Load");
    Object.assign(this.button, { id: "load-go", type: "button", hidden: true });
    this.button.addEventListener("click", () => (this.running ? this.running.abort() : this.load()));
    this.element.append(this.card, this.button, this.status);
    byId("notices").after(this.element);
  }

  /** Show the size, the figures and the licence. */
  describe(found) {
    this.found = found;
    const { repo, commit, size, figures, license } = found;
    const known = Object.entries(figures).map(([figure, value]) => `${figure}: ${value.toFixed(4)}`);
    if (license) known.push(`licence: ${license}`);
    const lines = [`${repo}, commit ${commit.slice(0, 7)}: ${megabytes(size)} to download.`, known.join(" · ")];
    this.card.replaceChildren(...lines.filter(Boolean).map(makeLine));
    this.button.hidden = false;
  }

  /** Load the model, and add it to those of the page. */
  async load() {
    const running = (this.running = new AbortController());
    this.button.textContent = "Cancel";
    this.say("Loading");
    try {
      const { CharLM } = await loadEngine();
      const hub = await openHub();
      const onProgress = (...progress) => this.say(shareLoaded(...progress));
      const { signal } = running;
      const lm = await hub.load(this.found, (files) => CharLM.from(files, { name: this.found.name, signal }), { onProgress, signal });
      const entry = describeModel(this.found, lm);
      pinModel(entry.loadedAs);
      addModel(entry, lm);
      // the field is empty until *Write* is opened, which then begins with this model
      const isA = ["", entry.name].includes(byId("model-a").value);
      const where = isA ? "it is model A of Write, and can be chosen in the other views" : "it can be chosen in all views";
      const said = `${entry.name} is loaded: ${where}.`;
      this.end(`${said} ${lm.historyProblem ? sentence({ message: lm.historyProblem }) : ""}`);
    } catch (error) {
      this.say(running.signal.aborted ? "" : sentence(error));
    }
    this.running = null;
    this.button.textContent = "Load";
  }

  /** Show how it ended, in place of the description. The focus goes from the button to that. */
  end(words) {
    this.card.replaceChildren();
    if (this.button === document.activeElement) this.status.focus();
    this.button.hidden = true;
    this.say(words);
  }

  say(words) {
    this.status.textContent = readable(words.trim());
  }
}

/** Return the entry of a model that was loaded, as `page_data` of charlm/browser/page.py makes those of a page. */
export function describeModel(found, lm) {
  const { repo, commit, address, license, sizes } = found;
  const { config, history, parameters } = lm;
  const label = LABELS[config.cell];
  return {
    name: `${repo}@${commit.slice(0, 7)}`,
    about: `${label} ${config.num_layers}×${config.hidden_size} · ${grouped(parameters)} parameters`,
    card: makeCardLines(label, lm, license, `${repo}@${commit}`),
    license,
    source: `${repo}@${commit}`,
    address,
    size: sizes["model.safetensors"],
    sha256: config.weights_sha256,
    config: { ...FORMAT, ...config },
    history: history && joinRuns(history),
    loadedAs: `${repo}@${commit}`,
  };
}

/** Return the card of a model in short, in the sentences of `_card` in charlm/browser/page.py. */
function makeCardLines(label, { config, history, parameters, vocab }, license, source) {
  const layers = config.num_layers === 1 ? "1 layer" : `${config.num_layers} layers`;
  const units = config.hidden_size === 1 ? "unit" : "units";
  return [
    `${label}: ${layers} of ${config.hidden_size} ${config.cell.toUpperCase()} ${units} over an embedding of ` +
      `${config.embedding_size}, ${grouped(parameters)} parameters, ${grouped(vocab.length)} symbols.`,
    ...(history ? [resultsOf(history)] : []),
    "It writes text in the style of its training text, and may repeat passages of it. It knows no facts and follows no " +
      "instructions.",
    `From the Hub: ${source}.`,
    UNSTATED.includes(license)
      ? "Its author has stated no licence: ask before you use it for more than a trial."
      : `Licence: ${license}.`,
  ];
}

function resultsOf({ run, best, epochs }) {
  const { val_loss: loss, unseen_loss: unseen } = epochs[best.epoch - 1];
  const begin = `Trained on ${run.text ?? "a text"}; after epoch ${best.epoch} of ${epochs.length} its`;
  const measured = (nats) => `${nats.toFixed(4)} nats per character, ${(nats / Math.LN2).toFixed(4)} bits.`;
  if (run.protocol !== "windows") return `${begin} validation loss is ${measured(loss)}`;
  if ((unseen ?? null) === null) return `${begin} validation loss, which leaks, is ${loss.toFixed(4)} nats per character.`;
  return `${begin} loss on text that it never saw is ${measured(unseen)}`;
}
