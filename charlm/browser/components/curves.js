/* Curves over epochs, seconds, characters or distances: drawn as SVG, read off by pointing or with the arrow keys. */

import { make, readable, save } from "./text.js";

// distinguishable on light and dark backgrounds, and for the colour-blind
const COLOURS = ["#3b82f6", "#f97316", "#10b981", "#a855f7", "#eab308", "#ec4899", "#14b8a6", "#8b5cf6"];
const DASHES = { solid: "", dot: "2 4", dash: "8 5" };
const GREY = "#808080";
const HEIGHT = 340; // pixels
const MARGIN = { left: 58, right: 18, top: 14, bottom: 44 };
const MOST_TICKS = 6; // as many as a phone has room for
const STAR = "M0-8 2-2.8 7.6-2.5 3.2 1 4.7 6.5 0 3.4-4.7 6.5-3.2 1-7.6-2.5-2-2.8Z";

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

/** Return the chart of some training records, a list of [name, history]: their losses, the best epoch of each marked.

    A chart has the axes x and y, each {title, one, log, whole}, where one names a single value; series, each
    {name, colour, dash, points}, where a point is [x, y] with y null where there is none; and marks, each
    {name, colour, at}. Colours are numbers. */
export function lossChart(records, { unit, axis, scale }) {
  const convert = LOSS_UNITS[unit];
  const chart = {
    x: { title: axis, one: axis === "epochs" ? "epoch" : axis, whole: axis === "epochs" },
    y: { title: unit === "perplexity" ? unit : `loss (${unit})`, log: scale === "log" },
    series: [],
    marks: [],
  };
  records.forEach(([name, { epochs, best }], colour) => {
    const places = AXES[axis](epochs);
    for (const [loss, [label, dash]] of Object.entries(LOSSES)) {
      const known = epochs.flatMap((epoch, place) =>
        epoch[loss] == null ? [] : [[places[place], convert(epoch[loss])]],
      );
      if (known.length) chart.series.push({ name: `${name}, ${label}`, colour, dash, points: known });
    }
    const place = places[epochs.findIndex(({ epoch }) => epoch === best.epoch)];
    const loss = convert(best.val_loss);
    chart.marks.push({ name: `${name}, best: ${figure(loss)} at epoch ${best.epoch}`, colour, at: [place, loss] });
  });
  return chart;
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
export class Axis {
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
    Object.assign(this, { props, hidden: new Set(), cursor: -1 });
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
    element.curves = this;
    this.update();
  }

  update() {
    const value = this.props.value ?? {};
    this.chart = value.records ? lossChart(value.records, value) : { x: {}, y: {}, series: [], marks: [], ...value };
    this.cursor = -1;
    this.list();
    this.draw();
  }

  get series() {
    return this.chart.series.filter(({ name }) => !this.hidden.has(name));
  }

  /** List the curves below the drawing; a click hides or shows one. */
  list() {
    this.figures = new Map(); // the elements that show the values at the cursor, by the name of the curve
    const entries = this.chart.series.map(({ name, colour, dash }) => {
      const entry = make("button", "curves-entry");
      entry.type = "button";
      entry.setAttribute("aria-pressed", String(!this.hidden.has(name)));
      const sample = svg("svg", { width: 26, height: 8, "aria-hidden": "true" });
      sample.append(svg("path", { d: "M1 4H25", ...stroke(colour, dash) }));
      this.figures.set(name, make("strong"));
      entry.append(sample, make("span", "", readable(name)), this.figures.get(name));
      entry.addEventListener("click", () => {
        if (!this.hidden.delete(name)) this.hidden.add(name);
        entry.setAttribute("aria-pressed", String(!this.hidden.has(name)));
        this.draw();
      });
      return entry;
    });
    const marks = this.chart.marks.map(({ name, colour }) => {
      const entry = make("span", "curves-entry");
      const sample = svg("svg", { width: 26, height: 16, viewBox: "-9 -9 18 18", "aria-hidden": "true" });
      sample.append(svg("path", { d: STAR, fill: tint(colour) }));
      entry.append(sample, make("span", "", readable(name)));
      return entry;
    });
    this.legend.replaceChildren(...entries, ...marks);
    const names = this.chart.series.map(({ name }) => readable(name)).join("; ");
    this.plot.setAttribute("aria-label", `Curves: ${names || "none"}. The arrow keys read off their values.`);
  }

  draw() {
    const { x, y, marks } = this.chart;
    this.width = Math.max(this.plot.clientWidth, 240);
    const points = this.series.flatMap((series) => series.points);
    const best = marks.map(({ at }) => at);
    const places = points.map(([place]) => place).filter(Number.isFinite);
    this.places = [...new Set(places)].sort((one, other) => one - other);
    this.axes = [
      new Axis(this.places, x),
      new Axis(
        [...points, ...best].map(([, value]) => value ?? NaN),
        y,
      ),
    ];
    this.drawing = svg("svg", {
      viewBox: `0 0 ${this.width} ${HEIGHT}`,
      width: this.width,
      height: HEIGHT,
      fill: "none",
    });
    this.drawing.setAttribute("font-size", "12");
    this.drawing.setAttribute("aria-hidden", "true");
    this.drawAxes();
    for (const each of this.series) this.drawCurve(each);
    for (const { colour, at } of marks) {
      if (!at.every((value, side) => this.axes[side].shows(value))) continue;
      const [left, top] = this.spot(at);
      this.drawing.append(
        svg("path", { d: STAR, transform: `translate(${left} ${top})`, fill: tint(colour), stroke: "#fff" }),
      );
    }
    this.needle = svg("g", {});
    this.drawing.append(this.needle);
    this.plot.replaceChildren(this.drawing);
    this.frame.dataset.x = x.log ? "log" : "linear";
    this.frame.dataset.y = y.log ? "log" : "linear";
    this.move(this.cursor);
  }

  /** Return the place of a point in the drawing, in pixels from the left and the top. */
  spot([place, value]) {
    const { left, right, top, bottom } = MARGIN;
    const across = left + this.axes[0].at(place) * (this.width - left - right);
    return [across, HEIGHT - bottom - this.axes[1].at(value) * (HEIGHT - top - bottom)].map((pixel) =>
      pixel.toFixed(1),
    );
  }

  drawAxes() {
    const { left, right, top, bottom } = MARGIN;
    const [floor, end] = [HEIGHT - bottom, this.width - right];
    const text = (words, options) => {
      const label = svg("text", { fill: "currentColor", ...options });
      label.textContent = words;
      this.drawing.append(label);
    };
    const line = (d) => this.drawing.append(svg("path", { d, stroke: GREY, "stroke-opacity": 0.25 }));
    for (const tick of this.axes[1].ticks) {
      const height = HEIGHT - bottom - this.axes[1].at(tick) * (HEIGHT - top - bottom);
      line(`M${left} ${height.toFixed(1)}H${end}`);
      text(tickLabel(tick), { x: left - 8, y: height + 4, "text-anchor": "end" });
    }
    for (const tick of this.axes[0].ticks) {
      const across = left + this.axes[0].at(tick) * (end - left);
      line(`M${across.toFixed(1)} ${top}V${floor}`);
      text(tickLabel(tick), { x: across, y: floor + 18, "text-anchor": "middle", class: "curves-tick" });
    }
    text(this.chart.x.title ?? "", { x: (left + end) / 2, y: HEIGHT - 6, "text-anchor": "middle" });
    const middle = (top + floor) / 2;
    text(this.chart.y.title ?? "", {
      x: 0,
      y: 0,
      "text-anchor": "middle",
      transform: `translate(13 ${middle}) rotate(-90)`,
    });
  }

  drawCurve({ points, colour, dash }) {
    const shown = points.map((point) => point.every((value, side) => value !== null && this.axes[side].shows(value)));
    const d = points.map((point, place) => {
      if (!shown[place]) return "";
      return `${shown[place - 1] ? "L" : "M"}${this.spot(point).join(" ")}`;
    });
    this.drawing.append(svg("path", { d: d.join(""), "stroke-linejoin": "round", ...stroke(colour, dash) }));
    points.forEach((point, place) => {
      if (!shown[place] || shown[place - 1] || shown[place + 1]) return; // a point between two others is on their line
      const [cx, cy] = this.spot(point);
      this.drawing.append(svg("circle", { cx, cy, r: 3.5, fill: tint(colour) }));
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
    if (step === undefined || !this.places.length) return;
    event.preventDefault();
    this.move(Math.min(Math.max(this.cursor + step, 0), this.places.length - 1));
  }

  /** Show the values at a place, by its number; -1 for none. */
  move(cursor) {
    this.cursor = cursor < this.places.length ? cursor : -1;
    this.needle.replaceChildren();
    for (const shown of this.figures.values()) shown.textContent = "";
    if (this.cursor < 0) return this.readout.replaceChildren();
    const place = this.places[this.cursor];
    const across = this.pixel(place);
    const where = `${this.chart.x.one ?? ""} ${tickLabel(place)}`.trim();
    this.needle.append(
      svg("path", { d: `M${across.toFixed(1)} ${MARGIN.top}V${HEIGHT - MARGIN.bottom}`, stroke: GREY }),
    );
    const label = svg("text", { x: across, y: MARGIN.top - 3, "text-anchor": "middle", fill: "currentColor" });
    label.textContent = where;
    this.needle.append(label);
    const said = [where];
    for (const { name, points, colour } of this.series) {
      const point = points.find(([each]) => each === place);
      if (!point || point[1] === null || !this.axes[1].shows(point[1])) continue;
      const [cx, cy] = this.spot(point);
      this.needle.append(svg("circle", { cx, cy, r: 4, fill: tint(colour), stroke: "#fff" }));
      this.figures.get(name).textContent = figure(point[1]);
      said.push(`${readable(name)} ${figure(point[1])}`);
    }
    this.readout.textContent = said.join("; ");
  }

  /** Download the drawing as a PNG. */
  async savePng(name) {
    const copy = this.drawing.cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("color", "#404040");
    copy.setAttribute("font-family", "sans-serif");
    copy.prepend(svg("rect", { width: "100%", height: "100%", fill: "#fff" }));
    this.chart.series.forEach(({ name: label, colour }, row) => {
      const text = svg("text", {
        x: this.width - MARGIN.right,
        y: MARGIN.top + 12 + 15 * row,
        "text-anchor": "end",
        fill: tint(colour),
      });
      text.textContent = readable(label);
      copy.append(text);
    });
    const picture = new Image();
    picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
    await picture.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: 2 * this.width, height: 2 * HEIGHT });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    save(await new Promise((resolve) => canvas.toBlob(resolve)), name, "image/png");
  }
}

function tint(colour) {
  return COLOURS[colour % COLOURS.length];
}

function stroke(colour, dash) {
  return { stroke: tint(colour), "stroke-width": 2, ...(DASHES[dash] ? { "stroke-dasharray": DASHES[dash] } : {}) };
}

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
