/** charlm.js: reads, scores and writes text with charlm's character-level language models, in a browser alone.

        import {CharLM} from "./charlm.js";
        const lm = await CharLM.load("models/shakespeare-lstm/");       // the address of a model folder
        for await (const piece of lm.stream("ROMEO:", {length: 500, seed: 7})) output.append(piece);

    One module without dependencies. It is loaded twice: by the page, and by the Worker in which the models compute;
    where there are no Workers, they compute in the page, in slices. In the order in which it stands here:

        errors and messages        a message says what is wrong, and what to do
        JSON, model files          read as strictly as `charlm.model` reads them: anyone may have made them
        random numbers, sampling   numpy's PCG64, and the draw
        kernels, Engine, Reader    the arithmetic: in WebAssembly with SIMD, else in JavaScript, with the same bits
        TextReader                 keeps a state after every 16 symbols of the last eight texts, the last 4 MB of each:
                                   such a text goes on from a place there after less than 16 steps
        Host                       what runs in the Worker
        CharLM                     what a page holds

    Letters for shapes: V symbols, E embedding, H hidden units, L layers, N symbols of a text. */

// ------------------------------------------------------------------------------------------------- errors and messages

/** The base of every error that an argument, a file or the network can cause. */
export class CharLMError extends Error {
  constructor(message) {
    super(message);
    this.name = new.target.name;
  }
}

/** An argument is outside what is allowed. */
export class RequestError extends CharLMError {}

/** A text holds a symbol that the model does not know. */
export class VocabError extends CharLMError {}

/** A file of a model folder is missing, damaged, or describes an impossible model. */
export class ModelFileError extends CharLMError {}

/** A server cannot be reached, or does not give a file. */
export class UnreachableError extends CharLMError {}

const ERRORS = { CharLMError, RequestError, VocabError, ModelFileError, UnreachableError };

const LONGEST_SHOWN = 80; // characters of a wrong value in a message
const LONGEST_MESSAGE = 400; // characters of an error: it may quote from the files
const MOST_MARKS = 3; // combining marks on one letter; more would cover the lines above
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}\p{Zs}]/u;

const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ","); // 1234567 → 1,234,567
const isPrintable = (symbol) => symbol === " " || !UNPRINTABLE.test(symbol);

/** Return a text as one printable line: other characters are escaped, and so are further marks on one letter. */
function printable(text) {
  let marks = 0;
  return Array.from(text, (symbol) => {
    marks = /\p{M}/u.test(symbol) ? marks + 1 : 0;
    return isPrintable(symbol) && marks <= MOST_MARKS ? symbol : `\\u{${symbol.codePointAt(0).toString(16)}}`;
  }).join("");
}

/** Return a text cut to a number of characters. */
function shortened(text, most) {
  const symbols = Array.from(text.slice(0, 2 * most + 2)); // a character can be a surrogate pair
  return symbols.length <= most ? symbols.join("") : `${symbols.slice(0, most - 1).join("")}…`;
}

/** Return a message cut to what a line can hold, with escapes for what cannot be printed. */
const inOneLine = (message) => shortened(printable(shortened(message, LONGEST_MESSAGE + 1)), LONGEST_MESSAGE);

/** Return a wrong argument as a message quotes it. */
function show(value) {
  const shown = typeof value === "string" ? JSON.stringify(value) : String(value);
  return shortened(printable(shown), LONGEST_SHOWN);
}

/** Return a wrong value from JSON as a message quotes it. */
const showJson = (value) => shortened(JSON.stringify(value) ?? "missing", LONGEST_SHOWN);

function checkWhole(name, value, low, high = Infinity) {
  if (typeof value !== "bigint" && !Number.isInteger(value)) {
    throw new RequestError(`${name} is ${show(value)}; it must be a whole number`);
  }
  if (value < low || value > high) {
    const bounds = high === Infinity ? "" : ` to ${high}`;
    throw new RequestError(`${name} is ${show(value)}; it must be from ${low}${bounds}`);
  }
  return value;
}

function checkNumber(name, value, low, high) {
  if (typeof value !== "number") throw new RequestError(`${name} is ${show(value)}; it must be a number`);
  if (!(low <= value && value <= high) || !Number.isFinite(value)) {
    const bounds = high === Infinity ? `a finite number from ${low}` : `from ${low} to ${high}`;
    throw new RequestError(`${name} is ${value}; it must be ${bounds}`);
  }
  return value;
}

function checkString(name, value) {
  if (typeof value !== "string") throw new RequestError(`${name} is ${show(value)}; it must be a string`);
  return value;
}

/** Return the options of a call. Throws RequestError if they are no object, or their signal is none. */
function checkOptions(options, name = "options") {
  if (options === null || typeof options !== "object") {
    throw new RequestError(`${name} is ${show(options)}; it must be an object`);
  }
  const { signal } = options;
  if (signal && typeof signal.addEventListener !== "function") {
    throw new RequestError(`signal is ${show(signal)}; it must be an AbortSignal`);
  }
  return options;
}

/** Call a function; put `prefix` in front of the message of a ModelFileError that it throws. */
function within(prefix, function_) {
  try {
    return function_();
  } catch (error) {
    if (!(error instanceof ModelFileError)) throw error;
    throw new ModelFileError(prefix + error.message);
  }
}

// ---------------------------------------------------------------------------------------------------------------- JSON

const LARGEST_JSON = 4 * 1024 * 1024; // bytes
const MOST_VALUES = 60_000; // strings, and as many other values
const DEEPEST_JSON = 100; // nested lists and objects

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isWhole = Number.isInteger;
const isNumber = Number.isFinite; // JSON.parse takes 1e999 for an infinity

/** Parse a JSON object. Throws ModelFileError, naming the file, for anything else, and for one too large. */
function parseJsonObject(text, name) {
  checkAmount(text, name);
  let values;
  try {
    values = JSON.parse(text);
  } catch {
    const cause = explainStart(text) ?? "it is cut short or damaged; get it again";
    throw new ModelFileError(`${name} is not valid JSON: ${cause}`);
  }
  if (!isObject(values)) throw new ModelFileError(`${name} must hold a JSON object`);
  return values;
}

/** Throw ModelFileError if a JSON text holds too many values, or too deep ones: parsing would take the memory. */
function checkAmount(text, name) {
  if (new TextEncoder().encode(text).length > LARGEST_JSON) {
    throw new ModelFileError(`${name} is larger than the ${grouped(LARGEST_JSON)} bytes that it can need`);
  }
  // without escapes, each quotation mark begins or ends a string
  const parts = text.replaceAll("\\\\", "").replaceAll('\\"', "").split('"');
  const outside = parts.filter((_, place) => place % 2 === 0).join("");
  if (parts.length - 1 > 2 * MOST_VALUES || (outside.match(/[[{,]/g)?.length ?? 0) > MOST_VALUES) {
    throw new ModelFileError(`${name} holds more than ${grouped(MOST_VALUES)} values`);
  }
  if (nesting(outside) > DEEPEST_JSON) {
    throw new ModelFileError(`${name} nests lists and objects more than ${DEEPEST_JSON} deep`);
  }
}

/** Return how deep the brackets of a text are nested. */
function nesting(text) {
  let depth = 0;
  let deepest = 0;
  for (const bracket of text.match(/[[\]{}]/g) ?? []) {
    depth += "[{".includes(bracket) ? 1 : -1;
    deepest = Math.max(deepest, depth);
  }
  return deepest;
}

const LFS_POINTER =
  "it is a pointer of git-LFS, not the file itself; run `git lfs pull` where it was checked out, or download the file";

/** Recognise by its beginning a file that stands for another; return the end of a sentence about it, or null.

    What charlm/damage.py recognises besides does not come from a server of models. */
function explainStart(text) {
  const start = text.slice(0, 100).trimStart().toLowerCase(); // without a byte-order mark, too
  if (start.startsWith("version https://git-lfs.github.com/spec/")) return LFS_POINTER;
  // <!-{2} for a comment: in a script within a page its four characters would begin one
  return /^(<!doctype|<html|<\?xml|<head|<!-{2})/.test(start)
    ? "it is a web page, not the file that the page shows; use the page's link for downloading, and get it again"
    : null;
}

/** Return bytes as a text, a wrong one for those that are no UTF-8. */
const asText = (bytes) => new TextDecoder().decode(bytes);

// ------------------------------------------------------------------------- config.json and history.json (charlm.model)

const CONFIG_FILE = "config.json";
const HISTORY_FILE = "history.json";
const WEIGHTS_FILE = "model.safetensors";
const MODEL_TYPE = "charlm";
const FORMAT_VERSION = 1;
const LARGEST_SIZE = 16_384;
const MOST_LAYERS = 64;
const MOST_PARAMETERS = 1_000_000_000;
const MOST_SYMBOLS = 200_000;
const MOST_RECORDED_EPOCHS = 5_000;
const MOST_EARLIER_RUNS = 50;
const LONGEST_RUN_NAME = 200; // characters
const LARGEST_HEADER = 1024 * 1024; // bytes
const FIELDS = ["cell", "vocab", "embedding_size", "hidden_size", "num_layers", "dropout"];
const LONE_SURROGATE = /\p{Cs}/u; // a surrogate pair is one character
const FURTHER_LOSSES = ["val_loss_reset256", "test_loss", "also_text_loss"]; // of the best epoch, not in every record
const SHA256 = /^[0-9a-fA-F]{64}$/;

/** The cells: blocks of rows that their weights stack, and whether a layer carries a cell state. */
const CELLS = {
  rnn: { gates: 1, hasCellState: false },
  lstm: { gates: 4, hasCellState: true },
  gru: { gates: 3, hasCellState: false },
};

/** Return bytes, a string or an object as the text of a JSON file. */
function textOf(content, name) {
  if (typeof content === "string") return content;
  if (!(content instanceof ArrayBuffer || ArrayBuffer.isView(content))) return JSON.stringify(content) ?? "";
  const bytes = asBytes(content);
  if (bytes.length > LARGEST_JSON) {
    throw new ModelFileError(`${name} is larger than the ${grouped(LARGEST_JSON)} bytes that it can need`);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    const cause = explainStart(asText(bytes)) ?? "it is damaged or in another encoding; get it again";
    throw new ModelFileError(`${name} is not UTF-8 text: ${cause}`);
  }
}

const asBytes = (content) =>
  content instanceof ArrayBuffer
    ? new Uint8Array(content)
    : new Uint8Array(content.buffer, content.byteOffset, content.byteLength);

/** Read config.json, given as bytes, a string or an object.

    Return its fields, and `shapes` (of every tensor, by name), `parameters` (how many numbers the weights hold) and
    `symbols` (the vocabulary as an array). Throws ModelFileError if a field is missing, of the wrong type or out of
    bounds, or if a newer charlm wrote the file. */
export function readConfig(content) {
  const values = parseJsonObject(textOf(content, CONFIG_FILE), CONFIG_FILE);
  if (values.model_type !== MODEL_TYPE) {
    throw new ModelFileError(`${CONFIG_FILE} says model_type ${showJson(values.model_type)}: not a charlm model`);
  }
  checkFormatVersion(values, CONFIG_FILE);
  const missing = [...FIELDS, "weights_sha256"].filter((name) => !(name in values));
  if (missing.length) throw new ModelFileError(`${CONFIG_FILE} lacks ${missing.join(", ")}`);
  if (typeof values.weights_sha256 !== "string") {
    throw new ModelFileError(`${CONFIG_FILE}: weights_sha256 must be a string of hexadecimal digits`);
  }
  return within(`${CONFIG_FILE}: `, () => checkConfig(values));
}

function checkConfig(values) {
  if (typeof values.cell !== "string" || !Object.hasOwn(CELLS, values.cell)) {
    throw new ModelFileError(`cell is ${showJson(values.cell)}; charlm knows ${Object.keys(CELLS).join(", ")}`);
  }
  const symbols = checkVocab(values.vocab);
  checkSize("embedding_size", values.embedding_size, LARGEST_SIZE);
  checkSize("hidden_size", values.hidden_size, LARGEST_SIZE);
  checkSize("num_layers", values.num_layers, MOST_LAYERS);
  const dropout = isNumber(values.dropout) ? values.dropout : NaN;
  if (!(dropout >= 0 && dropout < 1)) {
    throw new ModelFileError(`dropout is ${showJson(values.dropout)}; it must be a number from 0 to below 1`);
  }
  const fields = Object.fromEntries([...FIELDS, "weights_sha256"].map((name) => [name, values[name]]));
  const shapes = tensorShapes(fields, symbols.length);
  const parameters = Object.values(shapes).reduce((sum, shape) => sum + product(shape), 0);
  if (parameters > MOST_PARAMETERS) {
    throw new ModelFileError(
      `this describes ${grouped(parameters)} parameters; charlm stops at ${grouped(MOST_PARAMETERS)}`,
    );
  }
  return { ...fields, dropout, shapes, parameters, symbols };
}

const product = (numbers) => numbers.reduce((result, number) => result * number, 1);

function checkVocab(vocab) {
  if (typeof vocab !== "string") throw new ModelFileError("vocab must be one string that holds every symbol once");
  const symbols = Array.from(vocab);
  if (symbols.length > MOST_SYMBOLS) {
    throw new ModelFileError(`vocab has ${grouped(symbols.length)} symbols; charlm stops at ${grouped(MOST_SYMBOLS)}`);
  }
  if (LONE_SURROGATE.test(vocab)) throw new ModelFileError("vocab holds a lone surrogate, which is not a character");
  if (!symbols.length) throw new ModelFileError("vocab: a vocabulary needs at least one symbol");
  if (new Set(symbols).size < symbols.length) {
    throw new ModelFileError("vocab: a vocabulary must hold each symbol once; this one repeats a symbol");
  }
  return symbols;
}

function checkSize(name, value, most) {
  if (!isWhole(value) || value < 1 || value > most) {
    throw new ModelFileError(`${name} is ${showJson(value)}; it must be a whole number from 1 to ${grouped(most)}`);
  }
}

/** Throw ModelFileError unless this charlm can read the file's `format_version`. */
function checkFormatVersion(values, name) {
  const version = values.format_version;
  if (!isWhole(version) || version < 1) {
    throw new ModelFileError(`${name} says format_version ${showJson(version)}; it must be a whole number from 1`);
  }
  if (version > FORMAT_VERSION) {
    throw new ModelFileError(
      `${name} has format_version ${showJson(version)}, written by a newer charlm; ` +
        `this one reads up to ${FORMAT_VERSION}: update charlm`,
    );
  }
}

function tensorShapes(config, symbols) {
  const { embedding_size: inputs, hidden_size: units, num_layers: layers } = config;
  const rows = CELLS[config.cell].gates * units;
  const shapes = { "embedding.weight": [symbols, inputs] };
  for (let layer = 0; layer < layers; layer++) {
    shapes[`recurrent.weight_ih_l${layer}`] = [rows, layer ? units : inputs];
    shapes[`recurrent.weight_hh_l${layer}`] = [rows, units];
    shapes[`recurrent.bias_ih_l${layer}`] = [rows];
    shapes[`recurrent.bias_hh_l${layer}`] = [rows];
  }
  return { ...shapes, "head.weight": [symbols, units], "head.bias": [symbols] };
}

/** Read history.json, given as `readConfig` takes it. Throws ModelFileError for a field that is not valid. */
function readHistory(content) {
  const values = parseJsonObject(textOf(content, HISTORY_FILE), HISTORY_FILE);
  checkFormatVersion(values, HISTORY_FILE);
  within(`${HISTORY_FILE}: `, () => {
    checkRun(values.run);
    const { epochs, best } = values;
    checkEpochs(epochs, "epochs");
    const runs = "earlier_runs" in values ? values.earlier_runs : [];
    checkEarlierRuns(runs);
    const total = epochs.length + runs.reduce((sum, run) => sum + run.epochs.length, 0);
    if (total > MOST_RECORDED_EPOCHS) {
      const most = grouped(MOST_RECORDED_EPOCHS);
      throw new ModelFileError(`its runs have ${grouped(total)} epochs together; they may have up to ${most}`);
    }
    if (!isObject(best) || !isNumber(best.val_loss)) {
      throw new ModelFileError("best must be an object with epoch and val_loss");
    }
    const wrong = FURTHER_LOSSES.find((name) => name in best && !isNumber(best[name]));
    if (wrong) throw new ModelFileError(`best.${wrong} must be a number`);
    if (!isWhole(best.epoch) || !epochs.some((epoch) => epoch.epoch === best.epoch)) {
      throw new ModelFileError(`best.epoch ${showJson(best.epoch)} is not among the epochs`);
    }
  });
  checkValues(values);
  return values;
}

function checkValues(value) {
  if (typeof value === "string" && LONE_SURROGATE.test(value)) {
    throw new ModelFileError(`${HISTORY_FILE} holds a lone surrogate, which is not a character`);
  }
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new ModelFileError(`${HISTORY_FILE} holds a number too large for a float`);
  }
  if (Array.isArray(value)) value.forEach(checkValues);
  else if (isObject(value)) [...Object.keys(value), ...Object.values(value)].forEach(checkValues);
}

function checkRun(run) {
  if (!isObject(run)) throw new ModelFileError("run must be an object");
  if ("text" in run && typeof run.text !== "string") throw new ModelFileError("run.text must be a string");
  const split = "split" in run ? run.split : {};
  const isSound = (name) => !(name in split) || isNumber(split[name]);
  if (!isObject(split) || !["train_chars", "val_chars", "test_chars"].every(isSound)) {
    throw new ModelFileError("run.split must be an object with the numbers train_chars and val_chars");
  }
  const edits = "lr_edits" in run ? run.lr_edits : [];
  const isEdit = (edit) => isObject(edit) && isNumber(edit.epoch) && isNumber(edit.lr);
  if (!Array.isArray(edits) || !edits.every(isEdit)) {
    throw new ModelFileError("run.lr_edits must be a list of objects with the numbers epoch and lr");
  }
}

/** Check the epochs of a run. where: their list in the file. */
function checkEpochs(epochs, where) {
  if (!Array.isArray(epochs) || epochs.length < 1 || epochs.length > MOST_RECORDED_EPOCHS) {
    throw new ModelFileError(`${where} must be a list of 1 to ${grouped(MOST_RECORDED_EPOCHS)} objects`);
  }
  epochs.forEach((epoch, place) => checkEpoch(epoch, place, `${where}[${place}]`));
}

/** Check the runs whose weights a run continues. */
function checkEarlierRuns(runs) {
  const isNamed = (run) =>
    isObject(run) && typeof run.name === "string" && Array.from(run.name).length <= LONGEST_RUN_NAME;
  if (!Array.isArray(runs) || runs.length > MOST_EARLIER_RUNS || !runs.every(isNamed)) {
    throw new ModelFileError(
      `earlier_runs must be a list of up to ${MOST_EARLIER_RUNS} objects with epochs and a name of ` +
        `up to ${LONGEST_RUN_NAME} characters`,
    );
  }
  runs.forEach(({ epochs }, place) => checkEpochs(epochs, `earlier_runs[${place}].epochs`));
}

function checkEpoch(epoch, place, where) {
  const number = isObject(epoch) ? epoch.epoch : null;
  if (!isWhole(number)) {
    throw new ModelFileError(`${where} must be an object with its number in \`epoch\``);
  }
  if (number !== place + 1) {
    throw new ModelFileError(
      `${where}.epoch is ${showJson(number)}; epochs are numbered 1, 2, 3 …: it must be ${place + 1}`,
    );
  }
  for (const name of ["train_loss", "val_loss", "learning_rate", "seconds", "chars_per_second"]) {
    if (!isNumber(epoch[name])) {
      throw new ModelFileError(`${where}.${name} is ${showJson(epoch[name])}; it must be a number`);
    }
  }
  if ((epoch.unseen_loss ?? null) !== null && !isNumber(epoch.unseen_loss)) {
    throw new ModelFileError(`${where}.unseen_loss must be a number or null`);
  }
  if (typeof epoch.sample !== "string") throw new ModelFileError(`${where}.sample must be a string`);
  if ("weights_sha256" in epoch && !(typeof epoch.weights_sha256 === "string" && SHA256.test(epoch.weights_sha256))) {
    throw new ModelFileError(`${where}.weights_sha256 must be a string of 64 hexadecimal digits`);
  }
}

// ---------------------------------------------------------------------------- model.safetensors (charlm.model.weights)

const ARRAYS = { F32: Float32Array, BF16: Uint16Array }; // bfloat16 numbers are read as their bits

/** Read model.safetensors from bytes; return its tensors by name, Float32Array or, for bfloat16, Uint16Array.

    Throws ModelFileError unless they have the SHA-256 that `config` names and hold its tensors, all of them finite. */
export async function readWeights(bytes, config) {
  const most = 4 * config.parameters + LARGEST_HEADER;
  if (bytes.length > most) {
    throw new ModelFileError(`${WEIGHTS_FILE} is larger than the ${grouped(most)} bytes that it can need`);
  }
  let tensors;
  let fault = null;
  try {
    tensors = readTensors(bytes, config);
  } catch (error) {
    if (!(error instanceof ModelFileError)) throw error;
    fault = error;
  }
  // reported before any other fault, because it says what to do
  if ((await sha256(bytes)) !== config.weights_sha256.toLowerCase()) {
    const cause = explainDifference(bytes, config);
    throw new ModelFileError(
      `${WEIGHTS_FILE} is not the file that ${CONFIG_FILE} describes (its SHA-256 differs): ${cause}`,
    );
  }
  if (fault) throw fault;
  return tensors;
}

function explainDifference(bytes, config) {
  const cause = explainStart(asText(bytes.subarray(0, 100)));
  if (cause) return cause;
  let least = 2 * config.parameters; // in bfloat16
  try {
    const length = headerLength(bytes);
    const header = parseJsonObject(asText(bytes.subarray(8, Math.min(8 + length, LARGEST_HEADER))), "the header");
    for (const { data_offsets: offsets } of Object.values(header).filter(isObject)) {
      if (areWhole(offsets) && offsets.length === 2) least = Math.max(least, 8 + length + offsets[1]);
    }
  } catch {
    // the header is damaged, too
  }
  if (bytes.length >= least) return "one of the two is damaged or from another model; get both again";
  const sizes = `it has ${grouped(bytes.length)} of ${grouped(least)} bytes`;
  return `${sizes}, as after a download or a copy that did not finish; get it again`;
}

const areWhole = (numbers) => Array.isArray(numbers) && numbers.every(isWhole);
const headerLength = (bytes) => Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));

function readTensors(bytes, config) {
  const endsEarly = () => new ModelFileError(`${WEIGHTS_FILE} cannot be read: it ends too early`);
  if (bytes.length < 8) throw endsEarly();
  const length = headerLength(bytes);
  if (length > LARGEST_HEADER) {
    throw new ModelFileError(
      `${WEIGHTS_FILE} has a header of over ${grouped(LARGEST_HEADER)} bytes: not a charlm model`,
    );
  }
  if (length > bytes.length - 8) throw endsEarly();
  const begin = 8 + length;
  const header = checkHeader(bytes.subarray(8, begin), bytes.length - begin, config.shapes);
  return Object.fromEntries(header.map(([name, entry]) => [name, readTensor(bytes, begin, name, entry)]));
}

/** Return the entries of a header in the order in which their numbers follow, which are exactly `left` bytes. */
function checkHeader(bytes, left, shapes) {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new ModelFileError(`${WEIGHTS_FILE} cannot be read: its header is not UTF-8 text`);
  }
  const header = parseJsonObject(text, `the header of ${WEIGHTS_FILE}`);
  delete header.__metadata__; // notes for other loaders
  const names = Object.keys(shapes);
  if (Object.keys(header).length !== names.length || !names.every((name) => name in header)) {
    throw new ModelFileError(`${WEIGHTS_FILE} holds other tensors than ${CONFIG_FILE} describes`);
  }
  for (const name of names) checkEntry(name, header[name], shapes[name]);
  const inOrder = names.map((name) => [name, header[name]]);
  inOrder.sort(([, left], [, right]) => compareLists(left.data_offsets, right.data_offsets));
  let place = 0;
  for (const [name, { dtype, data_offsets: offsets }] of inOrder) {
    const end = place + product(shapes[name]) * ARRAYS[dtype].BYTES_PER_ELEMENT;
    if (compareLists(offsets, [place, end])) {
      throw new ModelFileError(`${WEIGHTS_FILE} cannot be read: the numbers of ${name} do not follow those before`);
    }
    place = end;
  }
  if (place !== left) {
    throw new ModelFileError(
      `${WEIGHTS_FILE} cannot be read: it has ${grouped(left)} bytes of numbers, not ${grouped(place)}`,
    );
  }
  return inOrder;
}

function compareLists(left, right) {
  const place = left.findIndex((number, index) => index >= right.length || number !== right[index]);
  if (place < 0) return left.length - right.length;
  return place >= right.length || left[place] > right[place] ? 1 : -1;
}

/** Throw ModelFileError unless a header's entry describes a tensor of that shape, of a type that charlm reads. */
function checkEntry(name, entry, shape) {
  const keys = isObject(entry) ? Object.keys(entry).sort().join() : "";
  if (keys !== "data_offsets,dtype,shape") {
    throw new ModelFileError(`${WEIGHTS_FILE} cannot be read: its header does not describe ${name}`);
  }
  if (!areWhole(entry.shape) || compareLists(entry.shape, shape)) {
    throw new ModelFileError(
      `${WEIGHTS_FILE}: ${name} has shape ${showJson(entry.shape)}; ${CONFIG_FILE} demands [${shape.join(", ")}]`,
    );
  }
  if (typeof entry.dtype !== "string" || !Object.hasOwn(ARRAYS, entry.dtype)) {
    const dtype = typeof entry.dtype === "string" ? entry.dtype : showJson(entry.dtype);
    throw new ModelFileError(`${WEIGHTS_FILE}: ${name} is of type ${dtype}; charlm reads F32 and BF16`);
  }
  if (!areWhole(entry.data_offsets)) {
    throw new ModelFileError(`${WEIGHTS_FILE} cannot be read: its header does not tell where ${name} is`);
  }
}

/** Return the numbers of a tensor. Throws ModelFileError if one of them is not finite. */
function readTensor(bytes, begin, name, { dtype, data_offsets: [first, end] }) {
  const place = bytes.byteOffset + begin + first;
  const size = ARRAYS[dtype].BYTES_PER_ELEMENT;
  // typed arrays begin at multiples of their numbers' size
  const [buffer, offset] = place % size ? [bytes.slice(begin + first, begin + end).buffer, 0] : [bytes.buffer, place];
  const length = (end - first) / size;
  const bits = new (dtype === "BF16" ? Uint16Array : Uint32Array)(buffer, offset, length);
  const exponent = dtype === "BF16" ? 0x7f80 : 0x7f800000;
  for (let index = 0; index < length; index++) {
    if ((bits[index] & exponent) === exponent) {
      throw new ModelFileError(`${WEIGHTS_FILE}: ${name} holds a NaN or an infinity`);
    }
  }
  return new ARRAYS[dtype](buffer, offset, length);
}

/** Return the SHA-256 of bytes in hex. Pages that come neither by https nor from this machine have no crypto.subtle. */
async function sha256(bytes) {
  const digest = globalThis.crypto?.subtle ? await crypto.subtle.digest("SHA-256", bytes) : plainSha256(bytes);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Compute a SHA-256 (FIPS 180-4); return its 32 bytes. */
function plainSha256(bytes) {
  const primes = [];
  for (let number = 2; primes.length < 64; number++) if (primes.every((prime) => number % prime)) primes.push(number);
  const state = Uint32Array.from(primes.slice(0, 8), (prime) => rootBits(prime, 2));
  const constants = Uint32Array.from(primes, (prime) => rootBits(prime, 3));
  // the message ends with a 1, zeros, and its length in bits
  const rest = bytes.length % 64;
  const tail = new Uint8Array(rest < 56 ? 64 : 128);
  tail.set(bytes.subarray(bytes.length - rest));
  tail[rest] = 0x80;
  new DataView(tail.buffer).setBigUint64(tail.length - 8, BigInt(bytes.length) * 8n);
  const words = new Int32Array(64);
  for (const part of [bytes.subarray(0, bytes.length - rest), tail]) {
    const view = new DataView(part.buffer, part.byteOffset, part.length);
    for (let block = 0; block < part.length; block += 64) hashBlock(view, block, words, constants, state);
  }
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, index) => digest.setUint32(4 * index, word));
  return digest.buffer;
}

/** Return the first 32 bits of the fractional part of the power-th root of a prime. */
function rootBits(prime, power) {
  const target = BigInt(prime) << BigInt(32 * power);
  let root = 0n;
  for (let bit = 1n << 37n; bit; bit >>= 1n) if ((root + bit) ** BigInt(power) <= target) root += bit;
  return Number(root & 0xffffffffn);
}

const rotated = (word, by) => (word >>> by) | (word << (32 - by));

function hashBlock(view, block, words, constants, state) {
  for (let index = 0; index < 16; index++) words[index] = view.getInt32(block + 4 * index);
  for (let index = 16; index < 64; index++) {
    const [early, late] = [words[index - 15], words[index - 2]];
    const s0 = rotated(early, 7) ^ rotated(early, 18) ^ (early >>> 3);
    const s1 = rotated(late, 17) ^ rotated(late, 19) ^ (late >>> 10);
    words[index] = words[index - 16] + s0 + words[index - 7] + s1;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let index = 0; index < 64; index++) {
    const s1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25);
    const first = (h + s1 + ((e & f) ^ (~e & g)) + constants[index] + words[index]) | 0;
    const s0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22);
    const second = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, index) => (state[index] += word));
}

// ----------------------------------------------------------------------------------------- random numbers and sampling

/** numpy's `Generator(PCG64(seed)).random()`: O'Neill's PCG XSL RR 128/64, seeded by numpy's SeedSequence. */
export class RandomNumbers {
  /** seed: a whole number from 0, a Number or a BigInt. */
  constructor(seed) {
    const words = seedSequence(BigInt(seed), 8); // of 32 bits, the low ones of each 64 first
    const join = (high, low) => [words[low], words[low + 1], words[high], words[high + 1]];
    // numbers of 128 bits are eight limbs of 16, the low ones first: a product of limbs is exact as a Number
    this.multiplier = limbs([0x9fccf645, 0x4385df64, 0x1fc65da4, 0x2360ed05]);
    this.increment = limbs(join(4, 6));
    for (let index = 7; index >= 0; index--) {
      const below = index ? this.increment[index - 1] >>> 15 : 1; // shifted left by one, then odd
      this.increment[index] = ((this.increment[index] << 1) & 0xffff) | below;
    }
    this.state = new Float64Array(8);
    this.advance();
    add(this.state, limbs(join(0, 2)));
    this.advance();
  }

  /** Return the next number, from 0 to below 1. */
  next() {
    this.advance();
    const s = this.state;
    // the halves of the state are combined by xor, and rotated by its uppermost six bits
    let low = ((s[5] ^ s[1]) << 16) | (s[4] ^ s[0]);
    let high = ((s[7] ^ s[3]) << 16) | (s[6] ^ s[2]);
    const by = s[7] >>> 10;
    if (by & 32) [low, high] = [high, low];
    const rest = by & 31;
    if (rest) {
      [low, high] = [(low >>> rest) | (high << (32 - rest)), (high >>> rest) | (low << (32 - rest))];
    }
    return ((high >>> 0) * 0x200000 + (low >>> 11)) / 0x20000000000000; // the upper 53 bits
  }

  /** Multiply the state and add the increment, modulo 2 to the 128. */
  advance() {
    const { state, multiplier, increment } = this;
    let carry = 0;
    const next = new Array(8);
    for (let index = 0; index < 8; index++) {
      let sum = carry + increment[index];
      for (let factor = 0; factor <= index; factor++) sum += state[factor] * multiplier[index - factor];
      const limb = sum % 0x10000;
      carry = (sum - limb) / 0x10000;
      next[index] = limb;
    }
    state.set(next);
  }
}

const limbs = (words) => Float64Array.from(words.flatMap((word) => [word & 0xffff, word >>> 16]));

function add(to, numbers) {
  let carry = 0;
  for (let index = 0; index < to.length; index++) {
    const sum = to[index] + numbers[index] + carry;
    to[index] = sum % 0x10000;
    carry = sum >= 0x10000 ? 1 : 0;
  }
}

/** Return 32-bit words from a seed, as numpy's `SeedSequence(seed).generate_state` does. */
function seedSequence(seed, words) {
  const entropy = [];
  for (let rest = seed; rest || !entropy.length; rest >>= 32n) entropy.push(Number(rest & 0xffffffffn));
  let constant = 0x43b0d7e5;
  const hash = (value, multiplier) => {
    const mixed = value ^ constant;
    constant = Math.imul(constant, multiplier);
    const result = Math.imul(mixed, constant);
    return (result ^ (result >>> 16)) >>> 0;
  };
  const mix = (left, right) => {
    const result = Math.imul(left, 0xca01f9dd) - Math.imul(right, 0x4973f715);
    return (result ^ (result >>> 16)) >>> 0;
  };
  const pool = [0, 1, 2, 3].map((place) => hash(entropy[place] ?? 0, 0x931e8875));
  const stir = (value, to) => (pool[to] = mix(pool[to], hash(value(), 0x931e8875)));
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) if (from !== to) stir(() => pool[from], to);
  }
  for (const value of entropy.slice(4)) for (let to = 0; to < 4; to++) stir(() => value, to);
  constant = 0x8b51f9dd;
  return Array.from({ length: words }, (_, place) => hash(pool[place % 4], 0x58f38ded));
}

const LOWEST_TEMPERATURE = 1e-250; // lower ones are raised to this, so that no logit divided by one overflows
const LARGEST_EXPONENT = 400; // logits whose highest is beyond are shifted so that it is 0
const BELOW_ONE = 1 - 2 ** -52; // a random number times this, times a sum, is below the sum even when rounded
const DEFAULT_LENGTH = 500;
const DEFAULT_TEMPERATURE = 0.8;

/** Check how symbols are to be drawn; return the settings with the defaults filled in.

    temperature: divides the logits; 0 takes the likeliest symbol (the first of equals).
    topK: only the k likeliest symbols can be drawn; 0, or the vocabulary's size and more, means all.
    topP: of those, only the smallest set of the likeliest whose probabilities reach it; 1 means all, 0 the likeliest.
    seed: a whole number from 0 (a BigInt above 2^53), from which the random numbers follow; without one it is drawn. */
function checkSettings({ temperature = DEFAULT_TEMPERATURE, topK = 0, topP = 1, seed = null }) {
  return {
    temperature: checkNumber("temperature", temperature, 0, Infinity),
    topK: Number(checkWhole("topK", topK, 0)),
    topP: checkNumber("topP", topP, 0, 1),
    seed: seed === null ? crypto.getRandomValues(new Uint32Array(1))[0] : checkWhole("seed", seed, 0),
  };
}

/** Draws the ids of one text: its settings and the random numbers that follow from its seed. */
export class Sampler {
  constructor(settings = {}) {
    this.settings = checkSettings(settings);
    this.scale = 1 / Math.max(this.settings.temperature, LOWEST_TEMPERATURE);
    this.randoms = new RandomNumbers(this.settings.seed);
    this.weights = new Float64Array(0);
  }

  /** Skip the random numbers of that many draws. */
  skip(draws) {
    for (; draws > 0; draws--) this.randoms.advance();
  }

  /** Return an id drawn from logits (V,), with one random number. Throws ModelFileError if they are not finite. */
  draw(logits) {
    const { temperature, topK, topP } = this.settings;
    const random = this.randoms.next();
    const weights = this.weigh(logits);
    if (temperature === 0) return largest(logits);
    if (topK > 0 || topP < 1) limit(weights, topK, topP);
    let total = 0;
    for (let id = 0; id < weights.length; id++) weights[id] = total += weights[id];
    const target = random * BELOW_ONE * total;
    let id = 0;
    while (id < weights.length - 1 && weights[id] <= target) id++;
    return id;
  }

  /** Return unnormalised probabilities (V,), which the next call overwrites. */
  weigh(logits) {
    if (this.weights.length !== logits.length) this.weights = new Float64Array(logits.length);
    const { weights, scale } = this;
    let top = -Infinity;
    for (let id = 0; id < logits.length; id++) {
      const scaled = logits[id] * scale;
      weights[id] = scaled;
      if (scaled > top || scaled !== scaled) top = scaled; // once NaN, it stays so
    }
    const shift = -LARGEST_EXPONENT < top && top < LARGEST_EXPONENT ? 0 : checkFinite(top);
    for (let id = 0; id < weights.length; id++) weights[id] = exp64(weights[id] - shift);
    return weights;
  }
}

function largest(numbers) {
  let best = 0;
  for (let place = 1; place < numbers.length; place++) if (numbers[place] > numbers[best]) best = place;
  return best;
}

/** Set to 0 the weights (V,) that top-k and top-p exclude. */
function limit(weights, topK, topP) {
  const ranking = new Ranking(weights);
  const most = topK > 0 ? Math.min(topK, weights.length) : weights.length;
  const isCut = most < weights.length;
  const likeliest = isCut ? Int32Array.from({ length: most }, () => ranking.next()) : null;
  if (topP >= 1) return likeliest && keep(weights, likeliest);
  let total = 0; // in the order of ids
  if (isCut) for (const id of likeliest.slice().sort()) total += weights[id];
  else for (const weight of weights) total += weight;
  const kept = [];
  for (let sum = 0; kept.length < most;) {
    const id = isCut ? likeliest[kept.length] : ranking.next();
    kept.push(id);
    if ((sum += weights[id]) >= topP * total) break; // the symbol that reaches it is kept
  }
  return keep(weights, kept);
}

/** The ids of weights (V,), the likeliest first, of equals the smaller first. A heap ranks as many as are asked for. */
class Ranking {
  constructor(weights) {
    this.weights = weights;
    this.heap = Int32Array.from(weights.keys());
    this.size = weights.length;
    for (let place = this.size >> 1; place-- > 0;) this.siftDown(place);
  }

  next() {
    const id = this.heap[0];
    this.heap[0] = this.heap[--this.size];
    this.siftDown(0);
    return id;
  }

  siftDown(place) {
    const { heap, size } = this;
    for (let child = 2 * place + 1; child < size; child = 2 * place + 1) {
      if (child + 1 < size && this.precedes(heap[child + 1], heap[child])) child++;
      if (this.precedes(heap[place], heap[child])) return;
      [heap[place], heap[child]] = [heap[child], heap[place]];
      place = child;
    }
  }

  precedes(one, other) {
    const [left, right] = [this.weights[one], this.weights[other]];
    return left > right || (left === right && one < other);
  }
}

function keep(weights, ids) {
  const kept = Float64Array.from(ids, (id) => weights[id]);
  weights.fill(0);
  ids.forEach((id, rank) => (weights[id] = kept[rank]));
}

function checkFinite(logit) {
  if (Number.isFinite(logit)) return logit;
  throw new ModelFileError(
    "the model's outputs are not finite numbers: its weights are too large, as after a training that " +
      "diverged; use another model",
  );
}

const PARTIAL_SUMS = 16;

/** Return a function that gives the surprisal in nats of each id, for logits (V,) as long as these stay.

    Throws ModelFileError if they are not finite. */
function surprisalsOf(logits) {
  let top = -Infinity;
  for (const logit of logits) if (logit > top || logit !== logit) top = logit;
  checkFinite(top);
  const sums = new Float64Array(PARTIAL_SUMS); // as in Python's kernels
  for (let id = 0; id < logits.length; id++) sums[id % PARTIAL_SUMS] += exp32(fround(logits[id] - top));
  const total = Math.log(sums.reduce((sum, part) => sum + part, 0));
  return (id) => total - fround(logits[id] - top);
}

// ------------------------------------------------------------------------------------- exp and tanh (charlm.inference)
//
// Those of Math differ between browsers. These are the ones of kernels.wat and of Python's kernels, to the last bit.

const fround = Math.fround;

/** Return the powers of 2 with the exponents from `lowest` to `highest`. Doubling is exact everywhere. */
function powersOfTwo(Numbers, lowest, highest) {
  const powers = new Numbers(highest - lowest + 1);
  let power = 1;
  for (let exponent = 0; exponent > lowest; exponent--) power /= 2;
  for (let place = 0; place < powers.length; place++, power *= 2) powers[place] = power;
  return powers;
}

/** Return Horner's sum of coefficients, those of the highest power first, each step rounded to float32. */
function polynomial32(coefficients, x) {
  let sum = coefficients[0];
  for (let place = 1; place < coefficients.length; place++) sum = fround(fround(sum * x) + coefficients[place]);
  return sum;
}

const EXP_32 = Float32Array.of(1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1, 1);
const TANH_32 = Float32Array.of(-0.00570498633, 0.0206390866, -0.0537397148, 0.133314422, -0.333332819);
const LOG2_E_32 = fround(1.4426950216293335);
const LN_2_UPPER_32 = fround(0.693359375); // ln(2) in two parts
const LN_2_LOWER_32 = fround(-2.1219444e-4);
const TO_INTEGER_32 = 1.5 * 2 ** 23; // added, then subtracted: rounds to the nearest whole number
const LOWEST_POWER = -76;
const POWERS = powersOfTwo(Float32Array, LOWEST_POWER, 65);

/** e^x in float32: 2^n e^r with |r| <= ln(2) / 2, and e^r by its Taylor series. */
function exp32(x) {
  const bounded = x > 89 ? 89 : x < -105 ? -105 : x;
  const n = fround(fround(fround(bounded * LOG2_E_32) + TO_INTEGER_32) - TO_INTEGER_32);
  const r = fround(fround(bounded - fround(n * LN_2_UPPER_32)) - fround(n * LN_2_LOWER_32));
  const sum = polynomial32(EXP_32, r);
  const half = n >> 1;
  // in two steps, because 2^n need not be a normal number
  return fround(fround(sum * POWERS[half - LOWEST_POWER]) * POWERS[n - half - LOWEST_POWER]);
}

const sigmoid32 = (x) => fround(1 / fround(1 + exp32(-x)));

/** tanh(x) in float32: near 0 a polynomial (a minimax fit of relative error 4e-9), elsewhere 1 - 2 / (e^2|x| + 1). */
function tanh32(x) {
  const size = Math.abs(x);
  if (size < 0.625) {
    const square = fround(x * x);
    return fround(x + fround(fround(polynomial32(TANH_32, square) * square) * x));
  }
  const far = fround(1 - fround(2 / fround(exp32(fround(size + size)) + 1)));
  return x < 0 ? -far : far;
}

const LOG2_E = 1.4426950408889634;
// ln(2) in two parts: the first has so few digits that n times it is exact
const LN_2_UPPER = 0.6931471803691238;
const LN_2_LOWER = 1.9082149292705877e-10;
const TO_INTEGER = 1.5 * 2 ** 52;
const [FACTORIAL_13, FACTORIAL_12, FACTORIAL_11, FACTORIAL_10] = [6227020800, 479001600, 39916800, 3628800];
const LOWEST_POWER_64 = -1022;
const POWERS_64 = powersOfTwo(Float64Array, LOWEST_POWER_64, 700);

/** e^x in float64, by the same way. Below -708 it is e^-708: nothing beside the weights that it is added to. */
function exp64(x) {
  const bounded = x < -708 ? -708 : x;
  const n = bounded * LOG2_E + TO_INTEGER - TO_INTEGER;
  const r = bounded - n * LN_2_UPPER - n * LN_2_LOWER;
  let sum = (1 / FACTORIAL_13) * r + 1 / FACTORIAL_12;
  sum = (sum * r + 1 / FACTORIAL_11) * r + 1 / FACTORIAL_10;
  sum = (sum * r + 1 / 362880) * r + 1 / 40320;
  sum = (sum * r + 1 / 5040) * r + 1 / 720;
  sum = (sum * r + 1 / 120) * r + 1 / 24;
  sum = (sum * r + 1 / 6) * r + 0.5;
  sum = (sum * r + 1) * r + 1;
  return sum * POWERS_64[n - LOWEST_POWER_64];
}

// ------------------------------------------------------------------------------------------------------------- kernels
//
// Both kinds have a memory (`buffer`), in which places are given in bytes, and the same functions on it, which
// kernels.wat describes. Matrices lie in panels of `width` outputs.

// kernels.wat as it is assembled by wasmtime.wat2wasm, in base64
const MODULE =
  "AGFzbQEAAAABHARgBn9/f39/fwBgAXsBe2ADf39/AGAEf39/fwACEgEGY2hhcmxtBm1lbW9yeQIAAQMKCQAAAQEBAQIDAwcxBQtwcm9kdWN0X2YzMgAADHByb2R1Y3RfYmYxNgABA3JubgAGBGxzdG0ABwNncnUACAqWDQnjAgICfwl7IAEgBUECdGohBwNAIAL9AAQAIQkgAv0ABBAhCiAC/QAEICELIAL9AAQwIQwgAv0ABEAhDSAC/QAEUCEOIAL9AARgIQ8gAv0ABHAhECABIQYDQCAG/QkCACEIIAkgCCAA/QAEAP3mAf3kASEJIAogCCAA/QAEEP3mAf3kASEKIAsgCCAA/QAEIP3mAf3kASELIAwgCCAA/QAEMP3mAf3kASEMIA0gCCAA/QAEQP3mAf3kASENIA4gCCAA/QAEUP3mAf3kASEOIA8gCCAA/QAEYP3mAf3kASEPIBAgCCAA/QAEcP3mAf3kASEQIABBgAFqIQAgBkEEaiEGIAYgB0cNAAsgAyAJ/QsEACADIAr9CwQQIAMgC/0LBCAgAyAM/QsEMCADIA39CwRAIAMgDv0LBFAgAyAP/QsEYCADIBD9CwRwIAJBgAFqIQIgA0GAAWohAyAEQQFrIQQgBA0ACwubAwICfwt7/QwAAP//AAD//wAA//8AAP//IQogASAFQQJ0aiEHA0AgAv0ABAAhCyAC/QAEECEMIAL9AAQgIQ0gAv0ABDAhDiAC/QAEQCEPIAL9AARQIRAgAv0ABGAhESAC/QAEcCESIAEhBgNAIAb9CQIAIQggAP0ABAAhCSALIAggCUEQ/asB/eYB/eQBIQsgDCAIIAkgCv1O/eYB/eQBIQwgAP0ABBAhCSANIAggCUEQ/asB/eYB/eQBIQ0gDiAIIAkgCv1O/eYB/eQBIQ4gAP0ABCAhCSAPIAggCUEQ/asB/eYB/eQBIQ8gECAIIAkgCv1O/eYB/eQBIRAgAP0ABDAhCSARIAggCUEQ/asB/eYB/eQBIREgEiAIIAkgCv1O/eYB/eQBIRIgAEHAAGohACAGQQRqIQYgBiAHRw0ACyADIAv9CwQAIAMgDP0LBBAgAyAN/QsEICADIA79CwQwIAMgD/0LBEAgAyAQ/QsEUCADIBH9CwRgIAMgEv0LBHAgAkGAAWohAiADQYABaiEDIARBAWshBCAEDQALC7oCAQV7QwAAskL9EyAAIABDAACyQv0T/UT9UiEAQwAA0sL9EyAAIABDAADSwv0T/UP9UiEAQwAAQEv9EyAAQzuquD/9E/3mAf3kASEBIAFDAABAS/0T/eUBIQIgACACQwCAMT/9E/3mAf3lASEDIAMgAkODgF65/RP95gH95QEhA0MBDVA5/RMhBCAEIAP95gFDYQu2Ov0T/eQBIQQgBCAD/eYBQ4mICDz9E/3kASEEIAQgA/3mAUOrqio9/RP95AEhBCAEIAP95gFDq6oqPv0T/eQBIQQgBCAD/eYBQwAAAD/9E/3kASEEIAQgA/3mAUMAAIA//RP95AEhBCAEIAP95gFDAACAP/0T/eQBIQQgAUMAAEBL/RP9sQEhAiACQQH9rAEhBSAEIAUQA/3mASACIAX9sQEQA/3mAQsRACAAQf8A/RH9rgFBF/2rAQsdAEMAAIA//RNDAACAP/0TIAD94QEQAv3kAf3nAQvIAQEFeyAAQwAAAID9E/1OIQEgACAB/VEhAiAAIAD95gEhA0Pl8Lq7/RMhBCAEIAP95gFDTROpPP0T/eQBIQQgBCAD/eYBQy0eXL39E/3kASEEIAQgA/3mAUOTgwg+/RP95AEhBCAEIAP95gFDmaqqvv0T/eQBIQQgACAEIAP95gEgAP3mAf3kASEEQwAAgD/9E0MAAABA/RMgAiAC/eQBEAJDAACAP/0T/eQB/ecB/eUBIQUgBCAFIAH9UCACQwAAID/9E/1D/VILLAADQCABIAD9AAQAEAX9CwQAIABBEGohACABQRBqIQEgAkEEayECIAINAAsLogECA38BeyAAIANBAnRqIQQgBCADQQJ0aiEFIAUgA0ECdGohBgNAIAT9AAQAEAQgAv0ABAD95gEgAP0ABAAQBCAF/QAEABAF/eYB/eQBIQcgAiAH/QsEACABIAb9AAQAEAQgBxAF/eYB/QsEACAAQRBqIQAgBEEQaiEEIAVBEGohBSAGQRBqIQYgAkEQaiECIAFBEGohASADQQRrIQMgAw0ACwuKAQICfwF7IAAgA0ECdGohBCAEIANBAnRqIQUDQCAB/QAEACAA/QAEABAEIAX9AAQA/eYB/eQBEAUhBiACIAYgBP0ABAAQBCAC/QAEACAG/eUB/eYB/eQB/QsEACAAQRBqIQAgBEEQaiEEIAVBEGohBSABQRBqIQEgAkEQaiECIANBBGshAyADDQALCwDBAwRuYW1lARwEAgNleHADBXBvd2VyBAdzaWdtb2lkBQR0YW5oAuICCQARAAF3AQZpbnB1dHMCBGZyb20DAnRvBAZwYW5lbHMFBXRlcm1zBgVpbnB1dAcDZW5kCAF4CQJzMAoCczELAnMyDAJzMw0CczQOAnM1DwJzNhACczcBEwABdwEGaW5wdXRzAgRmcm9tAwJ0bwQGcGFuZWxzBQV0ZXJtcwYFaW5wdXQHA2VuZAgBeAkEcGFpcgoFdXBwZXILAnMwDAJzMQ0CczIOAnMzDwJzNBACczURAnM2EgJzNwIGAAF4AQdzaGlmdGVkAgFuAwFyBANzdW0FBGhhbGYDAQABbgQBAAF4BQYAAXgBBHNpZ24CBHNpemUDBnNxdWFyZQQEbmVhcgUDZmFyBgMABHN1bXMBBmhpZGRlbgIFdW5pdHMHCAABaQEGaGlkZGVuAgRjZWxsAwV1bml0cwQBZgUBZwYBbwcBYwgHAAFyAQFhAgZoaWRkZW4DBXVuaXRzBAF6BQFkBgFuAzcFAAIABXBhbmVsAQR0ZXJtAQIABXBhbmVsAQR0ZXJtBgEABHVuaXQHAQAEdW5pdAgBAAR1bml0";
const PAGE = 65536; // bytes, the unit of a WebAssembly memory
const SIMD_LAYOUT = { width: 32, packsHalves: true };
const JAVASCRIPT_LAYOUT = { width: 8, packsHalves: false };

/** Compile the kernels; return null where the browser has no WebAssembly with SIMD, or the page's policy forbids it. */
function compileKernels() {
  try {
    return new WebAssembly.Module(Uint8Array.from(atob(MODULE), (symbol) => symbol.charCodeAt(0)));
  } catch {
    return null;
  }
}

function makeSimdKernels(module, bytes) {
  const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / PAGE) });
  const { exports } = new WebAssembly.Instance(module, { charlm: { memory } });
  return { ...exports, name: "wasm-simd", buffer: memory.buffer };
}

function makeJavaScriptKernels(bytes) {
  const f = new Float32Array(Math.ceil(bytes / 4));

  function product_f32(matrix, inputs, from, to, panels, terms) {
    let [w, start, out] = [matrix / 4, from / 4, to / 4];
    const [first, end] = [inputs / 4, inputs / 4 + terms];
    for (; panels > 0; panels--, start += 8, out += 8) {
      let s0 = f[start + 0];
      let s1 = f[start + 1];
      let s2 = f[start + 2];
      let s3 = f[start + 3];
      let s4 = f[start + 4];
      let s5 = f[start + 5];
      let s6 = f[start + 6];
      let s7 = f[start + 7];
      for (let input = first; input < end; input++, w += 8) {
        const x = f[input];
        s0 = fround(s0 + fround(x * f[w]));
        s1 = fround(s1 + fround(x * f[w + 1]));
        s2 = fround(s2 + fround(x * f[w + 2]));
        s3 = fround(s3 + fround(x * f[w + 3]));
        s4 = fround(s4 + fround(x * f[w + 4]));
        s5 = fround(s5 + fround(x * f[w + 5]));
        s6 = fround(s6 + fround(x * f[w + 6]));
        s7 = fround(s7 + fround(x * f[w + 7]));
      }
      f[out + 0] = s0;
      f[out + 1] = s1;
      f[out + 2] = s2;
      f[out + 3] = s3;
      f[out + 4] = s4;
      f[out + 5] = s5;
      f[out + 6] = s6;
      f[out + 7] = s7;
    }
  }

  function rnn(sums, hidden, units) {
    for (let unit = 0; unit < units; unit++) f[hidden / 4 + unit] = tanh32(f[sums / 4 + unit]);
  }

  function lstm(sums, hidden, cell, units) {
    for (let unit = 0; unit < units; unit++) {
      const [i, h, c] = [sums / 4 + unit, hidden / 4 + unit, cell / 4 + unit];
      const kept = fround(sigmoid32(f[i + units]) * f[c]);
      f[c] = fround(kept + fround(sigmoid32(f[i]) * tanh32(f[i + 2 * units])));
      f[h] = fround(sigmoid32(f[i + 3 * units]) * tanh32(f[c]));
    }
  }

  function gru(sums, inputs, hidden, units) {
    for (let unit = 0; unit < units; unit++) {
      const [r, h] = [sums / 4 + unit, hidden / 4 + unit];
      const n = tanh32(fround(f[inputs / 4 + unit] + fround(sigmoid32(f[r]) * f[r + 2 * units])));
      f[h] = fround(n + fround(sigmoid32(f[r + units]) * fround(f[h] - n)));
    }
  }

  return { product_f32, rnn, lstm, gru, name: "javascript", buffer: f.buffer };
}

// --------------------------------------------------------------------------------------------------- Engine and Reader

const LARGEST_WEIGHT = 1e15; // its square, times the number of terms in a sum, is a finite float32
const [LARGEST_BITS] = new Uint32Array(Float32Array.of(LARGEST_WEIGHT).buffer);
const LARGEST_TABLE = 2 ** 23; // numbers, 32 MB; 65 symbols and an LSTM of 512 units have 2^17
const LINE = 64; // bytes, of the processor's cache

const roundUp = (number, multiple) => Math.ceil(number / multiple) * multiple;

/** Return a tensor's numbers as float32. */
function widen(numbers) {
  if (numbers instanceof Float32Array) return numbers;
  const bits = Uint32Array.from(numbers, (half) => half << 16);
  return new Float32Array(bits.buffer);
}

/** For each cell: `step` computes a layer's next hidden state from its hidden state and from bias + W x, which lies at
    `before`; `gates` computes the gates of one unit along a text, named as in torch.nn, (N,) each.

    blocks: the gates of the recurrent weights that are multiplied in one go. The GRU's last gate is apart, because its
    sums of the hidden state start from a bias of their own. gates: gets for each gate its sums along the
    text, {input, total}: bias + W x, and that + U h, or of the GRU's last gate bias + U h. */
const CELL_STEPS = {
  rnn: {
    blocks: [[0]],
    step(engine, layer, before) {
      engine.multiply(layer.recurrent[0], layer.hidden, before, engine.sums);
      engine.kernels.rnn(engine.sums, layer.hidden, engine.units);
    },
    gates: ([sum]) => ({ sum: sum.total }),
  },
  lstm: {
    blocks: [[0, 1, 2, 3]],
    step(engine, layer, before) {
      engine.multiply(layer.recurrent[0], layer.hidden, before, engine.sums);
      engine.kernels.lstm(engine.sums, layer.hidden, layer.cellState, engine.units);
    },
    gates: (sums) => {
      const [i, f, o] = [0, 1, 3].map((gate) => sums[gate].total.map(sigmoid32));
      const g = sums[2].total.map(tanh32);
      let state = 0;
      const c = g.map((number, place) => {
        state = fround(fround(f[place] * state) + fround(i[place] * number));
        return state;
      });
      return { i, f, g, o, c };
    },
  },
  gru: {
    blocks: [[0, 1], [2]],
    step(engine, layer, before) {
      const n = 8 * engine.units; // bytes before the third gate
      engine.multiply(layer.recurrent[0], layer.hidden, before, engine.sums);
      engine.multiply(layer.recurrent[1], layer.hidden, layer.hiddenBias, engine.sums + n);
      engine.kernels.gru(engine.sums, before + n, layer.hidden, engine.units);
    },
    gates: (sums) => {
      const [r, z] = [0, 1].map((gate) => sums[gate].total.map(sigmoid32));
      const n = r.map((number, place) => tanh32(fround(sums[2].input[place] + fround(number * sums[2].total[place]))));
      return { r, z, n };
    },
  },
};

/** The weights of a model, rearranged for reading, and the arithmetic of a step.

    A sum starts from the bias and goes on in the order of its terms. What the first layer computes from a symbol is
    kept in a table when the symbol is first read, unless the table would have more than LARGEST_TABLE numbers.

    units: H padded to a multiple of four, with units that are always 0. kernels.name says what computes. */
export class Engine {
  /** config: as `readConfig` returns it. tensors: by name, as Float32Array or, for bfloat16, Uint16Array.
      simd: whether to use WebAssembly where it can be used.

      Throws ModelFileError if weights are so large that a logit might not be finite, or the memory does not suffice. */
  constructor(config, tensors, { simd = true } = {}) {
    Object.values(tensors).forEach(checkLargest);
    const module = simd ? compileKernels() : null;
    this.config = config;
    this.units = roundUp(config.hidden_size, 4);
    this.cellStep = CELL_STEPS[config.cell].step;
    this.current = null; // the reader whose state is in the memory
    this.texts = []; // those that were read lately, see TextReader
    const plan = new Plan(module ? SIMD_LAYOUT : JAVASCRIPT_LAYOUT);
    this.width = plan.width;
    this.lastRead = { ids: null, hidden: null }; // see `readHidden`
    this.arrange(plan, tensors);
    try {
      this.kernels = module ? makeSimdKernels(module, plan.bytes) : makeJavaScriptKernels(plan.bytes);
    } catch {
      const bytes = grouped(4 * config.parameters);
      throw new ModelFileError(`the model takes ${bytes} bytes of memory, more than is free`);
    }
    plan.fill(this.kernels.buffer);
    this.logits = new Float32Array(this.kernels.buffer, this.logitsPlace, config.symbols.length);
    this.states = new Float32Array(this.kernels.buffer, this.statesPlace, this.stateSize);
    this.numbers = new Float32Array(this.kernels.buffer);
  }

  /** Decide where everything lies in the memory. */
  arrange(plan, tensors) {
    const { config, units } = this;
    const { gates, hasCellState } = CELLS[config.cell];
    const [symbols, rows] = [config.symbols.length, roundUp(gates * units, plan.width)];
    this.stateSize = config.num_layers * units * (hasCellState ? 2 : 1);
    this.statesPlace = plan.take(4 * this.stateSize);
    this.before = plan.take(4 * rows);
    this.sums = plan.take(4 * (rows + plan.width));
    this.logitsPlace = plan.take(4 * roundUp(symbols, plan.width));
    this.layers = Array.from({ length: config.num_layers }, (_, number) => this.arrangeLayer(plan, tensors, number));
    this.embeddings = plan.takeNumbers(widen(tensors["embedding.weight"]));
    this.rowBytes = 4 * rows;
    this.table = symbols * rows <= LARGEST_TABLE ? plan.take(symbols * this.rowBytes) : null;
    this.isInTable = new Uint8Array(symbols);
    this.head = plan.takeMatrix(tensors["head.weight"], [0], symbols, symbols, config.hidden_size);
    this.headBias = plan.takeNumbers(widen(tensors["head.bias"]));
  }

  arrangeLayer(plan, tensors, number) {
    const { config, units } = this;
    const { gates, hasCellState } = CELLS[config.cell];
    const { blocks } = CELL_STEPS[config.cell];
    const size = config.hidden_size;
    const tensor = (name) => tensors[`recurrent.${name}_l${number}`];
    const [bias, hiddenBias] = [widen(tensor("bias_ih")), widen(tensor("bias_hh"))];
    // in the gates of the first block the two biases are one
    const sum = bias.map((each, row) => (row < blocks[0].length * size ? each + hiddenBias[row] : each));
    const all = Array.from({ length: gates }, (_, gate) => gate);
    const states = this.statesPlace + 4 * units * number;
    return {
      inputs: plan.takeMatrix(tensor("weight_ih"), all, size, units, number ? size : config.embedding_size),
      recurrent: blocks.map((block) => plan.takeMatrix(tensor("weight_hh"), block, size, units, size)),
      bias: plan.takeNumbers(padGates(sum, all, size, units)),
      hiddenBias: plan.takeNumbers(padGates(hiddenBias, [gates - 1], size, units)),
      hidden: states,
      cellState: hasCellState ? states + 4 * units * config.num_layers : null,
    };
  }

  /** Write from + W x to the place `to`. */
  multiply({ kind, place, panels, terms }, x, from, to) {
    this.kernels[kind](place, x, from, to, panels, terms);
  }

  /** Read a symbol. */
  advance(id) {
    let below = null;
    for (const layer of this.layers) {
      const before = below === null ? this.lookUp(layer, id) : this.before;
      if (below !== null) this.multiply(layer.inputs, below, layer.bias, before);
      this.cellStep(this, layer, before);
      below = layer.hidden;
    }
  }

  /** Return the place of what the first layer computes from a symbol. */
  lookUp(layer, id) {
    const place = this.table === null ? this.before : this.table + id * this.rowBytes;
    if (!this.isInTable[id]) {
      this.multiply(layer.inputs, this.embeddings + 4 * id * this.config.embedding_size, layer.bias, place);
      this.isInTable[id] = this.table === null ? 0 : 1;
    }
    return place;
  }

  /** Return the row of a matrix from which an output is computed, (terms,). */
  rowOf({ kind, place, terms }, output) {
    const isHalves = kind === "product_bf16";
    const Numbers = isHalves ? Uint16Array : Float32Array;
    const packed = new Numbers(this.kernels.buffer, place);
    const lane = output % this.width;
    const first = (output - lane) * terms + slotOf(lane, isHalves);
    return widen(Numbers.from({ length: terms }, (_, term) => packed[first + term * this.width]));
  }

  /** Return the logits (V,) of the present state, which the next call overwrites. */
  predict() {
    this.multiply(this.head, this.layers.at(-1).hidden, this.headBias, this.logitsPlace);
    return this.logits;
  }
}

/** Throw ModelFileError if a weight is so large that a logit might not be finite. */
function checkLargest(numbers) {
  const bits =
    numbers instanceof Uint16Array ? numbers : new Uint32Array(numbers.buffer, numbers.byteOffset, numbers.length);
  const [size, largest] = numbers instanceof Uint16Array ? [0x7fff, LARGEST_BITS >>> 16] : [0x7fffffff, LARGEST_BITS];
  for (let place = 0; place < bits.length; place++) {
    if ((bits[place] & size) > largest) {
      const most = LARGEST_WEIGHT.toExponential();
      throw new ModelFileError(
        `the model has weights over ${most}, as after a training that diverged; use another model`,
      );
    }
  }
}

/** Return the rows of some gates, each padded with zeros to `padded` rows. */
function padGates(numbers, gates, rows, padded) {
  const result = new Float32Array(gates.length * padded);
  gates.forEach((gate, place) => result.set(numbers.subarray(gate * rows, (gate + 1) * rows), place * padded));
  return result;
}

/** What lies where in the memory of an engine. It is filled once the memory is there. */
class Plan {
  /** width: outputs in a panel. packsHalves: whether matrices in bfloat16 stay so. */
  constructor({ width, packsHalves }) {
    Object.assign(this, { width, packsHalves, bytes: LINE, fills: [] });
  }

  /** Reserve bytes; return their place. fill: called with the memory and the place. */
  take(bytes, fill = () => undefined) {
    const place = this.bytes;
    this.bytes += roundUp(bytes, LINE);
    this.fills.push((buffer) => fill(buffer, place));
    return place;
  }

  /** Reserve room for numbers, padded to a whole panel; return their place. */
  takeNumbers(numbers) {
    return this.take(4 * roundUp(numbers.length, this.width), (buffer, place) => {
      new Float32Array(buffer, place, numbers.length).set(numbers);
    });
  }

  /** Reserve room for a matrix: some gates of a tensor, each of so many rows, which are padded. */
  takeMatrix(numbers, gates, rows, padded, terms) {
    const panels = Math.ceil((gates.length * padded) / this.width);
    const isHalves = this.packsHalves && numbers instanceof Uint16Array;
    const place = this.take(panels * this.width * terms * (isHalves ? 2 : 4), (buffer, start) => {
      const Numbers = isHalves ? Uint16Array : Float32Array;
      const packed = new Numbers(buffer, start, panels * this.width * terms);
      const source = isHalves ? numbers : widen(numbers);
      gates.forEach((gate, block) => {
        const from = source.subarray(gate * rows * terms, (gate + 1) * rows * terms);
        packRows(from, packed, terms, block * padded, this.width, isHalves);
      });
    });
    return { kind: isHalves ? "product_bf16" : "product_f32", place, panels, terms };
  }

  /** Put everything into the memory. */
  fill(buffer) {
    for (const fill of this.fills) fill(buffer);
  }
}

/** Return where in its term of a panel an output lies: in bfloat16 two outputs share a word. */
function slotOf(lane, isHalves) {
  return isHalves ? (lane & ~7) + 2 * (lane & 3) + ((lane >> 2) & 1) : lane;
}

/** Put rows (rows, terms) of a matrix into its panels (panels, terms, width), from the output `first` on. */
function packRows(rows, packed, terms, first, width, isHalves) {
  for (let row = 0; row < rows.length / terms; row++) {
    const lane = (first + row) % width;
    let to = (first + row - lane) * terms + slotOf(lane, isHalves);
    for (let from = row * terms; from < (row + 1) * terms; from++, to += width) packed[to] = rows[from];
  }
}

/** Reads a text, from the zero state on. An engine may have many readers, which take turns. */
export class Reader {
  constructor(engine) {
    this.engine = engine;
    this.states = new Float32Array(engine.stateSize); // while another reader has the engine
  }

  /** Read a symbol. */
  advance(id) {
    this.enter();
    this.engine.advance(id);
  }

  /** Return the logits (V,) of the present state, which the next call to the engine overwrites. */
  predict() {
    this.enter();
    return this.engine.predict();
  }

  /** Return the hidden states (L, H), and the cell states of an LSTM (else null), copied. */
  unitStates() {
    this.enter();
    const { states, units, config } = this.engine;
    const { num_layers: layers, hidden_size: size } = config;
    const take = (first) => {
      const taken = new Float32Array(layers * size);
      for (let layer = 0; layer < layers; layer++) {
        const start = (first + layer) * units;
        taken.set(states.subarray(start, start + size), layer * size);
      }
      return taken;
    };
    return { hidden: take(0), cell: CELLS[config.cell].hasCellState ? take(layers) : null };
  }

  /** Put this reader's state into the engine. */
  enter() {
    const { engine } = this;
    if (engine.current === this) return;
    if (engine.current) engine.current.states.set(engine.states);
    engine.states.set(this.states);
    engine.current = this;
  }
}

const STRIDE = 16; // symbols between two states that are kept
const MOST_TEXTS = 8; // whose states are kept
const MOST_STATE_NUMBERS = 2 ** 20; // in the states of one text, 4 MB

/** A reader that keeps states of its text, and begins with those that another text with the same beginning has left.

    So a text that was written lately goes on from any place after less than STRIDE steps; of one whose states would be
    more than MOST_STATE_NUMBERS, the first are dropped, and the places there take as many steps as without them.
    text: {ids, states}, where states has by a number of ids the state after them. */
export class TextReader extends Reader {
  /** ids: of the beginning of the text. isWriting: whether other symbols than a text had so far may follow. */
  constructor(engine, ids, isWriting) {
    super(engine);
    const { texts } = engine;
    const commons = texts.map((text) => countCommon(text.ids, ids));
    const common = Math.max(0, ...commons);
    const found = texts[commons.indexOf(common)] ?? { ids: [], states: new Map() };
    const kept = [...found.states].filter(([count]) => count <= common);
    const [count, state] = kept.at(-1) ?? [0, this.states];
    this.states.set(state);
    this.text = { ids: ids.slice(0, count), states: new Map(kept) };
    this.most = Math.max(1, Math.floor(MOST_STATE_NUMBERS / engine.stateSize));
    const isNew = isWriting || common < ids.length;
    const isContinued = isNew && common > 0 && found.ids.length === common; // it is the beginning of this text
    const others = texts.filter((text) => text !== found);
    const isLeft = found.ids.length > 0 && !isContinued;
    engine.texts = [...(isNew ? [this.text] : []), ...(isLeft ? [found] : []), ...others].slice(0, MOST_TEXTS);
  }

  /** Read what is not read yet of ids, a symbol at each step. */
  *read(ids) {
    for (let place = this.text.ids.length; place < ids.length; place++) yield this.advance(ids[place]);
  }

  advance(id) {
    super.advance(id);
    const { ids, states } = this.text;
    ids.push(id);
    if (ids.length % STRIDE) return;
    states.set(ids.length, this.engine.states.slice());
    if (states.size > this.most) states.delete(states.keys().next().value);
  }
}

function countCommon(ids, others) {
  let count = 0;
  while (count < Math.min(ids.length, others.length) && ids[count] === others[count]) count++;
  return count;
}

// --------------------------------------------------------------------------------------------- what runs in the Worker

const WORKER_NAME = "charlm";
const SLICE = 10; // milliseconds of computing between two looks at the messages
const DELIVERY = 30; // milliseconds between two pieces of a text: each costs time, and people read no faster
const MOST_AHEAD = 8; // pieces that a text may be ahead of its reader
const SHOWN_SYMBOLS = 5; // of the likeliest, in each place
const MOST_KEPT = 20_000; // symbols whose hidden states are kept: 80 MB for 2 × 512 units
const DEFAULT_THRESHOLD = 0.3; // of a hidden state, above which a unit is on
const LONGEST_PATTERN = 200;
const LEAST_SHARE = 0.5; // of a pattern's units that are on in all of another place
const MOST_PLACES = 20;

/** What a task does for a request: a generator that reads or writes a symbol at each step, and returns the answer. */
const TASKS = {
  /** Write `length` symbols after reading ids; add them to the task's piece.

      drawn: how many of the ids were written before. forced: a Map of ids that were chosen, by their place in what is
      written. */
  *write(engine, { ids, length, settings, drawn, forced, isScored }, task) {
    const reader = new TextReader(engine, ids, true);
    const sampler = new Sampler(settings);
    sampler.skip(drawn);
    yield* reader.read(ids);
    for (let left = length; left > 0; left--) {
      const logits = reader.predict();
      const drawnId = sampler.draw(logits); // a choice uses up its random number, too
      const id = forced.get(drawn + length - left) ?? drawnId;
      task.text += engine.config.symbols[id];
      if (isScored) task.surprisals.push(surprisalsOf(logits)(id));
      yield;
      if (left > 1) reader.advance(id);
    }
  },

  /** Return the logits (V,) of the symbol after ids, and the random number of its draw, the one after so many draws. */
  *predict(engine, { ids, seed, drawn }) {
    const reader = new TextReader(engine, ids, false);
    yield* reader.read(ids);
    const logits = reader.predict().slice();
    const sampler = new Sampler({ seed });
    sampler.skip(drawn);
    return { logits, random: sampler.randoms.next() };
  },

  /** Return the surprisals in nats of all ids (N,) but the first, (N - 1,). */
  *score(engine, { ids }) {
    const reader = new Reader(engine);
    const surprisals = new Float64Array(Math.max(0, ids.length - 1));
    for (let place = 0; place < surprisals.length; place++) {
      reader.advance(ids[place]);
      const logits = reader.predict();
      surprisals[place] = surprisalsOf(logits)(ids[place + 1]);
      yield;
    }
    return surprisals;
  },

  /** Return the surprisals of ids, (N,), and what was likeliest in each place; NaN and nothing for the first. */
  *inspect(engine, { ids }) {
    const surprisals = new Float64Array(ids.length).fill(NaN);
    const likeliest = ids.length ? [[]] : [];
    const isKept = ids.length <= MOST_KEPT; // whoever looks at a text asks for the gates of a unit next
    for (const [reader, place] of isKept ? keepHidden(engine, ids) : readEach(engine, ids)) {
      if (place + 1 === ids.length) continue;
      const logits = reader.predict();
      const surprisal = surprisalsOf(logits);
      surprisals[place + 1] = surprisal(ids[place + 1]);
      const best = findLargest(logits, SHOWN_SYMBOLS);
      likeliest.push(best.map((id) => [engine.config.symbols[id], Math.exp(-surprisal(id))]));
      yield;
    }
    return { surprisals, likeliest };
  },

  /** Return the hidden states after each of ids, (N, L, H), and the cell states of an LSTM (else null). */
  *units(engine, { ids }) {
    const reader = new Reader(engine);
    const size = engine.config.num_layers * engine.config.hidden_size;
    const hidden = new Float32Array(ids.length * size);
    const cell = CELLS[engine.config.cell].hasCellState ? new Float32Array(ids.length * size) : null;
    for (let place = 0; place < ids.length; place++) {
      reader.advance(ids[place]);
      const states = reader.unitStates();
      hidden.set(states.hidden, place * size);
      cell?.set(states.cell, place * size);
      yield;
    }
    return { hidden, cell };
  },

  /** Return the gates of a unit after each of ids, as `CharLM.gates` does. */
  *gates(engine, { ids, layer, unit }) {
    const hidden = yield* readHidden(engine, ids);
    const { cell, num_layers: layers, hidden_size: size } = engine.config;
    const sums = [];
    for (let gate = 0; gate < CELLS[cell].gates; gate++) {
      sums.push(yield* sumsOf(engine, { ids, hidden, layer, unit, gate }));
    }
    const h = Float32Array.from(ids, (_, place) => hidden[(place * layers + layer) * size + unit]);
    return { cell, gates: { ...CELL_STEPS[cell].gates(sums), h } };
  },

  /** Return the units of a stretch of ids, and where else they are on, as `CharLM.findPattern` does. */
  *pattern(engine, { ids, start, end, threshold }) {
    const hidden = yield* readHidden(engine, ids);
    const { num_layers: layers, hidden_size: size } = engine.config;
    const isOn = (place, unit) => hidden[place * layers * size + unit] > threshold;
    const found = unitsOfStretch(isOn, layers * size, start, end, ids.length);
    const units = found.map((unit) => [Math.floor(unit / size), unit % size]);
    return { units, places: found.length ? placesOf(isOn, found, start, end, ids.length) : [] };
  },
};

/** Read ids; return the hidden states after each, (N, L, H). Those of the last ids are kept, so that one unit after
    another, or a threshold that moves, needs no reading. */
function* readHidden(engine, ids) {
  const { lastRead } = engine;
  const isLast = lastRead.ids?.length === ids.length && ids.every((id, place) => id === lastRead.ids[place]);
  if (!isLast) for (const _ of keepHidden(engine, ids)) yield;
  return engine.lastRead.hidden;
}

/** Read ids, as `readEach` does, and keep the hidden states for `readHidden`. */
function* keepHidden(engine, ids) {
  const size = engine.config.num_layers * engine.config.hidden_size;
  const hidden = new Float32Array(ids.length * size);
  for (const [reader, place] of readEach(engine, ids)) {
    hidden.set(reader.unitStates().hidden, place * size);
    yield [reader, place];
  }
  engine.lastRead = { ids, hidden };
}

/** Read ids; yield the reader after each, with its place. */
function* readEach(engine, ids) {
  const reader = new Reader(engine);
  for (let place = 0; place < ids.length; place++) {
    reader.advance(ids[place]);
    yield [reader, place];
  }
}

/** Return the sums of a gate of a unit along a text, {input, total} as CELL_STEPS has them, (N,) each.

    They are made in the order of the kernels, so that they have the same bits. */
function* sumsOf(engine, { ids, hidden, layer, unit, gate }) {
  const { layers, units, embeddings, config, numbers } = engine;
  const { num_layers: depth, hidden_size: size, embedding_size: embedded } = config;
  const { inputs, recurrent, bias, hiddenBias } = layers[layer];
  const [together] = CELL_STEPS[config.cell].blocks;
  const isApart = gate >= together.length;
  const ofInput = engine.rowOf(inputs, gate * units + unit);
  const ofState = engine.rowOf(recurrent[Number(isApart)], (isApart ? 0 : gate * units) + unit);
  const input = new Float32Array(ids.length);
  const total = new Float32Array(ids.length);
  for (let place = 0; place < ids.length; place++) {
    const from = layer ? (place * depth + layer - 1) * size : embeddings / 4 + ids[place] * embedded;
    input[place] = addTerms(numbers[bias / 4 + gate * units + unit], ofInput, layer ? hidden : numbers, from);
    const start = isApart ? numbers[hiddenBias / 4 + unit] : input[place];
    total[place] = place ? addTerms(start, ofState, hidden, ((place - 1) * depth + layer) * size) : start;
    yield;
  }
  return { input, total };
}

/** Return a sum that goes on with a row times the numbers from `first` on. */
function addTerms(sum, row, numbers, first) {
  for (let term = 0; term < row.length; term++) sum = fround(sum + fround(row[term] * numbers[first + term]));
  return sum;
}

/** Return the units that are on from `start` to `end`, and off just before and after. */
function unitsOfStretch(isOn, units, start, end, length) {
  const inside = Array.from({ length: end - start }, (_, step) => start + step);
  const outside = [start - 1, end].filter((place) => place >= 0 && place < length);
  return Array.from({ length: units }, (_, unit) => unit).filter(
    (unit) => inside.every((place) => isOn(place, unit)) && !outside.some((place) => isOn(place, unit)),
  );
}

/** Return the other places of a text at which some units are on, [start, end, share], as `CharLM.findPattern` does. */
function placesOf(isOn, units, start, end, length) {
  const size = end - start;
  const counts = new Float64Array(Math.max(length - size + 1, 0)); // of the units that are on from each place on
  for (const unit of units) {
    for (let place = 0, run = 0; place < length; place++) {
      run = isOn(place, unit) ? run + 1 : 0;
      if (run >= size) counts[place + 1 - size]++;
    }
  }
  const most = [...counts.keys()].filter((place) => counts[place] >= LEAST_SHARE * units.length);
  const places = [[start, end]]; // which is no other place
  for (const first of most.sort((one, other) => counts[other] - counts[one] || one - other)) {
    const isFree = places.every(([begin, close]) => first + size <= begin || first >= close);
    if (isFree) places.push([first, first + size, counts[first] / units.length]);
    if (places.length > MOST_PLACES) break;
  }
  return places.slice(1);
}

/** Return the places of the largest numbers, the largest first, of equals the first. */
function findLargest(numbers, count) {
  const found = [];
  while (found.length < Math.min(count, numbers.length)) {
    let best = -1;
    for (let place = 0; place < numbers.length; place++) {
      if ((best < 0 || numbers[place] > numbers[best]) && !found.includes(place)) best = place;
    }
    found.push(best);
  }
  return found;
}

/** Holds models and answers requests about them, in slices, so that a message is heard while it computes. */
class Host {
  /** port: the end of a HostConnection's message channel on which requests arrive. */
  constructor(port) {
    this.port = port;
    this.engines = new Map(); // by the model's key; null while its weights are being checked
    this.tasks = new Map();
    this.isRunning = false;
    port.onmessage = ({ data }) => this.receive(data);
    port.postMessage({ ready: WORKER_NAME });
  }

  receive({ id, kind, model, ...request }) {
    if (kind === "open") this.open(id, model, request);
    else if (kind === "close") this.close(model);
    else if (kind === "cancel") this.tasks.delete(id);
    else if (kind === "more") this.allowMore(id);
    else this.begin(id, kind, model, request);
  }

  /** Check a model's weights and make its engine. */
  async open(id, model, { config, weights, simd }) {
    try {
      this.engines.set(model, null);
      const tensors = await readWeights(new Uint8Array(weights), config);
      if (!this.engines.has(model)) return; // it was closed meanwhile
      const engine = new Engine(config, tensors, { simd });
      this.engines.set(model, engine);
      this.port.postMessage({ id, answer: { kernel: engine.kernels.name } });
    } catch (error) {
      this.fail(id, error);
    }
  }

  /** Forget a model, whose memory is freed, and what is being done with it. */
  close(model) {
    for (const [id, task] of this.tasks) if (task.model === model) this.tasks.delete(id);
    this.engines.delete(model);
  }

  begin(id, kind, model, request) {
    const task = { id, model, text: "", surprisals: [], ahead: 0, due: 0 };
    task.steps = TASKS[kind](this.engines.get(model), request, task);
    this.tasks.set(id, task);
    this.run();
  }

  allowMore(id) {
    const task = this.tasks.get(id);
    if (task) task.ahead--;
    this.run();
  }

  async run() {
    if (this.isRunning) return;
    this.isRunning = true;
    for (;;) {
      const ready = [...this.tasks.values()].filter((task) => task.ahead < MOST_AHEAD);
      if (!ready.length) break;
      for (const task of ready) this.runSlice(task, SLICE / ready.length);
      await pause();
    }
    this.isRunning = false;
  }

  runSlice(task, milliseconds) {
    const end = performance.now() + milliseconds;
    try {
      for (;;) {
        const { done, value } = task.steps.next();
        if (done) {
          this.deliver(task);
          this.tasks.delete(task.id);
          this.port.postMessage({ id: task.id, answer: value ?? null });
          return;
        }
        const now = performance.now();
        if (now >= task.due && task.text) this.deliver(task, now);
        if (now >= end) return;
      }
    } catch (error) {
      this.tasks.delete(task.id);
      this.fail(task.id, error);
    }
  }

  /** Send what was written since the last piece. */
  deliver(task, now = 0) {
    if (!task.text) return;
    this.port.postMessage({ id: task.id, piece: { text: task.text, surprisals: Float64Array.from(task.surprisals) } });
    Object.assign(task, { text: "", surprisals: [], ahead: task.ahead + 1, due: now + DELIVERY });
  }

  fail(id, error) {
    this.port.postMessage({ id, error: { name: error.name, message: error.message } });
  }
}

/** Let waiting messages in. A timer would wait for 4 ms. */
function pause() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

if (globalThis.WorkerGlobalScope && globalThis instanceof WorkerGlobalScope && globalThis.name === WORKER_NAME) {
  new Host(globalThis);
}

// --------------------------------------------------------------------------------------------------- what a page holds

/** The page's side of the message channel to a Host: sends requests and passes on the replies. Several models may share
    it. */
class HostConnection {
  /** Start a Host: in the Worker that `worker` makes, or one of this module, or without Workers in the page. */
  static async start(worker) {
    const makers = worker ? [worker] : [startWorker, startImportingWorker];
    for (const make of makers) {
      const started = await tryWorker(make);
      if (started) return new HostConnection(started, () => started.terminate());
    }
    const { port1, port2 } = new MessageChannel();
    new Host(port2);
    return new HostConnection(port1, () => port1.close());
  }

  constructor(port, stop) {
    Object.assign(this, { port, stop, requests: new Map(), models: new Set(), last: 0, failure: null });
    port.onmessage = ({ data }) => this.requests.get(data.id)?.receive(data);
    port.onerror = () => {
      this.failure = new CharLMError("the Worker in which the model computes has failed; load the model again");
      for (const request of this.requests.values()) request.end(this.failure);
    };
  }

  /** Send a request; return it. */
  send(message, transfer = []) {
    const request = new PendingRequest(this, ++this.last, message.model);
    this.requests.set(request.id, request);
    if (this.failure) request.end(this.failure);
    else this.port.postMessage({ ...message, id: request.id }, transfer);
    return request;
  }

  /** Return a key for one more model. */
  addModel() {
    this.models.add(++this.last);
    return this.last;
  }

  /** Forget a model; stop with the last. */
  release(model) {
    this.models.delete(model);
    this.port.postMessage({ kind: "close", model });
    if (this.models.size) return;
    this.failure = closedError(); // of what is still sent
    this.stop();
  }
}

/** A request to a Host: the pieces that it gives, and the answer that ends it. */
class PendingRequest {
  constructor(connection, id, model) {
    Object.assign(this, { connection, id, model, pieces: [], answer: undefined, error: undefined });
    this.wake = () => undefined;
  }

  receive({ piece, answer, error }) {
    if (piece) this.pieces.push(piece);
    else if (error) this.end(new (ERRORS[error.name] ?? Error)(error.message));
    else this.answer = answer;
    this.wake();
  }

  /** End with an error: what has arrived and was not read is dropped. */
  end(error) {
    this.pieces = [];
    this.error = error;
    this.wake();
  }

  /** Yield the pieces; return the answer. Leaving it, or the signal, cancels the request at once. */
  async *read(signal) {
    const abort = () => this.end(signal.reason);
    signal?.addEventListener("abort", abort);
    try {
      if (signal?.aborted) abort();
      for (;;) {
        if (this.error !== undefined) throw this.error;
        if (this.pieces.length) {
          yield this.pieces.shift();
          this.connection.port.postMessage({ kind: "more", id: this.id });
        } else if (this.answer !== undefined) return this.answer;
        else await new Promise((resolve) => (this.wake = resolve));
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      this.connection.requests.delete(this.id);
      if (this.answer === undefined) this.connection.port.postMessage({ kind: "cancel", id: this.id });
    }
  }

  /** Wait for the answer of a request without pieces. */
  async result(signal) {
    return (await this.read(signal).next()).value;
  }
}

const OPTIONS = { type: "module", name: WORKER_NAME };
const START_PATIENCE = 20_000; // milliseconds after which a Worker that says nothing is given up
const startWorker = () => new Worker(import.meta.url, OPTIONS);

/** Start a Worker of a module that is on another server: a page may start only its own server's. */
function startImportingWorker() {
  const source = new Blob([`import ${JSON.stringify(import.meta.url)};`], { type: "text/javascript" });
  return new Worker(URL.createObjectURL(source), OPTIONS);
}

/** Return a Worker once it is ready; null where it cannot be started. */
function tryWorker(make) {
  return new Promise((resolve) => {
    let worker = null;
    const giveUp = () => {
      worker?.terminate();
      resolve(null);
    };
    const timer = setTimeout(giveUp, START_PATIENCE);
    try {
      worker = make();
      worker.onmessage = ({ data }) => {
        clearTimeout(timer);
        resolve(data?.ready === WORKER_NAME ? worker : null);
      };
      worker.onerror = (event) => {
        event.preventDefault?.();
        giveUp();
      };
    } catch {
      giveUp();
    }
  });
}

/** Reads the files of a model folder that is on a server. */
class Folder {
  constructor(address, fetch, signal) {
    Object.assign(this, { address: String(address).replace(/\/*$/, "/"), fetch, signal });
  }

  /** Return the bytes of a file, an Uint8Array; null if it is missing and may be.

      most: bytes that it can need. onProgress: called with the bytes that have come, and how many there are. */
  async read(file, mayBeMissing = false, most = LARGEST_JSON, onProgress = () => undefined) {
    const response = await this.ask(file);
    if (response.status === 404) {
      if (mayBeMissing) return null;
      throw new ModelFileError(`${file} is missing: this is not a whole model folder`);
    }
    if (!response.ok) {
      throw new UnreachableError(`the server of ${this.address}${file} answers ${response.status}; try again later`);
    }
    const isPlain = !response.headers.get("content-encoding");
    const total = isPlain ? Number(response.headers.get("content-length")) : 0; // 0 if the server does not say
    const tooLarge = () => new ModelFileError(`${file} is larger than the ${grouped(most)} bytes that it can need`);
    if (total > most) throw tooLarge();
    const parts = [];
    let length = 0;
    try {
      for (const reader = response.body.getReader(); ;) {
        const { done, value } = await reader.read();
        if (done) break;
        parts.push(value);
        length += value.length;
        if (length > most) {
          reader.cancel();
          throw tooLarge();
        }
        onProgress(length, Math.max(length, total));
      }
    } catch (error) {
      throw this.explain(error, `${file} broke off after ${grouped(length)} bytes`);
    }
    return joined(parts, length);
  }

  async ask(file) {
    try {
      return await this.fetch(this.address + file, { signal: this.signal });
    } catch (error) {
      throw this.explain(error, `${this.address}${file} cannot be reached`);
    }
  }

  /** Return the error to throw where the network failed: as it is if the signal or a check of ours has ended it. */
  explain(error, failure) {
    if (this.signal?.aborted || error instanceof CharLMError) return error;
    return new UnreachableError(`${failure} (${error.message}); check the address and the network, then try again`);
  }
}

function joined(parts, length) {
  const bytes = new Uint8Array(length);
  let place = 0;
  for (const part of parts) {
    bytes.set(part, place);
    place += part.length;
  }
  return bytes;
}

/** Return the record of a training, or what is wrong with it: the model works without.

    content: of its file, null if there is none, or the ModelFileError that reading the file threw. */
function readRecord(content) {
  if (content === null) return { history: null, historyProblem: "" };
  try {
    if (content instanceof ModelFileError) throw content;
    return { history: readHistory(content), historyProblem: "" };
  } catch (error) {
    if (!(error instanceof ModelFileError)) throw error;
    return { history: null, historyProblem: inOneLine(error.message) };
  }
}

/** Do something; begin the message of a ModelFileError with the name of the model. */
async function named(name, task) {
  try {
    return await task();
  } catch (error) {
    if (!(error instanceof ModelFileError)) throw error;
    throw new ModelFileError((name ? `${name}: ` : "") + inOneLine(error.message));
  }
}

/** A character-level language model: it writes text, and scores text by the surprisal of each character.

    config: cell, vocab, embedding_size, hidden_size, num_layers, dropout, weights_sha256, as config.json names them.
    history: the training record, or null if there is none or it is damaged; historyProblem says what is wrong with it.
    vocab: the symbols that it knows. parameters: how many numbers its weights hold.
    kernel: what computes, `wasm-simd` or, where that is missing, `javascript`. */
export class CharLM {
  /** Load a model from the address of its folder.

      fetch: called in place of the browser's. sha256: of the weights that are expected, in hex.
      onProgress: called with the bytes of weights that have come, and how many there are. signal: ends the loading.
      name: what errors call the model, the address by default. worker, beside, simd: see `from`.

      Throws UnreachableError if a file cannot be had, ModelFileError if the files are not a sound model. */
  static async load(address, settings = {}) {
    const { fetch, sha256, onProgress, signal, name = String(address), ...options } = checkOptions(settings);
    if (sha256) checkString("sha256", sha256);
    const folder = new Folder(address, fetch ?? ((...asked) => globalThis.fetch(...asked)), signal);
    return named(name, async () => {
      const keepFault = (error) => {
        if (error instanceof ModelFileError) return error; // see readRecord
        throw error;
      };
      const files = [folder.read(CONFIG_FILE), folder.read(HISTORY_FILE, true).catch(keepFault)];
      const [content, history] = await Promise.all(files);
      const config = readConfig(content);
      if (sha256 && sha256.toLowerCase() !== config.weights_sha256.toLowerCase()) {
        throw new ModelFileError(
          `${CONFIG_FILE} describes other weights than were asked for (their SHA-256 differs): ` +
            "the model was changed or exchanged; look for the version that is meant",
        );
      }
      const most = 4 * config.parameters + LARGEST_HEADER;
      const weights = await folder.read(WEIGHTS_FILE, false, most, onProgress);
      return CharLM.#open(config, weights.buffer, history, { signal, ...options });
    });
  }

  /** Make a model of the contents of its files: config and history as bytes, text or objects, weights as bytes.

      name: what errors call it. simd: whether WebAssembly is used where it is there.
      worker: a function that makes the Worker, of this module, of the type `module` and with the name `charlm`; for
          pages in which the module has no address. beside: a model whose Worker this one shares, unless it is
          closed. signal: ends it.

      Throws ModelFileError if they are not a sound model. */
  static async from(files, settings = {}) {
    const { config, weights, history = null } = checkOptions(files, "the first argument");
    const { name = "", ...options } = checkOptions(settings);
    return named(name, async () => {
      if (!(weights instanceof ArrayBuffer || ArrayBuffer.isView(weights))) {
        throw new RequestError(`weights is ${show(weights)}; it must be an ArrayBuffer or a Uint8Array`);
      }
      return CharLM.#open(readConfig(config), asBytes(weights).slice().buffer, history, options);
    });
  }

  static async #open(config, weights, history, { worker, beside, simd = true, signal }) {
    if (beside && !(beside instanceof CharLM)) {
      throw new RequestError(`beside is ${show(beside)}; it must be a model`);
    }
    const connection = beside && !beside.#connection.failure ? beside.#connection : await HostConnection.start(worker);
    const key = connection.addModel();
    try {
      const message = { kind: "open", model: key, config, weights, simd };
      const { kernel } = await connection.send(message, [weights]).result(signal);
      return new CharLM(connection, key, config, kernel, history);
    } catch (error) {
      connection.release(key);
      throw error;
    }
  }

  #connection;
  #key; // of the model in the Host
  #ids; // of the symbols
  #isClosed = false;

  /** For `load` and `from`. */
  constructor(connection, key, { shapes, parameters, symbols, ...config }, kernel, history) {
    Object.assign(this, { config, ...readRecord(history), vocab: symbols, parameters, kernel });
    this.#connection = connection;
    this.#key = key;
    this.#ids = new Map(symbols.map((symbol, id) => [symbol, id]));
  }

  /** Iterate over the text that continues `prompt`, in pieces, without the prompt itself.

      length: how many new characters. temperature, topK, topP, seed: see `checkSettings`; the same seed gives the same
      text. signal: ends it at once, and the iterator throws its reason; leaving the iterator ends it, too. after: what
      these settings and this seed have written already; the characters follow that would have come if it had never been
      stopped. forced: [[place, symbol], …], symbols that stand in the text in place of those that are drawn there; the
      places count from 0, and from the beginning of `after`.

      Symbols of the prompt that the model does not know are left out, see `unknown`; an empty prompt starts a new line.
      Throws RequestError for a value out of bounds, at the call. */
  stream(prompt = "", options = {}) {
    const pieces = this.#write(prompt, options, false);
    return (async function* () {
      for await (const { text } of pieces) yield text;
    })();
  }

  /** Iterate as `stream` does over {text, surprisals}: those of the piece's characters in nats, a Float64Array. */
  write(prompt = "", options = {}) {
    return this.#write(prompt, options, true);
  }

  /** Return the text of `stream` in one piece. */
  async generate(prompt = "", options = {}) {
    let text = "";
    for await (const piece of this.stream(prompt, options)) text += piece;
    return text;
  }

  /** Return what the character after `after` is drawn from: {logits, random}.

      prompt, after, seed: those of `stream`. logits: of the symbols in `vocab`, a Float32Array (V,). random: the number
      from 0 to below 1 that draws one of them. At a place of a text that was written lately it takes a few steps. */
  async predict(prompt = "", options = {}) {
    const { after = "", seed, signal } = checkOptions(options);
    const { ids, drawn } = this.#encodeStart(prompt, after);
    checkWhole("seed", seed, 0);
    return this.#send({ kind: "predict", ids, seed, drawn }).result(signal);
  }

  /** Return the surprisal in nats of each character of a text but the first, a Float64Array.

      Throws VocabError if the text holds a symbol that the model does not know. */
  async score(text, options = {}) {
    const { signal } = checkOptions(options);
    return this.#ask("score", { ids: this.#encode("text", text) }, signal);
  }

  /** Read a text; return what the model expected at each of its N characters.

      symbols: the characters that the model knows. skipped: the distinct other ones, in a string.
      surprisals: in nats, a Float64Array (N,); NaN for the first, which nothing predicts.
      likeliest: for each place five symbols with their probabilities, [symbol, probability]; none for the first.

      gates: a unit, {layer, unit}, whose gates are wanted, too: they are returned as `gates`, as `gates` returns them. */
  async inspect(text, options = {}) {
    const { gates, signal } = checkOptions(options);
    const { ids, symbols, skipped } = this.#encodeKnown("text", text);
    const found = { symbols, skipped, ...(await this.#ask("inspect", { ids }, signal)) };
    return gates === undefined ? found : { ...found, gates: await this.gates(text, { ...gates, signal }) };
  }

  /** Read a text; return what a unit of a layer, both from 0, computed: {cell, gates}.

      gates: by name the numbers after each character that the model knows, Float32Arrays (N,), with the names of
          torch.nn: i, f, g, o, c and h of an LSTM, r, z, n and h of a GRU; sum, whose tanh is h, and h of an RNN.

      Throws RequestError if there is no such unit, or the text has over 20,000 characters. */
  async gates(text, options = {}) {
    const { layer, unit, signal } = checkOptions(options);
    const { num_layers: layers, hidden_size: units } = this.config;
    const request = {
      ids: this.#encodeShort(text),
      layer: Number(checkWhole("layer", layer, 0, layers - 1)),
      unit: Number(checkWhole("unit", unit, 0, units - 1)),
    };
    return this.#ask("gates", request, signal);
  }

  /** Read a text; return the activations of all units.

      symbols, skipped: as `inspect` returns them. layers, units: L and H.
      hidden: the hidden states after each character, a Float32Array (N, L, H): that of a unit at a place is
          hidden[(place * layers + layer) * units + unit]. cell: the cell states of an LSTM, else null. */
  async units(text, options = {}) {
    const { signal } = checkOptions(options);
    const { ids, symbols, skipped } = this.#encodeKnown("text", text);
    const { num_layers: layers, hidden_size: units } = this.config;
    return { symbols, skipped, layers, units, ...(await this.#ask("units", { ids }, signal)) };
  }

  /** Find the units that are on in a stretch of a text and off just before and after it, and the other places of the
      text where they are on (Strobelt et al., "LSTMVis", 2018).

      start, end: of the stretch, among the characters that the model knows. threshold: a unit is on where its hidden
      state is above this number, from -1 to 1.

      units: those of the stretch, each [layer, unit]. places: [start, end, share] of at most 20 others of the same
          length, with the share of the units that are on in all of it, at least half of them. The largest share comes
          first, of equals the first place, and no two overlap.

      Throws RequestError for an argument out of bounds, a text of over 20,000 characters or a stretch of over 200. */
  async findPattern(text, options = {}) {
    const { start, end, threshold = DEFAULT_THRESHOLD, signal } = checkOptions(options);
    const ids = this.#encodeShort(text);
    if (!ids.length) throw new RequestError("the text has no character that this model knows; enter one that has");
    const first = Number(checkWhole("start", start, 0, ids.length - 1));
    const last = Number(checkWhole("end", end, first + 1, ids.length));
    if (last - first > LONGEST_PATTERN) {
      throw new RequestError(`the stretch has ${grouped(last - first)} characters; select at most ${LONGEST_PATTERN}`);
    }
    const request = { ids, start: first, end: last, threshold: checkNumber("threshold", threshold, -1, 1) };
    return this.#ask("pattern", request, signal);
  }

  /** Return the distinct symbols of a text that the model does not know, in a string. */
  unknown(text) {
    return this.#encodeKnown("text", text).skipped;
  }

  /** Free the model's memory. What it is asked from now on fails, as does what it is doing. */
  close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const request of this.#connection.requests.values()) {
      if (request.model === this.#key) request.end(closedError());
    }
    this.#connection.release(this.#key);
  }

  #write(prompt, options, isScored) {
    const { length = DEFAULT_LENGTH, after = "", forced = [], signal, ...settings } = checkOptions(options);
    checkWhole("length", length, 0);
    const request = {
      kind: "write",
      ...this.#encodeStart(prompt, after),
      length: Number(length),
      settings: checkSettings(settings),
      forced: this.#encodeChoices(forced),
      isScored,
    };
    const send = () => this.#send(request);
    return (async function* () {
      yield* send().read(signal);
    })();
  }

  /** Return the ids of the symbols of a text that the model knows, of which there may not be too many. */
  #encodeShort(text) {
    const { ids } = this.#encodeKnown("text", text);
    if (ids.length <= MOST_KEPT) return ids;
    throw new RequestError(
      `the text has ${grouped(ids.length)} characters, and the units are looked at in at most ${grouped(MOST_KEPT)}; ` +
        "shorten it",
    );
  }

  #ask(kind, request, signal) {
    return this.#send({ kind, ...request }).result(signal);
  }

  #send(message) {
    if (this.#isClosed) throw closedError();
    return this.#connection.send({ ...message, model: this.#key });
  }

  /** Return the ids of a text. Throws VocabError, naming the first symbol that has none. */
  #encode(name, text) {
    return Array.from(checkString(name, text), (symbol, place) => {
      const id = this.#ids.get(symbol);
      if (id !== undefined) return id;
      throw new VocabError(
        `${show(symbol)} (character ${place + 1}) is not among this model's ${this.vocab.length} symbols; ` +
          "leave it out or train on a text that has it",
      );
    });
  }

  /** Return the ids from which a text goes on, those of a line break for an empty prompt, and how many were drawn. */
  #encodeStart(prompt, after) {
    const { ids } = this.#encodeKnown("prompt", prompt);
    const written = this.#encode("after", after);
    const start = this.#ids.get("\n") ?? 0;
    return { ids: [...(ids.length ? ids : [start]), ...written], drawn: written.length };
  }

  /** Return the ids of symbols that were chosen, by place. */
  #encodeChoices(forced) {
    if (!Array.isArray(forced) || !forced.every(Array.isArray)) {
      throw new RequestError(`forced is ${show(forced)}; it must be a list of [place, symbol]`);
    }
    const choices = forced.map(([place, symbol]) => {
      const [id, ...more] = this.#encode("forced", symbol);
      if (id !== undefined && !more.length) return [Number(checkWhole("forced", place, 0)), id];
      throw new RequestError(`forced has ${show(symbol)} at ${place}; it must be one character`);
    });
    return new Map(choices);
  }

  #encodeKnown(name, text) {
    const all = Array.from(checkString(name, text));
    const symbols = all.filter((symbol) => this.#ids.has(symbol));
    const skipped = [...new Set(all.filter((symbol) => !this.#ids.has(symbol)))].join("");
    return { ids: symbols.map((symbol) => this.#ids.get(symbol)), symbols, skipped };
  }
}

const closedError = () => new CharLMError("this model is closed; load it again");
