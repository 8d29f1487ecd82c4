"""The app as its users meet it: started from the command line, looked at in a real browser, asked over its API."""

import json
import os
import re

import pytest
from browser import CLICK_WHEN_WRITTEN, ROOT
from forked_programs import run_program
from gradio_client import Client
from gradio_client.exceptions import AppError
from models import make_model, save

from charlm.lm import CharLM

WEIGHTS = ROOT / "weights"


def test_two_bundled_models_write_side_by_side(app, visit):
    visitor = visit(app)
    assert "CharLSTM 2×512 · 4,269,121 parameters" in visitor.text("about-a")
    assert "CharRNN 2×512 · 1,117,249 parameters" in visitor.text("about-b")
    assert "bundled" in visitor.text("about-a")
    assert visitor.page.locator("footer").inner_text().strip() == "Use via API or MCP"
    visitor.fill("seed", "1")
    visitor.generate(500)
    assert len(visitor.text("output-a")) == len(visitor.text("output-b")) == 500


def test_the_same_seed_gives_the_same_text_on_the_page_in_python_on_the_command_line_and_over_the_api(app, visit):
    visitor = visit(app)
    for elem_id, value in {"prompt": "JULIET:\n", "seed": "7"}.items():
        visitor.fill(elem_id, value)
    visitor.page.locator("#generate").click()
    lm = CharLM.from_pretrained(WEIGHTS / "shakespeare-lstm")
    expected = lm.generate("JULIET:\n", length=500, temperature=0.8, seed=7)
    visitor.wait_for_text("output-a", 500)
    assert visitor.text("output-a") == expected
    assert "".join(lm.stream("JULIET:\n", length=500, temperature=0.8, seed=7)) == expected
    assert (
        Client(app, verbose=False).predict("shakespeare-lstm", "JULIET:\n", 500, 0.8, 0, 1.0, 7, api_name="/generate")
        == expected
    )
    command = ["-m", "charlm", "generate", "weights/shakespeare-lstm", "--prompt", "JULIET:\n", "--seed", "7"]
    ended = run(*command)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == expected + "\n"


def test_stop_stops_both_texts_where_they_are_and_continue_goes_on_from_there(app, visit):
    visitor = visit(app)
    for elem_id, value in {"length": "5000", "seed": "7", "prompt": "JULIET:\n"}.items():
        visitor.fill(elem_id, value)
    visitor.page.evaluate(CLICK_WHEN_WRITTEN, "stop")
    visitor.generate(50)
    # nothing has changed over sixty updates of the stream
    visitor.wait_until(
        """() => {
            const text = document.querySelector("#output-a").innerText + document.querySelector("#output-b").innerText;
            if (window.seen !== text) { window.seen = text; window.since = performance.now(); }
            return performance.now() - window.since > 3000;
        }"""
    )
    stopped = len(visitor.text("output-a"))
    assert 50 <= stopped < 4000
    visitor.fill("length", "60")
    visitor.fill("prompt", "what stands here now does not matter")
    visitor.page.locator("#continue").click()
    visitor.wait_for_words("progress-a", f"{stopped + 60:,} characters")
    lm = CharLM.from_pretrained(WEIGHTS / "shakespeare-lstm")
    assert visitor.text("output-a") == lm.generate("JULIET:\n", stopped + 60, seed=7)


def test_symbols_that_a_model_does_not_know_are_named_and_skipped(app, visit):
    visitor = visit(app)
    visitor.fill("prompt", "ROMEO: 사랑 😀")
    visitor.generate(500)
    assert "skipped in the prompt, as the model does not know it: '사랑😀'" in visitor.text("progress-a")


def test_an_empty_prompt_starts_a_new_line(app, visit):
    visitor = visit(app)
    for elem_id, value in {"prompt": "", "seed": "3"}.items():
        visitor.fill(elem_id, value)
    visitor.generate(500)
    assert visitor.text("output-a") == CharLM.from_pretrained(WEIGHTS / "shakespeare-lstm").generate("\n", 500, seed=3)


def test_an_invalid_seed_is_answered_with_what_to_do(app, visit):
    visitor = visit(app)
    visitor.fill("seed", "<img src=x onerror=alert(1)>")
    visitor.page.locator("#generate").click()
    visitor.page.get_by_text("it must be a whole number from 0, or empty for any").wait_for()
    assert visitor.page.locator("img[src=x]").count() == 0


def test_choosing_a_model_shows_the_line_about_it(app, visit):
    visitor = visit(app)
    visitor.choose("model-a", "shakespeare-rnn")
    visitor.wait_for_words("about-a", "CharRNN")


@pytest.mark.slow
def test_names_and_texts_from_strangers_are_only_text(start_app, visit, tmp_path):
    hostile = "<img src=x onerror=alert(1)>"
    model = make_model("rnn", vocab="".join(dict.fromkeys("\n" + hostile)), history=True)
    folder = save(model, tmp_path / hostile)
    url = start_app(CHARLM_MODELS=f"{folder}, {WEIGHTS / 'shakespeare-rnn'}")
    visitor = visit(url)
    visitor.fill("prompt", hostile + "한")
    visitor.generate(500)
    assert hostile in visitor.text("progress-a")
    assert "CharRNN 2×512" in visitor.text("about-b")
    assert visitor.page.locator("img[src=x]").count() == 0


def test_the_api_lists_the_models_and_gives_their_records(app):
    client = Client(app, verbose=False)
    listed = client.predict(api_name="/models")
    assert [(model["name"], model["source"], model["cell"]) for model in listed] == [
        ("shakespeare-lstm", "bundled", "lstm"),
        ("shakespeare-rnn", "bundled", "rnn"),
        ("shakespeare-gru", "bundled", "gru"),
        ("c-lstm", "bundled", "lstm"),
        ("hongloumeng-lstm", "bundled", "lstm"),
        ("warpeace-lstm", "bundled", "lstm"),
        ("names-gru", "bundled", "gru"),
        ("homework-lstm", "bundled", "lstm"),
        ("homework-rnn", "bundled", "rnn"),
    ]
    for model in listed:
        record = json.loads((WEIGHTS / model["name"] / "history.json").read_text(encoding="utf-8"))
        assert client.predict(model["name"], api_name="/history") == record
        told = client.predict(model["name"], "ROMEO:宝玉笑道", api_name="/inspect")
        lm = CharLM.from_pretrained(ROOT / "weights" / model["name"])
        read = "".join(symbol for symbol in "ROMEO:宝玉笑道" if symbol in lm.config.vocab)
        assert len(read) >= 5
        assert [place["symbol"] for place in told] == list(read)
        surprisals = lm.score(read)
        assert [place["surprisal"] for place in told[1:]] == pytest.approx(surprisals.tolist(), abs=1e-4)
        assert model["val_loss"] == record["best"]["val_loss"]
        assert model["parameters"] == record["run"]["parameters"]


def test_the_api_streams_a_text_that_grows(app):
    job = Client(app, verbose=False).submit("shakespeare-lstm", "ROMEO:", 3000, 0.8, 0, 1.0, 7, api_name="/generate")
    whole = job.result()
    texts = job.outputs()
    assert len(texts) > 2
    assert texts[-1] == whole
    assert all(whole.startswith(text) for text in texts)


def test_openais_client_streams_what_the_model_writes_as_it_is_written(app):
    import openai  # here, because it takes as long as many tests, and each process would import it to collect them

    lm = CharLM.from_pretrained(WEIGHTS / "shakespeare-lstm")
    with openai.OpenAI(api_key="none", base_url=f"{app}/v1", max_retries=0) as client:
        assert "shakespeare-lstm" in [model.id for model in client.models.list()]
        settings = {"model": "shakespeare-lstm", "prompt": "ROMEO:", "temperature": 0.8, "seed": 7}
        stream = client.completions.create(max_tokens=3000, stream=True, **settings)
        pieces = [chunk.choices[0].text for chunk in stream]
        assert len(pieces) > 1 and "".join(pieces) == lm.generate("ROMEO:", 3000, seed=7)
        several = client.completions.create(max_tokens=200, n=3, stop=["\n\n"], logprobs=5, **settings).choices
        assert [choice.text for choice in several] == [
            sample.text for sample in lm.generate_many("ROMEO:", 3, 200, seed=7, stop="\n\n")
        ]
        for choice in several:
            nats = lm.score("ROMEO:" + choice.text)[5:]
            assert choice.logprobs.token_logprobs == pytest.approx(-nats, abs=1e-4)
        with pytest.raises(openai.BadRequestError, match="n is 17; it must be from 1 to 16"):
            client.completions.create(n=17, **settings)
        # one that leaves in the middle frees its slots
        for _ in range(40):
            with client.completions.create(max_tokens=5000, stream=True, **settings) as stream:
                next(iter(stream))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "there is no model 'nobody' here; choose one of shakespeare-lstm, shakespeare-rnn"),
        (["shakespeare-lstm", "", 0], "length is 0; it must be from 1 to 5,000"),
        (["shakespeare-lstm", "", 10, -1], "temperature is -1.0; it must be a finite number from 0"),
        (["shakespeare-lstm", None], "prompt is None; it must be a string"),
        (["shakespeare-lstm", "", 10, 1, 0, 2], "top_p is 2.0; it must be from 0 to 1"),
    ],
)
def test_the_api_says_what_is_wrong_with_a_request(app, arguments, message):
    with pytest.raises(AppError, match=re.escape(message)):
        Client(app, verbose=False).predict(*arguments, api_name="/generate")


def run(*command, **variables):
    return run_program(command, ROOT, os.environ | variables)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no such folder"], "neither a folder here nor the name of a Hub repository"),
        (["--model", "tests"], "config.json is missing"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--port", "many"], "'many' is not a port; give a number from 1 to 65535"),
    ],
)
def test_a_wrong_argument_ends_with_one_line_that_tells_what_to_do(arguments, message):
    ended = run("app.py", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_model_that_cannot_be_had_ends_the_app_and_no_other_is_shown_instead():
    ended = run("app.py", "--model", "ada/poems", HF_ENDPOINT="http://127.0.0.1:9")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(
        r"error: there is no folder ada/poems here, and the Hub gave no usable answer for ada/poems \(.*\); "
        r"check the network\n",
        ended.stderr,
    )


def test_a_port_in_use_is_refused(app):
    ended = run("app.py", "--port", app.rsplit(":", 1)[1])
    assert ended.returncode == 2
    assert "choose another --port" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


KOREAN = "나는 봄을 기다린다 🌸\r\n너는 겨울을 보낸다 ❄️\r\n" * 60


@pytest.mark.slow
def test_from_a_text_to_a_published_model_to_a_page(hub, start_app, visit, tmp_path):
    hub.add_user("ada", token="hf_ada")
    text = tmp_path / "봄.txt"
    text.write_bytes(b"\xef\xbb\xbf" + KOREAN.encode())
    sizes = ["--epochs", "3", "--hidden-size", "32", "--embedding-size", "16", "--seq-length", "32"]
    out = tmp_path / "spring"
    ended = run("-m", "train", "fit", "--cell", "gru", "--text", text, "--out", out, *sizes)
    assert ended.returncode == 0, ended.stderr
    ended = run("-m", "train", "push", out, "ada/spring", HF_TOKEN="hf_ada")
    assert ended.returncode == 0, ended.stderr

    url = start_app("--model", "ada/spring", "--model", "ada/none")
    visitor = visit(url)
    visitor.wait_for_words("notices", "the Hub has no repository ada/none")
    assert "from the Hub" in visitor.text("about-a")
    for elem_id, value in {"prompt": "나는", "seed": "5"}.items():
        visitor.fill(elem_id, value)
    visitor.generate(500)
    assert visitor.text("output-a") == CharLM.from_pretrained(out).generate("나는", 500, seed=5)
    visitor.choose_view("Learn")
    visitor.wait_for_words("loss-curves", "ada/spring, validation")
