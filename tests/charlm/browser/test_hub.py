"""charlm/browser/hub.js in Chromium: on a page of one host, with a Hub on another and its files in LFS on a third."""

import hashlib
import json
import re
from contextlib import ExitStack

import pytest
from browser import ROOT, borrowed_page, script_before
from hub_server import HubServer, Response
from models import contents, make_model, save

from charlm.model_name import parse_hub_name
from charlm.web.answers.load import MOST_BYTES
from train.deploy import LARGEST_WEIGHTS

WEIGHTS = "model.safetensors"
# What the tests call on the page: `hub` is the way to the Hub, and `sound` takes the weights of one SHA-256 alone.
SCRIPT = """
import { Hub, HubError, parseHubName } from "./hub.js";

async function told(promise) {
  try {
    return await promise;
  } catch (error) {
    return { error: error.message, kind: error instanceof HubError ? "HubError" : error.name };
  }
}

function sound(sha256) {
  return async (weights) => {
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", weights));
    const found = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== sha256) throw Object.assign(new Error("another SHA-256"), { name: "ModelFileError" });
    return weights.length;
  };
}

Object.assign(window, { Hub, parseHubName, told, sound, ready: true });
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return contents(save(make_model("gru"), tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def other_files(tmp_path_factory):
    return contents(save(make_model("gru", seed=1), tmp_path_factory.mktemp("other")))


@pytest.fixture
def hub(files):
    """A Hub whose files in LFS come from another host, with a model and a static Space that holds hub.js alone."""
    with HubServer(cdn=True) as server:
        server.add_repo("ada/tiny", files)
        script = (ROOT / "charlm/browser/hub.js").read_bytes()
        page = {"index.html": b'<!doctype html><script type="module" src="test.js"></script>', "hub.js": script}
        server.add_repo("ada/site", page | {"test.js": SCRIPT.encode()}, kind="space", sdk="static")
        yield server


@pytest.fixture
def open_page(hub, context, idle_pages):
    """A function that opens the page. That of each test has an address of its own, for which nothing is kept.

    before: a script that runs before those of the page.
    """
    with ExitStack() as visits:

        def open_one(before=None):
            page = visits.enter_context(borrowed_page(context, idle_pages))
            if before is not None:
                visits.enter_context(script_before(page, before))
            page.goto(hub.space_url("ada/site"))
            page.wait_for_function("window.ready", polling=50)
            return page

        yield open_one


def pinned(hub, files, repo="ada/tiny"):
    """A model as a page pins it."""
    commit = hub.repos[repo].commits[-1].id
    return {"name": repo, "address": f"{hub.url}/{repo}/resolve/{commit}", "size": len(files[WEIGHTS])}


def fetch(page, hub, model, files, pins=()):
    """Get the weights of a model on the page, as a page does that has these others; return what comes of it."""
    return page.evaluate(
        "([endpoint, pins, model, sha256]) => told(new Hub(endpoint, pins).withWeights(model, sound(sha256)))",
        [hub.url, list(pins), model, hashlib.sha256(files[WEIGHTS]).hexdigest()],
    )


def describe(page, hub, name):
    return page.evaluate("([endpoint, name]) => told(new Hub(endpoint).describe(name))", [hub.url, name])


def load(page, hub, name, files):
    """Describe a model and load it; return its texts and the length of the weights."""
    return page.evaluate(
        """async ([endpoint, name, sha256]) => {
          const hub = new Hub(endpoint);
          const found = await told(hub.describe(name));
          return found.error ? found : told(hub.load(found, async ({ config, weights, history }) => {
            const text = (bytes) => bytes && new TextDecoder().decode(bytes);
            return { config: text(config), history: text(history), value: await sound(sha256)(weights) };
          }));
        }""",
        [hub.url, name, hashlib.sha256(files[WEIGHTS]).hexdigest()],
    )


def test_a_second_visit_transfers_no_weights(hub, open_page, files):
    model = pinned(hub, files)
    assert fetch(open_page(), hub, model, files) == len(files[WEIGHTS])
    asked = hub.downloads()
    assert len(asked) == 2 and asked[1].startswith("/cdn/")  # through the redirect to another host
    page = open_page()
    page.context.new_cdp_session(page).send("Network.clearBrowserCache")
    assert fetch(page, hub, model, files) == len(files[WEIGHTS])
    assert hub.downloads() == asked


def test_no_cookie_and_no_address_of_the_page_is_sent(hub, open_page, files):
    sent = []
    page = open_page()
    with page.expect_request("**/cdn/**"):
        page.on("request", note := lambda request: sent.append(request))
        fetch(page, hub, pinned(hub, files), files)
    page.remove_listener("request", note)
    assert len(sent) == 2 and not any({"cookie", "referer"} & request.all_headers().keys() for request in sent)


def test_changed_bytes_are_refused_and_not_kept(hub, open_page, files):
    hub.corrupt("GET /cdn/")
    page, model = open_page(), pinned(hub, files)
    assert fetch(page, hub, model, files)["error"] == "another SHA-256"
    assert not page.evaluate("([endpoint, model]) => new Hub(endpoint).hasKept(model)", [hub.url, model])
    hub.heal()
    assert fetch(page, hub, model, files) == len(files[WEIGHTS])


def test_a_kept_copy_with_a_changed_byte_is_dropped_and_downloaded_once_more(hub, open_page, files):
    page, model = open_page(), pinned(hub, files)
    fetch(page, hub, model, files)
    change = """async (url) => {
      const cache = await caches.open("charlm-models");
      const bytes = new Uint8Array(await (await cache.match(url)).arrayBuffer());
      bytes[bytes.length - 1] ^= 1;
      await cache.put(url, new Response(bytes));
    }"""
    page.evaluate(change, f"{model['address']}/{WEIGHTS}")
    before = len(hub.downloads())
    assert fetch(page, hub, model, files) == len(files[WEIGHTS])
    assert len(hub.downloads()) == before + 2
    assert fetch(page, hub, model, files) == len(files[WEIGHTS])
    assert len(hub.downloads()) == before + 2  # the new copy is sound


UNREACHABLE = "the Hub cannot be reached, and this browser has not kept ada/tiny: check the network and load it again"


def longer(response):
    return Response(200, response.body + b"x", response.headers)


DOWNLOADS = {
    "cut": (lambda hub: hub.cut("GET /cdn/", 100), "{file} ended after [0-9]+ of its {size} bytes: check the network"),
    "gone": (
        lambda hub: hub.fail("GET /ada/", 404),
        r"the Hub does not give {file} \(404\): its owner may have removed or closed it",
    ),
    "busy": (lambda hub: hub.fail("GET /cdn/", 503), "the Hub answered 503 for {file}; try again later"),
    "unreachable": (lambda hub: hub.hang_up("GET .*safetensors"), UNREACHABLE),
    "longer": (
        lambda hub: hub.on("GET /cdn/", lambda answer: longer(answer())),
        "{file} is longer than its {size} bytes: tell its owner",
    ),
}


@pytest.mark.parametrize("fault", DOWNLOADS)
def test_a_download_that_fails_is_told_and_the_next_one_works(hub, open_page, files, fault):
    model, page = pinned(hub, files), open_page()
    break_it, said = DOWNLOADS[fault]
    break_it(hub)
    answer = fetch(page, hub, model, files)
    said = said.format(file="model.safetensors of ada/tiny", size=model["size"])
    assert answer["kind"] == "HubError" and re.match(said, answer["error"])
    hub.heal()
    assert fetch(page, hub, model, files) == len(files[WEIGHTS])


# A network that goes silent for weights while `sent` is a number: after so many bytes of them, or before any answer at
# -1. Of the time limit of 30 seconds, a hundredth passes.
SILENCE = """(() => {
    const { fetch, setTimeout } = window;
    window.setTimeout = (act, milliseconds) => setTimeout(act, milliseconds === 30_000 ? 300 : milliseconds);
    window.fetch = (url, options) => {
        const { sent } = window;
        if (sent === undefined || !url.endsWith(".safetensors")) return fetch(url, options);
        const gone = (fail) => options.signal.addEventListener("abort", () => fail(options.signal.reason));
        if (sent < 0) return new Promise((_, reject) => gone(reject));
        const start = (body) => {
            body.enqueue(new Uint8Array(sent));
            gone((reason) => body.error(reason));
        };
        return Promise.resolve(new Response(new ReadableStream({ start })));
    };
})()"""


@pytest.mark.parametrize("sent", [-1, 100])
def test_a_download_of_which_nothing_comes_any_more_is_told_and_the_next_one_works(hub, open_page, files, sent):
    model, page = pinned(hub, files), open_page(before=SILENCE)
    page.evaluate("(sent) => (window.sent = sent)", sent)
    assert fetch(page, hub, model, files) == {
        "error": "model.safetensors of ada/tiny stopped coming: nothing came for 30 seconds; "
        "check the network and load it again",
        "kind": "HubError",
    }
    page.evaluate("() => delete window.sent")
    assert fetch(page, hub, model, files) == len(files[WEIGHTS])


def test_without_the_hub_the_models_that_are_kept_are_named(hub, open_page, files):
    hub.add_repo("ada/other", files)
    page, kept, missing = open_page(), pinned(hub, files), pinned(hub, files, "ada/other")
    fetch(page, hub, kept, files)
    hub.hang_up(".*")
    said = UNREACHABLE.replace("ada/tiny", "ada/other") + "; ada/tiny is kept and works without the Hub"
    assert fetch(page, hub, missing, files, pins=[kept, missing])["error"] == said
    assert fetch(page, hub, kept, files, pins=[kept, missing]) == len(files[WEIGHTS])


def test_a_failure_that_is_not_the_weights_leaves_them_in_the_cache(hub, open_page, files):
    page, model = open_page(), pinned(hub, files)
    fetch(page, hub, model, files)
    fail = "([endpoint, model]) => told(new Hub(endpoint).withWeights(model, () => { throw new Error('no Worker'); }))"
    assert page.evaluate(fail, [hub.url, model])["error"] == "no Worker"
    assert len(hub.downloads()) == 2
    assert fetch(page, hub, model, files) == len(files[WEIGHTS]) and len(hub.downloads()) == 2


def test_a_model_for_which_there_is_no_room_is_told(hub, open_page, files):
    answer = fetch(open_page(), hub, pinned(hub, files) | {"size": 2**52}, files)
    assert answer["error"] == (
        "this browser has no room for ada/tiny, which has 4503599627.4 MB: close other tabs and load it again"
    )


def test_a_download_that_is_stopped_keeps_nothing(hub, open_page, files):
    page, model = open_page(), pinned(hub, files)
    stopped = """([endpoint, model]) => {
      const stop = new AbortController();
      const options = { signal: stop.signal, onProgress: () => stop.abort() };
      return told(new Hub(endpoint).withWeights(model, (weights) => {
        if (stop.signal.aborted) throw new DOMException("stopped", "AbortError");
        return weights.length;
      }, options));
    }"""
    assert page.evaluate(stopped, [hub.url, model])["kind"] == "AbortError"
    assert not page.evaluate("([endpoint, model]) => new Hub(endpoint).hasKept(model)", [hub.url, model])


@pytest.mark.parametrize("missing", ["delete window.caches", "caches.open = () => Promise.reject(new Error('no'))"])
def test_without_a_cache_each_visit_downloads(hub, open_page, files, missing):
    before = f"{missing.replace('delete window.caches', 'delete Window.prototype.caches; delete window.caches')}"
    for visits in (1, 2):
        assert fetch(open_page(before), hub, pinned(hub, files), files) == len(files[WEIGHTS])
        assert len(hub.downloads()) == 2 * visits


def test_a_new_commit_takes_the_place_of_the_one_that_was_kept_unless_the_page_has_that(
    hub, open_page, files, other_files
):
    page, first = open_page(), pinned(hub, files)
    fetch(page, hub, first, files)
    hub.repos["ada/tiny"].commit(other_files)
    second = pinned(hub, other_files)
    kept = "([endpoint, models]) => Promise.all(models.map((model) => new Hub(endpoint).hasKept(model)))"
    fetch(page, hub, second, other_files, pins=[first])
    assert page.evaluate(kept, [hub.url, [first, second]]) == [True, True]
    hub.repos["ada/tiny"].commit(files | {"notes.txt": b"new"})
    third = pinned(hub, files)
    fetch(page, hub, third, files, pins=[third])
    assert page.evaluate(kept, [hub.url, [first, second, third]]) == [False, False, True]


# Models that a visitor names


NAMES = [
    *("ada/tiny", "ada/tiny@v1.0", "ada/tiny@refs/pr/1", "hf://ada/tiny", "HF://ada/tiny@main", "a/b", "A_1/b.c-d"),
    *(
        "",
        "ada",
        "ada/",
        "/tiny",
        "ada/tiny/more",
        "ada/tiny.git",
        "ada--b/tiny",
        "ada..b/tiny",
        "-ada/tiny",
        "ada/tiny-",
    ),
    *(
        "ada/tiny@",
        "ada/tiny@a b",
        "ada/tiny@a..b",
        "ada/tiny@a@b",
        "datasets/tiny",
        "spaces/tiny",
        "ada/tiny\n",
        "한/한",
    ),
    *(
        "a" * 96 + "/b",
        "a" * 97 + "/b",
        "a/" + "b" * 96,
        "a/" + "b" * 97,
        "../tiny",
        "<b>/tiny",
        "ada/tiny?x=1",
        "s3://a/b",
    ),
]


def test_a_name_is_read_as_python_reads_it(open_page):
    read = open_page().evaluate(
        """(names) => names.map((name) => {
          try {
            return parseHubName(name);
          } catch (error) {
            return error.message;
          }
        })""",
        NAMES,
    )
    for name, found in zip(NAMES, read, strict=True):
        expected = parse_hub_name(name)
        if expected is None:
            assert found.endswith("is not the name of a model on the Hub; write USER/NAME or USER/NAME@REVISION"), name
        else:
            assert found == {"repo": expected.repo_id, "revision": expected.revision}, name


def test_a_model_is_described_before_anything_of_it_is_downloaded(hub, open_page, files):
    commit = hub.repos["ada/tiny"].commits[-1].id
    found = describe(open_page(), hub, "hf://ada/tiny")
    assert (found["name"], found["commit"], found["license"]) == ("ada/tiny", commit, "mit")
    assert found["address"] == f"{hub.url}/ada/tiny/resolve/{commit}"
    sizes = {name: len(files[name]) for name in ("config.json", "history.json", WEIGHTS)}
    assert found["sizes"] == sizes and found["size"] == sum(sizes.values())
    assert found["figures"]["validation loss (nats per character)"] == 1.5
    assert found["isKept"] is False and hub.downloads() == []


def test_a_revision_is_loaded_at_its_commit_although_there_is_a_newer_one(hub, open_page, files, other_files):
    commit = hub.repos["ada/tiny"].commits[-1].id
    hub.repos["ada/tiny"].commit(other_files)
    loaded = load(open_page(), hub, f"ada/tiny@{commit[:8]}", files)
    assert loaded == {
        "config": files["config.json"].decode(),
        "history": files["history.json"].decode(),
        "value": len(files[WEIGHTS]),
    }
    assert {path.split("/")[4] for path in hub.downloads() if path.startswith("/ada")} == {commit}


@pytest.mark.parametrize("status", [None, 429, 503])
def test_without_the_hub_what_was_loaded_once_is_loaded_from_the_cache(hub, open_page, files, status):
    first = load(open_page(), hub, "ada/tiny", files)
    hub.hang_up(".*") if status is None else hub.fail(".*", status)
    page = open_page()
    found = describe(page, hub, "ada/tiny")
    assert found["isKept"] and found["commit"] == hub.repos["ada/tiny"].commits[-1].id
    assert load(page, hub, "ada/tiny", files) == first
    assert describe(page, hub, "ada/other")["kind"] == "HubError"


def test_whether_weights_are_kept_is_told_without_reading_them(hub, open_page, files):
    page = open_page()
    load(page, hub, "ada/tiny", files)
    told = page.evaluate(
        """async (endpoint) => {
          const { arrayBuffer } = Response.prototype;
          let read = 0;
          Response.prototype.arrayBuffer = function () {
            read++;
            return arrayBuffer.call(this);
          };
          const { isKept } = await new Hub(endpoint).describe("ada/tiny");
          Response.prototype.arrayBuffer = arrayBuffer;
          return [isKept, read];
        }""",
        hub.url,
    )
    assert told == [True, 0]


def test_a_model_without_a_record_has_none(hub, open_page, tmp_path):
    files = contents(save(make_model("rnn", history=False), tmp_path))
    hub.add_repo("ada/plain", files)
    assert load(open_page(), hub, "ada/plain", files)["history"] is None


def about(repo, **changes):
    """A function that changes what the Hub says of a repository; None removes a field."""

    def change(hub):
        def answer(proper):
            said = json.loads((response := proper()).body) | changes
            body = json.dumps({name: value for name, value in said.items() if value is not None}).encode()
            return Response(200, body, response.headers)

        hub.on(f"GET /api/models/{repo}/", answer)

    return change


def large(hub):
    """Say that the weights have 200 MB."""
    siblings = [{"rfilename": "config.json", "size": 500}, {"rfilename": WEIGHTS, "size": 200_000_000}]
    about("ada/tiny", siblings=siblings)(hub)


def answer_with(status, body=b"{}"):
    return lambda hub: hub.on("GET /api/", lambda _: Response(status, body))


NO_MODEL = "the Hub has no public model {}: check the name; a private one cannot be loaded here"
UNUSABLE = "the Hub gave no usable answer for ada/tiny; try again later"
REFUSED = {
    "no name": (None, "tiny", "“tiny” is not the name of a model on the Hub; write USER/NAME or USER/NAME@REVISION"),
    "missing": (None, "ada/none", NO_MODEL.format("ada/none")),
    "private": (lambda hub: setattr(hub.repos["ada/tiny"], "private", True), "ada/tiny", NO_MODEL.format("ada/tiny")),
    "gated": (
        lambda hub: setattr(hub.repos["ada/tiny"], "gated", True),
        "ada/tiny",
        "ada/tiny is gated: the Hub gives its files only with a token, and this page has none",
    ),
    "revision": (None, "ada/tiny@v9", "ada/tiny has no revision v9; name a branch, tag or commit that it has"),
    "no charlm model": (
        lambda hub: hub.add_repo("ada/other", {"pytorch_model.bin": b"x"}),
        "ada/other",
        "ada/other does not carry the tag charlm: it is not a model of charlm",
    ),
    "no weights": (
        lambda hub: hub.repos["ada/tiny"].commit({WEIGHTS: None}),
        "ada/tiny",
        "ada/tiny has no model.safetensors: it is not a charlm model",
    ),
    "too large": (large, "ada/tiny", "ada/tiny has 200.0 MB, more than the 100 MB that this page loads"),
    "no size": (
        about("ada/tiny", siblings=[{"rfilename": "config.json"}]),
        "ada/tiny",
        "the Hub does not tell the size of config.json in ada/tiny; try again or tell its owner",
    ),
    "large config": (
        about("ada/tiny", siblings=[{"rfilename": "config.json", "size": 5_000_000}]),
        "ada/tiny",
        "ada/tiny: config.json has 5000000 bytes, more than any charlm model needs",
    ),
    "busy": (answer_with(503), "ada/tiny", "the Hub answered 503 for ada/tiny; try again later"),
    "odd status": (answer_with(418), "ada/tiny", "the Hub refused the request for ada/tiny (418); check the name"),
    "no JSON": (answer_with(200, b"<html>"), "ada/tiny", UNUSABLE),
    "another JSON": (answer_with(200, b"[1]"), "ada/tiny", UNUSABLE),
    "no commit": (about("ada/tiny", sha="main"), "ada/tiny", UNUSABLE),
    "unreachable": (lambda hub: hub.hang_up("GET /api/"), "ada/tiny", UNREACHABLE),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_loaded_is_refused_in_one_sentence(hub, open_page, case):
    change, name, said = REFUSED[case]
    if change:
        change(hub)
    assert describe(open_page(), hub, name) == {"error": said, "kind": "HubError"}
    assert hub.downloads() == []


def test_all_pages_load_models_of_the_same_size(hub, open_page):
    assert LARGEST_WEIGHTS == MOST_BYTES == 100_000_000
    for size, fits in ((MOST_BYTES, True), (MOST_BYTES + 1, False)):
        siblings = [{"rfilename": "config.json", "size": 500}, {"rfilename": WEIGHTS, "size": size - 500}]
        about("ada/tiny", siblings=siblings)(hub)
        assert (describe(open_page(), hub, "ada/tiny").get("size") == size) is fits


ODD = [None, True, 3, "text", [], {}, [None], [[1]], [{"results": 3}], [{"results": [{"metrics": [{"value": "x"}]}]}]]


@pytest.mark.parametrize("field", ["cardData", "gated", "library_name"])
def test_whatever_else_the_hub_says_a_model_is_described(hub, open_page, field):
    page = open_page()
    for odd in ODD:
        value = {"model-index": odd, "license": odd} if field == "cardData" else odd
        about("ada/tiny", **{field: value})(hub)
        found = describe(page, hub, "ada/tiny")
        if field == "gated" and odd is not None:
            assert "is gated" in found["error"]
        else:
            assert found["name"] == "ada/tiny" and isinstance(found["license"], str)
            assert all(isinstance(value, (int, float)) for value in found["figures"].values())


def test_a_model_that_is_not_sound_leaves_the_cache(hub, open_page, files, other_files):
    hub.repos["ada/tiny"].commit({WEIGHTS: other_files[WEIGHTS]})  # another than config.json names
    page = open_page()
    assert load(page, hub, "ada/tiny", files)["error"] == "another SHA-256"
    kept = page.evaluate("async () => (await (await caches.open('charlm-models')).keys()).length")
    assert kept == 0
