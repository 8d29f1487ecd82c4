/* The fields of *Look inside* that choose a unit, and by what the texts are coloured. */

import { gatesOfCell } from "./components/cell.js";
import { SIDES } from "./components/heat.js";
import { showLegend } from "./components/legend.js";
import { byId, fillSelect } from "./components/text.js";

export const SURPRISAL = "surprisal";
export const DIFFERENCE = "difference";
export const FIRST_UNIT = { model: 0, layer: Infinity, unit: 0 }; // of the last layer
const FIELDS = ["unit-model", "unit-layer", "unit-number", "unit-slider"];

/** The fields.

    configs: returns the configurations of model A and model B. onChange: called when another unit or colour is chosen.
    unit: the one that is chosen, {model, layer, unit}, model A being 0. */
export class UnitFields {
  constructor({ configs, onChange }) {
    Object.assign(this, { configs, onChange, unit: FIRST_UNIT });
    byId("colour").addEventListener("change", () => {
      this.showLegend();
      onChange();
    });
    for (const id of FIELDS) byId(id).addEventListener("input", ({ target }) => this.read(target));
  }

  /** Return by what the texts are coloured: SURPRISAL, DIFFERENCE, or the name of a gate or state of the unit. */
  get colour() {
    return byId("colour").value;
  }

  set colour(name) {
    if (![...byId("colour").options].some(({ value }) => value === name)) return;
    byId("colour").value = name;
    this.showLegend();
  }

  /** Return whether the unit is the one that is shown at first. */
  get isFirst() {
    const { model, layer, unit } = this.unit;
    return model === FIRST_UNIT.model && layer === this.configs()[0].num_layers - 1 && unit === FIRST_UNIT.unit;
  }

  /** Return whether a gate of the unit's cell is a sigmoid. */
  isSigmoid(gate) {
    return Boolean(this.gates().find(([name]) => name === gate)?.[2]);
  }

  gates() {
    return gatesOfCell(this.configs()[this.unit.model].cell);
  }

  read({ id, value }) {
    const number = Math.trunc(Number(id === "unit-slider" ? value : byId("unit-number").value));
    const unit = Math.max(Number.isFinite(number) ? number : 0, 0);
    this.choose({ model: Number(byId("unit-model").value), layer: Number(byId("unit-layer").value), unit });
    this.onChange();
  }

  /** Choose a unit: the last one, of the last layer, if there are not so many. */
  choose({ model, layer, unit }) {
    const { num_layers: layers, hidden_size: units } = this.configs()[model];
    this.unit = { model, layer: Math.min(layer, layers - 1), unit: Math.min(unit, units - 1) };
    const numbers = Array.from({ length: layers }, (_, number) => [number, `layer ${number}`]);
    fillSelect(byId("unit-layer"), numbers, this.unit.layer);
    byId("unit-model").value = model;
    for (const id of ["unit-number", "unit-slider"]) Object.assign(byId(id), { max: units - 1, value: this.unit.unit });
    byId("unit-count").textContent = `0 to ${units - 1}`;
    const ofUnit = this.gates().map(([name, called]) => [name, `unit: ${name}, ${called}`]);
    const colours = [[SURPRISAL, "surprisal"], [DIFFERENCE, "difference of the two surprisals"], ...ofUnit];
    fillSelect(byId("colour"), colours, colours.some(([name]) => name === this.colour) ? this.colour : SURPRISAL);
    this.showLegend();
  }

  /** Show what the weakest and the strongest colour stand for. */
  showLegend() {
    const { colour, unit } = this;
    const isOfTexts = [SURPRISAL, DIFFERENCE].includes(colour);
    const kind = isOfTexts ? colour : this.isSigmoid(colour) ? "gate" : "activation";
    showLegend(byId("legend"), kind, SIDES[unit.model]);
  }
}
