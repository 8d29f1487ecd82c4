"""The events that concern several views of the page."""

import re

import gradio as gr
import pytest
from browser import ROOT
from gradio.state_holder import SessionState
from loops import run_async
from models import make_lm, make_model, make_record

from charlm.analysis.inspection import INSPECTIONS_AT_ONCE
from charlm.errors import HubError
from charlm.lm import CharLM
from charlm.web.models import MOST_VISITOR_MODELS, ModelRegistry, ServedModel
from charlm.web.page import build_page

pytestmark = pytest.mark.slow  # Gradio is imported


@pytest.fixture
def registry():
    return ModelRegistry([ServedModel("small", make_lm(), "folder")])


@pytest.fixture
def page(registry):
    async def build():  # inside of an event loop: outside of one, Gradio makes loops that nobody closes
        return build_page(registry, "cpu")

    return run_async(build())


def handlers(page, elem_id):
    """The functions of the events that a component triggers, by its id."""
    (component,) = [number for number, block in page.blocks.items() if getattr(block, "elem_id", None) == elem_id]
    events = [each for each in page.fns.values() if component in [number for number, _ in each.targets]]
    return [each.fn for each in events if each.fn is not None]


def test_a_model_that_was_evicted_is_not_chosen_for_writing_and_the_reason_is_said(page, registry):
    (write_with_it,) = handlers(page, "train-write")
    for number in range(MOST_VISITOR_MODELS + 1):
        registry.add_visitor_model(ServedModel(f"mine {number}", make_lm(), "trained"))
    known, chosen, *_ = write_with_it("mine 1", [])
    assert known == ["mine 1"] and chosen["value"] == "mine 1"
    with pytest.raises(gr.Error) as refused:
        write_with_it("mine 0", [])
    assert refused.value.message == (
        "mine 0 is no longer kept here, since visitors have added 8 others: download it, or train it again"
    )


def test_the_fields_that_a_lesson_may_ask_for_are_on_both_pages(page):
    document = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(?:set|choose) ID .*?\((.*?)\)", document, re.MULTILINE)
    named = {each for row in rows for each in re.findall("`(.+?)`", row)}
    assert {"temperature", "inspect-model-a", "inspect-model-b"} <= named
    exported = (ROOT / "charlm" / "browser" / "page.html").read_text(encoding="utf-8")
    assert named <= set(re.findall(r'\bid="([\w-]+)"', exported))
    assert named <= {getattr(block, "elem_id", None) for block in page.blocks.values()}


def opened(page, address, elem_id, own=()):
    """The update of a component when the page is opened at an address by a visitor with models of their own."""
    (open_page,) = handlers(page, "reopen")
    (event,) = [each for each in page.fns.values() if each.fn is open_page]
    updates = zip(event.outputs, open_page(address, list(own)), strict=True)
    return {name: value for output, update in updates if output.elem_id == elem_id for name, value in update.items()}


def test_start_from_offers_the_models_that_have_come_since_the_page_was_built_and_those_of_the_visitor(page, registry):
    registry.put(ServedModel("ada/poems", make_lm(), "hub"))
    for name in ("mine", "of-others"):
        registry.add_visitor_model(ServedModel(name, make_lm(), "trained"))
    choices = [("random weights", ""), ("small", "small"), ("ada/poems", "ada/poems")]
    offered = opened(page, "view=train&start=ada/poems", "train-start")
    assert (offered["choices"], offered["value"]) == (choices, "ada/poems")
    offered = opened(page, "view=train", "train-start", ["mine"])
    assert offered["choices"] == [*choices, ("mine", "mine")] and "value" not in offered
    offered = opened(page, "view=train&start=mine", "train-start")  # as Back opens it
    assert (offered["choices"], offered["value"]) == ([*choices, ("mine", "mine")], "mine")
    (write_with_it,) = handlers(page, "train-write")
    assert write_with_it("mine", [])[-1]["choices"] == [*choices, ("mine", "mine")]


def test_one_download_holds_one_thread_and_shows_that_it_goes_on(page):
    (load,) = [each for each in page.fns.values() if getattr(each.fn, "__name__", "") == "load"]
    assert load.concurrency_limit == 1  # the others wait in Gradio's queue, and not each on a thread
    assert [each.elem_id for each in load.show_progress_on] == ["load-card"] and load.show_progress == "full"


def test_the_slider_reaches_as_far_as_the_epoch_of_a_link(page, registry):
    model = make_model()
    longer = CharLM(model.config, model.weights, make_record([2.0] * 16), device="cpu")
    registry.put(ServedModel("longer", longer, "folder"))
    for address, expected in {
        "view=learn&models=longer&epoch=16": {"maximum": 16, "value": 16},
        "view=learn&models=longer&epoch=99": {"maximum": 16, "value": 16},
        "view=learn&models=longer": {"maximum": 16},
        "view=learn&epoch=2": {"maximum": 3, "value": 2},
        "view=learn": {},
        "view=train": {},
    }.items():
        assert opened(page, address, "epoch") == {"__type__": "update", **expected}


def test_all_that_reads_texts_waits_in_one_queue(page):
    wanted = {"look", "find_units", "show", "inspect"}  # `show` compares effective contexts
    places = ("charlm.web.views.inside", "charlm.web.answers.api")
    named = [each for each in page.fns.values() if each.fn and each.fn.__name__ in wanted]
    reading = [each for each in named if each.fn.__module__ in places]
    assert {each.fn.__name__ for each in reading} == wanted
    assert {(each.concurrency_id, each.concurrency_limit) for each in reading} == {("inspect", INSPECTIONS_AT_ONCE)}


async def ask(page, event, values, state):
    """Let the page answer an event. state: what Gradio knows of the session."""
    request = gr.Request(session_hash="visitor")
    answer = await page.process_api(event, values, state=state, request=request)
    if answer["iterator"] is not None:
        await answer["iterator"].aclose()


def events_of_the_page(page):
    """The events with inputs that the page sends to a function."""
    events = [each for each in page.fns.values() if each.fn and each.inputs and each.api_visibility == "private"]
    assert len(events) > 20
    return events


def test_a_visitors_own_model_is_used_although_gradio_has_forgotten_which_were_offered(page, registry):
    """Gradio keeps the choices that it has sent for some sessions, and drops those that were used least lately."""
    registry.add_visitor_model(ServedModel("mine", make_lm(), "trained"))
    choices = [("small", "small")]
    offered = [each for each in page.blocks.values() if getattr(each, "choices", [])[-1:] == choices]
    assert len(offered) == 7  # A and B of Write and of Look inside, Learn, the contexts, Train's start

    def chosen(component):
        own = ["mine"] if isinstance(component.value, list) else "mine"
        return own if component in offered else component.value

    refused = []

    async def use():
        for event in events_of_the_page(page):
            try:
                await ask(page, event, [chosen(each) for each in event.inputs], SessionState(page))
            except gr.Error as error:
                refused.append(error.message)

    run_async(use())
    assert [message for message in refused if "choices" in message] == []


WRONG = (None, True, 7, -1e300, "x", [], [7], [[]], {}, {"run": {}})


def test_whatever_an_event_gets_is_answered_or_refused_with_a_sentence(page, monkeypatch):
    def unreachable(*args):
        raise HubError("the Hub cannot be reached")

    monkeypatch.setattr("charlm.hub.search", unreachable)
    monkeypatch.setattr("charlm.hub.describe_public", unreachable)
    monkeypatch.setattr("charlm.web.answers.inside.WRITTEN", 10)
    failed = []

    async def send_all():
        state = SessionState(page)
        for event in events_of_the_page(page):
            for place, component in enumerate(event.inputs):
                is_json = isinstance(component, gr.JSON)  # Gradio itself refuses other values of one
                for wrong in (each for each in WRONG if not is_json or isinstance(each, list | dict | None)):
                    values = [each.value for each in event.inputs]
                    values[place] = wrong
                    try:
                        await ask(page, event, values, state)
                    except gr.Error:
                        continue
                    except Exception as error:
                        failed.append((event.fn.__name__, place, wrong, repr(error)))

    run_async(send_all())
    assert failed == []


def writers_of(page, elem_id):
    """The events with a function that write into a component."""

    def shows(component):
        return component.elem_id == elem_id or f'id="{elem_id}"' in str(getattr(component, "html_template", ""))

    return [each for each in page.fns.values() if each.fn and any(map(shows, each.outputs))]


def triggers_of(page, event):
    """What begins an event: its own targets, or those of the event that it follows."""
    return event.targets if event.trigger_after is None else triggers_of(page, page.fns[event.trigger_after])


@pytest.mark.parametrize("elem_id", ["output-a", "output-b"])
def test_what_begins_to_write_a_text_ends_whatever_else_writes_it(page, elem_id):
    """Otherwise an older answer could replace a newer one, or two answers could be mixed."""
    writers = writers_of(page, elem_id)
    assert len(writers) == 4
    for writer in writers:
        for trigger in triggers_of(page, writer):
            ended = {number for each in page.fns.values() if trigger in each.targets for number in each.cancels}
            assert ended >= {other._id for other in writers} - {writer._id}
            assert writer._id not in ended


def test_no_event_of_a_trigger_holds_up_those_that_it_ends(page):
    """Gradio's client runs the events of a trigger in their order, and begins none before the one before has ended."""
    triggers = {trigger for each in page.fns.values() if each.cancels for trigger in each.targets}
    assert len(triggers) > 5
    for trigger in triggers:
        events = [each for each in page.fns.values() if trigger in each.targets]
        last = max(place for place, each in enumerate(events) if each.cancels)
        assert [each.fn.__name__ for each in events[:last] if each.fn] == []


def test_what_is_read_last_is_shown_last(page):
    (reader,) = writers_of(page, "seen")
    assert reader.trigger_mode == "always_last" and not reader.cancels


def test_a_screen_reader_hears_what_comes_to_stand_beside_the_results(page):
    changed = {"texts-changed", "temperatures-changed", "seen-changed", "contexts-changed", "train-changed"}
    for role, expected in {"status": {*changed, "load-card", "contexts-reading"}, "alert": {"notices"}}.items():
        heard = [
            each for each in page.blocks.values() if f'<div role="{role}"></div>' in vars(each).get("html_template", "")
        ]
        assert {each.elem_id for each in heard} == expected
