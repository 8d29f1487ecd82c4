"""The page where Gradio is told to render on the server, as on Spaces: same headers, same look, same limits.

Gradio would put a Node server in front of Python then, and the page would come without our headers and styles.
"""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest
from browser import ROOT, running_app

from charlm.web.guard import SECURITY_HEADERS

NODES = (shutil.which("node"), ROOT / ".node" / "node_modules" / ".bin" / "node")
RNN = str(ROOT / "weights" / "homework-rnn")


def node_version(path):
    try:
        return int(subprocess.check_output([path, "--print", "parseInt(process.versions.node)"]))
    except (OSError, TypeError, ValueError, subprocess.CalledProcessError):
        return 0


@pytest.fixture(scope="module")
def node():
    """The path of a Node that Gradio would take."""
    found = next((path for path in NODES if node_version(path) >= 24), None)
    if found is None:
        if os.environ.get("CHARLM_BROWSER_REQUIRED"):
            pytest.fail("there is no Node 24; tests/install_node.sh gets one")
        pytest.skip("there is no Node 24 (tests/install_node.sh gets one)")
    return str(found)


@pytest.fixture(scope="module")
def rendered(node, _no_hub_between_tests):
    """The addresses of the app without and with the variables of a Space."""
    space = {
        "GRADIO_SSR_MODE": "True",
        "GRADIO_NODE_PATH": node,
        "PATH": f"{os.path.dirname(node)}:{os.environ['PATH']}",
    }
    with running_app("--model", RNN) as plain, running_app("--model", RNN, **space) as on_a_space:
        yield plain, on_a_space


def answer(url):
    try:
        with urllib.request.urlopen(url) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.mark.parametrize(
    "path", ["/", "/config", "/theme.css", "/.env", "/gradio_api/file=/etc/passwd", "/_app/version.json"]
)
def test_every_response_comes_from_behind_the_guard(rendered, path):
    (plain, _, _), (status, headers, _) = (answer(url + path) for url in rendered)
    assert status == plain
    assert {name: headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_the_limits_are_the_same(rendered):
    for url in rendered:
        request = urllib.request.Request(f"{url}/gradio_api/queue/join", b" " * 2_000_000)
        with pytest.raises(urllib.error.HTTPError, match="413") as refused:
            urllib.request.urlopen(request)
        assert "This is more than the page takes" in json.load(refused.value)["detail"]


def test_the_page_looks_the_same_and_writes_the_same(rendered, visit):
    pictures, texts = [], []
    for url in rendered:
        visitor = visit(url)
        for elem_id, value in {"prompt": "Apple", "seed": "1", "length": "40"}.items():
            visitor.fill(elem_id, value)
        visitor.generate(40)
        texts.append(visitor.text("output-a"))
        pictures.append(visitor.page.locator("#output-a").screenshot(animations="disabled"))
    assert texts[0] == texts[1]
    assert pictures[0] == pictures[1]
