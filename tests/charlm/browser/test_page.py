"""The page without a server: what its file holds, and the page opened from the disk with every request refused."""

import base64
import csv
import errno
import gzip
import hashlib
import io
import json
import os
import random
import re
import string
import urllib.parse
from contextlib import ExitStack
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import ROOT, Visit, check_keyboard, script_before, serious_violations, take_page, text_fragment
from models import contents, make_joined_record, make_model, make_record, make_sampler, save, stream_shared

from charlm import CharLM
from charlm.analysis.diagnosis import read_curves
from charlm.analysis.published import TINYSHAKESPEARE
from charlm.browser import export, page
from charlm.browser.export import export as export_to
from charlm.browser.page import PageModel, export_html, page_data, static_files
from charlm.browser.scripts import join_modules
from charlm.errors import HubUnavailableError, ModelFileError, RequestError
from charlm.inference.engine import Reader
from charlm.model.folder import Model
from charlm.model.history import join_runs
from charlm.model.weights import pack_weights
from charlm.web import address
from charlm.web.answers import write
from charlm.web.answers.examples import PROMPTS, SCENE

HUB = "https://huggingface.co", ("https://huggingface.co", "https://*.hf.co")
WEIGHTS = ROOT / "weights"
VIEWS = ("write", "learn", "inside", "about")
HOSTILE = "</script><script>window.ran = 1</script><!--<img src=x onerror=window.ran=1> ${7*7} &lt;\u202egnp\u2066"


class Elements(HTMLParser):
    """The elements of a page: their names, and of scripts and styles the attributes and the content."""

    def __init__(self, text):
        super().__init__()
        self.names, self.scripts, self.metas, self.title, self.inside = [], [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.inside = tag
        if tag == "meta":
            self.metas.append(dict(attributes))
        if tag in ("script", "style"):
            self.scripts.append([tag, dict(attributes), ""])

    def handle_data(self, data):
        if self.inside in ("script", "style"):
            self.scripts[-1][2] += data
        elif self.inside == "title":
            self.title += data

    def handle_endtag(self, tag):
        self.inside = ""

    def one(self, name):
        (found,) = (content for _, attributes, content in self.scripts if attributes.get("id") == name)
        return found

    @property
    def policy(self):
        (meta,) = (meta for meta in self.metas if meta.get("http-equiv") == "Content-Security-Policy")
        return {rule.split()[0]: rule.split()[1:] for rule in meta["content"].split("; ")}


def inflate(content):
    return gzip.decompress(base64.b64decode(content)).decode()


def tiny(name="small", license="mit", epochs=(2.0, 1.5, 1.75), **options):
    model = make_model("rnn", **options)
    return PageModel.from_model(name, Model(model.config, model.weights, make_record(epochs)), license)


def expression(content):
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


# The file


def lines_of_code(script):
    """The lines of a script without those that are comments."""
    inside = False
    for line in script.splitlines():
        inside = inside or line.lstrip().startswith("/*")
        if not inside and not line.lstrip().startswith("//"):
            yield line
        inside = inside and not line.endswith("*/")


def test_the_weights_the_configuration_and_the_record_are_in_the_file_as_they_are():
    models = [tiny("one"), tiny("two", seed=1, epochs=(3.0,))]
    found = Elements(export_html(models).decode())
    for place, model in enumerate(models):
        pieces = [content for _, attributes, content in found.scripts if attributes.get("data-weights") == str(place)]
        weights = b"".join(map(base64.b64decode, pieces))
        assert weights == pack_weights(make_model("rnn", seed=place).weights)
        told = json.loads(inflate(found.one("data")))["models"][place]
        assert (told["size"], told["sha256"]) == (len(weights), hashlib.sha256(weights).hexdigest())
        assert told["config"]["weights_sha256"] == told["sha256"]
        assert told["history"] == join_runs(model.history)
    engine = (ROOT / "charlm" / "browser" / "charlm.js").read_text(encoding="utf-8")
    assert inflate(found.one("engine")).splitlines() == list(lines_of_code(engine))


def test_weights_of_many_pieces_are_whole(monkeypatch):
    monkeypatch.setattr(page, "PIECE", 300)
    model = tiny()
    found = Elements(export_html([model]).decode())
    pieces = [content for _, attributes, content in found.scripts if "data-weights" in attributes]
    assert len(pieces) == -(-model.size // 300) > 2
    assert b"".join(map(base64.b64decode, pieces)) == model.weights


def with_samples(name, losses):
    """A model whose record has samples as a training writes them: 500 symbols that do not repeat."""
    random, record, model = np.random.default_rng(0), make_record(losses), make_model()
    for epoch in record["epochs"]:
        epoch["sample"] = "".join(random.choice(list("etaoinshrdlu \n"), 500))
    return PageModel.from_model(name, Model(model.config, model.weights, record), "mit")


def test_the_epochs_of_earlier_runs_are_in_a_page_numbered_consecutively_and_thinned_with_the_others():
    model, record = make_model(), make_joined_record([2.0] * 200, [1.9, 1.8, 1.85])
    record["earlier_runs"][0]["epochs"] = make_record([2.0] * 200)["epochs"]
    for epoch in record["earlier_runs"][0]["epochs"]:
        epoch["sample"] = f"{epoch['epoch']} {'x' * 300}"
    told = page_data([PageModel.from_model("one", Model(model.config, model.weights, record), "mit")])["models"][0]
    joined = join_runs(record)
    assert told["history"]["run_starts"] == joined["run_starts"] == [201]
    for shown, epoch in zip(told["history"]["epochs"], joined["epochs"], strict=True):
        assert shown == {n: pytest.approx(x, rel=1e-7) if isinstance(x, float) else x for n, x in epoch.items()}
    thin = page._thin(told["history"], 64)
    assert [epoch["epoch"] for epoch in thin["epochs"] if epoch["sample"]] == [1, 64, 128, 192, 202, 203]


def samples_in(content):
    """The samples of each model of a page, by epoch; those that were left out are empty."""
    models = json.loads(inflate(Elements(content).one("data")))["models"]
    return [[epoch["sample"] for epoch in told["history"]["epochs"]] for told in models]


@pytest.mark.parametrize("epochs", [3, pytest.param(400, marks=pytest.mark.slow)])
def test_a_page_takes_four_thirds_of_its_weights_and_at_most_200_kb(epochs):
    models = [with_samples(name, [2.0] * epochs) for name in ("one", "two", "three")]
    content = export_html(models)
    assert len(content) <= sum(model.size for model in models) * 4 / 3 + 200_000
    for samples in samples_in(content.decode()):
        assert len(samples) == epochs and samples[0] and samples[-1]
        assert (samples.count("") > 0) == (epochs == 400)


@pytest.mark.slow
def test_samples_of_the_longest_record_are_left_out_but_the_first_the_best_and_the_last():
    losses = [2.0] * 400
    losses[6] = 1.0
    models = [with_samples("one", [2.0] * 12), with_samples("two", losses), with_samples("three", [2.0] * 12)]
    one, two, three = samples_in(export_html(models).decode())
    assert all(one) and all(three)
    kept = {epoch for epoch, sample in enumerate(two, 1) if sample}
    assert kept in [{1, 7, 400, *range(step, 401, step)} for step in (2, 4, 8, 16)]


@pytest.mark.slow
def test_all_bundled_models_fit_with_some_samples_of_each(tmp_path):
    models = export_to(sorted(map(str, WEIGHTS.iterdir())), tmp_path / "page.html")
    content = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(models) == 9
    assert len(content.encode()) <= sum(model.size for model in models) * 4 / 3 + 200_000
    for samples in samples_in(content):
        assert samples[0] and samples[-1] and sum(map(bool, samples)) >= min(len(samples), 3)


def test_the_style_in_the_file_is_shorter_and_has_the_same_rules(page):
    (short,) = (content for tag, _, content in Elements(export_html([tiny()]).decode()).scripts if tag == "style")
    whole = static_files([tiny()], *HUB)["page.css"].decode()
    assert len(short) < 0.95 * len(whole)
    rules = """(style) => {
        const sheet = new CSSStyleSheet();
        sheet.replaceSync(style);
        return [...sheet.cssRules].map((rule) => rule.cssText.replace(/\\s+/g, " "));
    }"""
    found = page.evaluate(rules, whole)
    assert found == page.evaluate(rules, short) and len(found) > 100


def test_nothing_but_the_pages_own_scripts_and_styles_may_run_and_nothing_may_be_asked_for():
    found = Elements(export_html([tiny()]).decode())
    (script,) = (content for tag, attributes, content in found.scripts if tag == "script" and not attributes)
    (style,) = (content for tag, _, content in found.scripts if tag == "style")
    assert found.policy == {
        "default-src": ["'none'"],  # and no connect-src
        "script-src": [expression(script), "blob:", "'wasm-unsafe-eval'"],
        "worker-src": ["blob:"],
        "style-src": [expression(style)],
        "img-src": ["data:", "blob:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "object-src": ["'none'"],
    }


def test_the_policy_binds_all_that_follows():
    text = export_html([tiny()]).decode()
    begin = text.index("Content-Security-Policy")
    assert not re.search("<(script|style|link|img|title)", text[:begin])


def test_the_file_names_no_address_on_the_web():
    text = export_html([tiny()]).decode()
    script = inflate(Elements(text).one("script"))
    assert script == join_modules(page.SCRIPT)
    assert set(re.findall(r"https?://[\w.]+", text + script)) <= {"http://www.w3.org"}  # the namespace of SVG


def test_strangers_strings_bring_no_element_into_the_file():
    vocab = "".join(dict.fromkeys("\n" + HOSTILE))
    model = make_model("rnn", vocab=vocab)
    record = make_record(sample=HOSTILE, text=HOSTILE, protocol=HOSTILE)
    hostile = PageModel.from_model(HOSTILE, Model(model.config, model.weights, record), HOSTILE, HOSTILE)
    plain = Elements(export_html([tiny("plain")]).decode())
    found = Elements(export_html([hostile]).decode())
    assert found.names == plain.names
    assert found.title == "charlm: " + HOSTILE.replace("\u202e", "\\u202e").replace("\u2066", "\\u2066")
    told = json.loads(inflate(found.one("data")))["models"][0]
    assert (told["config"]["vocab"], told["history"]["epochs"][0]["sample"]) == (vocab, HOSTILE)
    index, plain_index = (static_files([model], *HUB)["index.html"].decode() for model in (hostile, tiny("plain")))
    assert Elements(index).names == Elements(plain_index).names
    assert json.loads(Elements(index).one("data"))["models"][0]["config"]["vocab"] == vocab


@pytest.mark.parametrize(
    ("license", "said"),
    [
        ("cc-by-4.0", "Licence: cc-by-4.0."),
        ("", "Its author has stated no licence: ask before you use it for more than a trial."),
        ("not-stated", "Its author has stated no licence: ask before you use it for more than a trial."),
        (None, "Its licence is not known here: look for it where the model comes from."),
    ],
)
def test_the_card_in_short_has_the_licence_and_the_figures(license, said):
    (told,) = page.page_data([tiny(license=license)])["models"]
    assert told["card"][-1] == said
    assert "after epoch 2 of 3 its validation loss is 1.5000 nats per character, 2.1640 bits." in told["card"][1]


def test_a_loss_that_leaks_is_not_shown_as_a_figure_of_quality():
    record = make_record((0.9, 0.6), protocol="windows")
    record["epochs"][1]["unseen_loss"] = 2.5
    model = make_model("rnn")
    (told,) = page.page_data([PageModel.from_model("leaky", Model(model.config, model.weights, record))])["models"]
    assert "its loss on text that it never saw is 2.5000 nats" in told["card"][1] and "0.6" not in told["card"][1]


def test_the_reading_of_the_curves_is_that_of_python():
    models = [tiny("one"), tiny("two", epochs=(3.0, 1.9)), PageModel.from_model("bare", make_model(history=False))]
    reading = page.page_data(models)["reading"]
    one, two = (("one", models[0].history), ("two", models[1].history))
    remarks = {name: [asdict(remark) for remark in read_curves([(name, history)])] for name, history in (one, two)}
    assert reading["own"] == remarks
    both = [asdict(remark) for remark in read_curves([one, two])]
    assert reading["pairs"] == [["one", "two", both[len(remarks["one"] + remarks["two"]) :]]]


@pytest.mark.parametrize("count", [0, 21])
def test_a_page_of_no_models_or_too_many_is_refused(count):
    with pytest.raises(RequestError, match=f"a page shows 1 to 20 models, not {count}"):
        export_html([tiny(f"model {number}") for number in range(count)])


def test_more_weights_than_a_browser_holds_are_refused(monkeypatch):
    monkeypatch.setattr(page, "MOST_WEIGHTS", 1000)
    with pytest.raises(RequestError, match="MB of weights, and browsers cannot hold a file with more than 0 MB"):
        export_html([tiny()])


def test_the_files_of_a_static_space_import_each_other_and_hold_no_weights():
    models = [PageModel("ada/poems", make_model().config, 123, "ab" * 32, address="https://huggingface.co/x/y")]
    files = static_files(models, *HUB, space="ada/page")
    assert f'<meta name="charlm-space" content="{HUB[0]}/spaces/ada/page">' in files["index.html"].decode()
    index = Elements(files["index.html"].decode())
    assert [attributes["src"] for _, attributes, _ in index.scripts if "src" in attributes] == ["page.js"]
    assert not any("data-weights" in attributes for _, attributes, _ in index.scripts)
    for name, content in files.items():
        for imported in re.findall(r'(?:from|import\()\s*"(\./[^"]+)"', content.decode()):
            assert os.path.normpath(Path(name).parent / imported) in files
    assert index.policy["connect-src"] == ["'self'", *HUB[1]]
    assert index.policy["script-src"] == ["'self'", "'wasm-unsafe-eval'"]
    (told,) = json.loads(index.one("data"))["models"]
    assert (told["address"], told["size"], told["sha256"]) == ("https://huggingface.co/x/y", 123, "ab" * 32)


def test_modules_that_declare_the_same_name_are_not_joined(tmp_path):
    (tmp_path / "a.js").write_text('import { one } from "./b.js";\n\nconst two = one;\n')
    (tmp_path / "b.js").write_text("export const one = 1;\n")
    joined = join_modules(tmp_path / "a.js")
    assert joined.index("const one = 1;") < joined.index("const two = one;") and "import" not in joined
    (tmp_path / "b.js").write_text("export const one = 1;\nconst two = 2;\n")
    with pytest.raises(AssertionError, match="two"):
        join_modules(tmp_path / "a.js")


def test_the_bounds_of_a_share_link_are_those_of_the_gradio_page():
    source = (ROOT / "charlm" / "browser" / "address.js").read_text(encoding="utf-8")
    for name in ("LONGEST_TEXT", "LONGEST_PROMPT", "HIGHEST_TEMPERATURE", "LARGEST_TOP_K", "SEED_DIGITS"):
        assert re.search(rf"const {name} = (\d+);", source)[1] == str(getattr(write, name))


# The command


def test_an_exported_page_is_replaced_and_nothing_else_is(tmp_path):
    folder, path = save(make_model(), tmp_path / "model"), tmp_path / "new" / "page.html"
    export_to([str(folder)], path)
    first = path.read_bytes()
    export_to([str(save(make_model(seed=1), tmp_path / "other"))], path)
    assert path.read_bytes() != first and [each.name for each in path.parent.iterdir()] == ["page.html"]

    mine = tmp_path / "mine.html"
    mine.write_text("<h1>mine</h1>")
    with pytest.raises(RequestError, match=r"mine.html is not a page that this command made, and is kept"):
        export_to([str(folder)], mine)
    assert mine.read_text() == "<h1>mine</h1>"
    with pytest.raises(RequestError, match=r"is a folder; name a file in it: --html .*page.html"):
        export_to([str(folder)], tmp_path)


def test_a_page_is_kept_when_a_new_one_cannot_be_made_or_written(tmp_path, monkeypatch):
    folder, path = save(make_model(), tmp_path / "model"), tmp_path / "page.html"
    export_to([str(folder)], path)
    before = path.read_bytes()
    with pytest.raises(ModelFileError):
        export_to([str(folder), str(tmp_path / "nothing")], path)
    for number, said in ((errno.ENOSPC, "make room, or choose another place"), (errno.EACCES, "choose another place")):

        def fail(*_, number=number):
            raise OSError(number, "no", "a temporary file")

        monkeypatch.setattr("charlm.model.folder.os.replace", fail)
        with pytest.raises(RequestError) as refused:
            export_to([str(folder)], path)
        assert str(refused.value) == f"{path} cannot be written (no); {said} for --html"
    assert path.read_bytes() == before and sorted(each.name for each in tmp_path.iterdir()) == ["model", "page.html"]


def test_folders_of_the_same_name_are_told_apart(tmp_path):
    folders = [str(save(make_model(), tmp_path / each / "model")) for each in "ab"]
    assert [model.name for model in export_to(folders, tmp_path / "page.html")] == folders


def test_a_damaged_record_leaves_the_model_without_curves(tmp_path):
    folder = save(make_model(), tmp_path / "model")
    (folder / "history.json").write_text("{}")
    with pytest.warns(UserWarning, match="model: history.json .*; the page shows the model without its curves"):
        (model,) = export_to([str(folder)], tmp_path / "page.html")
    assert model.history is None


def test_the_licence_is_that_of_the_card(tmp_path):
    folder = save(make_model(), tmp_path / "model")
    for card, license in {
        "---\nlicense: apache-2.0\n---\n": "apache-2.0",
        "---\nlicense: other\nlicense_name: my-own\n---\n": "my-own",
        "no metadata": "",
        "---\nlicense: [a\n---\n": None,
    }.items():
        (folder / "README.md").write_text(card)
        assert export_to([str(folder)], tmp_path / "page.html")[0].license == license
    (folder / "README.md").unlink()
    assert export_to([str(folder)], tmp_path / "page.html")[0].license is None


def test_a_model_of_the_hub_is_exported_at_its_commit(hub, tmp_path):
    folder = save(make_model(), tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [charlm]\n---\n")
    hub.add_user("ada", "hf_ada")
    hub.add_repo("ada/poems", contents(folder))
    (model,) = export_to(["ada/poems"], tmp_path / "page.html")
    assert (model.name, model.license) == ("ada/poems", "mit")
    assert re.fullmatch("ada/poems, commit [0-9a-f]{7}", model.source)
    assert model.weights == (folder / "model.safetensors").read_bytes()


def test_a_model_that_cannot_be_had_from_the_hub_is_named(tmp_path):
    with pytest.raises(HubUnavailableError, match="ada/poems"):
        export_to(["hf://ada/poems"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    assert export._check_place(tmp_path / "page.html") is None


# The page


class Opened(Visit):
    """A visitor of an exported page on the disk, whose every request is refused. asked: the addresses of those."""

    def __init__(self, page, path, query=""):
        self.asked, self.path = [], path
        page.route(re.compile("^(?!file:)"), lambda route: route.abort())
        super().__init__(page)
        self._listeners["console"] = self._note_line
        self._go_to(self._address(query))

    def open(self, query):
        """Go to another address of the page, from the one that is open."""
        self.page.goto(self._address(query))
        self.wait_until_open()

    def _address(self, query):
        return query if query.startswith("file:") else self.path.as_uri() + query

    def wait_until_open(self):
        self.wait_until("window.charlm?.isOpen()")

    def leave(self):
        self.page.unroute_all()
        self.page.emulate_media(color_scheme="null", reduced_motion="null")
        super().leave()

    def _note_line(self, said):
        if said.type in ("error", "warning"):
            self.errors.append(said.text)

    def _note_foreign(self, request):
        own = request.url.startswith(self.path.as_uri()) and request.is_navigation_request()
        if not own and not request.url.startswith(("blob:", "data:")):
            self.asked.append(request.url)

    def fill(self, **values):
        for name, value in values.items():
            self.page.locator(f"#{name.replace('_', '-')}").fill(value)

    def slide(self, name, value):
        self.page.locator(f"#{name}").evaluate(
            "(field, value) => { field.value = value; field.dispatchEvent(new Event('input', { bubbles: true })); }",
            value,
        )

    def text(self, name):
        return self.page.locator(f"#{name} .heat-text").text_content()

    def words(self, name):
        return self.page.locator(f"#{name}").inner_text()

    def wait_for(self, name, characters):
        self.wait_until(
            "([id, n]) => document.querySelector(`#${id} .heat-text`).children.length >= n", arg=[name, characters]
        )

    def stop_at(self, name, characters):
        """Click Stop, in the page, once a text has so many characters: a click from outside may come after its end."""
        self.wait_until(
            """([id, n]) => {
                if (document.querySelector(`#${id} .heat-text`).children.length < n) return false;
                document.getElementById("stop").click();
                return true;
            }""",
            arg=[name, characters],
        )

    def generate(self, length):
        self.fill(length=str(length))
        self.page.locator("#generate").click()
        self.wait_for("output-a", length)
        self.wait_for("output-b", length)
        self.wait_until("!document.body.classList.contains('writing')")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The file of a page with the bundled RNN and GRU."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    export_to([str(WEIGHTS / "shakespeare-rnn"), str(WEIGHTS / "homework-lstm")], path)
    return path


@pytest.fixture(scope="module")
def small_page(tmp_path_factory):
    """The file of a page with our smallest models, which opens sooner: for what is so with any model."""
    path = tmp_path_factory.mktemp("small") / "page.html"
    export_to([str(WEIGHTS / "homework-rnn"), str(WEIGHTS / "names-gru")], path)
    return path


@pytest.fixture(scope="module")
def lms():
    return {name: CharLM.from_pretrained(WEIGHTS / name) for name in ("shakespeare-rnn", "homework-lstm")}


@pytest.fixture
def go_to(context, idle_pages):
    """A function that goes to a page on the disk; in the end nothing went wrong, and nothing was asked for.

    before: a script that runs before those of the page. has_touch: whether the screen is touched. media: features of
    the media, as `emulate_media` takes them.
    """
    opened, options = [], ExitStack()

    def call(path, query="", width=1280, height=720, before="", has_touch=False, **media):
        page = take_page(context, idle_pages)
        page.set_viewport_size({"width": width, "height": height})
        if media:
            page.emulate_media(**media)
        if before:
            options.enter_context(script_before(page, before))
        if has_touch:
            session = context.new_cdp_session(page)  # what it sets ends with it
            session.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
            options.callback(session.detach)
        opened.append(Opened(page, path, query))
        return opened[-1]

    with options:
        yield call
    for each in opened:
        each.leave()
        idle_pages.append(each.page)
        assert each.errors == []
        assert each.asked == []


@pytest.fixture
def visit(go_to):
    """A function that goes to a page, as `go_to` does, and waits until it is open."""

    def call(*arguments, **options):
        opened = go_to(*arguments, **options)
        opened.wait_until_open()
        return opened

    return call


class TestWrite:
    def test_both_models_write_what_python_writes_in_view_on_a_laptop(self, visit, exported, lms):
        opened = visit(exported)
        opened.fill(prompt="ROMEO:\n", seed="7")
        opened.generate(400)
        for side, (name, lm) in zip("ab", lms.items(), strict=True):
            text = opened.text(f"output-{side}")
            assert text == lm.generate("ROMEO:\n", 400, seed=7)
            surprisals = lm.score("ROMEO:\n" + text)[-400:]
            spans = opened.page.locator(f"#output-{side} .heat-text span")
            for place in (0, 10, 399):
                shade = float(spans.nth(place).evaluate("span => span.style.getPropertyValue('--shade')"))
                assert shade == pytest.approx(min(surprisals[place] / 7.8, 1), abs=0.01)
                assert spans.nth(place).get_attribute("data-place") == str(place)
            assert f"{name} · 400 characters" in opened.words(f"progress-{side}")
            assert "seed 7" in opened.words(f"progress-{side}")
            assert opened.page.locator(f"#output-{side}").bounding_box()["height"] > 300
        for name in ("prompt", "generate", "output-a", "output-b", "progress-a", "progress-b"):
            box = opened.page.locator(f"#{name}").bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= 720
        assert opened.page.evaluate("document.documentElement.scrollHeight <= innerHeight")

    def test_the_page_of_the_readme_writes_with_the_largest_of_our_models(self, visit, tmp_path):
        names = ("shakespeare-lstm", "shakespeare-rnn")
        export_to([str(WEIGHTS / name) for name in names], tmp_path / "page.html")
        opened = visit(tmp_path / "page.html")
        opened.fill(seed="3")
        opened.generate(500)
        for side, name in zip("ab", names, strict=True):
            lm = CharLM.from_pretrained(WEIGHTS / name)
            assert opened.text(f"output-{side}") == lm.generate("ROMEO:\n", 500, seed=3)
        if folder := os.environ.get("CHARLM_PICTURES"):
            opened.page.locator("#output-a .heat-text").evaluate("text => text.scrollTop = 0")
            opened.page.locator("#output-b .heat-text").evaluate("text => text.scrollTop = 0")
            opened.page.locator("#output-a .heat-text span").nth(35).click()
            opened.page.locator("#alternatives button").first.wait_for()
            opened.page.screenshot(path=Path(folder, "browser.png"))

    def test_stop_keeps_what_was_shown_and_continue_appends_what_would_have_come(self, visit, exported, lms):
        opened = visit(exported)
        opened.fill(prompt="ROMEO:\n", seed="11", length="300")
        opened.page.get_by_text("More settings").click()
        opened.page.locator("#pace").select_option(label="to read aloud")
        opened.page.locator("#generate").click()
        opened.stop_at("output-a", 5)
        shown = len(opened.text("output-a"))
        assert 5 <= shown < 250
        opened.fill(length="50")
        opened.page.locator("#pace").select_option(label="as fast as it comes")
        opened.page.locator("#continue").click()
        opened.wait_for("output-a", shown + 50)
        assert opened.text("output-a") == lms["shakespeare-rnn"].generate("ROMEO:\n", shown + 50, seed=11)
        assert opened.words("texts-changed") == ""

    def test_stop_ends_the_work_itself(self, visit, exported):
        opened = visit(exported)
        opened.fill(length="5000", seed="1")
        opened.page.locator("#generate").click()
        opened.stop_at("output-a", 5)
        shown = len(opened.text("output-a"))
        assert shown < 5000
        opened.generate(20)  # nothing of the text before comes in between
        assert len(opened.text("output-a")) == 20

    def test_a_text_that_is_as_long_as_allowed_says_so_when_it_is_to_be_continued(self, visit, small_page):
        opened = visit(small_page)
        opened.generate(5000)
        written = opened.text("output-a"), opened.words("progress-a")
        said = "A text has at most 5,000 characters: generate a new one."
        opened.page.locator("#continue").click()
        opened.wait_for_words("notices", said)
        opened.page.evaluate("document.getElementById('notices').replaceChildren()")
        opened.page.locator("#output-a .heat-text").focus()
        opened.page.keyboard.press("End")
        opened.wait_for_words("alternatives", "character 5,000 ")
        opened.page.get_by_role("button", name="Next").click()
        opened.wait_for_words("notices", said)
        assert (opened.text("output-a"), opened.words("progress-a")) == written

    def test_a_shared_link_opens_with_the_same_texts_and_is_one_of_the_gradio_page(self, visit, exported):
        opened = visit(exported)
        opened.fill(prompt="Apple & <b>\n", seed="")
        opened.slide("temperature", "0.6")
        opened.generate(120)
        opened.page.locator("#share").click()
        link = opened.page.locator("#link").input_value()
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)
        assert {*query} == {"view", *address.PARAMETERS}
        assert (query["a"], query["prompt"], query["temperature"]) == (["shakespeare-rnn"], ["Apple & <b>\n"], ["0.6"])
        assert "embed=write" in opened.page.locator("#embed-code").input_value()

        other = visit(exported, link)
        other.wait_for("output-a", 120)
        other.wait_for("output-b", 120)
        for name in ("output-a", "output-b"):
            assert other.text(name) == opened.text(name)
        assert other.page.locator("#prompt").input_value() == "Apple & <b>\n"

        # a long prompt stands outside the query, and one that is too long for that in no link
        opened.fill(prompt=SCENE[:1500], seed="3")
        opened.generate(30)
        opened.page.locator("#share").click()
        opened.wait_until("document.getElementById('link').value.includes('#prompt=')")
        link = opened.page.locator("#link").input_value()
        assert "prompt" not in urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)
        other = visit(exported, link)
        other.wait_for("output-a", 30)
        assert other.page.locator("#prompt").input_value() == SCENE[:1500]
        assert other.text("output-a") == opened.text("output-a")
        opened.fill(prompt="".join(random.Random(1).choices(string.ascii_letters, k=9000)))
        opened.generate(30)
        opened.page.locator("#share").click()
        opened.wait_for_words(
            "share-hint", "The prompt is too long for a link: this one opens the page without your texts."
        )
        assert "prompt" not in opened.page.locator("#link").input_value()

    def test_a_link_may_have_settings_between_the_steps_of_the_sliders(self, visit, exported, lms):
        values = {"a": "shakespeare-rnn", "b": "homework-lstm", "prompt": "Apple", "length": "80", "seed": "7"}
        values |= {"temperature": "0.83", "top_k": "0", "top_p": "0.955"}
        opened = visit(exported, "?view=write&" + urllib.parse.urlencode(values))
        opened.wait_for("output-a", 80)
        expected = lms["shakespeare-rnn"].generate("Apple", 80, 0.83, 0, 0.955, seed=7)
        assert opened.text("output-a") == expected
        opened.wait_until("!document.body.classList.contains('writing')")
        assert "temperature=0.83&top_k=0&top_p=0.955" in opened.page.url
        assert (opened.words("temperature-value"), opened.words("texts-changed")) == ("0.83", "")
        opened.slide("temperature", "0.91")
        assert opened.words("temperature-value") == "0.9"  # in steps of 0.05 from now on

    def test_texts_with_settings_of_their_own_have_no_link(self, visit, small_page):
        opened = visit(small_page)
        for seed in ("1", "2"):
            opened.fill(seed=seed)
            opened.generate(30)
        opened.wait_until("location.search.includes('seed=2')")
        for side in "AB":
            opened.page.get_by_role("button", name=f"Text {side}, text 1 as drawn").click()
            opened.page.locator("#share").click()
            if side == "A":
                said = "A link holds one set of settings: show branches of the same text on both sides."
                opened.wait_for_words("notices", said)
                opened.wait_until("!location.search.includes('seed=')")
                assert not opened.page.locator("#shared").is_visible()
        opened.wait_until("document.getElementById('link').value.includes('seed=1')")
        opened.wait_until("location.search.includes('seed=1')")

    def test_a_visitor_takes_part_in_the_writing_and_a_link_holds_the_choices(self, visit, exported, lms):
        opened, lm = visit(exported), lms["shakespeare-rnn"]
        opened.fill(prompt="ROMÉO:\n", seed="7")
        opened.page.get_by_role("button", name="Replace “É” by “E”").click()
        opened.page.get_by_role("button", name="Next").click()  # before there is a text
        opened.wait_for_words("alternatives", "character 1 ")
        assert opened.text("output-a") == lm.generate("ROMEO:\n", 1, seed=7)
        opened.generate(200)
        drawn, keys = opened.text("output-a"), opened.page.keyboard
        assert drawn == lm.generate("ROMEO:\n", 200, seed=7)
        spans, offered = opened.page.locator("#output-a .heat-text span"), opened.page.locator("#alternatives button")

        # what else could stand there, by the pointer
        spans.nth(50).click()
        opened.wait_for_words("alternatives", "character 51")
        logits = Reader(lm.engine).read(lm.vocab.encode("ROMEO:\n" + drawn[:50])[:, None])[-1, 0]
        shares = make_sampler(0.8).probabilities(logits)
        expected = [lm.vocab.symbols[id] for id in np.argsort(-shares, kind="stable")[:10]]
        assert [button.get_attribute("data-symbol") for button in offered.all()] == expected
        assert offered.first.inner_text().split("\n")[-1] == f"{100 * shares.max():.1f} %"
        number = np.random.Generator(np.random.PCG64(7)).random(51)[50]
        assert opened.words("drawn").count(f"random number {number:.4f} →") == 1
        for name in ("output-a", "output-b", "alternatives", "drawn", "branches"):
            box = opened.page.locator(f"#{name}").bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= 720

        # another symbol, and the text goes on from it
        first = next(symbol for symbol in expected if symbol != drawn[50])
        opened.page.locator("#alternatives button:not([aria-current])").first.click()
        cut = drawn[:50] + first
        branch = cut + "".join(stream_shared(lm, "ROMEO:\n", 149, seed=7, after=cut))
        opened.wait_until("text => document.querySelector('#output-a .heat-text').textContent === text", branch)
        assert opened.page.locator("#output-a .forced").all_text_contents() == [first]

        # another one with the keys alone
        opened.wait_for_words("branches", " at 51")
        opened.page.locator("#output-a .heat-text").focus()
        for key in ("ArrowRight", "ArrowRight", "Enter"):
            keys.press(key)
        opened.wait_until("document.activeElement.matches('#alternatives [aria-current]')")
        keys.press("ArrowDown")
        second = opened.page.evaluate("document.activeElement.dataset.symbol")
        keys.press("Enter")
        cut = branch[:52] + second
        twig = cut + "".join(stream_shared(lm, "ROMEO:\n", 147, seed=7, after=cut))
        opened.wait_until("text => document.querySelector('#output-a .heat-text').textContent === text", twig)
        opened.wait_for_words("branches", " at 53")
        bits = lm.score("ROMEO:\n" + twig)[-200:].mean() / np.log(2)
        assert opened.page.locator("#branches [aria-current]").first.inner_text().endswith(f"{bits:.2f} bits")

        opened.page.locator("#share").click()
        link = opened.page.locator("#link").input_value()
        assert f"&fa=50.{ord(first):x}-52.{ord(second):x}" in link and "fb=" not in link
        for name, text in (("undo", branch), ("undo", drawn), ("redo", branch)):
            opened.page.locator(f"#{name}").click()
            assert opened.text("output-a") == text
        opened.wait_until("() => location.search.includes('&fa=50.') && !location.search.includes('-52.')")
        opened.page.locator("#branches button.branch").first.click()
        assert opened.text("output-a") == drawn

        # one symbol at a time
        opened.page.locator("#output-a .heat-text").focus()
        keys.press("End")
        opened.wait_for_words("alternatives", "character 200")
        opened.page.get_by_role("button", name="Next").click()
        opened.wait_for_words("alternatives", "character 201")
        assert opened.text("output-a") == lm.generate("ROMEO:\n", 201, seed=7)

        # a choice in a text that appears at a pace
        opened.slide("pace", "30")
        opened.page.locator("#pace").dispatch_event("change")
        spans.nth(50).click()
        opened.wait_for_words("alternatives", "character 51 ")
        opened.page.locator("#alternatives button:not([aria-current])").first.click()
        opened.wait_for_words("alternatives", "your choice")
        assert opened.page.locator("#alternatives [aria-current]").get_attribute("data-symbol") == first
        opened.page.locator("#stop").dispatch_event("click")  # it does no harm if the text has ended meanwhile

        opened.open(link)
        opened.wait_for("output-a", 200)
        opened.wait_for("output-b", 200)
        assert opened.text("output-a") == twig
        assert opened.text("output-b") == lms["homework-lstm"].generate("ROMEO:\n", 200, seed=7)
        opened.open(link.replace("&fa=50.", "&fa=50.e9-51."))
        said = (
            "The text has “é” as a choice at character 51, which shakespeare-rnn does not know; choose the model that"
        )
        opened.wait_for_words("notices", said)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"a": "nobody"}, "The link cannot be opened here: there is no model 'nobody' here; choose one of"),
            ({"length": "many"}, "The link is damaged: one of its numbers cannot be read."),
            (
                {"length": "5001"},
                "The link cannot be opened here: length is 5001; it must be a whole number from 1 to 5000",
            ),
            ({"temperature": "-1"}, "temperature is -1; it must be a number from 0 to 2"),
            ({"seed": "1.5"}, "seed is '1.5'; it must be a whole number from 0, or empty for any"),
        ],
    )
    def test_a_link_that_cannot_be_opened_says_so(self, visit, small_page, changes, said):
        whole = {"a": "homework-rnn", "b": "homework-rnn", "prompt": "x", "length": "9", "temperature": "1"}
        whole |= {"top_k": "0", "top_p": "1", "seed": "1"}
        opened = visit(small_page, "?" + urllib.parse.urlencode(whole | changes))
        assert said in opened.words("notices")
        assert opened.text("output-a") == ""
        opened.generate(20)
        assert opened.words("notices") == ""

    def test_an_empty_field_is_called_empty(self, visit, small_page):
        opened = visit(small_page)
        opened.generate(20)
        before = opened.text("output-a")
        opened.fill(length="")
        for button in ("generate", "continue", "board"):
            opened.page.evaluate("document.getElementById('notices').replaceChildren()")
            opened.page.locator(f"#{button}").click()
            assert opened.words("notices") == "Length is empty; it must be a whole number from 1 to 5000."
        assert opened.text("output-a") == before

    def test_wrong_settings_are_named_and_nothing_is_lost(self, visit, small_page):
        opened = visit(small_page)
        opened.generate(20)
        before = opened.text("output-a")
        opened.fill(seed="minus one")
        opened.page.locator("#generate").click()
        assert opened.words("notices") == "Seed is 'minus one'; it must be a whole number from 0, or empty for any."
        assert opened.text("output-a") == before
        opened.page.get_by_role("tab", name="Learn").click()
        assert opened.words("notices") == ""  # of another view

    def test_what_a_model_does_not_know_is_named_and_skipped(self, visit, exported, lms):
        opened = visit(exported)
        opened.fill(prompt="한é ROMEO:\n", seed="3")
        opened.generate(60)
        assert "skipped in the prompt, as the model does not know it: '한é'" in opened.words("progress-a")
        with pytest.warns(UserWarning, match="한é"):
            assert opened.text("output-a") == lms["shakespeare-rnn"].generate("한é ROMEO:\n", 60, seed=3)

    def test_three_temperatures_are_shown_at_once(self, visit, exported, lms):
        opened = visit(exported)
        opened.fill(prompt="Coffee", seed="5", length="40")
        opened.page.locator("#board").click()
        for side, lm in zip("ab", lms.values(), strict=True):
            for temperature in (0.5, 1.0, 1.5):
                name = f"board-{side}-{temperature:g}".replace(".", "-")
                opened.wait_for(name, 40)
                assert opened.text(name) == lm.generate("Coffee", 40, temperature, seed=5)

    def test_a_huge_seed_and_the_limits_of_sampling_are_those_of_python(self, visit, exported, lms):
        opened = visit(exported)
        opened.fill(prompt="To be", seed="0" + "9" * 39)
        opened.page.get_by_text("More settings").click()
        opened.slide("top-k", "5")
        opened.slide("top-p", "0.9")
        opened.slide("temperature", "1.2")
        opened.generate(80)
        expected = lms["homework-lstm"].generate("To be", 80, 1.2, 5, 0.9, seed=int("9" * 39))
        assert opened.text("output-b") == expected

    def test_changed_settings_are_named(self, visit, exported):
        opened = visit(exported)
        opened.generate(20)
        opened.slide("temperature", "0.5")
        opened.page.locator("#model-a").select_option("homework-lstm")
        assert opened.words("texts-changed").startswith("Changed since: model A, temperature.")
        told = """() => {
            const line = document.getElementById("texts-changed");
            const changes = new MutationObserver(() => {});
            changes.observe(line, { childList: true });
            document.getElementById("temperature").dispatchEvent(new Event("input", { bubbles: true }));
            return changes.takeRecords().length;
        }"""
        assert opened.page.evaluate(told) == 0  # a screen reader would read the same words again


class TestLearn:
    def test_the_curves_their_reading_and_the_samples(self, visit, exported, lms):
        opened = visit(exported, "?view=learn")
        opened.page.locator("#loss-curves svg").first.wait_for()
        legend = opened.words("loss-curves")
        record = lms["shakespeare-rnn"].history
        best = record["best"]
        assert f"shakespeare-rnn, best: {best['val_loss']:.4f} at epoch {best['epoch']}" in legend
        assert "homework-lstm" not in legend  # measured with another protocol
        said = [remark.text for remark in read_curves([("shakespeare-rnn", record)])]
        assert opened.words("reading").split("\n") == ["shakespeare-rnn", *said]
        assert "nanoGPT: 1.4697" in legend
        opened.page.locator(".reading-line").first.focus()
        star = opened.page.locator(".curves-plot path[stroke='var(--surface)']")
        ring = opened.page.locator(
            ".curves-spotlight circle"
        ).first  # around the star: the line is about the best epoch
        assert ring.get_attribute("transform") == star.get_attribute("transform")
        opened.slide("epoch", "1")
        assert record["epochs"][0]["sample"] in opened.page.locator("#samples").text_content()

        opened.page.get_by_label("homework-lstm").check()
        both = [("shakespeare-rnn", record), ("homework-lstm", lms["homework-lstm"].history)]
        texts = [remark.text for remark in read_curves(both)]
        assert [line for line in opened.words("reading").split("\n") if line and line not in dict(both)] == texts
        assert "nanoGPT" not in opened.words("loss-curves")  # it was measured on another split than homework-lstm
        opened.page.get_by_label("perplexity").check()
        assert f"best: {np.exp(best['val_loss']):.4f} at epoch" in opened.words("loss-curves")
        opened.page.get_by_label("log", exact=True).check()
        assert opened.page.locator("#loss-curves .curves").get_attribute("data-y") == "log"
        opened.page.locator(".curves-plot").hover(position={"x": 500, "y": 100})

    def test_a_record_without_its_split_is_not_compared_with_published_losses(self, visit, tmp_path):
        folder = save(make_model(), tmp_path / "model")
        record = make_record(**TINYSHAKESPEARE)
        del record["run"]["split"]
        (folder / "history.json").write_text(json.dumps(record))
        export_to([str(folder)], tmp_path / "page.html")
        opened = visit(tmp_path / "page.html", "?view=learn")
        opened.wait_for_words("loss-curves", "model, best: 1.5000 at epoch 2")
        assert "nanoGPT" not in opened.words("loss-curves")

    def test_the_figures_and_the_picture_can_be_saved(self, visit, exported, lms):
        opened = visit(exported, "?view=learn")
        with opened.page.expect_download() as waiting:
            opened.page.locator("#save-csv").click()
        rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8"))))
        epochs = lms["shakespeare-rnn"].history["epochs"]
        assert [float(row["val_loss"]) for row in rows] == pytest.approx(
            [epoch["val_loss"] for epoch in epochs], rel=1e-7
        )
        with opened.page.expect_download() as waiting:
            opened.page.locator("#save-png").click()
        assert waiting.value.suggested_filename == "curves.png"
        assert Path(waiting.value.path()).read_bytes().startswith(b"\x89PNG")


class TestAddress:
    def test_what_a_view_shows_is_in_the_address_and_back_and_a_link_show_it_again(self, visit, exported, lms):
        opened = visit(exported, "?view=learn&unit=perplexity&epoch=3&models=homework-lstm")
        opened.wait_for_words("samples", "after epoch 3:")
        assert opened.page.locator("#learn-models input:checked").evaluate_all(
            "boxes => boxes.map((box) => box.value)"
        ) == ["homework-lstm"]
        opened.page.get_by_label("log", exact=True).check()
        opened.wait_until("location.search.includes('scale=log')")
        opened.page.get_by_role("tab", name="Look inside").click()
        opened.wait_for("seen-a", 2000)
        opened.page.locator("#edit-text").click()
        opened.page.locator("#inspect-text").fill("ROMEO:\nWhat light is this?\n")
        opened.page.locator("#inspect").click()
        opened.wait_until("document.querySelectorAll('#seen-a .heat-text span').length === 27")
        opened.page.locator("#seen-a .heat-text span").nth(9).click()
        opened.wait_until("location.search.includes('place=9') && location.hash.startsWith('#text=')")
        opened.fill(unit_number="5")  # which colours nothing
        opened.wait_until("new URLSearchParams(location.search).get('colour') === 'surprisal 1:5'")
        opened.page.locator("#link-view summary").click()
        opened.wait_until("document.getElementById('view-link').value.includes('#text=')")
        link = opened.page.locator("#view-link").input_value()
        opened.page.go_back()
        opened.page.locator("#view-learn").wait_for()
        assert "scale=log" in opened.page.url

        other = visit(exported, link.partition("page.html")[2])
        other.wait_until("document.querySelectorAll('#seen-a .heat-text span').length === 27")
        assert other.text("seen-a") == "ROMEO:\nWhat light is this?\n"
        other.page.locator("#seen-a .cursor").wait_for()
        assert other.page.locator("#seen-a .cursor").get_attribute("data-place") == "9"
        assert other.page.locator("#unit-number").input_value() == "5"
        assert other.page.locator("#colour").input_value() == "surprisal"

    def test_code_for_another_page_is_offered_only_for_a_view_that_an_address_shows_alone(self, visit, small_page):
        opened = visit(small_page, "?embed=about")
        assert opened.page.locator("#view-write").is_visible() and opened.page.locator(".top").is_visible()
        for view in ("about", "learn", "write"):
            opened.page.locator(f"#tab-{view}").click()
            opened.page.locator("#link-view summary").click()
            opened.wait_until("view => document.getElementById('view-link').value.includes(`?view=${view}`)", view)
            code = opened.page.locator("#view-code")
            assert (code.is_visible(), f"?embed={view}" in code.input_value()) == ((view != "about"),) * 2


class TestInside:
    def test_letting_go_of_a_character_lets_go_of_it_in_both_texts_and_in_the_address(self, visit, small_page):
        opened = visit(small_page, f"?view=inside&place=3{text_fragment('Anna and Maria')}")
        keys, held = opened.page.keyboard, opened.page.locator("#seen .held")
        for let_go in ("key", "click"):
            held.nth(1).wait_for()
            opened.wait_until("location.search.includes('place=3')")
            assert [each.get_attribute("data-place") for each in held.all()] == ["3", "3"]
            if let_go == "key":
                opened.page.locator("#seen-a .heat-text").focus()
                keys.press("Escape")
            else:
                opened.page.locator("#seen-b [data-place='3']").click()
            assert held.count() == 0
            opened.wait_until("!location.search.includes('place=')")
            opened.page.locator("#seen-b [data-place='5']").hover()
            cursors = opened.page.locator("#seen .cursor").all()
            assert [each.get_attribute("data-place") for each in cursors] == ["5", "5"]
            opened.page.locator("#seen-a [data-place='3']").click()

    def test_a_text_that_was_typed_can_be_put_back_after_the_model_has_written_one(self, visit, small_page):
        opened = visit(small_page, "?view=inside")
        opened.wait_for("seen-a", 1)
        back, field = opened.page.get_by_role("button", name="Put my text back"), opened.page.locator("#inspect-text")

        def read(text):
            opened.page.locator("#edit-text").click()
            opened.fill(inspect_text=text)
            opened.page.keyboard.press("Control+Enter")
            opened.wait_until("text => document.querySelector('#seen-a .heat-text').textContent === text", text)

        def let_it_write():
            before = field.input_value()
            opened.page.locator("#write-text").click()
            opened.wait_until("before => document.getElementById('inspect-text').value !== before", before)
            opened.wait_until("document.getElementById('seen-line-a').textContent.includes('perplexity')")

        let_it_write()  # in place of the text of the page, and of what it has written
        let_it_write()
        assert not back.is_visible()
        read("Anna\nMaria\n")
        let_it_write()
        let_it_write()
        back.press("Enter")
        opened.wait_until("document.querySelectorAll('#seen-a .heat-text span').length === 11")
        assert field.input_value() == "Anna\nMaria\n" and not back.is_visible()
        assert opened.page.evaluate("document.activeElement.id") == "edit-text"
        let_it_write()
        read("Jo\nBerta\n")
        for text in ("Anna\nMaria\n", "Jo\nBerta\n"):
            back.click()
            opened.wait_until("text => document.querySelector('#seen-a .heat-text').textContent === text", text)

    def test_what_is_told_of_the_address_stays_and_what_failed_here_goes_with_the_next_text(self, visit, small_page):
        values = {"a": "nobody", "b": "x", "prompt": "", "length": "9", "temperature": "1", "top_k": "0", "top_p": "1"}
        query = urllib.parse.urlencode({"view": "inside", **values, "seed": "1"})
        opened = visit(small_page, f"?{query}{text_fragment('Maria')}")
        opened.wait_for("seen-a", 5)
        assert "there is no model 'nobody' here" in opened.words("notices")
        opened.page.locator("#edit-text").click()
        opened.fill(inspect_text="한")
        opened.page.keyboard.press("Control+Enter")
        opened.wait_for_words("notices", "There is nothing to read")
        opened.fill(inspect_text="Anna")
        opened.page.keyboard.press("Control+Enter")
        opened.wait_until("document.querySelectorAll('#seen-a .heat-text span').length === 4")
        assert opened.words("notices") == ""

    def test_two_models_read_a_text_and_a_unit_and_a_pattern_are_looked_into(self, visit, exported, lms):
        rnn, lstm = lms.values()
        opened = visit(exported, "?view=inside")
        opened.wait_until("document.querySelectorAll('#cell .cell-here').length === 2")  # of the RNN
        assert opened.words("seen-line-a").startswith("2,155 characters")
        for name in ("seen-a", "seen-b", "seen-line-b", "cell", "pattern", "colour", "unit-number"):
            box = opened.page.locator(f"#{name}").bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= 720

        # 1) another text
        text = "ROMEO:\nWhat light is this?\n\nJULIET:\nWhat light?\n"
        opened.page.locator("#edit-text").click()
        assert not opened.page.locator("#seen").is_visible()
        opened.fill(inspect_text=text + "한")
        opened.page.keyboard.press("Control+Enter")
        opened.wait_for_words("seen-line-b", f"{len(text)} characters")
        for side in "ab":
            for name in lms:
                assert f"skipped, as {name} does not know it: '한'" in opened.words(f"seen-line-{side}")
            assert opened.text(f"seen-{side}") == text

        # 2) what both expected at a character of one of them
        seen = [lm.inspect(text) for lm in (rnn, lstm)]
        figures = [opened.page.locator(f"#seen-{side} .bar-row .bar-figure") for side in "ab"]

        def expected(place):
            return [[f"{100 * p:.1f} %" for p in each.probabilities[place]] for each in seen]

        spans = [opened.page.locator(f"#seen-{side} .heat-text span") for side in "ab"]
        spans[1].nth(12).hover()
        assert [each.all_inner_texts() for each in figures] == expected(12)
        opened.page.locator("#seen-a .heat-text").focus()
        opened.page.keyboard.press("ArrowRight")
        assert [each.all_inner_texts() for each in figures] == expected(13)
        assert opened.words("cell").splitlines()[1] == "at “i”, 14 of 48"

        # 3) the colours
        def shades(side):
            shown = spans[side].evaluate_all(
                "all => all.map(each => (each.className.includes('negative') ? -1 : 1) * "
                "parseFloat(each.style.getPropertyValue('--shade')))"
            )
            return np.array(shown, float)  # NaN for the first, which nothing predicts

        opened.page.locator("#colour").select_option("difference")
        difference = np.clip((seen[0].surprisals - seen[1].surprisals) / 5, -1, 1)
        for side in (0, 1):
            np.testing.assert_allclose(shades(side), difference, atol=0.02)
        opened.page.locator("#unit-layer").select_option("1")
        opened.fill(unit_number="17")
        opened.page.locator("#colour").select_option("h")
        opened.wait_until("document.querySelector('#seen-a .heat-text').dataset.kind === 'activation'")
        activations = seen[0].hidden[:, 1, 17]
        np.testing.assert_allclose(shades(0), activations / np.abs(activations).max(), atol=0.02)
        np.testing.assert_allclose(shades(1), np.minimum(seen[1].surprisals / 7.8, 1), atol=0.01)

        # 4) a unit of the LSTM, step by step
        opened.page.locator("#unit-model").select_option("1")
        opened.fill(unit_number="5")
        opened.wait_for_words("cell", "homework-lstm, layer 1, unit 5")
        opened.page.locator("#cell").focus()
        opened.page.keyboard.press("ArrowRight")
        gates = lstm.unit_gates(seen[1], 1, 5).gates
        here = opened.page.locator("#cell .cell-here").all_inner_texts()
        names = opened.page.locator("#cell .cell-name b").all_inner_texts()
        for name, number in zip(names, here, strict=True):
            assert float(number.replace("−", "-")) == pytest.approx(gates[name][14], abs=1e-3)
        assert names == ["i", "f", "g", "o", "c", "h"]
        assert [each.all_inner_texts() for each in figures] == expected(14)
        opened.page.locator("#colour").select_option("f")
        opened.wait_until("document.querySelector('#seen-b .heat-text').dataset.kind === 'gate'")
        np.testing.assert_allclose(shades(1), gates["f"], atol=0.01)

        # 5) a stretch, and where the same units are on
        opened.page.locator("#seen-b .heat-text").focus()
        for key in ["Home", *["ArrowRight"] * 12, *["Shift+ArrowRight"] * 4]:
            opened.page.keyboard.press(key)
        opened.page.locator("#pattern .pattern-place").first.wait_for()
        pattern = lstm.find_pattern(seen[1], 12, 17, 0.3)
        assert f"{len(pattern.units)} of 512 units are on all along, and off just before and after it" in opened.words(
            "pattern"
        )
        marked = opened.page.locator("#pattern mark").all_text_contents()
        assert marked == [text[start:end].replace("\n", "↵") for start, end, _ in pattern.places] != []
        opened.page.locator("#pattern .pattern-place").first.click()
        start = pattern.places[0][0]
        assert [each.all_inner_texts() for each in figures] == expected(start)
        spans[0].nth(2).hover()  # the chosen character is held
        assert [each.all_inner_texts() for each in figures] == expected(start)
        layer, unit = pattern.units[0]
        opened.page.locator("#pattern .pattern-unit").first.click()
        opened.wait_for_words("cell", f"homework-lstm, layer {layer}, unit {unit}")
        opened.page.locator("#edit-text").click()
        field = opened.page.locator("#inspect-text")
        assert field.evaluate("field => field.selectionStart") == start
        field.press("Escape")  # nothing was changed, so nothing is read
        assert [each.all_inner_texts() for each in figures] == expected(start)
        assert serious_violations(opened.page) == []

    def test_prompts_and_texts_to_look_into_are_exchanged_with_the_models_unless_somebody_has_typed_them(
        self, visit, tmp_path
    ):
        plays = make_model("rnn", vocab="".join(sorted(set(SCENE) | set("ROMEO"))))
        vocab, sample = "\n" + string.ascii_letters, "Maria\nAnna\nJo"
        names = make_model("gru", vocab=vocab)
        names = Model(names.config, names.weights, make_record(sample=sample, text="names"))
        for name, model in {"plays": plays, "names": names}.items():
            save(model, tmp_path / name)
        export_to([str(tmp_path / "plays"), str(tmp_path / "names")], tmp_path / "page.html")
        opened = visit(tmp_path / "page.html")
        prompt, examples = opened.page.locator("#prompt"), opened.page.locator("#examples button")

        def choose(a, b, view=""):
            for side, name in zip("ab", (a, b), strict=True):
                opened.page.locator(f"#{view}model-{side}").select_option(name)
            return prompt.input_value(), examples.all_inner_texts()

        # 1) prompts that both know
        assert prompt.input_value() == "Apple"  # the first that `names` can read
        assert choose("plays", "plays")[0] == "Apple"
        assert choose("names", "plays") == ("Mar", ["Mar", "Ann"])
        assert choose("plays", "plays")[0] == "ROMEO:\n"
        assert choose("names", "names")[0] == "Mar"
        examples.nth(1).click()
        assert prompt.input_value() == "Ann"
        prompt.fill("Be")
        assert choose("plays", "plays") == ("Be", [each.strip() for each in PROMPTS])

        # 2) a text for model A
        opened.page.get_by_role("tab", name="Look inside").click()
        opened.wait_until("document.querySelectorAll('#seen-a .heat-text span').length === 2155")
        choose("names", "names", "inspect-")
        opened.wait_until("document.querySelectorAll('#seen-a .heat-text span').length === 13")
        assert opened.text("seen-a") == opened.text("seen-b") == sample
        assert "#text" not in opened.page.url
        opened.page.locator("#edit-text").click()
        opened.fill(inspect_text="Beate")
        opened.page.keyboard.press("Control+Enter")
        opened.wait_until("document.querySelectorAll('#seen-a .heat-text span').length === 5")
        choose("plays", "plays", "inspect-")
        opened.wait_until("document.querySelector('#inspect-about-a').innerText.includes('RNN')")
        assert opened.text("seen-a") == "Beate"

    def test_a_model_without_a_record_writes_the_text_that_is_looked_into(self, visit, tmp_path):
        folder = save(make_model("gru", history=False), tmp_path / "bare")
        export_to([str(folder)], tmp_path / "page.html")
        opened = visit(tmp_path / "page.html", "?view=inside")
        opened.wait_for("seen", 1000)
        opened.page.get_by_role("tab", name="Write").click()
        assert (opened.page.locator("#prompt").input_value(), opened.page.locator("#examples button").count()) == (
            "",
            0,
        )
        opened.page.get_by_role("tab", name="Learn").click()
        assert opened.words("reading") == "Choose a model that has a record."


def test_the_card_and_the_licence_are_on_the_page(visit, exported):
    opened = visit(exported, "?view=about")
    assert "Licence: mit." in opened.words("about-models")
    assert "1,117,249 parameters, 65 symbols" in opened.words("about-models")
    assert opened.words("about-network") == "This file holds everything that it needs, and works without a network."


@pytest.mark.parametrize("view", ["write", "learn", "inside"])
def test_an_embedded_view_comes_without_the_rest(visit, small_page, view):
    opened = visit(small_page, f"?embed={view}", 900, 600)
    assert opened.page.locator(f"#view-{view}").is_visible()
    assert not opened.page.locator(".top").is_visible()
    assert [each for each in VIEWS if each != view and opened.page.locator(f"#view-{each}").is_visible()] == []
    if view == "write":
        opened.generate(40)
        box = opened.page.locator("#progress-b").bounding_box()
        assert box["y"] + box["height"] <= 600


def test_scripts_on_the_page_use_the_models(visit, exported, lms):
    opened = visit(exported)
    assert opened.page.evaluate("charlm.names") == [*lms]
    text, pieces, scores = opened.page.evaluate(
        """async () => {
            const lm = await charlm.model("shakespeare-rnn");
            const settings = { length: 200, temperature: 0.8, topK: 0, topP: 1, seed: 7 };
            const pieces = [];
            for await (const piece of lm.stream("ROMEO:", settings)) pieces.push(piece);
            return [await lm.generate("ROMEO:", settings), pieces, Array.from(await lm.score("To be"))];
        }"""
    )
    assert text == "".join(pieces) == lms["shakespeare-rnn"].generate("ROMEO:", 200, seed=7)
    assert scores == pytest.approx(lms["shakespeare-rnn"].score("To be"), rel=1e-5)
    message = opened.page.evaluate("charlm.model('nobody').catch((error) => error.message)")
    assert message == "there is no model 'nobody' here; choose one of shakespeare-rnn, homework-lstm"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(visit, small_page, view, scheme):
    # axe looks at each character of a text by itself, and needs seconds for the whole of the one that is there
    fragment = text_fragment(SCENE[:300]) if view == "inside" else ""
    opened = visit(small_page, f"?view={view}{fragment}", color_scheme=scheme)
    if view == "write":
        opened.page.get_by_text("More settings").click()
        opened.generate(100)
        opened.page.locator("#output-b .heat-text span").nth(50).click()
        opened.wait_for_words("alternatives", "character 51")
        opened.fill(prompt="ROMÉO")
        opened.page.locator("#share").click()
    if view == "inside":
        for side in "ab":
            opened.wait_for(f"seen-{side}", 100)
        opened.page.locator("#seen-a .heat-text span").nth(50).hover()
    assert serious_violations(opened.page) == []


@pytest.mark.parametrize("view", VIEWS)
def test_the_keyboard_reaches_every_control_which_shows_it_and_has_a_name(visit, small_page, view):
    opened = visit(small_page, f"?view={view}", reduced_motion="reduce")
    check_keyboard(opened.page)


def test_the_keyboard_alone_writes_and_changes_the_view(visit, small_page):
    opened = visit(small_page)
    opened.page.locator("#prompt").focus()
    opened.fill(length="30")
    opened.page.keyboard.press("Enter")  # in a field of one line
    opened.wait_for("output-a", 30)
    opened.page.locator("#tab-write").focus()
    opened.page.keyboard.press("Control+ArrowRight")
    assert opened.page.locator("#view-write").is_visible()
    opened.page.keyboard.press("ArrowRight")
    assert opened.page.locator("#view-learn").is_visible() and not opened.page.locator("#view-write").is_visible()
    assert opened.page.locator("#tab-learn").get_attribute("aria-selected") == "true"


@pytest.mark.parametrize("view", VIEWS)
def test_a_phone_shows_all_without_scrolling_sideways(visit, small_page, view):
    opened = visit(small_page, f"?view={view}", 360, 740, has_touch=True)
    if view == "write":
        opened.generate(100)
        for name in ("generate", "stop", "continue", "share"):  # within reach of the thumb
            box = opened.page.locator(f"#{name}").bounding_box()
            assert box["y"] > 600 and box["y"] + box["height"] <= 740 and box["height"] >= 44
            assert box["x"] >= 0 and box["x"] + box["width"] <= 360
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_on_a_phone_what_a_click_shows_far_from_it_comes_into_view(visit, small_page):
    opened = visit(small_page, "", 360, 740, has_touch=True)
    opened.generate(60)
    bar = opened.page.locator("#generate").bounding_box()["y"]  # which lies over the lowest part
    for shown, seed in {"shared": "5", "notices": "wrong"}.items():
        opened.fill(seed=seed)
        for edge in ("0", "document.body.scrollHeight"):
            opened.page.evaluate(f"scrollTo(0, {edge})")
            opened.page.locator("#share" if shown == "shared" else "#generate").click()
            opened.page.locator(f"#{shown} > *").first.wait_for()
            box = opened.page.locator(f"#{shown}").bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= bar


def test_a_phone_hides_hints_for_keys_and_no_figures(visit, small_page):
    opened = visit(small_page, "?view=inside", 360, 740, has_touch=True)
    opened.wait_for_words("unit-count", "0 to ")
    assert opened.page.locator("#unit-count").is_visible()
    opened.page.get_by_role("tab", name="Write").click()
    assert not opened.page.get_by_text("Ctrl + Enter generates").is_visible()


def test_a_tab_that_is_closed_while_it_writes_and_opened_again_writes_anew(visit, exported):
    opened = visit(exported)
    opened.fill(length="5000")
    opened.page.locator("#generate").click()
    opened.wait_for("output-a", 5)
    opened.open("")
    opened.generate(30)
    assert len(opened.text("output-a")) == 30


BROKEN_STORAGE = """for (const name of ["localStorage", "sessionStorage", "indexedDB", "caches"]) {
    Object.defineProperty(window, name, { get() { throw new DOMException("denied", "SecurityError"); } });
}"""


@pytest.mark.parametrize(
    "before",
    [
        BROKEN_STORAGE,
        "delete window.Worker; Worker = undefined;",
        "delete window.WebAssembly;",
        "delete Uint8Array.fromBase64;",
    ],
    ids=["storage", "Worker", "WebAssembly in the page", "fromBase64"],
)
def test_what_a_browser_lacks_is_done_without(visit, exported, lms, before):
    opened = visit(exported, before=before)
    opened.fill(prompt="ROMEO:\n", seed="7")
    opened.generate(60)
    assert opened.text("output-a") == lms["shakespeare-rnn"].generate("ROMEO:\n", 60, seed=7)


def test_a_browser_that_cannot_read_the_page_is_told_what_to_use(go_to, small_page):
    opened = go_to(small_page, before="delete window.DecompressionStream;")
    opened.wait_for_words("notices", "a current Chrome, Edge, Firefox or Safari")


def test_a_file_that_was_cut_or_changed_says_so_and_the_page_lives(visit, exported, tmp_path):
    whole = exported.read_text(encoding="utf-8")
    begin = whole.index('data-weights="0">') + len('data-weights="0">') + 4000
    changed = tmp_path / "changed.html"
    changed.write_text(whole[:begin] + ("AAAA" if whole[begin : begin + 4] != "AAAA" else "BBBB") + whole[begin + 4 :])
    opened = visit(changed)
    opened.page.locator("#generate").click()
    opened.wait_for_words("notices", "SHA-256")
    opened.page.locator("#model-a").select_option("homework-lstm")
    opened.generate(20)
    assert opened.words("notices") == ""
    written = opened.text("output-a")
    # Redo does not show the older text in place of the one that could not be written
    opened.page.locator("#model-a").select_option("shakespeare-rnn")
    opened.page.locator("#generate").click()
    opened.wait_for_words("notices", "SHA-256")
    opened.page.locator("#undo").click()
    assert opened.text("output-a") == written
    opened.page.locator("#redo").click()
    assert opened.text("output-a") == opened.words("progress-a") == ""
    cut = tmp_path / "cut.html"
    cut.write_text(whole[:begin] + whole[begin + 400 :])
    opened = visit(cut)
    opened.page.locator("#generate").click()
    opened.wait_for_words("notices", "This page is not whole")


LOOK = """() => ({
    ran: window.ran,
    elements: [...document.querySelectorAll("img, svg[onload], a[href^='javascript:']")].map((each) => each.outerHTML),
    text: [document.body, ...document.querySelectorAll("[data-prompt]")]
        .map((element) => element.innerText + (element.dataset.prompt ?? "")).join(),
})"""


def test_strangers_strings_are_text_in_every_view(visit, tmp_path):
    vocab = "".join(dict.fromkeys("\n" + HOSTILE))
    model = make_model("rnn", vocab=vocab)
    record = make_record(sample=HOSTILE, text=HOSTILE, protocol=HOSTILE, split={"train_chars": 9})
    name = HOSTILE.replace("/", "∕")
    folder = save(Model(model.config, model.weights, record), tmp_path / name)
    (folder / "README.md").write_text(f"---\nlicense: {json.dumps(HOSTILE)}\n---\n", encoding="utf-8")
    export_to([str(folder)], tmp_path / "page.html")
    opened = visit(tmp_path / "page.html")
    opened.fill(prompt=HOSTILE + "한")
    opened.generate(300)
    for view in ("Learn", "Look inside", "About", "Write"):
        opened.page.get_by_role("tab", name=view).click()
        if view == "Look inside":
            opened.wait_for("seen", 20)
            opened.page.locator("#seen-a .heat-text span").nth(5).hover()
        seen = opened.page.evaluate(LOOK)
        assert seen["ran"] is None and seen["elements"] == []
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", seen["text"])
        assert view == "Write" or "<img src=x onerror=window.ran=1>" in seen["text"]
    opened.page.locator("#share").click()
    assert opened.page.evaluate(LOOK)["elements"] == []


@pytest.mark.slow
def test_the_lesson_is_walked_from_its_first_step_to_its_last(visit, tmp_path):
    names = ("shakespeare-rnn", "shakespeare-lstm", "homework-lstm")
    export_to([str(WEIGHTS / name) for name in names], tmp_path / "page.html")
    opened = visit(tmp_path / "page.html")
    tab = opened.page
    lesson = tab.locator("#lesson")

    def begin(title):
        """Open what a step needs."""
        lesson.get_by_role("heading", name=title).wait_for()
        with tab.expect_navigation():
            lesson.get_by_role("link", name="Open what this step needs").click()
        opened.wait_until("window.charlm?.isOpen()")

    def finish():
        """Wait until a step is done, and go on."""
        lesson.get_by_text("Done", exact=True).wait_for()
        assert lesson.locator(".lesson-result").is_visible()
        if lesson.get_by_role("button", name="Next step").is_enabled():
            lesson.get_by_role("button", name="Next step").click()

    def wait_until_written(length):
        opened.wait_for("output-a", length)
        opened.wait_for("output-b", length)
        opened.wait_until("!document.body.classList.contains('writing')")

    tab.get_by_role("button", name="Lesson", exact=True).click()
    begin("1 of 8: Make the RNN forget who is speaking")
    wait_until_written(150)
    before = [opened.text(f"output-{side}") for side in "ab"]
    opened.fill(prompt=tab.locator("#prompt").input_value().replace("KING RICHARD III", "JULIET"))
    opened.generate(150)
    finish()
    assert opened.text("output-a") == before[0]
    assert opened.text("output-b") != before[1]

    begin("2 of 8: Find the temperature at which it stops making words")
    wait_until_written(400)
    opened.slide("temperature", 1.4)
    opened.generate(300)
    lesson.get_by_label("The temperature at which").fill("1.4")
    finish()

    begin("3 of 8: Predict the next symbol before the model does")
    wait_until_written(1)
    for tried, guess in enumerate("gracy", 1):
        lesson.get_by_label("You expect next:").fill(guess)
        tab.locator("#continue").click()
        lesson.get_by_text(f"of {tried}.").wait_for()
    assert lesson.locator(".lesson-said").inner_text() == "The model wrote “e”. Right: 4 of 5."
    finish()

    begin("4 of 8: Find the unit that counts the line")
    opened.wait_until("document.querySelectorAll('#seen-b .heat-text span').length > 1000")
    tab.locator("#unit-model").select_option("1")
    tab.locator("#unit-layer").select_option("1")
    tab.locator("#unit-number").fill("141")  # is on in the speaker's name
    tab.locator("#colour").select_option("h")
    tab.locator("#unit-number").fill("227")
    finish()

    begin("5 of 8: See the leak in the homework's curves")
    tab.locator("#learn-models").get_by_label("homework-lstm").check()
    lesson.get_by_label("Its validation loss").fill("0.47")
    lesson.get_by_label("Its unseen loss").fill("3.38")
    finish()
    assert serious_violations(tab) == []

    begin("6 of 8: Force a character and see the text go another way")
    wait_until_written(200)
    tab.locator("#output-a [data-place='20']").click()
    tab.locator("#alternatives button:not([aria-current])").first.click()
    finish()

    lesson.get_by_role("heading", name="7 of 8: See how one character was drawn").wait_for()
    tab.locator("#output-a [data-place='5']").click()
    slider = tab.locator("#drawn input[type=range]").first
    slider.focus()
    slider.press("ArrowRight")
    finish()

    begin("8 of 8: Compare what two models expect")
    opened.wait_until("document.querySelectorAll('#seen-b .heat-text span').length > 1000")
    tab.locator("#colour").select_option("difference")
    tab.locator("#seen-a [data-place='573']").click()
    finish()
    tab.set_viewport_size({"width": 360, "height": 640})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
