"""A token that reaches this process goes to the Hub that it is for, and shows nowhere else."""

import logging
import time
import urllib.request
from types import SimpleNamespace

import pytest
from asking import App
from browser import running_app
from models import contents, make_lm

from charlm import CharLM, CharLMError
from train.deploy import deploy

CANARY = "hf_canaryCANARYcanary"
FAULTS = [None, 401, 403, 404, 429, 500, "silence"]


@pytest.fixture(params=["environment", "file"])
def canary(request, hub, hub_environment, tmp_path):
    """A user whose token lies where `hf auth login` puts it, or in HF_TOKEN."""
    hub.add_user("ada", token=CANARY)
    if request.param == "environment":
        hub_environment(HF_TOKEN=CANARY)
    else:
        path = tmp_path / "token"
        path.write_text(CANARY)
        hub_environment(HF_TOKEN=None, HF_TOKEN_PATH=path)
    return hub


@pytest.fixture
def waits(monkeypatch):
    """No pause between the client's tries."""
    clock = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    monkeypatch.setattr("huggingface_hub.file_download.time", clock)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_no_message_log_or_file_shows_the_token(canary, waits, tmp_path, caplog, capfd, fault):
    caplog.set_level(logging.DEBUG)
    for name in ("huggingface_hub", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    lm, said = make_lm("gru"), []
    lm.push_to_hub("ada/open", private=True)
    lm.save_pretrained(tmp_path / "model")
    if fault is not None:
        canary.hang_up(".*") if fault == "silence" else canary.fail(".*", fault)
    for use in (
        lambda: CharLM.from_pretrained("ada/open"),
        lambda: CharLM.from_pretrained("ada/none"),
        lambda: CharLM.from_pretrained("ada/open", token=CANARY),
        lambda: make_lm("rnn").push_to_hub("ada/open"),
        lambda: make_lm("rnn").push_to_hub("bob/open"),
        lambda: deploy("ada/page", ["ada/open"]),
    ):
        try:
            said.append(repr(use()))
        except CharLMError as error:
            said.append(str(error))
    printed = capfd.readouterr()
    assert len(said) == 6
    assert CANARY in {request.token for request in canary.requests}  # it was there to be shown
    assert CANARY not in caplog.text + printed.out + printed.err + "".join(said)
    stored = contents(tmp_path / "model") | {
        f"{name}/{path}": content for name, repo in canary.repos.items() for path, content in repo.files.items()
    }
    assert stored and not any(CANARY.encode() in content for content in stored.values())


@pytest.mark.slow
def test_neither_the_page_nor_its_log_shows_the_token_whatever_the_hub_does(canary, tmp_path):
    """The log is that of every library, at DEBUG, with the client's own tracing."""
    make_lm("gru").push_to_hub("ada/open", private=True)
    (tmp_path / "sitecustomize.py").write_text("import logging; logging.basicConfig(level=logging.DEBUG)")
    said, answers = [], []
    debug = {"PYTHONPATH": str(tmp_path), "HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    with running_app("--model", "ada/open", said=said, **debug) as url:
        app = App(url)
        for fault in FAULTS:
            canary.heal()
            if fault is not None:
                canary.hang_up(".*") if fault == "silence" else canary.fail(".*", fault)
            for step in (("show", "ada/open"), ("show", "words"), ("load", "ada/open", "")):
                answers.append(app.ask(*step, session=f"{fault}"))
            answers.append(app.stream("ada/open", "a", 20, 1, 0, 1, 0))
        for path in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json"):
            with urllib.request.urlopen(url + path) as answer:
                answers.append(answer.read().decode())
    log = "".join(said)
    assert CANARY in {request.token for request in canary.requests} and "DEBUG" in log
    assert CANARY not in log and CANARY not in str(answers)
