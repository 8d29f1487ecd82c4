/* What a page shows, in its address: a link opens it again, and so do the browser's Back and Forward.

   Each view keeps values under names of its own in the query. A text and a long prompt are kept in the fragment,
   compressed, which no server sees; one that is too long for a link is left out. */

export const EMBEDDED = ["write", "learn", "inside"]; // views that an address can show without the rest of the page

const MOST_PACKED = 4000; // characters of a compressed text: longer links get cut on their way
const MOST_TEXT = 400_000; // bytes of a text, however well it was compressed
const MOST_PROMPT = 1000; // characters of a prompt in the query, encoded: servers refuse requests with long addresses
const LONG = ["text", "prompt"]; // values that may be too long for a query
const ALWAYS = ["__theme", "embed", "lesson", "model"]; // what stays in the address whichever view is shown

const kept = {}; // by view, the values that its address has
let view; // that is shown
let pinnedModel; // the model that the address names, at the commit at which it was loaded

/** Return a text that `pack` has packed, "" if it cannot be read. */
async function unpack(packed) {
  try {
    const bytes = Uint8Array.from(atob(packed.replaceAll("-", "+").replaceAll("_", "/")), (each) => each.charCodeAt(0));
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
    const chunks = [];
    for (let size = 0; ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      chunks.push(value);
      size += value.length;
      if (size > MOST_TEXT) return "";
    }
    return await new Blob(chunks).text();
  } catch {
    return "";
  }
}

/** Return a text as it can stand in a fragment, "" if it is too long. */
async function pack(text) {
  if (typeof CompressionStream === "undefined") return "";
  const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  if (bytes.length > MOST_PACKED) return "";
  const packed = btoa(String.fromCharCode(...bytes));
  return packed.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Return the parameters of the address, with the texts of its fragment among them. */
export async function readState() {
  const query = new URLSearchParams(location.search);
  const packed = new URLSearchParams(location.hash.slice(1));
  for (const name of LONG) {
    const text = packed.has(name) ? await unpack(packed.get(name)) : "";
    if (text) query.set(name, text);
  }
  return query;
}

/** Return the view that the parameters of an address open. */
export function viewOf(query) {
  const embedded = query.get("embed");
  return EMBEDDED.includes(embedded) ? embedded : (query.get("view") ?? "write");
}

/** Return whether a value stands in the fragment of an address. */
function isPacked(name, value) {
  return name === "text" || (name === "prompt" && new URLSearchParams({ value }).toString().length > MOST_PROMPT);
}

/** Return the address of a view with its values. A value that is null or undefined is left out. */
async function addressOf(name, values, always = ALWAYS) {
  const address = new URL(location.href);
  const stays = [...address.searchParams].filter(([each]) => always.includes(each));
  const others = Object.entries({ view: name, ...values }).filter(([, value]) => value != null);
  const short = others.filter((each) => !isPacked(...each));
  address.search = new URLSearchParams([...stays, ...short]).toString();
  if (pinnedModel && address.searchParams.has("model")) address.searchParams.set("model", pinnedModel);
  const fragment = new URLSearchParams();
  for (const [each, value] of others) {
    const packed = isPacked(each, value) ? await pack(value) : "";
    if (packed) fragment.set(each, packed);
  }
  address.hash = fragment.toString();
  return address;
}

/** Keep values of a view: they are in the address while it is shown. */
export async function keepState(name, values) {
  const now = (kept[name] = { ...kept[name], ...values });
  if (name !== view) return;
  const address = await addressOf(name, now);
  if (name === view && now === kept[name]) putAddress(address); // others may have come while a text was packed
}

/** Name the model that the address has loaded at its commit, there and in all links: the values of a view name it so,
    and its repository may get other commits. */
export function pinModel(name) {
  pinnedModel = name;
  const address = new URL(location.href);
  address.searchParams.set("model", name);
  putAddress(address);
}

/** Tell that a view is shown now. Back leads to the one before it, if there was one. */
export async function showState(name) {
  const isNew = view !== undefined && view !== name;
  view = name;
  if (!isNew) return;
  const address = await addressOf(name, kept[name] ?? {});
  if (name === view) putAddress(address, "pushState");
}

/** Call a function with the parameters of the address when Back or Forward has changed it. */
export function whenReturned(callback) {
  addEventListener("popstate", async () => {
    const query = await readState();
    view = viewOf(query);
    callback(query, view);
  });
}

/** Put an address into the address bar, and into that of the Space's page around this one. how: of `history`. */
export function putAddress(address, how = "replaceState") {
  if (address.href === location.href) return;
  try {
    history[how](null, "", address);
  } catch {
    return; // not every browser allows it to a page from disk
  }
  // the address bar is that of the page around this one, which listens for this
  const { search: queryString, hash } = address;
  const space = spaceAddress();
  if (space && parent !== window) parent.postMessage({ queryString, hash }, new URL(space).origin);
}

/** Return the address of the Space that the page runs on, on the Hub, or "". */
function spaceAddress() {
  return document.querySelector('meta[name="charlm-space"]')?.content ?? "";
}

/** Return an address as it is passed on: on a Space, that of its page on huggingface.co. */
function publicLink(address) {
  const { search, hash } = address;
  return spaceAddress() ? spaceAddress() + search + hash : address.href;
}

/** Return what shares the view that is shown, as `shareView` does. */
export function shareState() {
  return shareView(view, kept[view] ?? {});
}

/** Return what shares a view with its values: `link` to it, and `code` that shows it alone in another page, "" if no
    address does.

    tooLong: the name of the value that is too long for the link and the code, and is left out of both; "" if there is
    none. */
export async function shareView(name, values) {
  const address = await addressOf(name, values, ["model"]);
  const link = publicLink(address);
  const held = [address.searchParams, new URLSearchParams(address.hash.slice(1))];
  const tooLong = LONG.find((each) => values[each] && !held.some((parameters) => parameters.has(each))) ?? "";
  if (!EMBEDDED.includes(name)) return { link, code: "", tooLong };
  const embedded = await addressOf(name, { embed: name, ...values }, ["model"]);
  embedded.searchParams.delete("view");
  const source = embedded.href.replaceAll("&", "&amp;").replaceAll('"', "%22");
  return { link, code: `<iframe src="${source}" title="charlm" width="100%" height="640"></iframe>`, tooLong };
}
