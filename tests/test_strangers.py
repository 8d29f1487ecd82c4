"""What strangers wrote, in a real browser: it is text wherever the page shows it, and never anything else."""

import json
import re

import pytest
from browser import running_app
from models import contents, make_model, make_record, save

from charlm.errors import ModelFileError
from charlm.messages import printable
from charlm.model.folder import Model, read_model

MARKS = "e" + "\u0301" * 10_000
TURNED = "\u202egnp.exe\u2066\u0007\u200b"
SCRIPTS = [
    "<script>window.ran = 1</script>",
    "<img src=x onerror=window.ran=1>",
    "<svg onload=window.ran=1>",
    "<style>body{display:none}</style>",
    "<a href=javascript:window.ran=1>a</a>",
    "[a](javascript:window.ran=1)",
    '<a href="data:text/html,a">a</a>',
    "![a](http://192.0.2.1/a.png)",
    "{{7*7}}${7*7}",
]
HOSTILE = " ".join(SCRIPTS) + TURNED
NAME = "<img src=x onerror=window.ran=1><svg onload=window.ran=1><a href=javascript:window.ran=1>[a](data:a)" + TURNED
HIDDEN = re.compile(r"[\u0000-\u0008\u000e-\u001f\u200b\u202a-\u202e\u2066-\u2069]")

# Everything that is shown, and what has become of it that is not text; the page has images and links of its own.
LOOK = """() => ({
    ran: window.ran,
    elements: [...document.querySelectorAll("*")].filter((element) =>
        element.matches("img[src='x'], svg[onload], a[href^='javascript:'], a[href^='data:text'], img[src^='http://192']")
        || (element.matches("script, style") && /^(window.ran|body.display)/.test(element.textContent))
    ).map((element) => element.outerHTML.slice(0, 200)),
    // a prompt stands before a text by way of its style
    text: [document.body, ...document.querySelectorAll("[data-prompt]")]
        .map((element) => element.innerText + (element.dataset.prompt ?? "")).join(),
})"""


def hostile_model(tmp_path):
    vocab = "".join(dict.fromkeys("\n" + HOSTILE + MARKS))
    model = make_model("rnn", vocab=vocab)
    record = make_record(
        cell="rnn", sample=HOSTILE + MARKS, text=HOSTILE, torch=HOSTILE, precision=HOSTILE, **{NAME[:60]: HOSTILE}
    )
    return save(Model(model.config, model.weights, record), tmp_path / NAME)


def check(visitor):
    """Nothing ran, nothing was asked for, and what would be invisible shows as its number."""
    seen = visitor.page.evaluate(LOOK)
    assert seen["ran"] is None and seen["elements"] == []
    assert not HIDDEN.findall(seen["text"])
    assert "\u0301" * 20 not in seen["text"]
    assert visitor.foreign == []


@pytest.fixture
def app(tmp_path):
    with running_app("--model", str(hostile_model(tmp_path))) as url:
        yield url


def test_prompt_vocabulary_and_name(app, visit):
    visitor = visit(app)
    check(visitor)
    for elem_id, value in {"prompt": HOSTILE + MARKS, "length": "400"}.items():
        visitor.fill(elem_id, value)
    visitor.page.locator("#generate").click()
    visitor.wait_for_text("output-a", 400)
    check(visitor)
    visitor.fill("prompt", "한" + HOSTILE)
    visitor.page.locator("#generate").click()
    visitor.wait_for_words("progress-a", "skipped")
    check(visitor)


def test_record_and_samples(app, visit):
    visitor = visit(app)
    visitor.choose_view("Learn")
    visitor.page.get_by_text("Settings of the runs").click()
    visitor.page.get_by_text("Table of all epochs").click()
    visitor.wait_for_words("run-settings", "window.ran = 1")
    visitor.wait_for_words("samples", "window.ran = 1")
    visitor.page.locator("#loss-curves .curves-entry").first.wait_for()
    check(visitor)


def test_a_text_that_is_looked_into(app, visit):
    visitor = visit(app)
    visitor.choose_view("Look inside")
    visitor.fill("inspect-text", HOSTILE + MARKS[:300])
    visitor.page.locator("#inspect").click()
    visitor.wait_for_text("seen", len(HOSTILE))
    check(visitor)


def test_a_repository_its_card_and_the_refusal_of_its_name(hub, start_app, visit, tmp_path):
    model = make_model("gru")
    files = contents(save(model, tmp_path / "model"))
    figures = f"{{type: {json.dumps(HOSTILE)}, name: {json.dumps(HOSTILE)}, value: 1}}"
    task = "{type: text-generation}"
    card = f"""---
library_name: charlm
tags: [charlm]
license: {json.dumps(HOSTILE)}
model-index:
- name: {json.dumps(HOSTILE)}
  results: [{{task: {task}, dataset: {{type: a, name: a}}, metrics: [{figures}]}}]
---
"""
    hub.add_repo("ada/evil", files | {"README.md": card.encode()})
    url = start_app("--model", str(hostile_model(tmp_path)))
    visitor = visit(url)
    visitor.page.get_by_text("Load a model from the Hub").click()
    visitor.fill("load-name", "ada/evil")
    visitor.page.locator("#load-look").click()
    visitor.wait_for_words("load-card", "window.ran")
    check(visitor)
    visitor.fill("load-name", NAME)
    visitor.page.locator("#load-look").click()
    visitor.wait_for_words("load-card", "no model of charlm that fits")
    check(visitor)


def test_an_error(app, visit):
    visitor = visit(app)
    visitor.fill("seed", NAME)
    visitor.page.locator("#generate").click()
    visitor.page.get_by_text("it must be a whole number from 0").wait_for()
    check(visitor)


@pytest.mark.parametrize("broken", ["config.json", "history.json", "model.safetensors"])
def test_a_folder_that_is_refused_is_named_as_it_can_be_shown(tmp_path, broken):
    folder = hostile_model(tmp_path)
    (folder / broken).write_text(json.dumps({"cell": HOSTILE, HOSTILE: HOSTILE}))
    with pytest.raises(ModelFileError) as error:
        read_model(folder, printable(folder.name))
    assert not HIDDEN.findall(str(error.value))
