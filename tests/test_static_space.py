"""A static Space in Chromium: served from exactly what `deploy` uploaded, its models fetched from a Hub elsewhere.

The Space, the Hub and the store that the Hub redirects to are three hosts; nobody may ask any other.
"""

import json
import re
from threading import Event

import pytest
from browser import Visit, serious_violations, take_page, text_fragment
from hub_server import HubServer, Response
from models import contents, make_config, make_joined_record, make_lm, make_model, make_record, save

from charlm.browser.page import PageModel, export_html, page_data
from charlm.model.history import join_runs
from charlm.publishing import push_folder
from train.deploy import deploy

WEIGHTS = "model.safetensors"
PROMPT, SEED, LENGTH = "a bad ", "7", 60
LOADED = "is loaded: it is model A of Write, and can be chosen in the other views."
CELLS = {"ada/one": "lstm", "ada/two": "gru", "ada/three": "rnn"}
MODELS = {name: make_model(cell) for name, cell in CELLS.items()}


def unseen_record():
    """A record of the windows protocol with the loss on text that the model never saw."""
    record = make_record(protocol="windows")
    return record | {"epochs": [epoch | {"unseen_loss": 1.9876543} for epoch in record["epochs"]]}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of each model by the name of its repository."""
    return {name: contents(save(model, tmp_path_factory.mktemp("model"))) for name, model in MODELS.items()}


@pytest.fixture
def hub(hub_environment, files):
    """A Hub with three models, two of which a static Space shows."""
    with HubServer(cdn=True) as server:
        server.add_user("ada", token="hf_ada")
        hub_environment(HF_ENDPOINT=server.url, HF_TOKEN="hf_ada")
        for name, content in files.items():
            server.add_repo(name, content)
        deploy("ada/page", ["ada/one", "ada/two"], sdk="static")
        server.requests.clear()
        yield server


class SpaceVisit(Visit):
    """A visitor of the Space. asked: the addresses of all requests. foreign: those to other hosts."""

    def __init__(self, page, hub, query=""):
        self.asked = []
        self._allowed = (hub.space_url("ada/page"), hub.url, hub.cdn_url, "blob:", "data:")
        super().__init__(page)
        self.open(hub.space_url("ada/page") + query)

    def open(self, url):
        self._go_to(url)  # its policy forbids the eval by which Playwright waits for a function
        self.page.locator("[role=tab][aria-selected=true]").wait_for(state="attached")

    def _note_foreign(self, request):
        self.asked.append(request.url)
        if not request.url.startswith(self._allowed):
            self.foreign.append(request.url)

    def write(self, prompt=PROMPT):
        """Let both models write, and wait until they have."""
        for name, value in (("prompt", prompt), ("seed", SEED), ("length", str(LENGTH))):
            self.page.locator(f"#{name}").fill(value)
        self.page.locator("#generate").click()
        self.wait_for_quiet()

    def wait_for_quiet(self):
        self.page.locator("body:not(.writing)").wait_for()

    def written(self):
        """The text of each side, without the prompt."""
        return [self.text(f"output-{side}").removeprefix(PROMPT) for side in "ab"]

    def notice(self):
        return self.page.locator("#notices").inner_text()

    def said_of_loading(self):
        """What is said in the end of the model that the address names."""
        self.page.locator("#load-status").get_by_text(re.compile(r"\.$")).wait_for()
        return self.page.locator("#load-status").inner_text()


@pytest.fixture
def visit(hub, context, idle_pages):
    """A function that opens the Space after the visitor before has left; in the end no page has asked another host.

    The Space of each test has an address of its own, for which the browser has kept nothing.
    """
    visits = []

    def leave():
        if visits and not visits[-1].page.is_closed():
            visits[-1].leave()
            idle_pages.append(visits[-1].page)

    def open_page(query=""):
        leave()
        page = take_page(context, idle_pages)
        visits.append(SpaceVisit(page, hub, query))
        return visits[-1]

    yield open_page
    leave()
    assert [each.foreign for each in visits if each.foreign] == []


def expected(*names):
    """What Python writes with these models."""
    lms = [make_lm(CELLS[name]) for name in names]
    return [lm.generate(PROMPT, LENGTH, temperature=0.8, seed=int(SEED)) for lm in lms]


def test_the_uploaded_page_writes_what_python_writes(hub, visit):
    visitor = visit()
    visitor.write()
    assert visitor.written() == expected("ada/one", "ada/two")
    assert visitor.errors == []
    commits = {name: hub.repos[name].commits[-1].id for name in CELLS}
    weights = [f"/{name}/resolve/{commits[name]}/{WEIGHTS}" for name in ("ada/one", "ada/two")]
    asked = hub.downloads()
    assert sorted(path for path in asked if path.startswith("/ada/")) == sorted(weights)
    assert sum(path.startswith("/cdn/") for path in asked) == 2
    uploaded = hub.repos["spaces/ada/page"].files
    own = [
        url.removeprefix(f"{hub.space_url('ada/page')}/") for url in visitor.asked if hub.space_url("ada/page") in url
    ]
    assert {name.split("?")[0] or "index.html" for name in own if not name.startswith("blob:")} <= uploaded.keys()


def test_a_second_visit_transfers_no_weights(hub, visit):
    visit().write()
    hub.requests.clear()
    visitor = visit()
    visitor.page.context.new_cdp_session(visitor.page).send("Network.clearBrowserCache")
    visitor.write()
    assert visitor.written() == expected("ada/one", "ada/two")
    assert hub.requests == []


def test_without_the_hub_the_page_works_with_what_is_kept_and_says_what_is_missing(hub, visit):
    visitor = visit()
    visitor.page.evaluate("async () => { await (await window.charlm.model('ada/one')).generate('a', {length: 1}); }")
    hub.hang_up(".*")
    visitor = visit()
    visitor.write()
    assert visitor.written()[0] == expected("ada/one")[0]
    assert visitor.notice() == (
        "The Hub cannot be reached, and this browser has not kept ada/two: check the network and load it again; "
        "ada/one is kept and works without the Hub."
    )
    hub.heal()
    visitor.write()
    assert visitor.written() == expected("ada/one", "ada/two") and visitor.notice() == ""


def test_changed_weights_are_told_and_the_page_lives(hub, visit):
    hub.corrupt("GET /cdn/")
    visitor = visit()
    visitor.write()
    assert visitor.notice().startswith(("ada/one: model.safetensors", "ada/two: model.safetensors"))
    assert visitor.written() == ["", ""]
    hub.heal()
    visitor.write()
    assert visitor.written() == expected("ada/one", "ada/two") and visitor.notice() == ""


def test_a_kept_copy_with_a_changed_byte_is_dropped_and_fetched_again(hub, visit, files):
    visitor = visit()
    visitor.write()
    visitor.page.evaluate("""async () => {
      const cache = await caches.open("charlm-models");
      for (const request of await cache.keys()) {
        const bytes = new Uint8Array(await (await cache.match(request)).arrayBuffer());
        bytes[bytes.length - 3] ^= 1;
        await cache.put(request, new Response(bytes));
      }
    }""")
    hub.requests.clear()
    visitor = visit()
    visitor.write()
    assert visitor.written() == expected("ada/one", "ada/two")
    assert len(hub.downloads()) == 4
    visit().write()
    assert len(hub.downloads()) == 4


def test_a_tab_that_is_closed_while_it_downloads_leaves_nothing_behind(hub, visit):
    hub.cut("GET /cdn/", 100)
    visitor = visit()
    visitor.page.locator("#generate").click()
    visitor.page.close()
    hub.heal()
    visitor = visit()
    visitor.write()
    assert visitor.written() == expected("ada/one", "ada/two")


# Models that come late, while the visitor goes on


def hold(hub, name):
    """Let the Hub give nothing after the address of a model's weights is asked for, until the Event returned is set."""
    held = Event()
    hub.on(f"GET /{name}/resolve/", lambda answer: answer() if held.wait() else None)
    return held


def ask_for_model(visitor, name):
    """Let a script on the page ask for a model."""
    visitor.page.evaluate("(name) => { window.late = window.charlm.model(name); }", name)


def wait_for_model(visitor, characters=1):
    """Wait until the model is there that was asked for, and has written, after all that it was asked for before."""
    visitor.page.evaluate("async (length) => { await (await late).generate('', { length }); }", characters)


def wait_for_words(visitor, elem_id, words):
    visitor.page.locator(f"#{elem_id}", has_text=words).wait_for()


def test_the_line_of_a_text_is_not_replaced_by_what_a_model_that_comes_late_had_to_say(hub, visit):
    visitor = visit()
    ask_for_model(visitor, "ada/two")
    wait_for_model(visitor)
    held = hold(hub, "ada/one")
    ask_for_model(visitor, "ada/one")
    visitor.page.locator("#generate").click()
    wait_for_words(visitor, "progress-a", "ada/one · loading")
    visitor.page.locator("#stop").click()
    assert visitor.text("progress-a") == ""
    visitor.page.locator("#model-a").select_option("ada/two")
    visitor.write()
    said = visitor.text("progress-a")
    held.set()
    wait_for_model(visitor)
    assert visitor.text("progress-a") == said and said.startswith(f"ada/two · {LENGTH} characters")


def test_a_model_that_is_used_is_not_closed_while_another_one_is_loaded(hub, visit):
    deploy("ada/page", [*CELLS], sdk="static")
    held = hold(hub, "ada/three")
    visitor = visit()
    page = visitor.page

    # 1) a model whose text is looked into
    visitor.write()
    for side in "ab":
        page.locator(f"#model-{side}").select_option("ada/two")
    visitor.choose_view("Look inside")
    page.locator("#inspect-model-a").select_option("ada/one")
    wait_for_words(visitor, "seen-line-a", "perplexity")
    said, about = visitor.text("seen-line-a"), visitor.text("inspect-about-a")
    page.locator("#inspect-model-a").select_option("ada/three")
    wait_for_words(visitor, "seen-line-a", "reading")
    page.locator("#inspect-model-a").select_option("ada/one")
    assert (visitor.text("seen-line-a"), visitor.text("inspect-about-a")) == (said, about)
    page.locator("#unit-number").fill("1")
    wait_for_words(visitor, "cell", "ada/one, layer 1, unit 1")

    # 2) a model that writes at three temperatures
    visitor.choose_view("Write")
    page.locator("#model-a").select_option("ada/three")
    page.locator("#board").click()
    page.locator("#output-a .heat-text span").nth(5).click()
    page.locator("#alternatives button:not([aria-current])").first.click()
    wait_for_words(visitor, "progress-a", "1 chosen by you")
    held.set()
    visitor.wait_for_quiet()
    assert visitor.notice() == "" and len(visitor.text("board-a-0-5")) == LENGTH


def test_what_is_typed_or_pasted_is_not_replaced_by_a_text_that_comes_late(hub, visit):
    held = hold(hub, "ada/one")
    visitor = visit()
    ask_for_model(visitor, "ada/one")
    visitor.choose_view("Look inside")
    visitor.page.locator("#write-text").click()
    wait_for_words(visitor, "seen-line-a", "writing")
    visitor.page.locator("#edit-text").click()
    assert visitor.text("seen-line-a") == ""
    visitor.page.locator("#inspect-text").fill("a bad cab")
    held.set()
    wait_for_model(visitor, 1500)  # as many as the text would have had
    assert visitor.page.locator("#inspect-text").input_value() == "a bad cab"
    visitor.page.locator("#inspect-text").press("Control+Enter")
    wait_for_words(visitor, "seen-line-a", "9 characters")
    assert visitor.text("seen-a") == "a bad cab" and visitor.notice() == ""


def test_a_module_that_failed_to_load_is_loaded_when_it_is_asked_for_again(hub, visit):
    visitor = visit()
    for module in ("charlm.js", "hub.js"):
        visitor.page.route(f"**/{module}", lambda route: route.abort())
    visitor.open(hub.space_url("ada/page"))
    for module in ("charlm.js", "hub.js"):
        visitor.write()
        assert module in visitor.notice()
        visitor.page.unroute(f"**/{module}")
    visitor.write()
    assert visitor.written() == expected("ada/one", "ada/two") and visitor.notice() == ""


# A model that the address names


def test_a_model_that_the_address_names_is_described_and_loaded_on_request(hub, visit, files):
    commit = hub.repos["ada/three"].commits[-1].id
    visitor = visit("/?model=ada/three")
    visitor.page.locator("#load-go").wait_for()
    size = sum(len(files["ada/three"][name]) for name in ("config.json", "history.json", WEIGHTS))
    lines = visitor.page.locator("#load-card").inner_text().splitlines()
    assert lines[0] == f"ada/three, commit {commit[:7]}: {size / 1e6:.1f} MB to download."
    assert lines[1].startswith("validation loss (nats per character): 1.5000 · ")
    assert lines[1].endswith(" · licence: mit")
    assert hub.downloads() == [] and serious_violations(visitor.page) == []
    visitor.page.locator("#load-go").click()
    name = f"ada/three@{commit[:7]}"
    assert visitor.said_of_loading() == f"{name} {LOADED}"
    assert visitor.page.evaluate("document.activeElement.id") == "load-status"  # the button that was clicked is gone
    # to a screen reader, once it rests: not at each part that has come
    assert visitor.page.locator("#load-status").get_attribute("role") is None
    visitor.page.locator(".announced", has_text=LOADED).wait_for(state="attached")
    visitor.write()
    assert visitor.written() == expected("ada/three", "ada/two")
    for shown in ("ada/one", name):  # the memory of a model that is not shown is freed
        visitor.page.locator("#model-a").select_option(shown)
        visitor.write()
    assert visitor.written() == expected("ada/three", "ada/two") and visitor.notice() == ""
    assert visitor.page.evaluate("window.charlm.names") == ["ada/one", "ada/two", name]
    assert visitor.text("about-a").endswith(f" parameters · {name}")
    visitor.choose_view("Learn")
    visitor.page.locator("#learn-models").get_by_label(name).check()
    said = "What the curves of this model show was not worked out, since it was loaded after the page was made."
    visitor.page.locator("#reading").get_by_text(said).wait_for()
    assert visitor.errors == []


def test_a_download_that_is_cancelled_leaves_the_page_as_it_was(hub, visit):
    held = Event()
    hub.on("GET /cdn/", lambda answer: answer() if held.wait() else None)
    visitor = visit("/?model=ada/three")
    visitor.page.locator("#load-go").click()
    visitor.page.get_by_role("button", name="Cancel").click()
    visitor.page.get_by_role("button", name="Load", exact=True).wait_for()
    held.set()
    assert visitor.page.evaluate("window.charlm.names") == ["ada/one", "ada/two"]
    visitor.page.locator("#load-go").click()
    assert "is loaded" in visitor.said_of_loading()


def test_a_model_that_comes_while_the_visitor_writes_leaves_all_as_it_is(hub, visit):
    visitor = visit("/?model=ada/three")
    visitor.write()
    visitor.page.locator("#prompt").fill("cab")
    visitor.page.locator("#length").fill("9")
    visitor.page.locator("#load-go").click()
    commit = hub.repos["ada/three"].commits[-1].id
    name = f"ada/three@{commit[:7]}"
    assert visitor.said_of_loading() == f"{name} is loaded: it can be chosen in all views."
    values = [visitor.page.locator(f"#{elem_id}").input_value() for elem_id in ("model-a", "prompt", "length")]
    assert values == ["ada/one", "cab", "9"]
    assert visitor.written() == expected("ada/one", "ada/two")
    visitor.page.locator("#model-a").select_option(name)
    visitor.write()
    assert visitor.written() == expected("ada/three", "ada/two")


def test_a_shared_text_of_a_model_that_the_address_names_is_written_again(hub, visit):
    visitor = visit("/?model=ada/three")
    visitor.page.locator("#load-go").click()
    visitor.said_of_loading()
    visitor.write()
    visitor.page.locator("#share").click()
    link = visitor.page.locator("#link").input_value()
    commit = hub.repos["ada/three"].commits[-1].id
    assert f"model=ada%2Fthree%40{commit}" in link
    state = "import('./components/state.js').then(({ shareState }) => shareState())"
    assert visitor.page.evaluate(state)["link"] == link
    query = "?" + link.partition("?")[2]
    assert visitor.page.evaluate("location.search") == query
    hub.repos["ada/three"].commit({"notes.txt": b"a later commit"})
    hub.requests.clear()
    # the Hub's page of the Space hands its query to the Space, which has kept the model and loads it at once
    visitor = visit("/" + query)
    visitor.said_of_loading()
    visitor.page.locator(f"#output-a [data-place='{LENGTH - 1}']").wait_for()
    visitor.wait_for_quiet()
    assert visitor.written() == expected("ada/three", "ada/two") and hub.downloads() == []


@pytest.mark.parametrize("view", ["inside", "learn"])
@pytest.mark.parametrize("is_kept", [False, True])
def test_a_link_to_a_view_waits_for_the_model_that_it_names(hub, visit, view, is_kept):
    commit = hub.repos["ada/three"].commits[-1].id
    name, model = f"ada/three@{commit[:7]}", f"?model=ada/three@{commit}"
    if is_kept:  # and is loaded at once in the second visit
        visitor = visit(f"/{model}")
        visitor.page.locator("#load-go").click()
        visitor.said_of_loading()
    rest = {
        "inside": f"a={name}&b=ada/two&place=2{text_fragment('a bad cab')}",
        "learn": f"models={name}&unit=perplexity",
    }[view]
    visitor = visit(f"/{model}&view={view}&{rest}")
    if not is_kept:
        visitor.page.locator("#load-go").click()
    assert LOADED in visitor.said_of_loading()
    if view == "inside":
        wait_for_words(visitor, "seen-line-a", "9 characters")
        visitor.page.locator("#seen-a .held[data-place='2']").wait_for()
        assert visitor.page.locator("#inspect-model-a").input_value() == name
        visitor.page.wait_for_url(f"**&a={name.replace('/', '%2F').replace('@', '%40')}&*")
    else:
        visitor.page.locator("#reading").get_by_text("was not worked out").wait_for()
        chosen = visitor.page.locator("#learn-models input:checked")
        assert chosen.evaluate_all("boxes => boxes.map((box) => box.value)") == [name]
        assert visitor.page.get_by_label("perplexity").is_checked()
    visitor.choose_view("Write")
    assert visitor.page.locator("#model-a").input_value() == name  # as is said


def test_the_address_of_a_view_that_waits_for_a_model_stays_until_the_visitor_goes_on(hub, visit):
    name = f"ada/three@{hub.repos['ada/three'].commits[-1].id[:7]}"
    search = "location.search"
    # before the browser has kept the model, which is then loaded at once
    query = f"?model=ada/three&view=learn&models={name}"
    visitor = visit(f"/{query}")
    visitor.page.locator("#loss-curves svg").first.wait_for()
    assert visitor.page.evaluate(search) == query
    visitor.page.get_by_label("perplexity").check()
    visitor.page.wait_for_url("**unit=perplexity*")
    query = f"?model=ada/three&view=inside&a={name}&b=ada/two"
    visitor = visit(f"/{query}{text_fragment('a bad cab')}")
    wait_for_words(visitor, "seen-line-a", "9 characters")
    assert visitor.page.evaluate(search) == query
    visitor.page.locator("#seen-a [data-place='4']").click()
    visitor.page.wait_for_url("**place=4*")
    visitor.page.locator("#load-go").click()
    visitor.said_of_loading()
    assert visitor.page.locator("#inspect-model-a").input_value() == "ada/one"  # as the visitor has it by now


def test_without_the_module_that_loads_models_the_page_says_so(hub, visit):
    visitor = visit()
    visitor.page.route("**/load.js", lambda route: route.abort())
    visitor.open(f"{hub.space_url('ada/page')}/?model=ada/three")
    visitor.page.locator("#notices").get_by_text("load.js").wait_for()
    visitor.page.unroute("**/load.js")


def test_without_the_hub_a_model_that_was_loaded_is_loaded_again(hub, visit):
    visitor = visit("/?model=ada/three")
    visitor.page.locator("#load-go").click()
    visitor.said_of_loading()
    pinned = visitor.page.evaluate("location.search")
    hub.hang_up(".*")
    for query in ("?model=ada/three", pinned):
        visitor = visit("/" + query)
        assert LOADED in visitor.said_of_loading()
    visitor = visit("/?model=ada/four")
    assert visitor.said_of_loading() == (
        "The Hub cannot be reached, and this browser has not kept ada/four: check the network and load it again."
    )


def test_a_model_that_the_page_has_is_not_loaded_twice(hub, visit):
    visitor = visit("/?model=ada/one")
    assert visitor.said_of_loading() == "ada/one is among the models of this page."


def config_with(files, **changes):
    return json.dumps(json.loads(files["ada/three"]["config.json"]) | changes).encode()


UNSOUND = {
    "newer": (
        lambda files: {"config.json": config_with(files, format_version=2)},
        "ada/three: config.json has format_version 2, written by a newer charlm; this one reads up to 1: update charlm",
    ),
    "cut": (lambda files: {WEIGHTS: files["ada/three"][WEIGHTS][:900]}, "ada/three: model.safetensors"),
    "exchanged": (lambda files: {WEIGHTS: files["ada/one"][WEIGHTS]}, "ada/three: model.safetensors"),
    "another shape": (lambda files: {"config.json": config_with(files, hidden_size=9)}, "ada/three: "),
    "no configuration": (lambda files: {"config.json": b"<html>"}, "ada/three: config.json is not valid JSON"),
    "vocabulary": (lambda files: {"config.json": config_with(files, vocab="aa")}, "ada/three: config.json: vocab"),
    "huge": (lambda files: {"config.json": config_with(files, hidden_size=16384)}, "ada/three: "),
}


def test_a_model_that_is_not_sound_is_told_and_the_page_lives(hub, visit, files):
    for change, said in UNSOUND.values():
        hub.repos["ada/three"].commit(files["ada/three"] | change(files))
        visitor = visit("/?model=ada/three")
        visitor.page.locator("#load-go").click()
        assert visitor.said_of_loading().startswith(said)
        assert visitor.page.evaluate("window.charlm.names") == ["ada/one", "ada/two"]
    visitor.write()
    assert visitor.written() == expected("ada/one", "ada/two")
    hub.repos["ada/three"].commit(files["ada/three"])
    visitor = visit("/?model=ada/three")
    visitor.page.locator("#load-go").click()
    assert "is loaded" in visitor.said_of_loading()


def test_a_damaged_record_is_told_and_the_model_is_loaded_without_it(hub, visit):
    hub.repos["ada/three"].commit({"history.json": b"{}"})
    visitor = visit("/?model=ada/three")
    visitor.page.locator("#load-go").click()
    assert f"{LOADED} history.json" in visitor.said_of_loading()


NO_NAME = "“{}” is not the name of a model on the Hub; write USER/NAME or USER/NAME@REVISION."
UNKNOWN = {
    "nothing": NO_NAME.format("nothing"),
    "": NO_NAME.format(""),
    "<img src=x onerror=alert(1)>": NO_NAME.format("<img src=x onerror=alert(1)>"),
    "ada/none": "The Hub has no public model ada/none: check the name; a private one cannot be loaded here.",
    "ada/three@v9": "ada/three has no revision v9; name a branch, tag or commit that it has.",
}


def test_a_name_that_means_no_model_is_told_in_one_sentence(hub, visit):
    for name, said in UNKNOWN.items():
        visitor = visit(f"/?model={name}")
        assert visitor.said_of_loading() == said
    visitor.write()
    assert visitor.written() == expected("ada/one", "ada/two")


def test_what_the_hub_says_of_a_model_is_shown_as_text(hub, visit):
    markup = "<img src=x onerror=alert(1)>"

    def answer(proper):
        said = json.loads((response := proper()).body)
        index = [{"results": [{"metrics": [{"name": markup, "value": 1}]}]}]
        said["cardData"] = {"license": markup, "model-index": index}
        return Response(200, json.dumps(said).encode(), response.headers)

    hub.on("GET /api/models/ada/three", answer)
    visitor = visit("/?model=ada/three")
    visitor.page.locator("#load-go").wait_for()
    shown = visitor.page.locator("#load-card").inner_text().splitlines()[1]
    assert shown == f"{markup}: 1.0000 · licence: {markup}"
    assert visitor.page.locator("#load-card img").count() == 0 and visitor.errors == []


RECORDS = {
    "holdout": make_record((2.0, 1.2345678, 1.75)),
    "windows": make_record(text="a book", protocol="windows"),
    "unseen": unseen_record(),
    "none": None,
    "two runs": make_joined_record((2.0, 1.5, 1.75), (1.4, 1.3)),
}


@pytest.mark.parametrize("license", ["mit", "", "not-stated"])
def test_the_page_describes_a_loaded_model_as_python_does(visit, license):
    visitor, commit = visit(), "5" * 40
    for cell, record in zip(("rnn", "lstm", "gru", "lstm", "gru"), RECORDS.values(), strict=True):
        config = make_config(cell)
        found = {"repo": "ada/tiny", "commit": commit, "address": "x", "license": license, "sizes": {WEIGHTS: 9}}
        fields = json.loads(config.to_json("f" * 64))
        told = {name: value for name, value in fields.items() if name not in ("model_type", "format_version")}
        lm = {"config": told, "history": record, "parameters": config.parameters, "vocab": list(config.vocab)}
        script = "async ([found, lm]) => (await import('./load.js')).describeModel(found, lm)"
        described = visitor.page.evaluate(script, [found, lm])
        model = PageModel("ada/tiny", config, 9, "f" * 64, record, license, f"ada/tiny@{commit}", address="x")
        (expected_entry,) = page_data([model])["models"]
        history = None if record is None else join_runs(record)  # a page in one file has shorter numbers
        named = {"name": "ada/tiny@5555555", "loadedAs": f"ada/tiny@{commit}", "history": history}
        assert described == expected_entry | named


def test_the_lines_in_the_card_put_the_model_into_any_page(hub, context, tmp_path):
    folder = save(MODELS["ada/one"], tmp_path)
    push_folder(folder, "ada/one", space="ada/page")
    (script,) = re.findall("```html\n(.*?)```", hub.repos["ada/one"].files["README.md"].decode(), re.DOTALL)
    page_source = f"<!doctype html><body>{script.replace('https://huggingface.co', hub.url)}"
    hub.add_repo("ada/blog", {"index.html": page_source.encode()}, kind="space", sdk="static")
    page = context.new_page()
    page.goto(hub.space_url("ada/blog"))
    text = make_lm("lstm").generate("", 300, temperature=0.8, seed=7)
    page.wait_for_function("(text) => document.body.textContent.includes(text)", arg=text)
    page.close()


def test_a_page_from_the_disk_says_that_it_loads_no_other_model(context, tmp_path):
    file = tmp_path / "page.html"
    file.write_bytes(export_html([PageModel.from_model("one", MODELS["ada/one"])]))
    page = context.new_page()
    page.goto(f"{file.as_uri()}?model=ada/three")
    said = "This page is a file that holds its models: it loads no other from the Hub."
    page.locator("#notices").get_by_text(said).wait_for()
    page.get_by_role("tab", name="Learn").click()
    assert page.locator("#notices").get_by_text(said).count() == 1  # which is true of every view
    assert page.locator("#load").count() == 0
    page.close()


def test_the_page_is_of_use_inside_another_page(hub, context):
    page = context.new_page()
    hub.add_repo("ada/course", {"index.html": b"<!doctype html><h1>Course</h1>"}, kind="space", sdk="static")
    page.goto(hub.space_url("ada/course"))
    address = f"{hub.space_url('ada/page')}/?embed=write"
    page.evaluate(
        "(src) => { const f = document.createElement('iframe'); f.src = src; document.body.append(f); }", address
    )
    frame = page.frame_locator("iframe")
    frame.locator("#write-form:not([inert])").wait_for()  # before, nobody can type
    frame.locator("#prompt").fill(PROMPT)
    frame.locator("#seed").fill(SEED)
    frame.locator("#length").fill(str(LENGTH))
    frame.locator("#generate").click()
    frame.locator("#output-b .heat-text").get_by_text(expected("ada/two")[0][-1]).last.wait_for()
    assert not frame.locator("header").is_visible()
    page.close()
