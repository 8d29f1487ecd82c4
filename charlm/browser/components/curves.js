/* Curves over epochs, seconds, characters or distances: drawn as SVG, read off by pointing or with the arrow keys. */

import { isShortcut, make, makeSvg, readable, save } from "./text.js";

// Model A's, model B's, and those of further models; see theme.css. Each model has a marker as well, since some readers
// cannot tell colours apart.
const COLOURS = ["--a", "--b", "--c", "--d", "--e", "--f", "--g", "--h"];
const MARKERS = [
  "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0-4 0Z", // circle
  "M-3.5-3.5H3.5V3.5H-3.5Z", // square
  "M0-4.5 4.5 3.5H-4.5Z", // triangle
  "M0-5 5 0 0 5-5 0Z", // diamond
  "M0 4.5 4.5-3.5H-4.5Z", // triangle, upside down
  "M-1.5-4.5H1.5V-1.5H4.5V1.5H1.5V4.5H-1.5V1.5H-4.5V-1.5H-1.5Z", // cross
  "M-4-2.5 0 4.5 4-2.5 0-4.5Z", // kite
  "M0-4.5 4.3-1.4 2.6 3.6H-2.6L-4.3-1.4Z", // pentagon
];
const MARKERS_ON_A_CURVE = 7;
const DASHES = { solid: "", dot: "2 4", dash: "8 5" };
const GREY = "#808080";
const LEAST_HEIGHT = 240; // pixels
const MARGIN = { left: 58, right: 18, top: 14, bottom: 44 };
const MOST_TICKS = 6; // as many as a phone has room for
const LEVEL = { stroke: "currentColor", "stroke-width": 1.5, "stroke-dasharray": "10 3 2 3" }; // of a published loss
// what marks a point at 0 0, and the box around it
const SIGNS = {
  star: { d: "M0-8 2-2.8 7.6-2.5 3.2 1 4.7 6.5 0 3.4-4.7 6.5-3.2 1-7.6-2.5-2-2.8Z", viewBox: "-9 -9 18 18" },
  arrow: { d: "M0-4-5-11H-2V-20H2V-11H5Z", viewBox: "-9 -21 18 18" }, // above the point
  bar: { d: "M-1.5-11H1.5V11H-1.5Z", viewBox: "-12 -12 24 24" },
};
/* Of an epoch, in the table of the curves; charlm/web/plots.py has the same. */
const COLUMNS = ["epoch", "train_loss", "val_loss", "unseen_loss", "learning_rate", "seconds", "chars_per_second"];
const MOST_EDITS = 50; // of the learning rate, of one record

/** The losses of an epoch, with their names and how their curves are drawn. */
export const LOSSES = {
  train_loss: ["training", "dot"],
  val_loss: ["validation", "solid"],
  unseen_loss: ["unseen text", "dash"],
};

/** How losses in nats per character are converted, by the name of the unit. */
export const LOSS_UNITS = {
  "nats per character": (nats) => nats,
  "bits per character": (nats) => nats / Math.LN2,
  perplexity: (nats) => Math.min(Math.exp(nats), Number.MAX_VALUE),
};

/** Where the epochs of a record lie, by the name of the axis. */
export const AXES = {
  epochs: (epochs) => epochs.map(({ epoch }) => epoch),
  seconds: (epochs) => sums(epochs.map(({ seconds }) => seconds)),
  "characters read": (epochs) => sums(epochs.map((epoch) => epoch.seconds * epoch.chars_per_second)),
};

function sums(values) {
  let sum = 0;
  return values.map((value) => (sum += value));
}

/** Return a record as if it and its earlier runs had been one, as `join_runs` of charlm/model/history.py does. */
export function joinRuns({ earlier_runs: earlier = [], ...history }) {
  const { run, best } = history;
  let before = 0;
  const starts = earlier.map(({ epochs }) => (before += epochs.length) + 1);
  const epochs = [...earlier.flatMap((each) => each.epochs), ...history.epochs];
  const edits = run.lr_edits?.map((edit) => ({ ...edit, epoch: edit.epoch + before }));
  return {
    ...history,
    run: edits ? { ...run, lr_edits: edits } : run,
    epochs: epochs.map((epoch, place) => ({ ...epoch, epoch: place + 1 })),
    best: { ...best, epoch: best.epoch + before },
    run_starts: starts,
  };
}

/** Return the colours of models, by their names, as numbers: 0 and 1 for models A and B, `sides`, if they are known. */
function coloursOf(names, sides = []) {
  const colours = new Map();
  let next = sides.length;
  for (const name of names) colours.set(name, sides.includes(name) ? sides.indexOf(name) : next++);
  return colours;
}

/** Return the chart of some training records, a list of [name, history]: their losses, with a star at the best epoch of
    each, an arrow at each epoch in which its learning rate was changed, and a bar at the first epoch of a further run.

    sides: the names of models A and B, if there are any. published: losses that others reached on the same text, each
    {name, loss, source}.
    A chart has the axes x and y, each {title, one, log, whole}, where one names a single value; series, each
    {name, colour, dash, points}, where a point is [x, y] with y null where there is none; marks, each
    {name, colour, at, sign}, where sign is one of SIGNS, by default a star, and a mark without a name is drawn but not
    listed; and levels, each {name, label, at}. Colours are numbers. A series of a record also has its model, its curve,
    and the epoch of each point. */
export function lossChart(records, { unit, axis, scale, sides, published = [] }) {
  const colours = coloursOf(
    records.map(([name]) => name),
    sides,
  );
  const convert = LOSS_UNITS[unit];
  const chart = {
    x: { title: axis, one: axis === "epochs" ? "epoch" : axis, whole: axis === "epochs" },
    y: { title: unit === "perplexity" ? unit : `loss (${unit})`, log: scale === "log" },
    series: [],
    marks: [],
    levels: published.map(({ name, loss, source }) => {
      const at = convert(loss);
      return { name: `${name}: ${figure(at)} (${source})`, label: name, at };
    }),
  };
  for (const [name, history] of records) {
    const { epochs } = history;
    const colour = colours.get(name);
    const places = AXES[axis](epochs);
    for (const [loss, [label, dash]] of Object.entries(LOSSES)) {
      const known = [...epochs.keys()].filter((place) => epochs[place][loss] != null);
      if (!known.length) continue;
      const points = known.map((place) => [places[place], convert(epochs[place][loss])]);
      const marked = { model: name, curve: loss, epochs: known.map((place) => epochs[place].epoch) };
      chart.series.push({ name: `${name}, ${label}`, colour, dash, points, ...marked });
    }
    const marks = marksOf(history, places, convert);
    chart.marks.push(...marks.map((mark) => ({ ...mark, name: mark.name && `${name}, ${mark.name}`, colour })));
  }
  return chart;
}

/** Return the marks of a record, each {name, at, sign}: its best epoch, the learning rates that were asked for, and the
    first epochs of further runs. Only the first of these has a name, with the epochs of all.

    places: of its epochs. convert: a function of a loss in nats. */
function marksOf({ epochs, best, run, run_starts: starts = [] }, places, convert) {
  const loss = convert(best.val_loss);
  const at = [places[epochs.findIndex(({ epoch }) => epoch === best.epoch)], loss];
  const edits = new Map(); // by the place of the epoch that an edit was made in, the last one in it
  for (const edit of (run?.lr_edits ?? []).slice(-MOST_EDITS)) {
    edits.set(epochs.findIndex(({ epoch }) => epoch >= edit.epoch), edit);
  }
  edits.delete(-1); // the run ended in that epoch
  const arrows = [...edits].map(([place, { epoch, lr }]) => ({
    name: `learning rate ${Number(lr.toPrecision(3))} in epoch ${epoch}`,
    at: [places[place], convert(epochs[place].train_loss)],
    sign: "arrow",
  }));
  const name =
    starts.length > 1 ? `further runs begin at epochs ${starts.join(", ")}` : `a further run begins at epoch ${starts[0]}`;
  const bars = starts.map((epoch, place) => ({
    name: place ? "" : name,
    at: [places[epoch - 1], convert(epochs[epoch - 1].val_loss)],
    sign: "bar",
  }));
  const isLost = starts.length > 0 && epochs[starts.at(-1) - 2].val_loss < best.val_loss;
  const label = isLost ? "best of the last run" : "best";
  return [{ name: `${label}: ${figure(loss)} at epoch ${best.epoch}`, at }, ...arrows, ...bars];
}

/** Return a number for a reader: four decimals where that is short enough. */
function figure(value) {
  return Math.abs(value) < 1e4 && (value === 0 || Math.abs(value) >= 1e-3) ? value.toFixed(4) : value.toExponential(2);
}

/** Return the smallest of 1, 2, 5, 10, 20, … times a power of ten that cuts a span into at most `most` parts. */
function tickStep(span, most) {
  const power = 10 ** Math.floor(Math.log10(span / most));
  return [1, 2, 5, 10].map((digit) => digit * power).find((step) => span / step <= most * (1 + 1e-9)) ?? 10 * power;
}

/** An axis from the lowest to the highest of its values: `at` gives a value's place, 0 to 1, `ticks` round values. */
class Axis {
  constructor(values, { log = false, whole = false } = {}) {
    this.log = log;
    this.whole = whole;
    const shown = values.filter((value) => this.shows(value)).map((value) => this.scaled(value));
    const [low, high] = [Math.min(...shown), Math.max(...shown)];
    this.low = shown.length ? low : 0;
    this.high = shown.length ? high : 1;
    if (!(this.high > this.low)) [this.low, this.high] = [this.low - 1, this.high + 1];
  }

  shows(value) {
    return Number.isFinite(value) && (!this.log || value > 0);
  }

  scaled(value) {
    return this.log ? Math.log10(value) : value;
  }

  at(value) {
    // halves, since the difference of two large numbers may overflow
    return (this.scaled(value) / 2 - this.low / 2) / (this.high / 2 - this.low / 2);
  }

  get ticks() {
    if (this.log && this.high - this.low >= 0.5) return this.powers();
    const [low, high] = this.log ? [10 ** this.low, 10 ** this.high] : [this.low, this.high];
    const span = high - low;
    if (!Number.isFinite(span)) return [low, high];
    let step = tickStep(span, MOST_TICKS);
    if (this.whole) step = Math.max(1, tickStep(Math.max(span, high), MOST_TICKS));
    const first = Math.ceil(low / step - 1e-9);
    const count = Math.floor(high / step + 1e-9) - first + 1;
    return Array.from({ length: Math.min(count, MOST_TICKS + 2) }, (_, place) => (first + place) * step);
  }

  /** Return the powers of ten on the axis, and two values between each two where there is room. */
  powers() {
    const digits = this.high - this.low < 2.5 ? [1, 2, 5] : [1];
    const step = Math.ceil((this.high - this.low) / MOST_TICKS);
    const ticks = [];
    for (let power = Math.floor(this.low); power <= this.high + 1e-9; power += step) {
      for (const digit of digits) ticks.push(digit * 10 ** power);
    }
    const isOnAxis = (tick) => Number.isFinite(tick) && this.at(tick) > -1e-9 && this.at(tick) < 1 + 1e-9;
    return ticks.filter(isOnAxis);
  }
}

const NUMBER = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, notation: "compact" });

function tickLabel(value) {
  const size = Math.abs(value);
  return value !== 0 && (size < 1e-3 || size >= 1e12) ? value.toExponential(0) : NUMBER.format(value);
}

/** The drawing of a chart, in an element that holds a `div` of the class `curves`.

    props.value: a chart, or {records, unit, axis, scale} for that of `lossChart`. After a change, `update` draws it. */
export class Curves {
  constructor(element, props) {
    Object.assign(this, { props, hidden: new Set(), cursor: -1, marked: [] });
    this.frame = element.querySelector(".curves");
    this.plot = make("div", "curves-plot");
    this.plot.tabIndex = 0;
    this.plot.setAttribute("role", "group");
    this.readout = make("div", "curves-readout");
    this.readout.setAttribute("role", "status");
    this.legend = make("div", "curves-legend");
    this.frame.replaceChildren(this.plot, this.readout, this.legend);
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerdown", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.move(-1));
    this.plot.addEventListener("keydown", (event) => this.type(event));
    this.plot.addEventListener("blur", () => this.move(-1));
    new ResizeObserver(() => this.draw()).observe(this.plot);
    this.frame.parentElement.curves = this; // where others find it
    this.update();
  }

  update() {
    const value = this.props.value ?? {};
    this.chart = value.records ? lossChart(value.records, value) : { x: {}, y: {}, series: [], ...value };
    this.chart = { marks: [], levels: [], ...this.chart };
    this.hasMarkers = new Set(this.chart.series.map(({ colour }) => colour)).size > 1;
    this.marked = [];
    this.list();
    this.draw();
  }

  /** Return the name of the colour of a model, a variable of theme.css, if its curves are drawn. */
  colourOf(model) {
    const series = this.chart.series.find((each) => each.model === model);
    return series && COLOURS[series.colour % COLOURS.length].slice(2);
  }

  get series() {
    return this.chart.series.filter(({ name }) => !this.hidden.has(name));
  }

  /** List the curves below the drawing, and what is marked there. While the curves are the same ones, their buttons and
      the cursor stay: a training brings new values twice a second. */
  list() {
    const drawn = this.chart.series.map(({ name, colour, dash }) => [name, colour, dash]);
    const listed = JSON.stringify([this.hasMarkers, drawn]);
    if (listed !== this.listed) this.listCurves();
    this.listed = listed;
    for (const entry of this.legend.querySelectorAll("span.curves-entry")) entry.remove();
    this.listMarks();
  }

  /** List the curves; a click hides or shows one. */
  listCurves() {
    this.cursor = -1;
    this.figures = new Map(); // the elements that show the values at the cursor, by the name of the curve
    const entries = this.chart.series.map(({ name, colour, dash }) => {
      const entry = make("button", "curves-entry");
      entry.type = "button";
      entry.setAttribute("aria-pressed", String(!this.hidden.has(name)));
      const sample = makeSvg("svg", { width: 26, height: 12, "aria-hidden": "true" });
      sample.append(makeSvg("path", { d: "M1 6H25", ...stroke(colour, dash) }));
      if (this.hasMarkers) sample.append(marker(colour, dash, [13, 6]));
      this.figures.set(name, make("strong"));
      entry.append(sample, make("span", "", readable(name)), this.figures.get(name));
      entry.addEventListener("click", () => {
        if (!this.hidden.delete(name)) this.hidden.add(name);
        entry.setAttribute("aria-pressed", String(!this.hidden.has(name)));
        this.draw();
      });
      return entry;
    });
    this.legend.replaceChildren(...entries);
    const names = this.chart.series.map(({ name }) => readable(name)).join("; ");
    this.plot.setAttribute("aria-label", `Curves: ${names || "none"}. The arrow keys read off their values.`);
  }

  listMarks() {
    const named = this.chart.marks.filter(({ name }) => name);
    const marks = named.map(({ name, colour, sign = "star" }) => {
      const { d, viewBox } = SIGNS[sign];
      const entry = make("span", "curves-entry");
      const sample = makeSvg("svg", { width: 26, height: 16, viewBox, "aria-hidden": "true" });
      sample.append(makeSvg("path", { d, fill: tint(colour) }));
      entry.append(sample, make("span", "", readable(name)));
      return entry;
    });
    const levels = this.chart.levels.map(({ name }) => {
      const entry = make("span", "curves-entry");
      const sample = makeSvg("svg", { width: 26, height: 8, "aria-hidden": "true" });
      sample.append(makeSvg("path", { d: "M1 4H25", ...LEVEL }));
      entry.append(sample, make("span", "", readable(name)));
      return entry;
    });
    this.legend.append(...marks, ...levels);
  }

  draw() {
    const { x, y, marks, levels } = this.chart;
    this.width = Math.max(this.plot.clientWidth, 240);
    this.height = Math.max(this.plot.clientHeight, LEAST_HEIGHT);
    const points = this.series.flatMap((series) => series.points);
    const best = marks.map(({ at }) => at);
    const places = points.map(([place]) => place).filter(Number.isFinite);
    this.places = [...new Set(places)].sort((one, other) => one - other);
    this.axes = [
      new Axis(this.places, x),
      new Axis([...[...points, ...best].map(([, value]) => value ?? NaN), ...levels.map(({ at }) => at)], y),
    ];
    this.drawing = makeSvg("svg", {
      viewBox: `0 0 ${this.width} ${this.height}`,
      width: this.width,
      height: this.height,
      fill: "none",
    });
    this.drawing.setAttribute("font-size", "12");
    this.drawing.style.display = "block"; // a line's height more would make the plot higher at each drawing
    this.drawing.setAttribute("aria-hidden", "true");
    this.drawAxes();
    for (const level of levels) this.drawLevel(level);
    for (const each of this.series) this.drawCurve(each);
    for (const { colour, at, sign = "star" } of marks) {
      if (!at.every((value, side) => this.axes[side].shows(value))) continue;
      const [left, top] = this.spot(at);
      const transform = `translate(${left} ${top})`;
      const mark = { d: SIGNS[sign].d, transform, fill: tint(colour), stroke: "var(--surface)" };
      this.drawing.append(makeSvg("path", mark));
    }
    this.spotlight = makeSvg("g", { class: "curves-spotlight" });
    this.needle = makeSvg("g", {});
    this.drawing.append(this.spotlight, this.needle);
    this.plot.replaceChildren(this.drawing);
    this.frame.dataset.x = x.log ? "log" : "linear";
    this.frame.dataset.y = y.log ? "log" : "linear";
    this.move(this.cursor);
    this.mark(this.marked);
  }

  /** Mark places on the curves, each {model, curve, first, last}, where first and last are epochs; none if empty. */
  mark(places) {
    this.marked = places;
    this.spotlight.replaceChildren();
    const concerned = new Set();
    for (const { model, curve, first, last } of places) {
      const series = this.series.find((each) => each.model === model && each.curve === curve);
      if (!series) continue;
      concerned.add(series.name);
      const points = series.points.filter(
        (point, place) =>
          series.epochs[place] >= first &&
          series.epochs[place] <= last &&
          point.every((value, side) => value !== null && this.axes[side].shows(value)),
      );
      const spots = points.map((point) => this.spot(point).join(" "));
      const stretch = { d: `M${spots.join("L")}`, "stroke-opacity": 0.35, ...stroke(series.colour), "stroke-width": 9 };
      if (spots.length > 1) this.spotlight.append(makeSvg("path", stretch));
      for (const spot of [spots[0], spots.at(-1)].filter(Boolean)) {
        const ring = { r: 8, transform: `translate(${spot})`, stroke: tint(series.colour), "stroke-width": 2.5 };
        this.spotlight.append(makeSvg("circle", ring));
      }
    }
    for (const drawn of this.drawing.querySelectorAll("[data-curve]")) {
      drawn.setAttribute("opacity", concerned.size && !concerned.has(drawn.dataset.curve) ? 0.25 : 1);
    }
  }

  /** Return the place of a point in the drawing, in pixels from the left and the top. */
  spot([place, value]) {
    const { left, right, top, bottom } = MARGIN;
    const across = left + this.axes[0].at(place) * (this.width - left - right);
    const height = this.height - bottom - this.axes[1].at(value) * (this.height - top - bottom);
    return [across, height].map((pixel) => pixel.toFixed(1));
  }

  drawAxes() {
    const { left, right, top, bottom } = MARGIN;
    const [floor, end] = [this.height - bottom, this.width - right];
    const text = (words, options) => {
      const label = makeSvg("text", { fill: "currentColor", ...options });
      label.textContent = words;
      this.drawing.append(label);
    };
    const line = (d) => this.drawing.append(makeSvg("path", { d, stroke: GREY, "stroke-opacity": 0.25 }));
    for (const tick of this.axes[1].ticks) {
      const height = floor - this.axes[1].at(tick) * (floor - top);
      line(`M${left} ${height.toFixed(1)}H${end}`);
      text(tickLabel(tick), { x: left - 8, y: height + 4, "text-anchor": "end" });
    }
    for (const tick of this.axes[0].ticks) {
      const across = left + this.axes[0].at(tick) * (end - left);
      line(`M${across.toFixed(1)} ${top}V${floor}`);
      text(tickLabel(tick), { x: across, y: floor + 18, "text-anchor": "middle", class: "curves-tick" });
    }
    text(this.chart.x.title ?? "", { x: (left + end) / 2, y: this.height - 6, "text-anchor": "middle" });
    const middle = (top + floor) / 2;
    text(this.chart.y.title ?? "", {
      x: 0,
      y: 0,
      "text-anchor": "middle",
      transform: `translate(13 ${middle}) rotate(-90)`,
    });
  }

  /** Draw a published loss as a line across the plot, with the name of its model. */
  drawLevel({ label, at }) {
    if (!this.axes[1].shows(at)) return;
    const [end, height] = [this.width - MARGIN.right, Number(this.spot([NaN, at])[1])];
    this.drawing.append(makeSvg("path", { d: `M${MARGIN.left} ${height}H${end}`, ...LEVEL }));
    const style = { "text-anchor": "end", "font-size": 11, fill: "currentColor" };
    const text = makeSvg("text", { x: end, y: height - 4, ...style });
    text.textContent = readable(label);
    this.drawing.append(text);
  }

  drawCurve({ name, points, colour, dash }) {
    const shown = points.map((point) => point.every((value, side) => value !== null && this.axes[side].shows(value)));
    const d = points.map((point, place) => {
      if (!shown[place]) return "";
      return `${shown[place - 1] ? "L" : "M"}${this.spot(point).join(" ")}`;
    });
    const curve = { "data-curve": name };
    const style = { "stroke-linejoin": "round", ...stroke(colour, dash) };
    this.drawing.append(makeSvg("path", { d: d.join(""), ...style, ...curve }));
    const step = Math.ceil(points.length / MARKERS_ON_A_CURVE);
    points.forEach((point, place) => {
      if (!shown[place]) return;
      const spot = this.spot(point);
      // curves that lie on one another have their markers side by side
      if (this.hasMarkers && place % step === colour % step) {
        const drawn = marker(colour, dash, spot);
        drawn.dataset.curve = name;
        this.drawing.append(drawn);
      }
      if (shown[place - 1] || shown[place + 1]) return; // a point between two others is on their line
      this.drawing.append(makeSvg("circle", { cx: spot[0], cy: spot[1], r: 3.5, fill: tint(colour), ...curve }));
    });
  }

  /** Read off the values at the place nearest to the pointer. */
  point(event) {
    if (!this.places.length) return;
    const { left } = this.plot.getBoundingClientRect();
    const across = event.clientX - left;
    const distances = this.places.map((place) => Math.abs(this.pixel(place) - across));
    this.move(distances.indexOf(Math.min(...distances)));
  }

  pixel(place) {
    return MARGIN.left + this.axes[0].at(place) * (this.width - MARGIN.left - MARGIN.right);
  }

  type(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -this.places.length, End: this.places.length }[event.key];
    if (step === undefined || !this.places.length || isShortcut(event)) return;
    event.preventDefault();
    this.move(Math.min(Math.max(this.cursor + step, 0), this.places.length - 1));
  }

  /** Show the values at a place, by its number; -1 for none. */
  move(cursor) {
    this.cursor = cursor < this.places.length ? cursor : -1;
    this.needle.replaceChildren();
    for (const shown of this.figures.values()) shown.textContent = "";
    if (this.cursor < 0) return this.tell("");
    const place = this.places[this.cursor];
    const across = this.pixel(place);
    const where = `${this.chart.x.one ?? ""} ${tickLabel(place)}`.trim();
    this.needle.append(
      makeSvg("path", { d: `M${across.toFixed(1)} ${MARGIN.top}V${this.height - MARGIN.bottom}`, stroke: GREY }),
    );
    const label = makeSvg("text", { x: across, y: MARGIN.top - 3, "text-anchor": "middle", fill: "currentColor" });
    label.textContent = where;
    this.needle.append(label);
    const said = [where];
    for (const { name, points, colour } of this.series) {
      const point = points.find(([each]) => each === place);
      if (!point || point[1] === null || !this.axes[1].shows(point[1])) continue;
      const [cx, cy] = this.spot(point);
      this.needle.append(makeSvg("circle", { cx, cy, r: 4, fill: tint(colour), stroke: "var(--surface)" }));
      this.figures.get(name).textContent = figure(point[1]);
      said.push(`${readable(name)} ${figure(point[1])}`);
    }
    this.tell(said.join("; "));
  }

  /** Say words in the line that a screen reader reads out at each change. */
  tell(words) {
    if (this.readout.textContent !== words) this.readout.textContent = words;
  }

  /** Download the numbers of every epoch as CSV. The value is of records, see `lossChart`. */
  saveCsv(name) {
    save(csvOf(this.props.value.records), name, "text/csv");
  }

  /** Download the drawing as a PNG. */
  async savePng(name) {
    const copy = this.drawing.cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("color", "var(--ink-soft)");
    copy.setAttribute("font-family", "sans-serif");
    copy.prepend(makeSvg("rect", { width: "100%", height: "100%", fill: "var(--surface)" }));
    this.chart.series.forEach(({ name: label, colour }, row) => {
      const text = makeSvg("text", {
        x: this.width - MARGIN.right,
        y: MARGIN.top + 12 + 15 * row,
        "text-anchor": "end",
        fill: tint(colour),
      });
      text.textContent = readable(label);
      copy.append(text);
    });
    const picture = new Image();
    const style = getComputedStyle(this.frame); // a picture has no variables of its own
    const drawn = new XMLSerializer().serializeToString(copy);
    const coloured = drawn.replaceAll(/var\((--[\w-]+)\)/g, (_, variable) => style.getPropertyValue(variable).trim());
    picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(coloured)}`;
    await picture.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: 2 * this.width, height: 2 * this.height });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    save(await new Promise((resolve) => canvas.toBlob(resolve)), name, "image/png");
  }
}

/** Return the numbers of every epoch of some records as CSV, with a heading. */
function csvOf(records) {
  // spreadsheets read a cell that begins with one of these as a formula
  const cell = (value) => {
    const words = /^[=+@-]/.test(String(value)) && typeof value === "string" ? `'${value}` : String(value ?? "");
    return /[",\r\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
  };
  const rows = records.flatMap(([name, { epochs }]) =>
    epochs.map((epoch) => [name, ...COLUMNS.map((column) => epoch[column])]),
  );
  return [["model", ...COLUMNS], ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
}

function tint(colour) {
  return `var(${COLOURS[colour % COLOURS.length]})`;
}

/** Return the marker of a model at a spot; on a dotted curve it is hollow. */
function marker(colour, dash, [left, top]) {
  const fill = dash === "dot" ? "var(--surface)" : tint(colour);
  const d = MARKERS[colour % MARKERS.length];
  const transform = `translate(${left} ${top})`;
  return makeSvg("path", { d, transform, fill, stroke: tint(colour), "stroke-width": 1.5 });
}

function stroke(colour, dash) {
  return { stroke: tint(colour), "stroke-width": 2, ...(DASHES[dash] ? { "stroke-dasharray": DASHES[dash] } : {}) };
}
