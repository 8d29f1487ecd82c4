/* Texts that anyone may have written, made safe to show, and given to the clipboard or saved as a file.

   Every component puts its values on the page as text, never as markup. */

export const MOST_MARKS = 3; // combining marks on one letter; more would cover the lines above
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Cs}]/u;

/** Return a character, or its number if it would be invisible, reorder the text, or pile up.

    `printable` in charlm/text.py does the same for messages and names; it also escapes line breaks and tabs, which a
    text keeps. */
export function visible(symbol, marksBefore) {
  if (symbol === "\n" || symbol === "\t") return symbol;
  const isPiled = /\p{M}/u.test(symbol) && marksBefore >= MOST_MARKS;
  if (!HIDDEN.test(symbol) && !isPiled) return symbol;
  return `\\u{${symbol.codePointAt(0).toString(16)}}`;
}

/** Return a text with every character made visible. */
export function readable(text) {
  let marks = 0;
  return Array.from(String(text), (symbol) => {
    const shown = visible(symbol, marks);
    marks = /\p{M}/u.test(symbol) ? marks + 1 : 0;
    return shown;
  }).join("");
}

/** Return a character as it is called in a description. */
export function named(symbol) {
  return { "\n": "line break", "\t": "tab", " ": "space" }[symbol] ?? `“${visible(symbol, MOST_MARKS)}”`;
}

/** Return a number with commas between its thousands: `1,200`. */
export function grouped(number) {
  return number.toLocaleString("en");
}

/** Return a number with its noun: `1 character`, `1,200 characters`. */
export function amount(number, noun) {
  return `${grouped(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** Return a character as a label of one letter's width. */
export function label(symbol) {
  return { "\n": "↵", "\t": "⇥", " ": "␣" }[symbol] ?? visible(symbol, MOST_MARKS);
}

/** Return a share, 0 to 1, in per cent. */
export function percentOf(share, digits = 1) {
  return `${(100 * share).toFixed(digits)} %`;
}

/** Say which share of a download is there. */
export function shareLoaded(there, whole) {
  return `${percentOf(there / Math.max(whole, 1), 0)} loaded`;
}

/** Return a number with so many decimals and a proper minus sign; what rounds to 0 has none. */
export function decimal(number, digits) {
  return number.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−");
}

/** Return an error as a sentence. */
export function sentence(error) {
  const words = String(error?.message || error);
  const start = words.replace(/^[a-z](?=[a-z]*[ ,])/, (letter) => letter.toUpperCase()); // not a/b or a.b, names
  return start + (/[.!?]$/.test(words) ? "" : ".");
}

export function byId(id) {
  return document.getElementById(id);
}

/** Return whether an element is displayed, also in Safari before 17.4, which has no `checkVisibility`. */
export function isDisplayed(element) {
  return element.checkVisibility?.() ?? element.getClientRects().length > 0;
}

/** Return whether a key was pressed with another that makes it one of the browser's own: Alt + ← goes back. */
export function isShortcut({ altKey, ctrlKey, metaKey }) {
  return altKey || ctrlKey || metaKey;
}

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Return an element of a drawing. */
export function makeSvg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Give a list of choices its options, each [value, words], and choose one. */
export function fillSelect(select, options, chosen) {
  select.replaceChildren(
    ...options.map(([value, words]) => {
      const option = make("option", "", readable(words));
      option.value = value;
      return option;
    }),
  );
  select.value = chosen;
}

/** Return whether the text is on the clipboard: browsers refuse it to pages without https. */
export async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Download a text as a file. */
export function save(text, name, type = "text/plain") {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  link.download = name.replace(/[^\p{L}\p{N}._-]+/gu, "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Return a line of text. */
export function makeLine(line) {
  return make("div", "line", readable(line));
}

export function makeCard({ title, about, text }) {
  const card = make("section", "card");
  const body = make("pre", "card-text", readable(text));
  body.tabIndex = 0; // it scrolls, so the keyboard has to reach it
  body.setAttribute("aria-label", title);
  card.append(make("h4", "", readable(title)), make("div", "hint", readable(about)), body);
  return card;
}
