/* The Gradio page's part in the browser: its components, files that are read here, the address of each view. Values are
   put on the page as text, never as markup.

   components.py joins it with the modules that it imports; the page without a server loads these, too. */

import { announceAtRest } from "../../browser/components/announce.js";
import { Curves } from "../../browser/components/curves.js";
import { HeatText, setPace } from "../../browser/components/heat.js";
import { showLegend } from "../../browser/components/legend.js";
import { openLesson } from "../../browser/components/lesson.js";
import { makeLinkMenu } from "../../browser/components/link.js";
import { makeReading } from "../../browser/components/reading.js";
import {
  EMBEDDED,
  keepState,
  readState,
  showState,
  viewOf,
  whenReturned,
} from "../../browser/components/state.js";
import { byId, grouped, makeCard, makeLine } from "../../browser/components/text.js";
import { changed } from "./changed.js";
import { keepEvents, loseResults } from "./events.js";
import { fieldTexts, insideShows, insideStage, looking } from "./inside.js";
import { Progress } from "./progress.js";
import { Samples } from "./samples.js";
import { openWrite, writing, WrittenText } from "./write.js";

window.fetch = keepEvents(window.fetch.bind(window));

// light or dark as the address says, else as the system prefers, like Gradio itself
const theme = new URLSearchParams(location.search).get("__theme");
if (["dark", "light"].includes(theme)) document.documentElement.dataset.theme = theme;
const embedded = new URLSearchParams(location.search).get("embed");
if (EMBEDDED.includes(embedded)) document.documentElement.classList.add("embedded");

let isOpen = false; // whether the page shows what its address says
let lesson = {}; // of the page, and the names of its models, until the page is open

/** Return a component that shows a value, or each value of a list, as an element. */
function listOf(makeElement) {
  return (element, props, watch) => {
    const update = () => {
      const values = [props.value || []].flat();
      element.firstElementChild.replaceChildren(...values.map(makeElement));
    };
    watch("value", update);
    update();
    if (element.closest(".progress")) announceAtRest(element);
    return { props, update };
  };
}

/** Return a line with a title that says more. */
function makeTitledLine({ line, title }) {
  return Object.assign(makeLine(line), { title });
}

/** A field for a text file, which is read here and becomes the value {name, text}.

    lastFile: of the input, the file that was chosen last; undefined once another text has taken its place. One that was
      chosen before may be read later, and is then left. */
function textFile(element, props, trigger, mostBytes, drop) {
  const input = element.querySelector("input");
  const line = element.querySelector(".file-line");
  const read = async (file) => {
    if (!file) return;
    input.lastFile = file;
    if (file.size > mostBytes) {
      line.textContent = `${file.name} has ${(file.size / 1e6).toFixed(1)} MB; the limit is ${mostBytes / 1e6} MB.`;
      return;
    }
    try {
      const bytes = await file.arrayBuffer();
      if (input.lastFile !== file) return;
      const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
      line.textContent = `${file.name}: ${grouped(Array.from(text).length)} characters`;
      props.value = { name: file.name, text };
      trigger("change");
    } catch {
      if (input.lastFile === file) line.textContent = `${file.name} is not UTF-8 text; save it as UTF-8 first.`;
    }
  };
  input.addEventListener("change", () => read(input.files[0]));
  input.addEventListener("click", () => (input.value = "")); // else the same file could not be chosen again
  const readDropped = (file) => {
    input.value = "";
    read(file);
  };
  if (!drop) return;
  takeDrops(drop, readDropped);
  document.addEventListener("input", ({ target }) => {
    if (!target.closest?.(drop)) return;
    forgetFile(element);
    trigger("input");
  });
}

/** Show no file in a field: the text that it has read was replaced. */
function forgetFile(field) {
  Object.assign(field.querySelector("input"), { value: "", lastFile: undefined });
  field.querySelector(".file-line").textContent = "";
}

/** Let files be dropped on the element of a selector, which may come later. read: is given the first file. */
function takeDrops(selector, read) {
  const on = (type, act) =>
    document.addEventListener(type, (event) => {
      const place = event.dataTransfer?.types.includes("Files") && event.target.closest?.(selector);
      if (place) act(place, event);
    });
  on("dragover", (place, event) => {
    event.preventDefault(); // else the browser opens the file in place of the page
    place.classList.add("dropping");
  });
  on("dragleave", (place) => place.classList.remove("dropping"));
  on("drop", (place, event) => {
    event.preventDefault();
    place.classList.remove("dropping");
    read(event.dataTransfer.files[0]);
  });
}

/** Return the HeatTexts on the page, or those within a selector. */
function heatTexts(selector = "") {
  const texts = [...document.querySelectorAll(`${selector} .heat`)];
  return texts.map((text) => text.parentElement.heatText).filter(Boolean);
}

function stopAll() {
  heatTexts().forEach((text) => text.stop());
  writing.stopped();
}

function paceTexts(charactersPerSecond) {
  setPace(charactersPerSecond);
  heatTexts().forEach((text) => text.update());
}

/** Let the panel that loads a model open and close as the menu *Link* does: Gradio's own has its button alone for that. */
function connectLoad() {
  const load = byId("load");
  if (!load) return;
  const opener = load.querySelector(".label-wrap");
  const isShown = () => opener.nextElementSibling.checkVisibility();
  const enter = () => {
    const field = byId("load-name")?.querySelector("input, textarea"); // Gradio makes it when the panel is first opened
    if (field && isShown()) field.focus();
    else if (isShown()) requestAnimationFrame(enter);
  };
  opener.addEventListener("click", () => requestAnimationFrame(enter));
  load.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape" || !isShown()) return;
    opener.click();
    opener.focus();
  });
  document.addEventListener("click", (event) => {
    // the path, since a click may have taken what was clicked from the page
    if (isShown() && !event.composedPath().includes(load)) opener.click();
  });
}

/** Go to a view, as a click on its tab does. */
function openView(view) {
  document.getElementById(`view-${view}-button`).click();
}

/** Put the chosen view into the address, so that the address can be passed on. */
function setView(view) {
  if (!isOpen) return; // Gradio also selects a tab while it builds the page
  inspectAtFirst(view);
  showState(view);
}

/** Keep the values of fields in the address of their view, under these names. */
function keep(view, names, values) {
  if (!isOpen) return;
  const words = values.map((value) => [value ?? ""].flat().join(",") || undefined);
  keepState(view, Object.fromEntries(names.map((name, place) => [name, words[place]])));
}

/** Return the parameters of the address for the server to read, and the visitor's models as they are. */
async function address(own) {
  return [(await readState()).toString(), own];
}

/** Inspect the text when *Look inside* is first opened, so that the view is not empty. */
function inspectAtFirst(view) {
  const isEmpty = heatTexts("#seen").some((text) => !text.value.text);
  if (view === "inside" && isEmpty) document.querySelector("#inspect").click();
}

/** Called when the page shows what its address says. A share link whose seed was accepted is written at once. */
async function opened() {
  const query = await readState();
  const view = viewOf(query);
  showState(view);
  if (!isOpen) {
    isOpen = true;
    connectLoad();
    openLesson(lesson, document.querySelector(".gradio-container")); // Gradio has built the bar by now
    whenReturned((parameters, returned) => {
      // texts that are shown stay as they are, with their branches
      const shows = { write: writing.shows, inside: insideShows }[returned];
      if (shows?.(parameters)) openView(returned);
      else document.querySelector("#reopen").click();
    });
  }
  if (view === "inside" && !insideShows(query)) document.querySelector("#inspect").click();
  const filled = document.querySelector("#seed textarea, #seed input")?.value;
  const hasText = query.has("seed") && filled === query.get("seed");
  openWrite(hasText);
  if (hasText) document.querySelector("#generate")?.click();
}

/** Return the Curves in an element. */
function curvesOf(id) {
  return document.querySelector(`#${id} .curves`).parentElement.curves;
}

/** Return props for a HeatText: constants, and the value, which Gradio changes and which changes Gradio's. */
function withValue(fixed, props) {
  return Object.defineProperty({ ...fixed }, "value", {
    get: () => props.value,
    set: (value) => (props.value = value),
  });
}

window.charlm = {
  heatText: (element, fixed, props, watch) => {
    const heatText = new HeatText(element, withValue(fixed, props), () => {});
    watch("value", () => heatText.update());
  },
  writtenText: (side, element, fixed, { props, ...parts }) =>
    new WrittenText(side, element, { props: withValue(fixed, props), ...parts }),
  writtenLine: (side, element, props, watch) => writing.line(side, listOf(makeLine)(element, props, watch)),
  writing,
  curves: (element, props, watch) => {
    const curves = new Curves(element, props);
    const reading = element.querySelector(".reading");
    const read = () => reading?.replaceChildren(...makeReading(props.value?.reading ?? [], curves));
    read();
    watch("value", () => {
      curves.update();
      read();
    });
  },
  samples: (element, props, watch) => {
    const samples = new Samples(element, props);
    watch("value", () => samples.update());
  },
  progress: (element, lost, props, watch) => {
    const progress = new Progress(element, props, lost);
    watch("value", () => progress.update());
  },
  legend: (element) => showLegend(element, "surprisal"),
  linkMenu: makeLinkMenu,
  lines: listOf(makeLine),
  titledLine: listOf(makeTitledLine),
  cards: listOf(makeCard),
  lesson: (value) => (lesson = value),
  inside: insideStage,
  fieldTexts,
  looking,
  changed,
  isOpen: () => isOpen,
  loseResults,
  forgetFile: (id) => forgetFile(document.getElementById(id)),
  textFile, stopAll, setPace: paceTexts, curvesOf,
  setView, openView, keep, address, opened,
};
