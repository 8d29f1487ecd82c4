"""The app behind a reverse proxy under a path prefix: the page, its links and downloads, the API and MCP."""

import urllib.error
import urllib.parse
import urllib.request

import pytest
from browser import ROOT, running_app
from gradio_client import Client
from proxy import reverse_proxy
from test_mcp import with_session

from charlm.lm import CharLM

PREFIX = "/demo"
RNN = ROOT / "weights" / "shakespeare-rnn"


@pytest.fixture(scope="module")
def app_port(_no_hub_between_tests):
    """The port of an app that is told its prefix, and not what the proxy does with it."""
    with running_app("--model", str(RNN), "--root-path", PREFIX) as url:
        yield urllib.parse.urlsplit(url).port


@pytest.fixture(scope="module", params=["the proxy keeps the prefix", "the proxy strips the prefix"])
def proxied(request, app_port):
    """The address of the app behind a proxy."""
    with reverse_proxy(app_port, PREFIX, strips="strips" in request.param) as address:
        yield address


def test_the_page_writes_and_its_link_opens_it_again(proxied, visit):
    visitor = visit(f"{proxied}/")
    for elem_id, value in {"prompt": "Apple", "seed": "1", "length": "40"}.items():
        visitor.fill(elem_id, value)
    visitor.generate(40)
    text = CharLM.from_pretrained(RNN).generate("Apple", 40, seed=1)
    assert visitor.text("output-a") == text
    visitor.page.locator("#share").click()
    visitor.wait_until("document.querySelector('#link textarea')?.value")
    link = visitor.text("link")
    assert link.startswith(f"{proxied}/?")
    other = visit(link)
    other.wait_for_text("output-a", 40)
    assert other.text("output-a") == text


def test_a_trained_model_is_downloaded_through_the_proxy(proxied, visit):
    visitor = visit(f"{proxied}/?view=train")
    visitor.fill("train-text", "the cat sat on the mat, and the dog ran to the man.\n" * 40)
    visitor.page.locator("#train-size").get_by_text("small").click()
    visitor.page.locator("#train-minutes").wait_for(state="hidden")
    visitor.page.locator("#train-go").click()
    visitor.click_once("train-stop", "document.querySelector('#train-sample .heat-text')?.children.length > 10")
    visitor.wait_for_words("train-status", "stopped: the model is that of epoch")
    with visitor.page.expect_download() as started:
        visitor.page.locator("#train-zip").click()
    assert started.value.url.startswith(f"{proxied}/gradio_api/file=")
    assert started.value.path().read_bytes().startswith(b"PK")


def test_the_clients_of_the_api_and_of_mcp_find_their_way(proxied):
    import openai  # here, because it takes as long as many tests, and each process would import it to collect them

    client = Client(f"{proxied}/", verbose=False)
    assert [model["name"] for model in client.predict(api_name="/models")] == ["shakespeare-rnn"]
    text = client.predict("shakespeare-rnn", "Apple", 40, 0.8, 0, 1, 1, api_name="/generate")
    assert text == CharLM.from_pretrained(RNN).generate("Apple", 40, seed=1)
    client.close()
    with openai.OpenAI(api_key="none", base_url=f"{proxied}/v1", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["shakespeare-rnn"]
        settings = {"max_tokens": 40, "temperature": 0.8, "seed": 1}
        stream = client.completions.create(model="shakespeare-rnn", prompt="Apple", stream=True, **settings)
        assert "".join(chunk.choices[0].text for chunk in stream) == text
        with pytest.raises(openai.NotFoundError, match="there is no model 'none' here"):
            client.completions.create(model="none", prompt="Apple")
    tools = with_session(proxied, lambda session: session.list_tools()).tools
    assert sorted(tool.name for tool in tools) == ["generate", "generate_many", "history", "inspect", "models"]


def test_the_list_of_routes_holds_behind_the_proxy(proxied):
    with urllib.request.urlopen(f"{proxied}/config") as response:
        assert "default-src 'self'" in response.headers["content-security-policy"]
    for path in ("/app.py", "/gradio_api/file=/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(proxied + path)
