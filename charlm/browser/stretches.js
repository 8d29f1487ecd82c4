/* Stretches of the texts of *Look inside*: selecting one, and what it has in common with other places. */

import { SIDES } from "./components/heat.js";
import { PatternPanel, StretchPicker } from "./components/pattern.js";
import { byId, sentence } from "./components/text.js";

/** The panel of a pattern, with the texts in which a stretch can be selected.

    texts: the HeatTexts of model A and model B. onPlace: called with a place that is chosen. onUnit: with a unit that
      is, {model, layer, unit}.
    seen: the Inspected that is searched. model: whose text the stretch was selected in, A being 0. */
export class Stretches {
  constructor(texts, { onPlace, onUnit }) {
    this.pickers = texts.map((text, model) => new StretchPicker(text, (stretch) => this.show(model, stretch)));
    this.panel = new PatternPanel(byId("pattern"), {
      search: (request) => this.search(request),
      onPlace,
      onUnit: ([layer, unit]) => onUnit({ model: this.model, layer, unit }),
    });
  }

  /** Take another text, in which nothing is selected. */
  reset(seen) {
    this.seen = seen;
    for (const picker of this.pickers) picker.mark(-1, -1);
    this.panel.show(null);
  }

  show(model, { start, end }) {
    const { seen } = this;
    if (!seen) return;
    this.model = model;
    this.pickers[1 - model].mark(-1, -1);
    byId("pattern").dataset.side = SIDES[model];
    const { num_layers: layers, hidden_size: units } = seen.lms[model].config;
    const text = { title: seen.names[model], symbols: seen.searched, shown: seen.symbols.length };
    this.panel.show({ ...text, start, end, units: layers * units });
  }

  /** Search the text, and no longer for what was asked for before. */
  async search(request) {
    this.searching?.abort();
    const { signal } = (this.searching = new AbortController());
    try {
      return await this.seen.findPattern(this.model, { ...request, signal });
    } catch (error) {
      return signal.aborted ? undefined : { error: sentence(error) };
    }
  }
}
