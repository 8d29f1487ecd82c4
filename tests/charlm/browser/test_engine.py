"""charlm/browser/charlm.js in Chromium, compared with numpy, plain torch and Python's engine."""

import base64
import json
import os
import random
import re
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from shutil import copy, copytree
from threading import Thread

import golden
import numpy as np
import pytest
import torch
import wasmtime
from browser import ROOT, borrowed_page, script_before
from models import (
    VOCAB,
    change_config,
    contents,
    make_config,
    make_model,
    make_record,
    make_sampler,
    make_weights,
    save,
    stream_shared,
)
from mutations import READ_FILES, damage
from reference import load_plain, plain_logits

from charlm.analysis.inspection import name_likeliest
from charlm.errors import CharLMError
from charlm.inference.compiled import describe_engine
from charlm.inference.engine import Engine, Reader
from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.folder import Model, read_usable_model, write_model

FOLDER = ROOT / "charlm" / "browser"
MODULE = re.compile(r'(const MODULE =\s*")([^"]+)')
BUNDLED = sorted(path.name for path in (ROOT / "weights").iterdir())

# What the tests call on the page: all that the module exports, and the following.
SCRIPT = """
import * as exports from "./charlm.js";

/** The files of a model folder, as `CharLM.from` takes them. */
async function filesOf(folder) {
  const [config, weights] = await Promise.all(["config.json", "model.safetensors"].map(async (name) =>
    new Uint8Array(await (await fetch(`${folder}/${name}`)).arrayBuffer())));
  return { config, weights };
}

/** What an error of the module says, with its name; any other one as it is. */
async function told(promise) {
  try {
    return await promise;
  } catch (error) {
    if (!(error instanceof exports.CharLMError)) throw error;
    return `${error.name}: ${error.message}`;
  }
}

function base64(numbers) {
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

const decode = (text) => Uint8Array.from(atob(text), (symbol) => symbol.charCodeAt(0));

/** A function that makes a Worker of the module, in a browser that has been changed before by a statement. */
function workerAfter(statement) {
  const source = `${statement}; await import("${location.origin}/charlm.js");`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  return () => new Worker(url, { type: "module", name: "charlm" });
}

/** What an error says when a model is loaded; null if none does. */
async function refusal(address, options) {
  const found = await told(exports.CharLM.load(address, options));
  if (typeof found === "string") return found;
  found.close();
  return null;
}

Object.assign(window, exports, { filesOf, told, base64, decode, workerAfter, refusal, ready: true });
"""
PAGE = '<!doctype html><title>charlm</title><script type="module" src="test.js"></script>'


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that is served, and its address."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text(PAGE)
    (folder / "test.js").write_text(SCRIPT)
    (folder / "charlm.js").symlink_to(FOLDER / "charlm.js")
    (folder / "weights").symlink_to(ROOT / "weights")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def page(context, idle_pages, site):
    errors = []
    with borrowed_page(context, idle_pages) as page:
        page.on("pageerror", note := lambda error: errors.append(error))
        page.goto(site[1])
        page.wait_for_function("window.ready")
        yield page
        page.remove_listener("pageerror", note)
    assert errors == []


def floats(text, dtype=np.float32):
    """Numbers that `base64` has sent."""
    return np.frombuffer(base64.b64decode(text), dtype)


def put_model(site, name, cell, dtype="BF16", scale=0.6, **sizes):
    """Save a model under a name; its weights are drawn at random and fit bfloat16, unless they are to be float32."""
    config = make_config(cell, **sizes)
    weights = make_weights(config, scale=scale)
    if dtype == "F32":
        weights = {key: array * np.float32(1.0009765625) for key, array in weights.items()}
    write_model(site[0] / name, Model(config, weights, None), "")
    return site[0] / name


def test_the_module_is_what_kernels_wat_assembles_to():
    """Where CHARLM_ASSEMBLE is set, it is put into charlm.js first."""
    assembled = base64.b64encode(wasmtime.wat2wasm((FOLDER / "kernels.wat").read_text(encoding="utf-8"))).decode()
    path = FOLDER / "charlm.js"
    if os.environ.get("CHARLM_ASSEMBLE"):
        path.write_text(MODULE.sub(rf"\g<1>{assembled}", path.read_text(encoding="utf-8")), encoding="utf-8")
    assert MODULE.search(path.read_text(encoding="utf-8"))[2] == assembled


# Random numbers and sampling


SEEDS = [0, 1, 7, 123, 2**32 - 1, 2**32, 2**53 + 1, 2**64 + 5, 2**128 - 1, 2**200 + 3, 10**60]


def test_the_random_numbers_are_those_of_numpy(page):
    drawn = page.evaluate(
        """(seeds) => seeds.map((seed) => {
            const numbers = new RandomNumbers(BigInt(seed));
            return Array.from({ length: 300 }, () => numbers.next());
        })""",
        [str(seed) for seed in SEEDS],
    )
    assert drawn == [np.random.Generator(np.random.PCG64(seed)).random(300).tolist() for seed in SEEDS]


DRAW = """([logits, settings, seed, draws]) => {
    const sampler = new Sampler({ ...settings, seed });
    return Array.from({ length: draws }, () => sampler.draw(Float32Array.from(logits)));
}"""


@pytest.mark.parametrize("symbols", [3, 65, 700])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        (1, 0, 1),
        (0, 0, 1),
        (0.3, 5, 1),
        (1.5, 0, 0.9),
        (0.8, 40, 0.5),
        (1e-300, 0, 1),
        (2, 1, 1),
        (1, 0, 0),
        (9, 600, 0.99),
    ],
)
def test_the_same_symbols_are_drawn_as_in_python(page, symbols, temperature, top_k, top_p):
    random = np.random.default_rng(symbols)
    for scale in (1, 30, 3000):
        logits = (scale * random.standard_normal(symbols)).astype(np.float32)
        logits[random.integers(symbols, size=symbols // 2)] = logits[0]  # ties
        drawn = page.evaluate(
            DRAW, [logits.tolist(), {"temperature": temperature, "topK": top_k, "topP": top_p}, 11, 200]
        )
        sampler = make_sampler(temperature, top_k, top_p, 11)
        assert drawn == [sampler.draw(logits) for _ in range(200)]


# The arithmetic


READ = """async ([folder, ids, simd]) => {
    const { config: content, weights } = await filesOf(folder);
    const config = readConfig(content);
    const reader = new Reader(new Engine(config, await readWeights(weights, config), { simd }));
    const logits = new Float32Array(ids.length * config.symbols.length);
    ids.forEach((id, place) => {
        reader.advance(id);
        logits.set(reader.predict(), place * config.symbols.length);
    });
    return [reader.engine.kernels.name, base64(logits)];
}"""


def read(page, name, ids, *, simd=True):
    """Read ids with an engine on the page; return the name of its kernels, and the logits (N, V)."""
    kernels, logits = page.evaluate(READ, [name, ids.tolist(), simd])
    return kernels, floats(logits).reshape(len(ids), -1)


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_logits_are_those_of_plain_torch_along_10_000_characters(page, site, cell, layers, dtype):
    sizes = {"embedding_size": 7 * layers, "hidden_size": 18 + layers, "num_layers": layers}
    # with larger weights an RNN of random ones is chaotic: rounding errors grow, and no two programs agree for long
    folder = put_model(site, f"{cell}-{layers}-{dtype}", cell, dtype, scale=0.2, **sizes)
    assert dtype.encode() in (folder / "model.safetensors").read_bytes()[:200]
    model, vocab = load_plain(folder)
    ids = np.random.default_rng(0).integers(len(vocab), size=10_000)
    kernels, logits = read(page, folder.name, ids)
    assert kernels == "wasm-simd"
    np.testing.assert_allclose(logits, plain_logits(model, ids), atol=1e-4)


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [1, 30, 100])
def test_plain_javascript_gives_the_same_bits(page, site, cell, dtype, size):
    folder = put_model(site, f"bits-{cell}-{dtype}-{size}", cell, dtype, embedding_size=size, hidden_size=size + 1)
    ids = np.random.default_rng(0).integers(len(VOCAB), size=300)
    kernels, logits = read(page, folder.name, ids, simd=False)
    assert kernels == "javascript"
    assert logits.tobytes() == read(page, folder.name, ids)[1].tobytes()


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("cell", CELLS)
def test_logits_are_to_the_last_bit_those_of_the_compiled_kernels(page, site, cell, dtype):
    if not describe_engine().startswith("compiled"):
        pytest.skip("Python computes with numpy here, whose sums have another order")
    folder = put_model(site, f"compiled-{cell}-{dtype}", cell, dtype, embedding_size=13, hidden_size=45)
    lm = CharLM.from_pretrained(folder, device="cpu")
    ids = np.random.default_rng(0).integers(len(VOCAB), size=1000)
    np.testing.assert_array_equal(read(page, folder.name, ids)[1], Reader(lm.engine).read(ids[:, None])[:, 0])


@pytest.mark.parametrize("name", BUNDLED)
def test_a_seed_gives_the_text_that_python_gives(page, name):
    lm = CharLM.from_pretrained(ROOT / "weights" / name, device="cpu")
    prompt, _ = lm.vocab.keep_known("ROMEO:")
    written = page.evaluate(
        """async ([name, prompt]) => {
            const lm = await CharLM.load(`weights/${name}`);
            const texts = [];
            for (let seed = 0; seed < 10; seed++) texts.push(await lm.generate(prompt, { length: 200, seed }));
            lm.close();
            return texts;
        }""",
        [name, prompt],
    )
    assert written == [sample.text for sample in lm.generate_many(prompt, 10, 200, seed=0)]


@pytest.mark.parametrize("name", BUNDLED)
def test_the_golden_texts_of_the_compiled_kernels_are_written_here_too(page, name):
    stored = json.loads(golden.STORED.read_text())[name]
    settings = [(json.loads(each), golden.SEED + text) for each in stored for text in range(golden.TEXTS)]
    asked = [
        {"temperature": each["temperature"], "topK": each.get("top_k", 0), "topP": each.get("top_p", 1), "seed": seed}
        for each, seed in settings
    ]
    written = page.evaluate(
        """async ([name, length, asked]) => {
            const lm = await CharLM.load(`weights/${name}`);
            const texts = [];
            for (const settings of asked) texts.push(await lm.generate("", { ...settings, length }));
            lm.close();
            return texts;
        }""",
        [name, golden.LENGTH, asked],
    )
    assert [sha256(text.encode()).hexdigest() for text in written] == [each for row in stored.values() for each in row]


# Texts


TEXT = "a bad 😀 cab\n한é" * 4


@pytest.fixture(scope="module")
def folder(site):
    """A small model with an LSTM's two states, as its folder."""
    return put_model(site, "small", "lstm", embedding_size=6, hidden_size=9)


def test_surprisals_predictions_and_units_are_those_of_python(page, folder):
    score, inspection, hidden, cell, shape = page.evaluate(
        """async ([folder, text]) => {
            const lm = await CharLM.load(folder);
            const { hidden, cell, layers, units } = await lm.units(text);
            const read = await lm.inspect(text);
            lm.close();
            const { skipped, symbols, likeliest } = read;
            const surprisals = Array.from(read.surprisals);
            const again = await CharLM.load(`${folder}/`);
            const score = Array.from(await again.score(text));
            again.close();
            return [score, { skipped, symbols, likeliest, surprisals }, base64(hidden), base64(cell), [layers, units]];
        }""",
        [folder.name, TEXT],
    )
    lm = CharLM.from_pretrained(folder, device="cpu")
    expected = lm.inspect(TEXT)
    np.testing.assert_allclose(score, lm.score(TEXT), atol=2e-5)
    np.testing.assert_allclose(inspection["surprisals"], expected.surprisals, atol=2e-5)
    assert (inspection["symbols"], inspection["skipped"]) == (list(TEXT), "")
    named = name_likeliest(expected, lm.vocab)
    assert [[symbol for symbol, _ in place] for place in inspection["likeliest"]] == [
        [symbol for symbol, _ in place] for place in named
    ]
    probabilities = [probability for place in inspection["likeliest"] for _, probability in place]
    assert probabilities == pytest.approx([probability for place in named for _, probability in place], abs=1e-5)
    assert shape == [2, 9]
    np.testing.assert_allclose(floats(hidden).reshape(-1, 2, 9), expected.hidden, atol=1e-5)
    np.testing.assert_allclose(floats(cell).reshape(-1, 2, 9), expected.cell_state, atol=1e-5)


def plain_gates(model, cell, ids):
    """Return for each layer the gates after each of ids, by name, (N, H), from the equations in torch's documentation.

    That h is what torch.nn computes is checked.
    """
    layers, below = [], model.embedding(torch.as_tensor(ids))
    for layer in range(model.recurrent.num_layers):
        parts = [
            getattr(model.recurrent, f"{name}_l{layer}") for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
        ]
        h = c = torch.zeros(model.recurrent.hidden_size, dtype=torch.float64)
        record = []
        for x in below:
            inputs, recurrent = parts[0] @ x + parts[1], parts[2] @ h + parts[3]
            if cell == "rnn":
                names = {"sum": inputs + recurrent, "h": (h := torch.tanh(inputs + recurrent))}
            elif cell == "lstm":
                i, f, g, o = (inputs + recurrent).chunk(4)
                i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
                c = f * c + i * g
                names = {"i": i, "f": f, "g": g, "o": o, "c": c, "h": (h := o * c.tanh())}
            else:
                (r, z, n), (to_r, to_z, to_n) = inputs.chunk(3), recurrent.chunk(3)
                r, z = (r + to_r).sigmoid(), (z + to_z).sigmoid()
                n = torch.tanh(n + r * to_n)
                names = {"r": r, "z": z, "n": n, "h": (h := (1 - z) * n + z * h)}
            record.append(names)
        below = torch.stack([names["h"] for names in record])
        layers.append({name: torch.stack([names[name] for names in record]).numpy() for name in record[0]})
    np.testing.assert_allclose(below, model.recurrent(model.embedding(torch.as_tensor(ids)))[0], atol=1e-12)
    return layers


@pytest.mark.parametrize(("dtype", "simd"), [("BF16", True), ("F32", False)])
@pytest.mark.parametrize("cell", CELLS)
def test_the_gates_and_the_patterns_of_a_unit_are_those_of_plain_torch(page, site, cell, dtype, simd):
    sizes = {"num_layers": 3, "embedding_size": 6, "hidden_size": 9}
    folder = put_model(site, f"gates-{cell}-{dtype}", cell, dtype, **sizes)
    model, vocab = load_plain(folder)
    ids = np.random.default_rng(0).integers(len(vocab), size=200)
    text = "".join(vocab[id] for id in ids)
    expected, units = plain_gates(model, cell, ids), [(0, 0), (1, 8), (2, 3)]
    on = np.stack([layer["h"] for layer in expected], axis=1) > 0.05  # (N, L, H)
    stretches = on[1:-2] & on[2:-1] & ~on[:-3] & ~on[3:]  # two characters on, off before and after
    start = int(stretches.sum(axis=(1, 2)).argmax()) + 1
    gates, pattern, has_own_bits, reverse = page.evaluate(
        """async ([folder, text, units, start, simd]) => {
            const lm = await CharLM.load(folder, { simd });
            const gates = [];
            for (const [layer, unit] of units) {
                const read = await lm.inspect(text, { gates: { layer, unit } });
                const numbers = Object.entries(read.gates.gates).map(([name, each]) => [name, Array.from(each)]);
                gates.push([read.gates.cell, Object.fromEntries(numbers)]);
            }
            const pattern = await lm.findPattern(text, { start, end: start + 2, threshold: 0.05 });
            // the cell states are computed from the gates, and have the bits of the kernel's
            const { cell } = await lm.units(text);
            const [layer, unit] = units.at(-1);
            const own = (await lm.gates(text, { layer, unit })).gates.c?.every(
                (number, place) => number === cell[(place * 3 + layer) * 9 + unit],
            );
            // what was kept of a text is not taken for another of the same length
            const other = await lm.gates(Array.from(text).reverse().join(""), { layer, unit });
            lm.close();
            return [gates, pattern, own, Array.from(other.gates.h)];
        }""",
        [folder.name, text, units, start, simd],
    )
    for (layer, unit), (told, found) in zip(units, gates, strict=True):
        assert told == cell and [*found] == [*expected[layer]]
        for name, numbers in found.items():
            np.testing.assert_allclose(numbers, expected[layer][name][:, unit], atol=1e-4)

    assert has_own_bits is (True if cell == "lstm" else None)
    np.testing.assert_allclose(reverse, plain_gates(model, cell, ids[::-1].copy())[2]["h"][:, 3], atol=1e-4)
    wanted = stretches[start - 1]
    assert pattern["units"] == np.argwhere(wanted).tolist() != []
    shares = {place: float((on[place] & on[place + 1])[wanted].mean()) for place in range(199)}
    taken, best = {start, start + 1}, []
    for place in sorted(shares, key=lambda place: -shares[place]):  # of equals the first
        if shares[place] >= 0.5 and not taken & {place, place + 1} and len(best) < 20:
            taken |= {place, place + 1}
            best.append([place, place + 2, shares[place]])
    assert pattern["places"] == best != []


def test_a_text_is_the_same_in_pieces_continued_and_with_its_surprisals(page, folder):
    whole, pieces, continued, written, surprisals, score = page.evaluate(
        """async (folder) => {
            const lm = await CharLM.load(folder);
            const settings = { temperature: 1.1, topK: 8, topP: 0.95, seed: 3 };
            const whole = await lm.generate("cab", { ...settings, length: 300 });
            const pieces = [];
            for await (const piece of lm.stream("cab", { ...settings, length: 300 })) pieces.push(piece);
            const after = Array.from(whole).slice(0, 120).join("");
            const continued = await lm.generate("cab", { ...settings, length: 180, after });
            let [written, surprisals] = ["", []];
            for await (const piece of lm.write("cab", { ...settings, length: 300 })) {
                written += piece.text;
                surprisals.push(...piece.surprisals);
            }
            const score = Array.from(await lm.score("cab" + whole));
            lm.close();
            return [whole, pieces, continued, written, surprisals, score];
        }""",
        folder.name,
    )
    assert "".join(pieces) == written == whole == whole[:120] + continued
    assert len(whole) == 300 and len(pieces[0]) == 1  # the first at once
    assert surprisals == pytest.approx(score[2:], abs=1e-9)
    lm = CharLM.from_pretrained(folder, device="cpu")
    assert whole == lm.generate("cab", 300, 1.1, 8, 0.95, 3)


def test_a_text_goes_on_from_a_choice_on_the_same_random_numbers_as_in_python(page, folder):
    forced = [[40, "b"], [41, "a"], [90, "\n"]]
    text, surprisals, continued, score = page.evaluate(
        """async ([folder, forced]) => {
            const lm = await CharLM.load(folder);
            const settings = { temperature: 1.1, topK: 8, topP: 0.95, seed: 3 };
            let [text, surprisals] = ["", []];
            for await (const piece of lm.write("cab", { ...settings, length: 120, forced })) {
                text += piece.text;
                surprisals.push(...piece.surprisals);
            }
            const after = Array.from(text).slice(0, 50).join("");
            const continued = await lm.generate("cab", { ...settings, length: 70, forced, after });
            const score = Array.from(await lm.score("cab" + text));
            lm.close();
            return [text, surprisals, continued, score];
        }""",
        [folder.name, forced],
    )
    lm = CharLM.from_pretrained(folder, device="cpu")
    expected = ""
    for place, symbol in forced:
        length = place - len(expected)
        expected += "".join(stream_shared(lm, "cab", length, 1.1, 8, 0.95, 3, after=expected)) + symbol
    expected += "".join(stream_shared(lm, "cab", 120 - len(expected), 1.1, 8, 0.95, 3, after=expected))
    assert text == expected == text[:50] + continued and len(text) == 120
    assert surprisals == pytest.approx(score[2:], abs=1e-9)


def test_what_a_character_was_drawn_from_is_known_to_the_bit_after_a_few_steps(page, site):
    """Logits, at places of several branches of one text, are those of a reader that begins at its beginning."""
    sizes = {"vocab": VOCAB, "embedding_size": 5, "hidden_size": 9, "num_layers": 2}
    put_model(site, "branches", "lstm", **sizes)
    places = [0, 1, 15, 16, 17, 100, 399]
    logits, randoms, counts, kept = page.evaluate(
        """async ([folder, places]) => {
            const { config: content, weights } = await filesOf(folder);
            const lm = await CharLM.from({ config: content, weights });
            const config = readConfig(content);
            const engine = new Engine(config, await readWeights(weights, config));
            const ids = (text) => Array.from("cab" + text, (symbol) => config.symbols.indexOf(symbol));
            const settings = { temperature: 1.1, seed: 3 };
            const whole = await lm.generate("cab", { ...settings, length: 400 });
            const cut = Array.from(whole).slice(0, 200).join("") + "b";
            const branch = cut + await lm.generate("cab", { ...settings, length: 199, after: cut });
            const [logits, randoms, counts] = [[], [], []];
            for (const text of [whole, branch]) {
                const writer = new TextReader(engine, ids(text), true);
                for (const step of writer.read(ids(text)));
            }
            for (const text of [whole, branch]) for (const place of places) {
                const after = Array.from(text).slice(0, place).join("");
                const found = await lm.predict("cab", { after, seed: 3 });
                const reader = new Reader(engine);
                for (const id of ids(after)) reader.advance(id);
                logits.push([base64(found.logits), base64(reader.predict())]);
                randoms.push(found.random);
                counts.push([...new TextReader(engine, ids(after), false).read(ids(after))].length);
            }
            lm.close();
            return [logits, randoms, counts, engine.texts.length];
        }""",
        ["branches", places],
    )
    assert all(found == read for found, read in logits)
    assert randoms == 2 * np.random.Generator(np.random.PCG64(3)).random(400)[places].tolist()
    assert max(counts) < 16 and kept == 2


def test_an_empty_prompt_starts_a_line_and_unknown_symbols_are_skipped_and_named(page, folder):
    texts = page.evaluate(
        """async (folder) => {
            const lm = await CharLM.load(folder);
            const texts = [lm.unknown("xa🤖byx"), lm.unknown(""), lm.vocab.join(""), lm.kernel, lm.parameters];
            for (const prompt of ["", "\\n", "x🤖", "ab", "xa🤖b"]) {
                texts.push(await lm.generate(prompt, { length: 30, seed: 1 }));
            }
            texts.push(await lm.generate("ab", { length: 0 }));
            const { symbols, skipped } = await lm.inspect("xa🤖b");
            lm.close();
            return [...texts, symbols, skipped];
        }""",
        folder.name,
    )
    config = CharLM.from_pretrained(folder, device="cpu").config
    assert texts[:5] == ["x🤖y", "", VOCAB, "wasm-simd", config.parameters]
    assert texts[5] == texts[6] == texts[7] and texts[8] == texts[9] != texts[5]
    assert texts[10:] == ["", ["a", "b"], "x🤖"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("generate(7)", "RequestError: prompt is 7; it must be a string"),
        ("generate('a', { length: -1 })", "RequestError: length is -1; it must be from 0"),
        ("generate('a', { length: 1.5 })", "RequestError: length is 1.5; it must be a whole number"),
        ("generate('a', { temperature: -1 })", "RequestError: temperature is -1; it must be a finite number from 0"),
        ("generate('a', { temperature: NaN })", "RequestError: temperature is NaN; it must be a finite number from 0"),
        ("generate('a', { temperature: '1' })", 'RequestError: temperature is "1"; it must be a number'),
        ("generate('a', { topP: 1.5 })", "RequestError: topP is 1.5; it must be from 0 to 1"),
        ("generate('a', { topK: 0.5 })", "RequestError: topK is 0.5; it must be a whole number"),
        ("generate('a', { seed: -3n })", "RequestError: seed is -3; it must be from 0"),
        ("generate('a', { seed: true })", "RequestError: seed is true; it must be a whole number"),
        (
            "score('ab€')",
            'VocabError: "€" (character 3) is not among this model\'s 10 symbols; '
            "leave it out or train on a text that has it",
        ),
        ("inspect('ab', { gates: { layer: 2, unit: 0 } })", "RequestError: layer is 2; it must be from 0 to 1"),
        ("inspect('ab', { gates: { layer: 0, unit: -1 } })", "RequestError: unit is -1; it must be from 0 to 8"),
        ("inspect('ab', { gates: { layer: 0 } })", "RequestError: unit is undefined; it must be a whole number"),
        ("findPattern('abc', { start: 3, end: 4 })", "RequestError: start is 3; it must be from 0 to 2"),
        ("findPattern('abc', { start: 1, end: 1 })", "RequestError: end is 1; it must be from 2 to 3"),
        (
            "findPattern('abc', { start: 0, end: 1, threshold: 2 })",
            "RequestError: threshold is 2; it must be from -1 to 1",
        ),
        (
            "findPattern('x', { start: 0, end: 1 })",
            "RequestError: the text has no character that this model knows; enter one that has",
        ),
        (
            "findPattern('a'.repeat(20001), { start: 0, end: 1 })",
            "RequestError: the text has 20,001 characters, and the units are looked at in at most 20,000; shorten it",
        ),
        (
            "findPattern('a'.repeat(201), { start: 0, end: 201 })",
            "RequestError: the stretch has 201 characters; select at most 200",
        ),
        ("generate('a', { after: 'x' })", 'VocabError: "x" (character 1) is not among this model\'s 10 symbols'),
        (
            "generate('a', { forced: [[3, 'x']] })",
            'VocabError: "x" (character 1) is not among this model\'s 10 symbols',
        ),
        (
            "generate('a', { forced: [[3, 'ab']] })",
            'RequestError: forced has "ab" at 3; it must be one character',
        ),
        ("generate('a', { forced: [[-3, 'a']] })", "RequestError: forced is -3; it must be from 0"),
        ("predict('a', { seed: -1 })", "RequestError: seed is -1; it must be from 0"),
        ("generate('a', { forced: 5 })", "RequestError: forced is 5; it must be a list of [place, symbol]"),
        ("generate('a', { forced: null })", "RequestError: forced is null; it must be a list of [place, symbol]"),
        ("generate('a', { forced: [5] })", "RequestError: forced is 5; it must be a list of [place, symbol]"),
        ("generate('a', { forced: [[5]] })", "RequestError: forced is undefined; it must be a string"),
        ("generate('a', null)", "RequestError: options is null; it must be an object"),
        ("generate('a', 7)", "RequestError: options is 7; it must be an object"),
        ("predict('a', null)", "RequestError: options is null; it must be an object"),
        ("score('a', null)", "RequestError: options is null; it must be an object"),
        ("inspect('a', null)", "RequestError: options is null; it must be an object"),
        ("gates('a', null)", "RequestError: options is null; it must be an object"),
        ("units('a', null)", "RequestError: options is null; it must be an object"),
        ("findPattern('a', null)", "RequestError: options is null; it must be an object"),
        ("score('a', { signal: 5 })", "RequestError: signal is 5; it must be an AbortSignal"),
        ("constructor.load('x/', null)", "RequestError: options is null; it must be an object"),
        ("constructor.load('x/', { sha256: 5 })", "RequestError: sha256 is 5; it must be a string"),
        ("constructor.from(null)", "RequestError: the first argument is null; it must be an object"),
    ],
)
def test_wrong_arguments_are_told(page, folder, call, message):
    said = page.evaluate(
        f"""async (folder) => {{
            window.lm ??= await CharLM.load(folder);
            return told(lm.{call});
        }}""",
        folder.name,
    )
    assert said.startswith(message)


# The Worker


def test_stop_takes_effect_at_once_and_the_worker_is_free_again(page):
    waited, reason, pieces, left, answered, closed = page.evaluate(
        """async () => {
            const lm = await CharLM.load("weights/shakespeare-lstm");
            const stop = new AbortController();
            let [pieces, reason, begin] = [0, null, 0];
            try {
                for await (const piece of lm.stream("A", { length: 1e9, seed: 0, signal: stop.signal })) {
                    if (++pieces === 3) setTimeout(() => { begin = performance.now(); stop.abort(); }, 5);
                }
            } catch (error) {
                reason = error.name;
            }
            const waited = performance.now() - begin;
            let left = "";
            for await (const piece of lm.stream("A", { length: 1e9, seed: 0 })) if ((left += piece).length > 3) break;
            const answered = (await lm.score("To be")).length; // nothing else keeps the Worker
            const endless = told(lm.generate("A", { length: 1e9 }));
            await new Promise((resolve) => setTimeout(resolve, 50));
            lm.close();
            return [waited, reason, pieces, left.length, answered, [await endless, await told(lm.score("To be"))]];
        }"""
    )
    assert waited < 200 and reason == "AbortError" and pieces >= 3 and left > 3 and answered == 4
    assert closed == ["CharLMError: this model is closed; load it again"] * 2


def test_stop_ends_a_text_whose_reader_is_slower_than_its_writer(page, folder):
    reason, left = page.evaluate(
        """async (folder) => {
            const lm = await CharLM.load(folder);
            const stop = new AbortController();
            let [left, reason] = [0, null];
            try {
                for await (const piece of lm.stream("a", { length: 1e9, seed: 0, signal: stop.signal })) {
                    if (stop.signal.aborted) left++;
                    if (left === 9) break;
                    stop.abort();
                    await new Promise((resolve) => setTimeout(resolve, 100)); // meanwhile further pieces come
                }
            } catch (error) {
                reason = error.name;
            }
            lm.close();
            return [reason, left];
        }""",
        folder.name,
    )
    assert (reason, left) == ("AbortError", 0)


def test_a_reader_that_is_slow_does_not_make_the_worker_run_far_ahead(page, folder):
    # a text of 10⁹ symbols would fill the memory
    sizes = page.evaluate(
        """async (folder) => {
            const lm = await CharLM.load(folder);
            const sizes = [];
            for await (const piece of lm.stream("a", { length: 1e9, seed: 0 })) {
                if (sizes.length === 1) await new Promise((resolve) => setTimeout(resolve, 300));
                if (sizes.push(piece.length) === 9) break;
            }
            const begin = performance.now();
            await lm.score("ab");
            lm.close();
            return [...sizes, performance.now() - begin];
        }""",
        folder.name,
    )
    assert sum(sizes[:9]) < 2e6 and sizes[9] < 200


def test_models_share_a_worker_or_have_one_each(page, folder, site):
    other = put_model(site, "other", "gru", hidden_size=12)
    started = []
    page.on("worker", lambda worker: started.append(worker))
    apart, together = page.evaluate(
        """async (folders) => {
            const settings = { length: 2000, seed: 5 };
            const alone = await Promise.all(folders.map((folder) => CharLM.load(folder)));
            const apart = [];
            for (const lm of alone) apart.push(await lm.generate("a", settings), await lm.generate("b", settings));
            alone.forEach((lm) => lm.close());
            const first = await CharLM.load(folders[0]);
            const second = await CharLM.load(folders[1], { beside: first });
            window.shared = [first, second];
            const asked = shared.flatMap((lm) => [lm.generate("a", settings), lm.generate("b", settings)]);
            return [apart, await Promise.all(asked)];
        }""",
        [folder.name, other.name],
    )
    assert together == apart and len(started) == 3
    page.evaluate("shared[0].close()")
    assert page.evaluate("shared[1].generate('a', { length: 5, seed: 5 })") == apart[2][:5]
    with started[-1].expect_event("close"):  # with it, all memory of its models is free
        page.evaluate("shared[1].close()")
    # beside one that is closed, a model has a Worker of its own
    again = """async (folder) => {
        const lm = await CharLM.load(folder, { beside: shared[1] });
        const text = await lm.generate("a", { length: 5, seed: 5 });
        lm.close();
        return text;
    }"""
    assert page.evaluate(again, other.name) == apart[2][:5]


def test_a_worker_that_fails_is_told(page, folder):
    said = page.evaluate(
        """async (folder) => {
            const worker = workerAfter('setTimeout(() => { throw new Error("broken"); }, 100)');
            const lm = await CharLM.load(folder, { worker });
            const said = [await told(lm.generate("a", { length: 1e9 })), await told(lm.score("ab"))];
            lm.close();
            return said;
        }""",
        folder.name,
    )
    assert said == ["CharLMError: the Worker in which the model computes has failed; load the model again"] * 2


# Browsers that lack something


def test_without_workers_a_model_computes_in_the_page_which_goes_on_meanwhile(context, idle_pages, site, folder):
    with borrowed_page(context, idle_pages) as page, script_before(page, "delete globalThis.Worker"):
        page.goto(site[1])
        page.wait_for_function("window.ready")
        text, frames = page.evaluate(
            """async (folder) => {
                const lm = await CharLM.load(folder);
                let [frames, isOver] = [0, false];
                const count = () => { frames++; if (!isOver) setTimeout(count); };
                count();
                const text = await lm.generate("cab", { length: 20000, seed: 3 });
                isOver = true;
                lm.close();
                return [text, frames];
            }""",
            folder.name,
        )
        assert not page.workers
    assert text == CharLM.from_pretrained(folder, device="cpu").generate("cab", 20_000, seed=3)
    assert frames > 3


@pytest.mark.parametrize(
    "missing",
    ["delete WebAssembly.Module", "WebAssembly.Module = function () { throw new WebAssembly.CompileError(); }"],
)
def test_without_simd_a_model_computes_in_plain_javascript(page, folder, missing):
    kernel, text = page.evaluate(
        """async ([folder, missing]) => {
            const lm = await CharLM.load(folder, { worker: workerAfter(missing) });
            const text = await lm.generate("cab", { length: 300, seed: 3 });
            lm.close();
            return [lm.kernel, text];
        }""",
        [folder.name, missing],
    )
    assert kernel == "javascript"
    assert text == CharLM.from_pretrained(folder, device="cpu").generate("cab", 300, seed=3)


def test_without_crypto_the_sha_256_is_our_own(page, site, folder):
    # headers of all lengths modulo 64, which spaces fill up
    packed = (folder / "model.safetensors").read_bytes()
    begin = 8 + int.from_bytes(packed[:8], "little")
    files = []
    for spaces in range(64):
        weights = (begin - 8 + spaces).to_bytes(8, "little") + packed[8:begin] + b" " * spaces + packed[begin:]
        config = json.loads((folder / "config.json").read_text()) | {"weights_sha256": sha256(weights).hexdigest()}
        files.append([json.dumps(config), base64.b64encode(weights).decode()])
    loaded, damaged = page.evaluate(
        """async (files) => {
            const worker = workerAfter('Object.defineProperty(crypto, "subtle", { value: undefined })');
            const first = await CharLM.from({ config: files[0][0], weights: decode(files[0][1]) }, { worker });
            let loaded = 0;
            for (const [config, weights] of files) {
                const lm = await CharLM.from({ config, weights: decode(weights) }, { beside: first });
                loaded += lm.parameters === first.parameters;
                lm.close();
            }
            const changed = decode(files[0][1]);
            changed[changed.length - 1] ^= 1;
            return [loaded, await told(CharLM.from({ config: files[0][0], weights: changed }, { beside: first }))];
        }""",
        files,
    )
    assert loaded == 64
    assert "(its SHA-256 differs): one of the two is damaged or from another model; get both again" in damaged


def test_a_model_that_does_not_fit_into_memory_is_told(page, folder):
    said = page.evaluate(
        """async (folder) => {
            const worker = workerAfter('WebAssembly.Memory = function () { throw new RangeError("none"); }');
            return refusal(folder, { worker });
        }""",
        folder.name,
    )
    parameters = CharLM.from_pretrained(folder, device="cpu").config.parameters
    assert said == f"ModelFileError: small: the model takes {4 * parameters:,} bytes of memory, more than is free"


# Files that are missing, damaged, or those of another model


LOAD = "([address, options]) => refusal(address, options)"


def test_files_that_cannot_be_had_are_told(page, site, folder):
    incomplete = site[0] / "incomplete"
    incomplete.mkdir()
    said = page.evaluate(LOAD, ["incomplete", {}])
    assert said == "ModelFileError: incomplete: config.json is missing: this is not a whole model folder"
    copy(folder / "config.json", incomplete)
    said = page.evaluate(LOAD, ["incomplete/", {"name": "ada/poems"}])
    assert said == "ModelFileError: ada/poems: model.safetensors is missing: this is not a whole model folder"
    with open(incomplete / "model.safetensors", "wb") as file:
        file.truncate(20_000_000)
    said = page.evaluate(LOAD, ["incomplete", {}])
    most = 4 * CharLM.from_pretrained(folder, device="cpu").config.parameters + 2**20
    assert said == f"ModelFileError: incomplete: model.safetensors is larger than the {most:,} bytes that it can need"
    said = page.evaluate(LOAD, ["http://127.0.0.1:9/model", {}])
    assert said.startswith("UnreachableError: http://127.0.0.1:9/model/config.json cannot be reached (")
    assert said.endswith("); check the address and the network, then try again")


def test_weights_that_are_not_those_that_were_asked_for_are_refused(page, folder):
    digest = json.loads((folder / "config.json").read_text())["weights_sha256"]
    assert page.evaluate(LOAD, [folder.name, {"sha256": digest.upper()}]) is None
    assert page.evaluate(LOAD, [folder.name, {"sha256": "0" * 64}]) == (
        "ModelFileError: small: config.json describes other weights than were asked for (their SHA-256 differs): "
        "the model was changed or exchanged; look for the version that is meant"
    )


def test_progress_is_told_and_loading_can_be_given_up(page, folder):
    calls, reason = page.evaluate(
        """async (folder) => {
            const calls = [];
            (await CharLM.load(folder, { onProgress: (...sizes) => calls.push(sizes) })).close();
            const stop = new AbortController();
            stop.abort();
            const given = await CharLM.load(folder, { signal: stop.signal }).catch((error) => error.name);
            return [calls, given];
        }""",
        folder.name,
    )
    size = (folder / "model.safetensors").stat().st_size
    assert calls[-1] == [size, size] and reason == "AbortError"


def test_two_hundred_damaged_models_are_refused_where_python_refuses_them_and_the_page_lives(page, tmp_path, folder):
    """Python's own tests say that what it refuses is damaged, and that the rest is not."""
    saved = [contents(save(make_model(cell), tmp_path / cell)) for cell in CELLS]
    originals = [{name: files[name] for name in READ_FILES} for files in saved]
    cases, verdicts = [], []
    for case in range(200):
        dice = random.Random(case)
        files = damage(dice.choice(originals), dice)
        cases.append([base64.b64encode(files[name]).decode() for name in READ_FILES])
        read = {name: as_json_parse_reads(content) for name, content in files.items()}
        verdicts.append(verdict(what_python_says(read, tmp_path / "model")))
    said, text = page.evaluate(
        """async ([cases, folder]) => {
            const sound = await CharLM.load(folder);
            const said = [];
            for (const [config, weights, history] of cases.map((case_) => case_.map(decode))) {
                const lm = await told(CharLM.from({ config, weights, history }, { name: "model", beside: sound }));
                said.push(lm instanceof CharLM ? lm.historyProblem : lm);
                if (lm instanceof CharLM) lm.close();
            }
            const text = await sound.generate("cab", { length: 50, seed: 3 });
            sound.close();
            return [said, text];
        }""",
        [cases, folder.name],
    )
    assert text == CharLM.from_pretrained(folder, device="cpu").generate("cab", 50, seed=3)
    assert [verdict(each) for each in said] == verdicts
    assert verdicts.count("model") > 100 and verdicts.count("record") > 10
    for each in filter(None, said):
        assert any(name in each for name in (*READ_FILES, "the model has weights over"))
        assert not re.search("JSON.parse|[Uu]nexpected|undefined|not a function|call stack|object Object", each)


def as_json_parse_reads(content):
    """What JSON.parse takes a file for, which keeps the last of two equal keys, and takes 8.0 for 8."""
    try:
        value = json.loads(content.decode(), parse_float=lambda digits: whole_or_not(float(digits)))
        return json.dumps(value, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return content  # no JSON, or a number that is not finite


def whole_or_not(number):
    return int(number) if number.is_integer() else number


def verdict(said):
    """Which part of a folder an error refuses, if any."""
    return said and ("model" if said.startswith("ModelFileError: model: ") else "record")


def what_python_says(files, folder):
    """The error about a model folder, or what is wrong with its record alone; empty for a sound one."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        model = read_usable_model(folder, "model")
    except CharLMError as error:
        return f"{type(error).__name__}: {error}"
    try:
        Engine(model.config, model.weights)
    except CharLMError as error:
        return f"{type(error).__name__}: model: {error}"
    return model.record_problem


def test_fields_of_a_record_that_few_records_have_are_checked_as_in_python(page, tmp_path):
    files = contents(save(make_model("rnn"), tmp_path / "model"))
    sha256, edit = "aB" * 32, {"epoch": 1, "step": 0, "lr": 1e-3}
    earlier = make_record((2.0,))["epochs"]
    sound = {
        ("run", "lr_edits"): [edit],
        ("epochs", 0, "weights_sha256"): sha256,
        ("best", "test_loss"): 1,
        ("earlier_runs",): [{"name": "a", "epochs": earlier}],
    }
    wrong = [
        *((("run", "lr_edits"), edits) for edits in ({}, [3], [edit | {"lr": "1"}], [{"lr": 1}], None)),
        (("run", "split", "test_chars"), "abc"),
        *((("best", loss), "abc") for loss in ("val_loss_reset256", "test_loss", "also_text_loss")),
        *((("epochs", 0, "weights_sha256"), value) for value in ("zz", sha256 + "\n", 7, None)),
        *((("earlier_runs",), runs) for runs in (None, {}, [1], [{}], [{"name": 1, "epochs": earlier}])),
        *((("earlier_runs",), [{"name": "a", "epochs": each}]) for each in (None, [], [1], [*earlier, *earlier])),
        (("earlier_runs",), [{"name": "a", "epochs": earlier}] * 51),
        (("earlier_runs",), [{"name": "é" * 201, "epochs": earlier}]),
        (("earlier_runs",), [{"name": "a", "epochs": make_record([1.5] * 4_998, "")["epochs"]}]),
        (("earlier_runs",), [{"name": "a", "epochs": [earlier[0] | {"val_loss": "1"}]}]),
    ]
    histories = []
    for fields in (sound, *({place: value} for place, value in wrong)):
        history = json.loads(files["history.json"])
        for (*places, last), value in fields.items():
            node = history
            for place in places:
                node = node.setdefault(place, {}) if isinstance(node, dict) else node[place]
            node[last] = value
        histories.append(json.dumps(history).encode())
    verdicts = [verdict(what_python_says(files | {"history.json": each}, tmp_path / "model")) for each in histories]
    cases = [base64.b64encode(each).decode() for each in histories]
    said = page.evaluate(
        """async ([config, weights, histories]) => {
            const said = [];
            for (const history of histories.map(decode)) {
                const lm = await CharLM.from({ config: decode(config), weights: decode(weights), history });
                said.push(lm.historyProblem);
                lm.close();
            }
            return said;
        }""",
        [*(base64.b64encode(files[name]).decode() for name in ("config.json", "model.safetensors")), cases],
    )
    assert [verdict(each) for each in said] == verdicts == ["", *["record"] * len(wrong)]
    assert all(each.startswith("history.json: ") for each in said[1:])


def test_a_record_that_is_too_large_leaves_the_model_without_it(page, site, folder):
    large = site[0] / "large"
    copytree(folder, large)
    with open(large / "history.json", "wb") as file:
        file.truncate(5_000_000)
    said = page.evaluate(
        """async (folder) => {
            const lm = await CharLM.load(folder);
            lm.close();
            return [lm.history, lm.historyProblem];
        }""",
        "large",
    )
    assert said == [None, read_usable_model(large).record_problem]


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
WEB_PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Not found</title></head></html>"


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (LFS_POINTER, "it is a pointer of git-LFS, not the file itself; run"),
        (WEB_PAGE, "it is a web page, not the file"),
    ],
    ids=["pointer", "web page"],
)
def test_what_a_server_gives_in_place_of_a_file_is_told(page, site, folder, file, content, cause):
    given = site[0] / f"{len(content)} for {file}"  # the browser keeps what it was given at an address
    copytree(folder, given)
    (given / file).write_bytes(content)
    said = page.evaluate(LOAD, [given.name, {}])
    assert said.startswith(f"ModelFileError: {given.name}: {file} ") and cause in said


def test_weights_that_end_early_are_told_with_their_size(page, site, folder):
    short = site[0] / "short"
    copytree(folder, short)
    whole = (folder / "model.safetensors").read_bytes()
    (short / "model.safetensors").write_bytes(whole[:-9])
    cause = f"it has {len(whole) - 9:,} of {len(whole):,} bytes, as after a download or a copy that did not finish"
    assert f"{cause}; get it again" in page.evaluate(LOAD, ["short", {}])


@pytest.mark.parametrize(("depth", "is_refused"), [(100, False), (101, True), (50_000, True)])
def test_lists_that_are_nested_too_deep_are_told_before_they_are_parsed(page, folder, depth, is_refused):
    config = (folder / "config.json").read_text()
    deep = config.replace("{", f'{{"more": {"[" * (depth - 1)}{"]" * (depth - 1)},', 1)
    said = page.evaluate("([config]) => told(CharLM.from({ config, weights: new Uint8Array(9) }))", [deep])
    assert ("config.json nests lists and objects more than 100 deep" in said) is is_refused


def test_a_model_of_a_newer_format_says_that_charlm_is_to_be_updated(page, site):
    newer = put_model(site, "newer", "rnn")
    change_config(newer, format_version=2)
    assert page.evaluate(LOAD, ["newer", {}]) == (
        "ModelFileError: newer: config.json has format_version 2, written by a newer charlm; "
        "this one reads up to 1: update charlm"
    )
