/* The page without a server: its tabs, and its views, each in a module of its own. */

import { openAbout } from "./about.js";
import { readAddress } from "./address.js";
import { openInside } from "./inside.js";
import { openLearn } from "./learn.js";
import { hasHub, lendModel, lesson, loadEngine, models, readPage } from "./models.js";
import { openWrite } from "./write.js";
import { announceAtRest } from "./components/announce.js";
import { openLesson } from "./components/lesson.js";
import { makeLinkMenu } from "./components/link.js";
import { readState, showState, whenReturned } from "./components/state.js";
import { byId, isShortcut, makeLine, sentence } from "./components/text.js";

let isOfPage = false; // whether what `tell` shows is about the whole page

/** Show what went wrong above the views, and bring it into view: what was clicked may be far below. */
function tell(problem) {
  isOfPage = false;
  byId("notices").replaceChildren(...(problem ? [makeLine(problem)] : []));
  if (problem) byId("notices").scrollIntoView({ block: "nearest" });
}

/** Show what is wrong with the page in all of its views. */
function tellOfPage(problem) {
  tell(problem);
  isOfPage = true;
}

const tabs = [...document.querySelectorAll("#views [role=tab]")];
const opened = new Map(); // the views that have been shown, by name
const openers = { write: openWrite, learn: openLearn, inside: openInside, about: openAbout };

/** Show a view. settings: of a shared text. query: the parameters of the address, if it was opened or returned to. */
function showView(view, settings, query) {
  for (const tab of tabs) {
    const isShown = tab.id === `tab-${view}`;
    tab.setAttribute("aria-selected", String(isShown));
    tab.tabIndex = isShown ? 0 : -1;
    byId(tab.id.replace("tab", "view")).hidden = !isShown;
  }
  showState(view);
  if (!opened.has(view)) opened.set(view, openers[view](tell, settings, query ?? new URLSearchParams()));
  else if (query) opened.get(view)?.restore?.(query);
}

function connectTabs() {
  byId("views").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || isShortcut(event)) return;
    const place = (tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length;
    tabs[place].focus();
    tabs[place].click();
  });
  for (const tab of tabs) {
    const view = tab.id.replace("tab-", "");
    tab.addEventListener("click", () => {
      if (!isOfPage) tell(""); // it was about the view before
      showView(view);
    });
  }
}

/** Offer the model that the address names. What that needs is loaded for it alone. */
async function offerModel(name) {
  try {
    await (await import("./load.js")).offerModel(name);
  } catch (error) {
    tell(sentence(error));
  }
}

async function openPage() {
  const query = await readState();
  const theme = query.get("__theme"); // as in the Gradio page
  if (["dark", "light"].includes(theme)) document.documentElement.dataset.theme = theme;
  await readPage();
  const address = readAddress(query);
  document.body.classList.toggle("embedded", address.embedded);
  const wanted = query.get("model");
  if (wanted === null) tell(address.problem);
  else if (hasHub()) offerModel(wanted);
  else tellOfPage("This page is a file that holds its models: it loads no other from the Hub.");
  connectTabs();
  window.charlm = {
    get names() {
      return models.map((model) => model.name);
    },
    model: async (name) => lendModel(name),
    isOpen: () => true,
  };
  showView(address.view, address.settings, query);
  whenReturned((parameters) => {
    const { view, settings, problem } = readAddress(parameters);
    if (problem || !isOfPage) tell(problem);
    showView(view, settings, parameters);
  });
  makeLinkMenu(byId("link-view"));
  for (const id of ["progress-a", "progress-b", "seen-line-a", "seen-line-b"]) announceAtRest(byId(id));
  openLesson({ lesson, names: window.charlm.names }, document.body);
  await loadEngine();
}

openPage().catch((error) => {
  tellOfPage(
    `The models cannot run in this browser (${error.message}); a current Chrome, Edge, Firefox or Safari runs them.`,
  );
});
