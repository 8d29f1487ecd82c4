"""The events that concern several views of the page."""

import gradio as gr
import pytest
from loops import run_async
from models import make_lm

from charlm.analysis.inspection import INSPECTIONS_AT_ONCE
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


def test_start_from_offers_the_models_that_have_come_since_the_page_was_built(page, registry):
    (open_page,) = handlers(page, "reopen")
    (event,) = [each for each in page.fns.values() if each.fn is open_page]
    registry.put(ServedModel("ada/poems", make_lm(), "hub"))
    start = [number for number, output in enumerate(event.outputs) if output.elem_id == "train-start"]
    (offered,) = (open_page("view=train&start=ada/poems", [])[number] for number in start)
    assert offered["choices"] == [("random weights", ""), ("small", "small"), ("ada/poems", "ada/poems")]
    assert offered["value"] == "ada/poems"


def test_all_that_reads_texts_waits_in_one_queue(page):
    wanted = {"look", "show_unit", "find_units", "show", "inspect"}  # `show` compares effective contexts
    places = ("charlm.web.views.inside", "charlm.web.answers.api")
    named = [each for each in page.fns.values() if each.fn and each.fn.__name__ in wanted]
    reading = [each for each in named if each.fn.__module__ in places]
    assert {each.fn.__name__ for each in reading} == wanted
    assert {(each.concurrency_id, each.concurrency_limit) for each in reading} == {("inspect", INSPECTIONS_AT_ONCE)}
