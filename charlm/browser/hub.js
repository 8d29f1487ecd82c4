/* Models on the Hugging Face Hub, for a page that has no server of its own.

   A model is described before anything of it is downloaded; its files come from one commit, from addresses whose content
   never changes. They are kept in the browser's cache (Cache API), so that a later visit transfers no weights and works
   without the Hub. Nothing that the Hub answers is trusted: the engine checks configuration and weights, also those from
   the cache. charlm/hub.py does the same in Python. */

const KEPT = "charlm-models"; // the name of the cache
const CONFIG = "config.json";
const WEIGHTS = "model.safetensors";
const HISTORY = "history.json";
const LARGEST_JSON = 4 << 20; // bytes
const QUESTION_MS = 10_000; // time limit of a question to the Hub's API
const STALL_MS = 30_000; // time limit of a download without a further byte
const MOST_BYTES = 100_000_000; // of the files of a model that a visitor names

const PART = "(?!.*(?:--|\\.\\.))(?:[A-Za-z0-9_]|[A-Za-z0-9_][\\w.-]{0,94}[A-Za-z0-9_])";
const REPO_ID = new RegExp(`^${PART}/(?!.*\\.git$)${PART}$`);
const REVISION = /^(?!.*\.\.)[^\s\\^~:?*[,@\x00-\x1f\x7f]{1,255}$/; // what git allows in the name of a branch, nearly
const COMMIT = /^[0-9a-f]{40}$/;

/** What is wrong with a model on the Hub or with the way to it, and what to do, in one sentence. */
export class HubError extends Error {}

/** The Hub gives no usable answer: what is kept is used in its place. */
class HubUnavailableError extends HubError {}

/** Read USER/REPO, USER/REPO@REVISION or hf://USER/REPO[@REVISION]; return {repo, revision}, revision null for none. */
export function parseHubName(name) {
  const [repo, revision, ...rest] = name.replace(/^hf:\/\//i, "").split("@");
  const isValid = REPO_ID.test(repo) && (revision === undefined || REVISION.test(revision)) && !rest.length;
  if (!isValid || ["datasets", "spaces"].includes(repo.split("/")[0])) {
    throw new HubError(`“${name.slice(0, 60)}” is not the name of a model on the Hub; write USER/NAME or USER/NAME@REVISION`);
  }
  return { repo, revision: revision ?? null };
}

/** The way to models on a Hub, and those of them that this browser keeps.

    A model has `name`, `address` (of its files at a commit) and `size` (bytes of its weights), as page.py writes them.

    endpoint: the Hub's address. pinned: the models that the page always has, whose weights stay kept. */
export class Hub {
  constructor(endpoint, pinned = []) {
    Object.assign(this, { endpoint, pinned });
  }

  /** Return what `use` returns for the weights of a model, from the cache if this browser has kept them.

      Weights are kept once `use` has accepted them. If it finds the kept ones damaged, they are downloaded once more.

      use: called with a Uint8Array, which it leaves as it is; it throws an error named ModelFileError for weights that
      are not those of the model. onProgress: called with the bytes so far and of all.
      Throws HubError, what `use` throws, and AbortError after a signal. */
  async withWeights(model, use, { onProgress = () => {}, signal } = {}) {
    const url = `${model.address}/${WEIGHTS}`;
    const kept = await recall(url);
    if (kept) {
      try {
        return await use(kept);
      } catch (error) {
        if (error.name !== "ModelFileError") throw error;
        await forget(url);
      }
    }
    const bytes = await this.download(url, model, { onProgress, signal });
    const value = await use(bytes);
    await keep(url, bytes);
    await this.dropOthers(model.address);
    return value;
  }

  /** Return the weights of a model from the Hub. */
  async download(url, model, options) {
    try {
      return await download(url, model.name, model.size, options);
    } catch (error) {
      if (!(error instanceof HubUnavailableError)) throw error;
      const kept = await Promise.all(this.pinned.map(async (each) => ((await this.hasKept(each)) ? each.name : null)));
      const names = kept.filter(Boolean);
      if (!names.length) throw error;
      const work = names.length === 1 ? "is kept and works" : "are kept and work";
      throw new HubUnavailableError(`${error.message}; ${names.join(", ")} ${work} without the Hub`);
    }
  }

  /** Tell whether this browser has kept the weights of a model. */
  async hasKept(model) {
    return Boolean(await find(`${model.address}/${WEIGHTS}`));
  }

  /** Ask the Hub, once, which commit a name means and what it holds, before anything is downloaded.

      Returns {name, repo, commit, address, sizes (bytes of each file that loading needs), size (of all), license,
      figures (of its card, by name), isKept}. Without the Hub, what it said when this browser last loaded the model.
      Throws HubError for what is not a public charlm model of up to MOST_BYTES. */
  async describe(name, { signal } = {}) {
    const { repo, revision } = parseHubName(name);
    const url = this.addressOf(repo, revision ?? "main");
    const shown = revision === null ? repo : `${repo}@${revision}`;
    let found;
    try {
      found = this.readDescription(shown, repo, url, readAnswer(await ask(url, shown, signal), repo, revision));
    } catch (error) {
      const kept = error instanceof HubUnavailableError ? await recall(url) : null;
      if (!kept) throw error;
      found = JSON.parse(new TextDecoder().decode(kept));
    }
    return { ...found, isKept: await this.hasKept(found) };
  }

  /** Return the address under which the Hub describes a revision of a repository. */
  addressOf(repo, revision) {
    return `${this.endpoint}/api/models/${repo}/revision/${encodeURIComponent(revision)}?blobs=true`;
  }

  /** Read what the Hub says of a repository field by field. A field that is not what it should be counts as absent. */
  readDescription(name, repo, url, about) {
    const commit = about.sha;
    if (typeof commit !== "string" || !COMMIT.test(commit)) throw unusable(repo);
    if (about.gated) {
      throw new HubError(`${repo} is gated: the Hub gives its files only with a token, and this page has none`);
    }
    const tags = [about.library_name, ...(Array.isArray(about.tags) ? about.tags : [])];
    if (!tags.includes("charlm")) {
      throw new HubError(`${repo} does not carry the tag charlm: it is not a model of charlm`);
    }
    const sizes = readSizes(repo, about.siblings);
    const size = Object.values(sizes).reduce((sum, bytes) => sum + bytes);
    if (size > MOST_BYTES) {
      throw new HubError(`${repo} has ${megabytes(size)}, more than the ${megabytes(MOST_BYTES, 0)} that this page loads`);
    }
    const card = readObject(about.cardData);
    const license = card.license === "other" ? (card.license_name ?? "other") : card.license;
    return {
      name,
      repo,
      commit,
      url, // under which it is kept
      address: `${this.endpoint}/${repo}/resolve/${commit}`,
      sizes,
      size,
      license: typeof license === "string" ? license.slice(0, 60) : "",
      figures: readFigures(card["model-index"]),
    };
  }

  /** Return what `use` returns for the files of a model that was described, and keep them if it accepts them.

      use: called with {config, weights, history}, each a Uint8Array, or null for a history that is not there; see
      `withWeights`. */
  async load(found, use, { onProgress = () => {}, signal } = {}) {
    const { address, name, sizes } = found;
    const texts = {};
    for (const file of [CONFIG, HISTORY].filter((each) => each in sizes)) {
      const url = `${address}/${file}`;
      texts[file] = (await recall(url)) ?? (await download(url, name, sizes[file], { signal }));
    }
    const model = { name, address, size: sizes[WEIGHTS] };
    const files = (weights) => ({ config: texts[CONFIG], weights, history: texts[HISTORY] ?? null });
    try {
      const value = await this.withWeights(model, (weights) => use(files(weights)), { onProgress, signal });
      for (const [file, bytes] of Object.entries(texts)) await keep(`${address}/${file}`, bytes);
      const description = new TextEncoder().encode(JSON.stringify(found));
      for (const url of [found.url, this.addressOf(found.repo, found.commit)]) await keep(url, description);
      return value;
    } catch (error) {
      if (error.name === "ModelFileError") await Promise.all(Object.keys(texts).map((file) => forget(`${address}/${file}`)));
      throw error;
    }
  }

  /** Remove what is kept of other commits of a model's repository, except what the page always has. */
  async dropOthers(address) {
    const cache = await openCache();
    const repository = address.slice(0, address.lastIndexOf("/") + 1);
    const needed = [address, ...this.pinned.map((model) => model.address)];
    const kept = (await cache?.keys().catch(() => [])) ?? [];
    for (const { url } of kept) {
      const isNeeded = needed.some((each) => url.startsWith(`${each}/`));
      if (url.startsWith(repository) && !isNeeded) await forget(url);
    }
  }
}

/** Return a number of bytes in megabytes, with their unit. */
export function megabytes(bytes, digits = 1) {
  return `${(bytes / 1e6).toFixed(digits)} MB`;
}

/** Return the cache, or null where a browser has none: on a page without https, or where it keeps nothing. */
async function openCache() {
  try {
    return await caches.open(KEPT);
  } catch {
    return null;
  }
}

/** Return the Response that is kept under an address, its content unread, or undefined. */
async function find(url) {
  try {
    return await (await openCache())?.match(url);
  } catch {
    return undefined;
  }
}

/** Return the bytes that are kept under an address, or null. */
async function recall(url) {
  try {
    const answer = await find(url);
    return answer ? new Uint8Array(await answer.arrayBuffer()) : null;
  } catch {
    return null;
  }
}

/** Keep bytes under an address, if there is room. */
async function keep(url, bytes) {
  try {
    await (await openCache())?.put(url, new Response(bytes));
  } catch {
    // a full or forbidden cache costs the next visit a download, nothing else
  }
}

async function forget(url) {
  try {
    await (await openCache())?.delete(url);
  } catch {
    // there is nothing to forget
  }
}

/** Return the bytes of a file, which must be `size` of them. name: of the model, for messages. */
async function download(url, name, size, { onProgress = () => {}, signal } = {}) {
  const file = url.slice(url.lastIndexOf("/") + 1);
  const bytes = makeRoom(name, size);
  const limit = new TimeLimit(STALL_MS, signal);
  let got = 0;
  try {
    const answer = await request(url, limit.signal).catch((error) => {
      throw limit.signal.aborted ? error : unreachable(name);
    });
    if (!answer.ok) throw refused(answer.status, file, name);
    for await (const piece of pieces(answer.body)) {
      limit.renew();
      if (got + piece.length > size) throw new HubError(`${file} of ${name} is longer than its ${size} bytes: tell its owner`);
      bytes.set(piece, got);
      got += piece.length;
      onProgress(got, size);
    }
  } catch (error) {
    if (error instanceof HubError || signal?.aborted) throw error;
    if (limit.signal.aborted) throw stalled(file, name);
  } finally {
    limit.end();
  }
  if (got === size) return bytes;
  throw new HubError(`${file} of ${name} ended after ${got} of its ${size} bytes: check the network and load it again`);
}

function makeRoom(name, size) {
  try {
    return new Uint8Array(size);
  } catch {
    throw new HubError(`this browser has no room for ${name}, which has ${megabytes(size)}: close other tabs and load it again`);
  }
}

/** Return what is wrong if the Hub refuses a file that it listed, or that it had when the page was made. */
function refused(status, file, name) {
  if (status === 408 || status === 429 || status >= 500) {
    return new HubUnavailableError(`the Hub answered ${status} for ${file} of ${name}; try again later`);
  }
  return new HubError(`the Hub does not give ${file} of ${name} (${status}): its owner may have removed or closed it`);
}

async function* pieces(stream) {
  const reader = stream.getReader(); // not every browser lets a stream be iterated over
  try {
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) yield piece.value;
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Ask without the visitor's cookies, and without a second copy in the browser's own cache. */
function request(url, signal) {
  return fetch(url, { credentials: "omit", referrerPolicy: "no-referrer", cache: "no-store", signal });
}

/** Ask the Hub's API about a model, with a time limit. */
async function ask(url, name, signal) {
  const limit = new TimeLimit(QUESTION_MS, signal);
  try {
    const answer = await request(url, limit.signal);
    return { status: answer.status, code: answer.headers.get("X-Error-Code"), text: await answer.text() };
  } catch (error) {
    throw signal?.aborted ? error : unreachable(name);
  } finally {
    limit.end();
  }
}

/** A signal that aborts a number of milliseconds after the last `renew`, and when another signal does. */
class TimeLimit {
  constructor(milliseconds, other) {
    const controller = new AbortController();
    this.stop = () => controller.abort();
    Object.assign(this, { milliseconds, other, signal: controller.signal });
    other?.addEventListener("abort", this.stop);
    if (other?.aborted) this.stop();
    this.renew();
  }

  renew() {
    clearTimeout(this.timer);
    this.timer = setTimeout(this.stop, this.milliseconds);
  }

  end() {
    clearTimeout(this.timer);
    this.other?.removeEventListener("abort", this.stop);
  }
}

/** Return the object that the Hub answered about a repository. Throws HubError for a refusal, or for anything else. */
function readAnswer({ status, code, text }, repo, revision) {
  if (code === "RevisionNotFound") {
    throw new HubError(`${repo} has no revision ${revision}; name a branch, tag or commit that it has`);
  }
  if ([401, 403, 404].includes(status)) {
    throw new HubError(`the Hub has no public model ${repo}: check the name; a private one cannot be loaded here`);
  }
  if (status === 408 || status === 429 || status >= 500) {
    throw new HubUnavailableError(`the Hub answered ${status} for ${repo}; try again later`);
  }
  if (status !== 200) throw new HubError(`the Hub refused the request for ${repo} (${status}); check the name`);
  try {
    return readObject(JSON.parse(text));
  } catch {
    throw unusable(repo);
  }
}

function unreachable(name) {
  return new HubUnavailableError(
    `the Hub cannot be reached, and this browser has not kept ${name}: check the network and load it again`,
  );
}

function stalled(file, name) {
  const seconds = STALL_MS / 1000;
  return new HubUnavailableError(
    `${file} of ${name} stopped coming: nothing came for ${seconds} seconds; check the network and load it again`,
  );
}

function unusable(repo) {
  return new HubUnavailableError(`the Hub gave no usable answer for ${repo}; try again later`);
}

/** Return the size of each file that loading needs, of those that a repository has. */
function readSizes(repo, siblings) {
  const sizes = {};
  for (const { rfilename, size } of readObjects(siblings)) {
    if (![CONFIG, WEIGHTS, HISTORY].includes(rfilename)) continue;
    if (!Number.isSafeInteger(size) || size < 0) {
      throw new HubError(`the Hub does not tell the size of ${rfilename} in ${repo}; try again or tell its owner`);
    }
    if (rfilename === CONFIG && size > LARGEST_JSON) {
      throw new HubError(`${repo}: ${CONFIG} has ${size} bytes, more than any charlm model needs`);
    }
    if (rfilename === HISTORY && size > LARGEST_JSON) continue; // the model works without its record
    sizes[rfilename] = size;
  }
  const missing = [CONFIG, WEIGHTS].find((file) => !(file in sizes));
  if (missing) throw new HubError(`${repo} has no ${missing}: it is not a charlm model`);
  return sizes;
}

/** Return the first figures of a card's model-index by name. */
function readFigures(modelIndex) {
  const results = readObjects(modelIndex).flatMap((model) => readObjects(model.results));
  const metrics = results.flatMap((result) => readObjects(result.metrics)).slice(0, 8);
  const figures = metrics.map(({ name, type, value }) => [name ?? type, value]);
  const isFigure = ([name, value]) => typeof name === "string" && Number.isFinite(value);
  return Object.fromEntries(figures.filter(isFigure).map(([name, value]) => [name.slice(0, 60), value]));
}

/** Return what should be an object, or an empty one. */
function readObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
}

/** Return the objects in what should be a list of objects. */
function readObjects(value) {
  return Array.isArray(value) ? value.filter((item) => item !== null && typeof item === "object") : [];
}
