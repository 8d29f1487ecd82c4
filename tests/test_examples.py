"""The scripts of examples/, run as their users run them."""

import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from browser import ROOT, running_app
from forked_programs import run_program
from models import make_lm, make_model

from charlm import CharLM

EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
LSTM = str(ROOT / "weights" / "shakespeare-lstm")


def run(name, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = run_program([ROOT / "examples" / name, *arguments], None, environment)
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture
def clone_server():
    """The address of a server of the files of this clone, as `python -m http.server` is."""

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=ROOT)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def repo(hub, hub_environment):
    hub.add_user("ada", token="hf_ada")
    hub_environment(HF_TOKEN="hf_ada")
    make_lm("gru").push_to_hub("ada/small")
    hub_environment(HF_TOKEN=None)
    hub.requests.clear()
    return "ada/small"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["generate.py", "plain_torch.py"])
def test_a_model_from_the_hub_writes(hub, repo, name):
    printed = run(name, repo, "a bad").stdout
    assert printed.startswith("a bad") and len(printed) == len("a bad") + 300 + len("\n")
    assert set(printed) <= set(make_model("gru").config.vocab)
    fetched = {request.path.rsplit("/", 1)[-1] for request in hub.requests if "/resolve/" in request.path}
    assert {"config.json", "model.safetensors"} <= fetched


def test_the_plain_script_needs_no_charlm():
    assert "charlm" not in (ROOT / "examples" / "plain_torch.py").read_text(encoding="utf-8")


def test_a_web_page_writes_with_a_model(clone_server, browser):
    page = browser.new_page()
    page.goto(f"{clone_server}/examples/browser.html")
    page.get_by_role("button", name="Write").click()
    page.wait_for_function("document.getElementById('text').textContent.length >= 306")
    expected = CharLM.from_pretrained(ROOT / "weights" / "shakespeare-rnn").generate("ROMEO:", 300, seed=7)
    assert page.locator("#text").text_content() == "ROMEO:" + expected
    page.close()


def test_texts_are_ranked_by_perplexity(tmp_path):
    lines = ["To be, or not to be", "xqz jjj kk", "The king is dead.", "", "5%"]
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    ended = run("rank_texts.py", LSTM, path)
    ranked = [line.split(maxsplit=1) for line in ended.stdout.splitlines()]
    assert [text for _, text in ranked] == ["The king is dead.", "To be, or not to be", "xqz jjj kk"]
    lm = CharLM.from_pretrained(LSTM)
    for perplexity, text in ranked:
        assert float(perplexity) == pytest.approx(2.718281828 ** lm.score(f"\n{text}\n").mean(), rel=1e-3)
    assert ended.stderr == "left out, as the model does not know '5%': 5%\n"


@pytest.mark.slow
def test_the_app_answers_a_script():
    with running_app("--model", LSTM) as url:
        printed = run("ask_the_app.py", url, "ROMEO:").stdout
    first, rest = printed.split("\n", 1)
    assert first == "shakespeare-lstm: lstm, 4,269,121 parameters, from bundled"
    written, surprising = rest.split("\n\nwhat it was most surprised by in its own text:\n")
    assert len(written) == 200
    assert len(surprising.splitlines()) == 5
    assert all(" nats for " in line and line.count("%") == 5 for line in surprising.splitlines())


def test_every_example_is_run_here():
    assert EXAMPLES == ["ask_the_app.py", "generate.py", "plain_torch.py", "rank_texts.py"]
