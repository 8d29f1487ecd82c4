/* A stretch of a text, the units that are on there and off beside it, and the other places where these units are on
   (Strobelt et al., "LSTMVis", 2018). */

import { grouped, isShortcut, make, named, percentOf, readable } from "./text.js";

const FIRST_THRESHOLD = 0.3;
const SETTLED = 250; // milliseconds without a change after which a selection or a threshold is taken
const SHOWN_UNITS = 12; // the others are counted
const CONTEXT = 14; // characters shown on either side of a place
const LONGEST_STRETCH = 60; // characters of a stretch that are shown
const SELECT_HINT =
  "Select part of the text, such as a name or a word: with the mouse, or with Shift and the arrow keys.";

/** Lets the visitor select a stretch of a HeatText: with the mouse or a finger, or with Shift and the arrow keys.

    onSelect: called with {start, end}, the places of the first character and of the one after the last. */
export class StretchPicker {
  constructor(heatText, onSelect) {
    Object.assign(this, { heatText, onSelect, anchor: -1, timer: 0 });
    const { text } = heatText;
    text.setAttribute("aria-description", "Shift and the arrow keys select a stretch");
    text.addEventListener("keydown", (event) => this.begin(event), { capture: true }); // before the cursor moves
    text.addEventListener("keydown", (event) => this.extend(event));
    document.addEventListener("selectionchange", () => this.settle(() => this.takeSelection()));
  }

  begin({ shiftKey }) {
    if (!shiftKey) this.anchor = -1;
    else if (this.anchor < 0) this.anchor = Math.max(this.heatText.cursor, 0);
  }

  extend(event) {
    const isExtending = event.shiftKey && /^(Arrow|Home|End)/.test(event.key) && !isShortcut(event);
    if (!isExtending || this.heatText.cursor < 0) return;
    const { cursor } = this.heatText;
    const [start, end] = [Math.min(this.anchor, cursor), Math.max(this.anchor, cursor) + 1];
    this.mark(start, end);
    this.settle(() => this.onSelect({ start, end }));
  }

  /** Do what a change asks for, unless another change follows soon. */
  settle(action) {
    clearTimeout(this.timer);
    this.timer = setTimeout(action, SETTLED);
  }

  /** Take what is selected in the browser's own way. */
  takeSelection() {
    const selection = document.getSelection();
    if (!selection.rangeCount || selection.isCollapsed) return;
    const range = selection.getRangeAt(0);
    const { text } = this.heatText;
    if (!text.contains(range.startContainer) || !text.contains(range.endContainer)) return;
    const spans = [...text.children].filter((span) => isSelected(range, span));
    const places = spans.map((span) => Number(span.dataset.place));
    if (!places.length) return;
    const [start, end] = [places[0], places.at(-1) + 1];
    this.mark(start, end);
    this.onSelect({ start, end });
  }

  /** Mark a stretch in the text; -1, -1 marks none. */
  mark(start, end) {
    const { children } = this.heatText.text;
    for (const span of this.heatText.text.querySelectorAll(".picked")) span.classList.remove("picked");
    for (let place = Math.max(start, 0); place < Math.min(end, children.length); place++) {
      children[place].classList.add("picked");
    }
  }
}

/** Return whether a range holds some of a character: one that it only touches does not count. */
function isSelected(range, span) {
  const around = document.createRange();
  around.selectNodeContents(span);
  return (
    range.compareBoundaryPoints(Range.START_TO_END, around) > 0 &&
    range.compareBoundaryPoints(Range.END_TO_START, around) < 0
  );
}

/** A panel in an element, which says what a stretch has in common with other places.

    search: called with {start, end, threshold}; returns a promise of one of: {units, places} as `CharLM.findPattern`
      returns them, with `searched` (how many characters were searched) if the search can end early; {error: a
      sentence}; undefined, if a later search has replaced this one.
    onPlace: called with the start and the end of a place that is chosen. onUnit: with a unit, [layer, unit].
    value: {title, symbols, shown, start, end, units}: the model, the characters of the text that is searched, how many
      of them are on the page, the stretch, and how many units the model has. */
export class PatternPanel {
  constructor(element, { search, onPlace = () => {}, onUnit = () => {} }) {
    Object.assign(this, { search, onPlace, onUnit, value: null, asked: 0, timer: 0 });
    element.classList.add("pattern");
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", "A pattern: what a stretch of the text has in common with others");
    this.title = make("p", "pattern-title");
    this.line = make("p", "pattern-line");
    this.line.setAttribute("role", "status");
    this.units = make("div", "pattern-units");
    this.list = make("ol", "pattern-places");
    element.replaceChildren(this.title, this.makeThreshold(), this.line, this.units, this.list);
    element.patternPanel = this;
    this.show(null);
  }

  makeThreshold() {
    this.slider = make("input");
    Object.assign(this.slider, { type: "range", min: 0, max: 0.95, step: 0.05, value: FIRST_THRESHOLD });
    this.output = make("output", "", FIRST_THRESHOLD.toFixed(2));
    const label = make("label", "pattern-threshold", "Threshold ");
    label.title = "A unit is on where its hidden state is above this";
    label.append(this.output, this.slider);
    this.slider.addEventListener("input", () => {
      this.output.textContent = Number(this.slider.value).toFixed(2);
      clearTimeout(this.timer); // a slider that is pulled passes many values, and a search can take seconds
      this.timer = setTimeout(() => this.ask(), SETTLED);
    });
    this.threshold = label;
    return label;
  }

  /** Show a stretch, and search for it; null shows how to select one. */
  show(value) {
    clearTimeout(this.timer);
    this.value = value;
    this.threshold.hidden = !value;
    if (value) return this.ask();
    this.asked++; // an answer that is under way belongs to what was shown before
    this.title.replaceChildren(make("b", "", "Pattern"));
    this.line.textContent = SELECT_HINT;
    this.units.replaceChildren();
    this.list.replaceChildren();
  }

  async ask() {
    if (!this.value) return;
    const asked = ++this.asked;
    const { title, symbols, start, end } = this.value;
    const stretch = shortened(symbols.slice(start, end));
    this.title.replaceChildren(make("b", "", "Pattern"), ` ${stretch} · ${readable(title)}`);
    const found = await this.search({ start, end, threshold: Number(this.slider.value) });
    if (asked === this.asked && found) this.tell(found);
  }

  tell({ units = [], places = [], searched, error }) {
    const then = units.length ? this.describePlaces(places, searched) : ". Try another threshold.";
    this.line.textContent = error ?? this.describeUnits(units) + then;
    this.units.replaceChildren(...units.slice(0, SHOWN_UNITS).map((unit) => this.makeUnit(unit)));
    if (units.length > SHOWN_UNITS) this.units.append(make("span", "", `and ${units.length - SHOWN_UNITS} more`));
    this.list.replaceChildren(...places.map((place) => this.makePlace(place)));
  }

  describeUnits(units) {
    const { symbols, start, end, units: total } = this.value;
    const stretch = end - start === 1 ? "on at this character" : "on all along";
    const beside = [start > 0 && "before", end < symbols.length && "after"].filter(Boolean).join(" and ");
    const off = beside ? `, and off just ${beside} it` : "";
    return `${grouped(units.length)} of ${grouped(total)} units are ${stretch}${off}`;
  }

  describePlaces(places, searched = Infinity) {
    const { symbols, shown } = this.value;
    const others = `; ${places.length || "no"} other place${places.length === 1 ? "" : "s"} of the text`;
    const beyond = places.filter(([start]) => start >= shown).length;
    const unseen = beyond ? `, ${beyond} of them after the ${grouped(shown)} characters that are shown` : "";
    const isCut = searched < symbols.length;
    const read = `${grouped(searched)} of ${grouped(symbols.length)} characters were searched`;
    return `${others}${unseen}.${isCut ? ` The search took too long and was ended: ${read}.` : ""}`;
  }

  makeUnit([layer, unit]) {
    const button = make("button", "pattern-unit", `${layer}:${unit}`);
    button.type = "button";
    button.setAttribute("aria-label", `Look at unit ${unit} of layer ${layer}`);
    button.addEventListener("click", () => this.onUnit([layer, unit]));
    return button;
  }

  makePlace([start, end, share]) {
    const { symbols, shown: onPage } = this.value;
    const row = make(start < onPage ? "button" : "div", "pattern-place");
    const words = make("span", "pattern-words");
    const shown = (first, last) => inOneRow(symbols.slice(Math.max(first, 0), last));
    words.append(shown(start - CONTEXT, start), make("mark", "", shown(start, end)), shown(end, end + CONTEXT));
    row.append(words, make("span", "pattern-share", percentOf(share, 0)));
    row.title = `${percentOf(share, 0)} of the units are on here`;
    if (start < onPage) {
      row.type = "button";
      row.addEventListener("click", () => this.onPlace(start, end));
    } else row.title += `, at character ${grouped(start + 1)}`;
    const entry = make("li");
    entry.append(row);
    return entry;
  }
}

const BREAKS = { "\n": "↵", "\t": "⇥" };
const inOneRow = (symbols) => readable(symbols.map((symbol) => BREAKS[symbol] ?? symbol).join(""));

/** Return a stretch in quotes, shortened. */
function shortened(symbols) {
  if (symbols.length === 1) return named(symbols[0]);
  const isLong = symbols.length > LONGEST_STRETCH;
  return `“${inOneRow(symbols.slice(0, LONGEST_STRETCH))}${isLong ? "…" : ""}”`;
}
