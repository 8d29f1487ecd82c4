"""The views of the page, walked through as a person does, in a real browser whose network ends at this machine."""

import html
import json
import os
import random
import re
import string
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from threading import Event

import pytest
from browser import CLICK_WHEN_WRITTEN, PATIENCE, ROOT, Visit, check_keyboard, serious_violations, text_fragment

from charlm.lm import CharLM
from charlm.model.cells import CELLS
from charlm.model.history import best_epoch, join_runs
from charlm.web.answers.examples import SCENE
from charlm.web.answers.inside import DIFFERENCE, WRITTEN
from charlm.web.training.texts import make_text

WEIGHTS = ROOT / "weights"
VIEWS = {"write": "Write", "learn": "Learn", "inside": "Look inside", "train": "Train"}
SEEN = {"write": "#output-a .heat-text", "learn": "#loss-curves .curves-plot svg", "inside": "#seen .heat-text span"}


def shown_at(app, view, **parameters):
    """The address of a view. *Look inside* reads a part of its text there, since the whole has 4,000 elements."""
    address = f"{app}/?{urllib.parse.urlencode({**parameters, 'view': view})}"
    return address + text_fragment(SCENE[:400]) if view == "inside" else address


def take_picture(visitor, name):
    """Make the README's picture of a view, if asked to."""
    if folder := os.environ.get("CHARLM_PICTURES"):
        visitor.page.evaluate("document.activeElement.blur()")
        visitor.page.set_viewport_size({"width": 1280, "height": 800})
        visitor.page.wait_for_timeout(500)  # curves are drawn again
        visitor.page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def shade_of(visitor, elem_id, place):
    span = visitor.page.locator(f"#{elem_id} .heat-text span").nth(place)
    return float(span.evaluate("span => span.style.getPropertyValue('--shade')"))


def downloaded(visitor, click):
    with visitor.page.expect_download() as waiting:
        click()
    download = waiting.value
    return download.suggested_filename, Path(download.path()).read_bytes()


# The end of a stream of results is read half a second after the answer to the next event that is sent.
LATE_END = """
const real = window.fetch;
let release;
window.fetch = async (input, init) => {
  const address = String(input.url ?? input), response = await real(input, init);
  if (address.includes("/queue/join") && window.endIsHeld) setTimeout(release, 500);
  if (!address.includes("/queue/data")) return response;
  const late = new TransformStream({ async transform(piece, stream) {
    const text = new TextDecoder().decode(piece), end = text.lastIndexOf("data:", text.indexOf("close_stream"));
    if (!text.includes("close_stream")) return stream.enqueue(piece);
    stream.enqueue(new TextEncoder().encode(text.slice(0, end)));
    window.endIsHeld = true;
    await new Promise((resolve) => (release = resolve));
    window.endIsHeld = false;
    stream.enqueue(new TextEncoder().encode(text.slice(end)));
  } });
  return new Response(response.body.pipeThrough(late), response);
};
"""


# `cut()` ends the stream of results, as a proxy does that closes the connection.
CUTTABLE = """
const real = window.fetch;
window.fetch = async (input, init) => {
  const response = await real(input, init);
  if (!String(input.url ?? input).includes("/queue/data")) return response;
  const cuttable = new TransformStream({ start: (stream) => (window.cut = () => stream.terminate()) });
  return new Response(response.body.pipeThrough(cuttable), response);
};
"""


# Notes which events Gradio's client begins and cancels, by their ids.
NOTED = """
const real = window.fetch;
window.begun = [];
window.cancelled = [];
window.fetch = async (input, init) => {
  const address = String(input.url ?? input);
  if (address.endsWith("/cancel")) window.cancelled.push(JSON.parse(init.body).event_id);
  const response = await real(input, init);
  if (address.includes("/queue/join")) window.begun.push((await response.clone().json()).event_id);
  return response;
};
"""


def test_an_event_is_not_lost_if_it_is_sent_while_the_stream_of_results_ends(app, browser):
    visitor = Visit(browser.new_context().new_page())
    visitor.page.add_init_script(LATE_END)
    visitor.open(app)
    for length in (20, 30, 40):
        visitor.wait_until("document.querySelector('#generate').disabled === false")
        visitor.fill("length", str(length))
        visitor.generate(length)
        visitor.wait_until("window.endIsHeld")
    assert visitor.errors == []
    visitor.page.context.close()


class TestWrite:
    def test_each_character_is_coloured_by_its_surprisal(self, app, visit):
        visitor = visit(app)
        for elem_id, value in {"prompt": "ROMEO:\n", "seed": "3", "length": "400"}.items():
            visitor.fill(elem_id, value)
        visitor.generate(400)
        for side, name in (("a", "shakespeare-lstm"), ("b", "shakespeare-rnn")):
            lm = CharLM.from_pretrained(WEIGHTS / name)
            surprisals = lm.score("ROMEO:\n" + visitor.text(f"output-{side}"))[-400:]
            for place in (0, 10, 399):
                assert shade_of(visitor, f"output-{side}", place) == pytest.approx(
                    min(surprisals[place] / 7.8, 1), abs=0.01
                )
            assert "bits per character" in visitor.text(f"progress-{side}")
        visitor.page.locator("#output-a .heat-text").evaluate("text => text.scrollTop = 0")
        visitor.page.locator("#output-b .heat-text").evaluate("text => text.scrollTop = 0")
        visitor.page.locator("#output-a .heat-text span").nth(35).click()
        visitor.page.locator("#alternatives button").first.wait_for()
        take_picture(visitor, "write")

        background = "span => getComputedStyle(span).backgroundColor"
        first = visitor.page.locator("#output-a .heat-text span").first
        coloured = first.evaluate(background)
        visitor.page.locator("#colours input").uncheck()
        assert first.evaluate(background) != coloured

    def test_a_shared_link_opens_with_the_same_text(self, app, visit):
        first = visit(app)
        first.choose("model-b", "shakespeare-gru")
        for elem_id, value in {"prompt": "Apple", "length": "120", "temperature": "0.6"}.items():
            first.fill(elem_id, value)
        first.generate(120)
        first.page.locator("#share").click()
        first.wait_until("document.querySelector('#link textarea, #link input')?.value.includes('seed=')")
        link = first.page.locator("#link").locator("textarea, input").input_value()
        assert urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)["prompt"] == ["Apple"]

        second = visit(link)
        second.wait_for_text("output-a", 120)
        second.wait_for_text("output-b", 120)
        for elem_id in ("output-a", "output-b", "prompt"):
            assert second.text(elem_id) == first.text(elem_id)
        assert "CharGRU" in second.text("about-b")

    def test_a_link_holds_a_long_prompt_outside_its_query_and_one_that_is_too_long_for_it_is_told(self, app, visit):
        visitor = visit(app)
        prompt = SCENE[:1500]
        for elem_id, value in {"prompt": prompt, "length": "30", "seed": "1"}.items():
            visitor.fill(elem_id, value)
        visitor.generate(30)
        visitor.wait_until("location.hash.startsWith('#prompt=')")
        assert len(visitor.page.evaluate("location.search")) < 200
        visitor.page.locator("#share").click()
        visitor.wait_until("document.querySelector('#link textarea, #link input')?.value.includes('#prompt=')")
        other = visit(visitor.page.locator("#link").locator("textarea, input").input_value())
        other.wait_for_text("output-a", 30)
        assert (other.text("prompt"), other.text("output-a")) == (prompt, visitor.text("output-a"))

        visitor.fill("prompt", "".join(random.Random(1).choices(string.ascii_letters, k=9000)))
        visitor.page.locator("#generate").click()
        visitor.wait_until("location.hash === '' && location.search.includes('seed=1')")
        assert len(visitor.page.evaluate("location.search")) < 200
        visitor.page.locator("#share").click()
        said = "The prompt is too long for a link."
        visitor.wait_until("(said) => document.querySelector('#link textarea, #link input')?.value === said", arg=said)
        visitor.page.locator("#link-view summary").click()
        visitor.page.get_by_text("The prompt is too long for a link, which opens without it.").wait_for()

    def test_a_link_that_cannot_be_opened_says_so(self, app, visit):
        visitor = visit(app + "/?view=write&a=nobody&b=nobody&prompt=x&length=9&temperature=1&top_k=0&top_p=1&seed=1")
        visitor.wait_for_words("notices", "The link cannot be opened here: there is no model 'nobody'")
        assert "Generate" in visitor.page.locator("#output-a .heat-text").get_attribute("data-empty")
        assert visitor.text("output-a") == ""

    def test_texts_whose_settings_have_changed_say_so_and_are_continued_and_shared_as_they_began(self, app, visit):
        visitor = visit(app)
        for elem_id, value in {"prompt": "Apple", "length": "60", "seed": "011"}.items():
            visitor.fill(elem_id, value)
        visitor.generate(60)
        assert visitor.text("texts-changed") == ""
        visitor.page.locator("#share").click()
        visitor.wait_until("document.querySelector('#link textarea, #link input')?.value.includes('seed=')")
        visitor.choose("model-a", "shakespeare-gru")
        visitor.fill("temperature", "0.5")
        visitor.wait_for_words("texts-changed", "Changed since: model A, temperature.")

        visitor.page.locator("#continue").click()
        visitor.page.locator("#link").wait_for(state="hidden")  # it opens the texts before
        visitor.wait_for_text("output-a", 120)
        lm = CharLM.from_pretrained(WEIGHTS / "shakespeare-lstm")
        assert visitor.text("output-a") == lm.generate("Apple", 120, seed=11)
        visitor.page.locator("#share").click()
        visitor.wait_until("document.querySelector('#link textarea, #link input')?.value.includes('seed=')")
        link = visitor.page.locator("#link").locator("textarea, input").input_value()
        shared = urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)
        assert (shared["a"], shared["length"], shared["seed"]) == (["shakespeare-lstm"], ["120"], ["11"])
        assert "model A, temperature" in visitor.text("texts-changed")

        visitor.generate(60)
        visitor.wait_for_words("progress-a", "shakespeare-gru")
        visitor.wait_until("document.getElementById('texts-changed').innerText.trim() === ''")

    def test_a_text_that_is_still_written_is_continued_at_once_and_its_link_is_hidden_before(self, app, browser):
        visitor = Visit(browser.new_context().new_page())
        visitor.page.add_init_script(NOTED)
        visitor.open(app)
        visitor.page.locator("#share").click()
        visitor.wait_until("document.querySelector('#link textarea, #link input')?.value.includes('temperature=')")
        for elem_id, value in {"seed": "7", "length": "5000"}.items():
            visitor.fill(elem_id, value)
        visitor.page.evaluate("begun.length = 0")
        visitor.page.evaluate(CLICK_WHEN_WRITTEN, "continue")
        visitor.page.locator("#generate").click()
        visitor.wait_until("document.querySelectorAll('#output-a .heat-text > *').length >= 50")
        assert not visitor.page.locator("#link").is_visible()
        written = "document.querySelectorAll('#output-a .heat-text > *').length"
        visitor.wait_until(f"begun.length > 1 && (cancelled.length > 0 || {written} === 5000)")
        run, _ = visitor.page.evaluate("begun")
        assert visitor.page.evaluate("cancelled") == [run]
        visitor.wait_until(f"{written} > 5000")  # what continues it is not ended in its place
        assert visitor.page.evaluate("cancelled") == [run]
        visitor.page.context.close()

    def test_a_text_that_cannot_be_written_is_not_waited_for(self, app, visit):
        visitor = visit(app)
        visitor.fill("seed", "none")
        visitor.page.locator("#generate").click()
        visitor.page.get_by_text("seed is 'none'; it must be a whole number").first.wait_for()
        visitor.wait_until("document.querySelector('#view-write .heat.waiting') === null")

    def test_texts_with_settings_of_their_own_have_no_link(self, app, visit):
        visitor = visit(app)
        visitor.fill("length", "30")
        for seed in ("1", "2"):
            visitor.fill("seed", seed)
            visitor.generate(30)
            visitor.wait_until("(seed) => location.search.includes(`seed=${seed}`)", arg=seed)
        said = "A link holds one set of settings: show branches of the same text on both sides."
        for side, link in {"A": said, "B": "seed=1"}.items():
            visitor.page.get_by_role("button", name=f"Text {side}, text 1 as drawn").click()
            visitor.page.locator("#share").click()
            shows = "(link) => document.querySelector('#link textarea, #link input')?.value.includes(link)"
            visitor.wait_until(shows, arg=link)

    def test_one_click_shows_three_temperatures(self, app, visit):
        visitor = visit(app)
        for elem_id, value in {"prompt": "Coffee", "length": "80", "seed": "5"}.items():
            visitor.fill(elem_id, value)
        visitor.page.locator("#board").click()
        for side, name in (("a", "shakespeare-lstm"), ("b", "shakespeare-rnn")):
            lm = CharLM.from_pretrained(WEIGHTS / name)
            for temperature in (0.5, 1.0, 1.5):
                elem_id = f"board-{side}-{temperature:g}".replace(".", "-")
                visitor.wait_for_text(elem_id, 80)
                assert visitor.text(elem_id) == lm.generate("Coffee", 80, temperature, seed=5)

    def test_a_slow_pace_lets_the_text_appear_slowly_and_stop_keeps_what_was_shown(self, app, visit):
        visitor = visit(app)
        visitor.fill("seed", "7")
        visitor.page.get_by_text("More settings").click()
        visitor.page.get_by_label("to read aloud").check()
        visitor.page.locator("#generate").click()
        visitor.wait_for_words("progress-a", "500 characters")  # all of it is there
        visitor.click_once("stop", "document.querySelectorAll('#output-a .heat-text > *').length >= 5")
        shown = len(visitor.text("output-a"))
        assert 5 <= shown < 400
        visitor.fill("length", "50")
        visitor.page.get_by_label("as fast as it comes").check()
        visitor.page.locator("#continue").click()
        visitor.wait_for_text("output-a", shown + 50)
        lm = CharLM.from_pretrained(WEIGHTS / "shakespeare-lstm")
        assert visitor.text("output-a") == lm.generate("ROMEO:\n", shown + 50, seed=7)

    def test_a_click_fills_in_an_example_prompt(self, app, visit):
        visitor = visit(app)
        for prompt in ("Apple", "University", "Seoul", "Coffee", "Computer"):
            visitor.page.get_by_role("button", name=prompt, exact=True).click()
            visitor.wait_until("text => document.querySelector('#prompt textarea').value === text", arg=prompt)

    def test_a_model_of_names_brings_prompts_and_a_text_of_names(self, app, visit):
        visitor = visit(app)
        has_prompt = "text => document.querySelector('#prompt textarea').value === text"
        sample = best_epoch(CharLM.from_pretrained(WEIGHTS / "names-gru").history)["sample"]
        visitor.wait_until(has_prompt, arg="ROMEO:\n")
        visitor.choose("model-a", "names-gru")
        visitor.wait_until(has_prompt, arg=sample[:3])
        visitor.page.get_by_role("button", name=sample[:3], exact=True).wait_for()
        assert not visitor.page.get_by_role("button", name="Apple", exact=True).is_visible()
        # 1) what somebody has typed stays
        visitor.fill("prompt", "Ale")
        visitor.choose("model-a", "shakespeare-gru")
        visitor.page.get_by_role("button", name="Apple", exact=True).wait_for()
        assert visitor.text("prompt") == "Ale"
        # 2) a text to look into
        visitor.choose_view("Look inside")
        visitor.wait_until("document.querySelector('#seen-a .heat-text')?.textContent.startsWith('SHEPHERD:')")
        visitor.choose("inspect-model-a", "names-gru")
        visitor.wait_until("text => document.querySelector('#seen-a .heat-text').textContent === text", arg=sample)
        assert visitor.text("inspect-text") == visitor.text("seen-b") == sample
        # 3) an address with a model and no text
        other = visit(app + "/?view=inside&a=names-gru&b=names-gru")
        other.wait_until("text => document.querySelector('#seen-a .heat-text')?.textContent === text", arg=sample)

    def test_a_text_can_be_saved(self, app, visit):
        visitor = visit(app)
        for elem_id, value in {"seed": "3", "length": "100"}.items():
            visitor.fill(elem_id, value)
        visitor.generate(100)
        name, content = downloaded(visitor, visitor.page.locator("#output-b .heat-save").click)
        assert name == "shakespeare-rnn-3.txt"
        assert content.decode() == visitor.text("output-b")


class TestLearn:
    def test_the_curves_of_all_chosen_models_are_in_one_plot_with_what_they_say(self, app, visit):
        visitor = visit(app + "/?view=learn")
        visitor.page.locator(SEEN["learn"]).wait_for()
        legend = visitor.text("loss-curves")
        for name in ("shakespeare-lstm", "shakespeare-rnn", "shakespeare-gru"):
            best = join_runs(json.loads((WEIGHTS / name / "history.json").read_text(encoding="utf-8")))["best"]
            assert f"{name}, training" in legend
            assert f"{name}, best: {best['val_loss']:.4f} at epoch {best['epoch']}" in legend
            assert f"{best['val_loss']:.4f}" in visitor.text("reading")
        take_picture(visitor, "learn")

    def test_the_homeworks_leak_is_shown(self, app, visit):
        visitor = visit(app + "/?view=learn")
        for name in ("shakespeare-lstm", "shakespeare-rnn", "shakespeare-gru"):
            visitor.page.locator("#learn-models").get_by_label(name).uncheck()
        for name in ("homework-rnn", "homework-lstm"):
            visitor.page.locator("#learn-models").get_by_label(name).check()
        visitor.wait_for_words("loss-curves", "homework-lstm, unseen text")
        visitor.wait_for_words("reading", "leak")

    def test_the_slider_goes_through_training(self, app, visit):
        visitor = visit(app + "/?view=learn")
        visitor.fill("epoch", "1")
        visitor.wait_for_words("samples", "after epoch 1:")
        record = json.loads((WEIGHTS / "shakespeare-gru" / "history.json").read_text(encoding="utf-8"))
        assert join_runs(record)["epochs"][0]["sample"] in visitor.page.locator("#samples").text_content()

    def test_units_axes_and_scales(self, app, visit):
        visitor = visit(app + "/?view=learn")
        for label, title in {"perplexity": "perplexity", "characters read": "characters read"}.items():
            visitor.page.get_by_label(label, exact=True).check()
            visitor.wait_for_words("loss-curves", title)
        visitor.page.get_by_label("log", exact=True).check()
        visitor.wait_until("document.querySelector('#loss-curves .curves').dataset.y === 'log'")

    def test_the_figures_and_the_picture_can_be_saved(self, app, visit):
        visitor = visit(app + "/?view=learn")
        visitor.page.locator(SEEN["learn"]).wait_for()
        name, content = downloaded(visitor, visitor.page.locator("#save-csv").click)
        assert name == "curves.csv"
        assert content.decode().startswith("model,epoch,train_loss")
        records = [json.loads((WEIGHTS / f"shakespeare-{cell}" / "history.json").read_text()) for cell in CELLS]
        assert len(content.decode().splitlines()) == 1 + sum(len(join_runs(record)["epochs"]) for record in records)
        name, content = downloaded(visitor, visitor.page.locator("#save-png").click)
        assert name.endswith(".png")
        assert content.startswith(b"\x89PNG")


IS_TRACED = "([id, count]) => document.querySelectorAll(`#${id} .heat-text .traced`).length === count"
EXPLAINED = """(id) => {
    const find = (selector) => [...document.querySelectorAll(`#${id} ${selector}`)];
    return {
        cursor: Number(find(".heat-text .cursor")[0].dataset.place),
        figures: find(".bar-row .bar-figure").map((figure) => figure.innerText),
        traces: find(".heat-text .traced").map((span) => Number(span.style.getPropertyValue("--trace"))),
        line: find(".inside-influence")[0].innerText,
    };
}"""


class TestInside:
    def test_a_text_is_there_and_pointing_at_it_shows_what_both_models_expected_and_what_moved_them(self, app, visit):
        visitor = visit(app + "/?view=inside", 1280, 720)
        page, names = visitor.page, {"seen-a": "shakespeare-lstm", "seen-b": "shakespeare-gru"}
        visitor.choose("inspect-model-b", "shakespeare-gru")
        visitor.wait_for_words("seen-b", "shakespeare-gru")
        read = {name: CharLM.from_pretrained(WEIGHTS / name, device="cpu") for name in names.values()}
        text = visitor.text("seen-a")
        seen = {name: lm.inspect(text) for name, lm in read.items()}
        assert visitor.text("seen-b") == text and text.startswith("SHEPHERD:")

        def check(place):
            """Both models explain a character."""
            for elem_id, name in names.items():
                visitor.wait_until(IS_TRACED, arg=[elem_id, place])
                shown = page.evaluate(EXPLAINED, elem_id)
                assert shown["cursor"] == place
                assert shown["figures"] == [f"{100 * p:.1f} %" for p in seen[name].probabilities[place]]
                norms = read[name].influence_at(seen[name], place, 300)
                assert shown["traces"] == pytest.approx((norms / norms.max()).tolist(), abs=0.01)
                assert "Half of the influence on this prediction came from the last" in shown["line"]

        # 1) on the screen of a small laptop the text and what is known of a character are in sight
        for elem_id in names:
            page.locator(f"#{elem_id} .bar-row").first.wait_for()
            below = "(id) => document.querySelector(`#${id} .inside-influence`).getBoundingClientRect().bottom"
            assert page.evaluate(below, elem_id) <= 720
        for elem_id, other, top in (("seen-a", "seen-b", 60), ("seen-b", "seen-a", 0)):  # the texts scroll together
            page.locator(f"#{elem_id} .heat-text").evaluate("(text, top) => (text.scrollTop = top)", top)
            scrolled = "([id, top]) => document.querySelector(`#${id} .heat-text`).scrollTop === top"
            visitor.wait_until(scrolled, arg=[other, top])
        # 2) the pointer in one text and the keys in the other explain a character in both
        page.locator("#seen-a .heat-text span").nth(234).hover()
        check(234)
        page.locator("#seen-b .heat-text").focus()
        page.keyboard.press("ArrowRight")
        check(235)
        page.keyboard.press("Enter")  # holds it
        page.locator("#seen-a .heat-text span").nth(100).hover()
        check(235)
        page.keyboard.press("Escape")
        page.locator("#seen-a .heat-text span").nth(101).hover()
        check(101)
        page.locator("#seen-a .heat-text span").nth(235).hover()
        # 3) colours: the difference of the two models, and a gate
        visitor.choose("colour", "difference")
        visitor.wait_until("document.querySelector('#seen-b .heat-text').dataset.kind === 'difference'")
        nats = seen["shakespeare-lstm"].surprisals[40] - seen["shakespeare-gru"].surprisals[40]
        assert shade_of(visitor, "seen-a", 40) == shade_of(visitor, "seen-b", 40)
        assert shade_of(visitor, "seen-a", 40) == pytest.approx(min(abs(nats) / 5, 1), abs=0.03)
        page.locator("#colour input").fill("f 1:505")
        page.keyboard.press("Enter")
        visitor.wait_until("document.querySelector('#seen-a .heat-text').dataset.kind === 'gate'")
        gates = read["shakespeare-lstm"].unit_gates(seen["shakespeare-lstm"], 1, 505).gates
        assert shade_of(visitor, "seen-a", 40) == pytest.approx(gates["f"][40], abs=0.01)
        # 4) the unit at that character, and at the next
        for place in (235, 236):
            shown = [text.replace("−", "-") for text in page.locator("#cell .cell-here").all_inner_texts()]
            expected = [gates[name][place] for name in ("i", "f", "g", "o", "c", "h")]
            assert list(map(float, shown)) == pytest.approx(expected, abs=0.0006)
            page.locator("#cell").focus()
            page.keyboard.press("ArrowRight")
        check(237)
        # 5) a text that is made anew, that of another model B, holds what is held, and Escape lets go of it in both
        page.locator("#seen-a .heat-text span").nth(60).click()
        visitor.choose("inspect-model-b", "shakespeare-rnn")
        visitor.wait_for_words("seen-b", "shakespeare-rnn")
        held = page.locator("#seen-a .held, #seen-b .held")
        assert [each.get_attribute("data-place") for each in held.all()] == ["60", "60"]
        page.locator("#seen-b .heat-text").focus()
        page.keyboard.press("Escape")
        assert held.count() == 0
        visitor.wait_until("!location.search.includes('place=')")

    def test_a_stretch_of_the_text_shows_its_units_and_where_else_they_are_on(self, app, visit):
        visitor = visit(app + "/?view=inside")
        page = visitor.page
        page.locator(SEEN["inside"]).first.wait_for()
        lm = CharLM.from_pretrained(WEIGHTS / "shakespeare-lstm", device="cpu")
        seen = lm.inspect(visitor.text("seen-a"))
        start = seen.text.index("TRAVELLER", 10)
        page.locator("#seen-a .heat-text span").nth(start).hover()
        page.locator("#seen-a .heat-text").focus()
        for _ in range(5):
            page.keyboard.press("Shift+ArrowRight")
        expected = lm.find_pattern(seen, start, start + 6)
        said = f"{len(expected.units)} of 1,024 units are on all along"
        visitor.wait_for_words("pattern", said)
        while "took too long" in visitor.text("pattern"):  # on a busy machine its seconds may not be enough
            page.locator("#pattern .pattern-line").evaluate("line => line.textContent = ''")
            page.locator("#pattern input").dispatch_event("input")
            visitor.wait_for_words("pattern", said)
        assert page.locator("#pattern .pattern-place").count() == len(expected.places) > 0
        page.locator("#pattern .pattern-place").first.click()
        first = expected.places[0]
        picked = page.locator("#seen-a .heat-text .picked")
        assert "".join(picked.all_text_contents()) == seen.text[first[0] : first[1]]
        page.locator("#pattern .pattern-unit").first.click()
        layer, unit = expected.units[0]
        visitor.wait_until("document.querySelector('#seen-a .heat-text').dataset.kind === 'activation'")
        assert page.locator("#colour input").input_value() == f"hidden {layer}:{unit}"
        visitor.wait_for_words("cell", f"Unit {layer}:{unit} of shakespeare-lstm")

    def test_a_text_that_is_being_read_is_not_asked_for_again_and_what_is_asked_last_is_shown_last(self, app, visit):
        visitor = visit(shown_at(app, "inside"))
        visitor.page.locator(SEEN["inside"]).first.wait_for()
        line = visitor.text("seen-line-a")
        visitor.wait_until("document.querySelector('#seen').getAttribute('aria-busy') === 'false'")
        held, text = [], "ROMEO:\nWhat light is this?\n"
        visitor.fill("inspect-text", text)
        visitor.wait_for_words("seen-changed", "Changed since: text.")
        visitor.page.route("**/queue/join*", lambda route: held.append(route), times=1)
        visitor.page.locator("#inspect").click()
        visitor.wait_for_words("seen-line-a", "Reading the text")
        visitor.wait_until("document.getElementById('seen-changed').innerText.trim() === ''")
        assert visitor.page.locator("#seen").get_attribute("aria-busy") == "true"
        visitor.choose("colour", "difference")
        visitor.fill("inspect-text", text + "?")
        visitor.wait_for_words("seen-changed", "Changed since: text.")
        held[0].continue_()
        visitor.wait_until("document.querySelector('#seen-a .heat-text').dataset.kind === 'difference'")
        visitor.wait_until("document.querySelector('#seen').getAttribute('aria-busy') === 'false'")
        assert visitor.text("seen-a") == text
        assert visitor.text("seen-line-a") not in ("Reading the text", line)
        assert "Changed since: text." in visitor.text("seen-changed")

        # one that cannot be read is not waited for
        visitor.page.locator("#colour input").fill("hidden 0:99999")
        visitor.page.keyboard.press("Enter")
        visitor.page.locator(".toast-body").wait_for()
        visitor.wait_until("document.querySelector('#seen').getAttribute('aria-busy') === 'false'")
        visitor.wait_for_words("seen-changed", "Changed since: text, colour.")

    def test_units_are_found_and_what_has_changed_since_is_marked(self, app, visit):
        visitor = visit(app + "/?view=inside")
        visitor.page.locator("#find-units").click()
        visitor.wait_for_words("colour", "units found")
        visitor.wait_until("document.querySelector('#seen-a .heat-text').dataset.kind === 'activation'")
        visitor.page.locator("#colour input").click()
        visitor.page.get_by_role("option").first.wait_for()
        offered = visitor.page.get_by_role("option").all_inner_texts()
        assert any("in a speaker's name" in option for option in offered)
        assert any("position in the line" in option for option in offered)
        visitor.page.get_by_role("option").filter(has_text="in a speaker's name").click()
        take_picture(visitor, "inside")
        visitor.wait_until("document.getElementById('seen-changed').innerText.trim() === ''")

        # another text: what is shown is what is explained, until it is read
        read = "ROMEO:\nWhat light is this?\n" * 3
        visitor.fill("inspect-text", read)
        visitor.wait_for_words("seen-changed", "Changed since: text.")
        visitor.page.locator("#inspect").click()
        visitor.wait_until("document.querySelectorAll('#seen-a .heat-text span').length === 81")
        visitor.wait_for_words("seen-changed", "The units on offer were found before that.")
        visitor.fill("inspect-text", "JULIET: " + "o" * 100)
        visitor.page.locator("#seen-a .heat-text span").nth(34).hover()
        visitor.wait_until(IS_TRACED, arg=["seen-a", 34])
        visitor.wait_for_words("seen-changed", "Changed since: text.")
        visitor.page.locator("#inspect").click()
        visitor.wait_until("document.querySelectorAll('#seen-a .heat-text span').length === 108")

        # another model: the units of the first one are gone
        visitor.choose("inspect-model-a", "shakespeare-gru")
        visitor.wait_until("document.querySelector('#seen-a .heat-text').dataset.kind === 'surprisal'")
        visitor.wait_until("document.getElementById('seen-changed').innerText.trim() === ''")

        # the same holds for a model that is chosen after that
        visitor.choose("colour", DIFFERENCE)
        visitor.wait_until("document.querySelector('#seen-a .heat-text').dataset.kind === 'difference'")
        visitor.choose("inspect-model-a", "shakespeare-rnn")
        visitor.wait_until("document.querySelector('#seen-a .heat-text').dataset.kind === 'surprisal'")

    def test_a_text_that_was_typed_can_be_put_back_after_the_model_has_written_one(self, app, visit):
        visitor = visit(app + "/?view=inside&a=names-gru&b=names-gru")
        is_beginning = """() => {
            const text = document.querySelector("#seen-a .heat-text")?.textContent;
            return text && document.querySelector("#inspect-text textarea").value.startsWith(text);
        }"""
        visitor.wait_until(is_beginning)
        back, field = visitor.page.locator("#restore-text"), visitor.page.locator("#inspect-text textarea")
        written, is_written = (
            [],
            f"""(written) => {{
            const text = document.querySelector("#inspect-text textarea").value;
            return text.length === {WRITTEN} && !written.includes(text);
        }}""",
        )
        is_read = "text => document.querySelector('#seen-a .heat-text').textContent === text"

        def let_it_write(meanwhile=""):
            def type_first(route):
                visitor.fill("inspect-text", meanwhile)
                route.continue_()

            if meanwhile:
                visitor.page.route("**/queue/join*", type_first, times=1)
            visitor.page.locator("#write-text").click()
            visitor.wait_until(is_written, written)
            visitor.wait_until(is_beginning)
            written.append(field.input_value())

        let_it_write()  # in place of the text of the page, and of what the model has written
        let_it_write()
        assert not back.is_visible()
        let_it_write(meanwhile="Anna\nMaria\n")
        let_it_write()
        back.press("Enter")
        visitor.wait_until(is_read, "Anna\nMaria\n")
        back.wait_for(state="detached")
        assert field.input_value() == "Anna\nMaria\n"
        assert visitor.page.evaluate("document.activeElement.id") == "inspect"
        let_it_write()
        visitor.fill("inspect-text", "Jo\nBerta\n")
        for text in ("Anna\nMaria\n", "Jo\nBerta\n"):
            back.click()
            visitor.wait_until(is_read, text)
            assert field.input_value() == text and back.is_visible()

    def test_effective_contexts_are_compared_and_those_of_another_text_are_marked(self, app, visit):
        visitor = visit(app + "/?view=inside")
        visitor.page.get_by_role("button", name="How far back the models look").click()
        visitor.page.locator("#compare-contexts").click()
        visitor.page.locator("#contexts .curves-plot svg").wait_for()
        for name in ("shakespeare-lstm", "shakespeare-rnn"):
            assert name in visitor.text("contexts")
            assert re.search(rf"{name}.* \d+ characters", visitor.text("contexts-reading"))
        take_picture(visitor, "memory")
        assert visitor.text("contexts-changed").strip() == ""
        visitor.fill("inspect-text", "ROMEO:\nWhat light is this?\n" * 3)
        visitor.wait_for_words("contexts-changed", "Changed since: text.")


def test_the_first_step_of_the_lesson_is_done_and_noticed(app, visit):
    visitor = visit(f"{app}/?lesson=1&__theme=dark", 360)
    lesson = visitor.page.locator("#lesson")
    assert lesson.is_visible()
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 360
    visitor.page.set_viewport_size({"width": 1280, "height": 800})
    with visitor.page.expect_navigation():
        lesson.get_by_role("link", name="Open what this step needs").click()
    visitor.wait_until("window.charlm?.isOpen()")
    assert "__theme=dark" in visitor.page.url
    for side in "ab":
        visitor.wait_for_text(f"output-{side}", 150)
    first = [visitor.text(f"output-{side}") for side in "ab"]
    assert lesson.get_by_role("status").first.inner_text() == "0 of 1 done"
    box = lesson.bounding_box()
    assert box["y"] + box["height"] <= 800  # in sight, without scrolling
    visitor.fill("prompt", visitor.text("prompt").replace("KING RICHARD III", "JULIET"))
    visitor.page.locator("#generate").click()
    lesson.get_by_text("Done", exact=True).wait_for()
    lesson.get_by_text("nothing of the name was left").wait_for()
    visitor.wait_until("(text) => document.querySelector('#output-b .heat-text').textContent !== text", arg=first[1])
    visitor.wait_for_text("output-a", 150)
    assert visitor.text("output-a") == first[0]
    assert serious_violations(visitor.page) == []

    # the address keeps the step, whatever else stands there
    visitor.choose_view("Learn")
    visitor.page.wait_for_url(re.compile(r"view=learn.*&lesson=1|lesson=1.*&view=learn"))
    lesson.get_by_role("button", name="Next step").click()
    visitor.page.wait_for_url(re.compile("lesson=2"))
    lesson.get_by_role("button", name="End the lesson").click()
    visitor.page.wait_for_url(lambda url: "lesson" not in url)
    visitor.page.get_by_role("button", name="Lesson", exact=True).wait_for()


class TestAddress:
    def test_what_a_view_shows_is_in_the_address_and_back_and_a_link_show_it_again(self, app, visit, tmp_path):
        visitor = visit(app)
        visitor.choose_view("Learn")
        visitor.page.get_by_label("perplexity", exact=True).check()
        visitor.page.locator("#learn-models").get_by_label("shakespeare-gru").uncheck()
        visitor.wait_until("location.search.includes('perplexity') && !location.search.includes('gru')")
        visitor.page.locator("#link-view summary").click()
        visitor.wait_until("document.getElementById('view-code').value !== ''")
        link, code = (visitor.page.locator(f"#view-{name}").input_value() for name in ("link", "code"))
        visitor.choose_view("Write")
        visitor.wait_until("location.search === '?view=write'")
        visitor.page.go_back()
        learn = visitor.page.get_by_role("tab", name="Learn", exact=True)
        learn.and_(visitor.page.locator("[aria-selected=true]")).wait_for()
        visitor.page.go_back()
        visitor.wait_until("location.search === ''")
        visitor.page.get_by_role("tab", name="Write", exact=True).and_(
            visitor.page.locator("[aria-selected=true]")
        ).wait_for()

        source = html.unescape(re.search('src="(.*?)"', code)[1])
        for address in (link, source):
            other = visit(address)
            other.wait_for_words("loss-curves", "perplexity")
            other.wait_until("!document.getElementById('loss-curves').innerText.includes('shakespeare-gru')")
            assert other.page.locator("#views [role=tablist]").is_visible() == (address == link)
        course = tmp_path / "course.html"
        course.write_text(f"<!doctype html><title>A course</title>{code}", encoding="utf-8")
        other.page.goto(course.as_uri())
        other.page.frame_locator("iframe").locator("#loss-curves").get_by_text("perplexity").first.wait_for()
        other.foreign.remove(course.as_uri())
        other.open(app + "/?view=inside")
        other.page.locator("#inspect-text textarea").fill("ROMEO:\nWhat light is this?\n")
        other.page.locator("#inspect").click()
        other.wait_until("document.querySelectorAll('#seen-a .heat-text span').length === 27")
        other.page.locator("#seen-a .heat-text span").nth(9).click()
        other.wait_until("location.search.includes('place=9') && location.hash.startsWith('#text=')")
        visitor.open(other.page.url)
        visitor.wait_until("document.querySelector('#seen-a .cursor')?.dataset.place === '9'")
        assert visitor.text("seen-a") == "ROMEO:\nWhat light is this?\n"

    def test_a_training_that_a_teacher_has_set_up_is_in_the_address(self, app, visit):
        visitor = visit(app + "/?view=train")
        visitor.page.get_by_role("button", name="Names of places").click()
        visitor.page.get_by_label("CharGRU").check()
        visitor.page.get_by_label("small: ").check()
        visitor.wait_until("location.search.includes('names') && location.search.includes('size=small')")
        text = visitor.text("train-text")
        visitor.page.locator("#link-view summary").click()
        visitor.wait_until("document.getElementById('view-link').value.includes('?view=train&')")
        assert not visitor.page.locator("#view-code").is_visible()  # no address shows this view alone

        other = visit(visitor.page.url)
        assert other.text("train-text") == text != ""
        for label in ("CharGRU", "small: "):
            assert other.page.get_by_label(label).is_checked()
        other.page.locator("#train-text textarea").focus()
        other.page.keyboard.insert_text("x")  # as if pasted: a text of one's own is too long for an address
        other.wait_until("location.search === '?view=train&cell=gru&size=small&minutes=2'")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_is_wider_than_the_screen(app, visit, view, width):
    visitor = visit(shown_at(app, view), width)
    assert visitor.page.get_by_role("tab", name=VIEWS[view], exact=True).get_attribute("aria-selected") == "true"
    if view in SEEN:
        visitor.page.locator(SEEN[view]).first.wait_for()
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visitor.page.get_by_role("button", name="Lesson", exact=True).is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(app, visit, view, theme):
    visitor = visit(shown_at(app, view, __theme=theme))
    if view == "write":
        visitor.fill("length", "200")
        visitor.generate(200)
    elif view in SEEN:
        visitor.page.locator(SEEN[view]).first.wait_for()
    assert serious_violations(visitor.page) == []


@pytest.mark.parametrize("view", VIEWS)
def test_the_keyboard_reaches_every_control_which_shows_it_and_has_a_name(app, visit, view):
    visitor = visit(shown_at(app, view))
    if view in SEEN:
        visitor.page.locator(SEEN[view]).first.wait_for()
    check_keyboard(visitor.page)


def test_a_model_from_the_hub_is_searched_described_loaded_and_written_with(hub, start_app, visit):
    rnn = WEIGHTS / "shakespeare-rnn"
    hub.add_user("ada", "hf_ada")
    for name in ("ada/poems", "ada/prose"):
        hub.add_repo(name, {path.name: path.read_bytes() for path in rnn.iterdir()})
    url = start_app("--model", str(WEIGHTS / "shakespeare-lstm"))
    visitor, other = visit(url), visit(url)
    visitor.page.get_by_text("Load a model from the Hub").click()
    visitor.fill("load-name", "ada")
    visitor.page.locator("#load-look").click()
    # 1) of two that are chosen while the Hub keeps the page waiting, the second one is described
    asked, released = Event(), Event()
    hub.on("GET /api/models/ada/poems", lambda answer: (asked.set(), released.wait(PATIENCE), answer())[-1], times=1)
    visitor.page.get_by_label("ada/poems").check()
    assert asked.wait(PATIENCE)
    visitor.page.get_by_label("ada/prose").check()
    released.set()
    visitor.wait_for_words("load-card", "ada/prose, commit ")
    visitor.wait_for_words("load-card", "1.4263")  # its validation loss, before anything is downloaded
    # 2) nothing of it stays when another one cannot be described
    hub.repos["ada/poems"].private = True
    visitor.page.get_by_label("ada/poems").check()
    visitor.wait_for_words("load-card", "It cannot be loaded: ")
    assert "1.4263" not in visitor.text("load-card") and not visitor.page.locator("#load-go").is_visible()
    visitor.page.get_by_label("ada/prose").check()
    visitor.wait_for_words("load-card", "1.4263")
    assert not any("/resolve/" in request.path for request in hub.requests)
    visitor.page.locator("#load-go").click()
    visitor.wait_for_words("about-a", "from the Hub")
    for elem_id, value in {"seed": "5", "length": "60"}.items():
        visitor.fill(elem_id, value)
    visitor.generate(60)
    assert visitor.text("output-a") == CharLM.from_pretrained(rnn).generate("ROMEO:\n", 60, seed=5)
    visitor.choose("model-a", "shakespeare-lstm")
    visitor.wait_for_words("about-a", "bundled")
    visitor.page.get_by_text("Load a model from the Hub").click()  # what was clicked meanwhile has closed it
    visitor.page.locator("#load-go").click()  # the same one again
    visitor.wait_for_words("about-a", "from the Hub")

    # 3) it stays on offer when Back has opened another view, and when an address with it is opened again
    for name in ("Learn", "Train"):
        visitor.choose_view(name)
        visitor.wait_until("(view) => location.search.startsWith(`?view=${view}`)", arg=name.lower())
    visitor.page.go_back()
    learn = visitor.page.get_by_role("tab", name="Learn", exact=True)
    learn.and_(visitor.page.locator("[aria-selected=true]")).wait_for()
    visitor.page.locator("#learn-models").get_by_label("ada/prose").check()
    visitor.wait_for_words("loss-curves", "ada/prose, validation")
    visitor.choose_view("Look inside")
    visitor.choose("inspect-model-a", "ada/prose")
    visitor.wait_for_words("seen-a", "ada/prose")
    visitor.open(visitor.page.url)
    visitor.wait_for_words("seen-a", "ada/prose")
    visitor.choose("colour", DIFFERENCE)
    visitor.wait_until("document.querySelector('#seen-a .heat-text').dataset.kind === 'difference'")

    other.page.locator("#model-a input").click()  # who loaded it is the only one to see it
    other.page.get_by_role("option").first.wait_for()
    assert other.page.get_by_role("option").all_inner_texts() == ["✓\nshakespeare-lstm"]


def test_nobody_loads_a_model_on_a_space_unless_its_owner_says_so(start_app, visit):
    url = start_app("--model", str(WEIGHTS / "shakespeare-rnn"), SPACE_ID="ada/page")
    assert visit(url).page.locator("#load").count() == 0


# Drops a file with a name and a text on an element, as the browser does.
DROP = """(element, [name, text]) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([text], name));
    for (const type of ["dragenter", "dragover", "drop"])
        element.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
}"""


class TestTrain:
    def test_a_text_becomes_a_model_that_writes_in_the_other_views(self, app, visit, tmp_path):
        visitor, other = visit(f"{app}/?view=train", 1280), visit(f"{app}/?view=train")
        visitor.page.set_viewport_size({"width": 1280, "height": 720})

        # 1) a text: too short, one to try, a file, a file that is dropped
        visitor.fill("train-text", "short")
        visitor.page.locator("#train-go").click()
        visitor.page.get_by_text("the text is too short to learn from").first.wait_for()
        visitor.page.get_by_role("button", name="Names of places").click()
        visitor.wait_until("document.querySelector('#train-text textarea').value.length > 20000")
        verse = "the cat sat on the mat, and the dog ran to the man.\n"
        text = tmp_path / "verse.txt"
        text.write_bytes(b"\xef\xbb\xbf" + (verse * 90).encode())
        visitor.page.locator("#train-file input").set_input_files(text)
        visitor.wait_for_words("train-file", "verse.txt: 4,680 characters")
        visitor.wait_until("document.querySelector('#train-text textarea').value.length === 4680")
        file = "document.querySelector('#train-file input').value"
        assert visitor.page.evaluate(file).endswith("verse.txt")
        visitor.page.get_by_role("button", name="Tales").click()  # the text is no longer that of the file
        visitor.wait_until("!document.getElementById('train-file').innerText.includes('verse.txt')")
        assert visitor.page.evaluate(file) == ""
        visitor.page.locator("#train-file input").set_input_files(text)
        visitor.wait_until("document.querySelector('#train-text textarea').value.length === 4680")
        play = 4 * make_text("play")  # so long that the training does not end before it is paused
        visitor.page.locator("#train-text textarea").evaluate(DROP, ["My verse.txt", play])
        visitor.wait_for_words("train-file", f"My verse.txt: {len(play):,} characters")
        visitor.wait_until("(n) => document.querySelector('#train-text textarea').value.length === n", arg=len(play))
        assert visitor.page.evaluate(file) == ""  # it holds no file, since another one was dropped
        visitor.fill("train-minutes", "9")
        visitor.page.locator("#train-go").click()
        visitor.page.get_by_text("the number of minutes is 9.0; it must be from 1.0 to 5.0").first.wait_for()
        visitor.page.locator("#train-size").get_by_text("small").click()
        visitor.page.locator("#train-minutes").wait_for(state="hidden")
        visitor.page.locator("#train-go").click()

        # 2) it runs: the curves and the sample are in sight, and earlier samples stand beside it
        visitor.wait_until(
            "(n) => parseFloat(document.querySelector('#train-status').innerText.match(/([\\d.]+) epochs/)?.[1]) > n",
            arg=12 if os.environ.get("CHARLM_PICTURES") else 3,  # curves for a picture
            timeout=3000 * PATIENCE,  # it has the lowest priority, and waits for whatever else this machine does
        )
        for curve in ("training", "validation"):
            visitor.page.locator("#train-curves").get_by_role("button", name=curve).wait_for()
        assert visitor.page.locator("#train-curves .curves-plot path[stroke-linejoin][d^=M]").count() == 2
        visitor.wait_until("document.querySelector('#train-sample .heat-text').children.length > 100")
        for elem_id in ("train-status", "train-curves", "train-sample", "train-pause", "train-stop"):
            box = visitor.page.locator(f"#{elem_id}").bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= 720, elem_id
        assert visitor.page.locator("#train-sample .heat-label").inner_text() == "What it writes now"
        visitor.wait_for_words("train-samples", "after epoch 1: validation loss")
        first = visitor.page.locator("#train-samples .samples-text").inner_text()
        visitor.page.locator("#train-samples input").focus()
        visitor.page.keyboard.press("ArrowRight")
        visitor.wait_for_words("train-samples", "after epoch 2: validation loss")
        assert visitor.page.locator("#train-samples .samples-text").inner_text() != first
        take_picture(visitor, "train")
        assert visitor.text("train-changed").strip() == ""
        visitor.page.locator("#train-cell").get_by_text("GRU").click()
        visitor.fill("train-text", "another text")
        visitor.wait_for_words(
            "train-changed", "Changed since: text, cell. The results below are those of the training before"
        )
        visitor.wait_until("!document.getElementById('train-file').innerText.includes('My verse.txt')")

        # 3) it is paused while another visitor waits, and goes on at another learning rate
        visitor.page.locator("#train-pause").click()
        visitor.wait_for_words("train-status", "paused: ")
        assert visitor.page.locator("#train-status .state").get_attribute("data-state") == "paused"
        visitor.page.locator(".toast-body").wait_for(state="detached")  # Gradio's own have buttons within buttons
        assert serious_violations(visitor.page) == []
        other.page.get_by_role("button", name="Tales").click()
        other.wait_until("document.querySelector('#train-text textarea').value.length > 20000")
        other.page.locator("#train-go").click()
        other.wait_for_words("train-status", "waiting: number 1 in the queue")
        other.page.locator("#train-stop").click()
        other.wait_for_words("train-status", "stopped in the queue, before it began")
        assert other.text("train-changed").strip() == ""
        other.fill("train-minutes", "3")
        other.wait_for_words("train-changed", "Changed since: minutes.")
        visitor.fill("train-rate", "2")
        visitor.page.locator("#train-set-rate").click()
        visitor.page.get_by_text("the learning rate is 2.0; it must be from 1e-06 to 0.1").first.wait_for()
        visitor.fill("train-rate", "0.001")
        visitor.page.locator("#train-set-rate").click()
        visitor.page.locator("#train-go-on").click()
        visitor.wait_for_words("train-curves", "learning rate 0.001 from epoch ")

        # 4) what it leaves: the folder, one page, the command to publish it
        visitor.page.locator("#train-stop").click()
        visitor.wait_for_words("train-status", "stopped: the model is that of epoch")
        name, content = downloaded(visitor, visitor.page.locator("#train-zip").click)
        assert name == "my-model.zip"
        (tmp_path / name).write_bytes(content)
        with zipfile.ZipFile(tmp_path / name) as package:
            package.extractall(tmp_path)
        lm = CharLM.from_pretrained(tmp_path / "my-model")
        assert lm.config.cell == "lstm" and "text, cell" in visitor.text("train-changed")
        with visitor.page.expect_download() as exported:
            visitor.page.locator("#train-page").click()
        assert exported.value.suggested_filename == "my-model.html"
        assert "<title>charlm: my-model</title>" in Path(exported.value.path()).read_text(encoding="utf-8")
        with urllib.request.urlopen(exported.value.url) as served:  # no page of ours shows it in our name
            assert served.headers["content-disposition"].startswith("attachment")
        assert visitor.page.locator("#train-publish input, #train-publish textarea").input_value() == (
            "charlm push my-model USER/my-verse-lstm"
        )

        # 5) it writes, for this visitor alone
        visitor.page.locator("#train-write").click()
        assert "It is model A of Write, and can be chosen in the other views." in visitor.text("train-status")
        visitor.wait_for_words("about-a", "trained on this page")
        for elem_id, value in {"prompt": "the ", "seed": "1", "length": "40"}.items():
            visitor.fill(elem_id, value)
        visitor.generate(40)
        assert visitor.text("output-a") == lm.generate("the ", 40, seed=1)
        other.choose_view("Write")
        other.page.locator("#model-a input").click()
        other.page.get_by_role("option").first.wait_for()
        assert not any("my-lstm" in name for name in other.page.get_by_role("option").all_inner_texts())

    def test_a_training_can_start_from_a_served_model_which_keeps_its_cell_and_size(self, app, visit):
        visitor = visit(f"{app}/?view=train")
        visitor.page.locator("#train-text textarea").evaluate(DROP, ["diary.txt", "dear diary\n" * 100])
        visitor.wait_until("document.querySelector('#train-text textarea').value.length === 1100")
        visitor.fill("train-text", "the cat sat on the mat, and the dog ran to the man.\n" * 40)
        assert visitor.page.locator("#train-cell").is_visible()
        visitor.choose("train-start", "shakespeare-rnn")
        visitor.page.locator("#train-cell").wait_for(state="hidden")
        visitor.page.locator("#train-go").click()
        visitor.wait_until("document.querySelector('#train-sample .heat-text')?.children.length > 10")  # one epoch
        visitor.page.evaluate("document.querySelector('#train-stop')?.click()")  # unless it has ended already
        visitor.wait_for_words("train-status", "the model is that of epoch")
        assert visitor.page.locator("#train-publish input, #train-publish textarea").input_value() == (
            "charlm push my-model USER/my-text-rnn"  # the text is no longer that of the file
        )
        visitor.choose("train-start", "random weights")
        visitor.page.locator("#train-cell").wait_for()
        visitor.wait_for_words("train-changed", "Changed since: start.")

    def test_a_training_that_loses_its_connection_is_not_shown_as_going_on(self, app, browser):
        visitor = Visit(browser.new_context().new_page())
        visitor.page.add_init_script(CUTTABLE)
        visitor.page.route("**/app_id*", lambda route: route.abort())  # Gradio loads the page anew when it is answered
        visitor.open(f"{app}/?view=train")
        visitor.page.get_by_role("button", name="Tales").click()
        visitor.wait_until("document.querySelector('#train-text textarea').value.length > 20000")
        visitor.page.locator("#train-go").click()
        visitor.page.locator("#train-stop").wait_for()
        visitor.page.evaluate("cut()")
        visitor.wait_for_words("train-status", "the connection or the server has failed, and the training has ended")
        visitor.page.locator("#train-stop").wait_for(state="hidden")
        visitor.page.context.close()


@pytest.mark.parametrize("after", ["another file", "typing"])
def test_a_file_that_is_read_late_takes_the_place_of_nothing_that_came_after_it(app, visit, tmp_path, after):
    visitor = visit(f"{app}/?view=train")
    page, field = visitor.page, "document.querySelector('#train-text textarea').value"
    page.evaluate("""() => {
        const { arrayBuffer } = Blob.prototype, mayRead = new Promise((resolve) => (window.release = resolve));
        Blob.prototype.arrayBuffer = function () {
            const bytes = arrayBuffer.call(this);
            return this.name === "late.txt" ? (window.late = mayRead.then(() => bytes)) : bytes;
        };
    }""")
    for name in ("late", "next"):
        (tmp_path / f"{name}.txt").write_text(f"the text of {name}", encoding="utf-8")
    page.locator("#train-file input").set_input_files(tmp_path / "late.txt")
    if after == "typing":
        page.locator("#train-text textarea").focus()
        page.keyboard.insert_text("the text of next")
    else:
        page.locator("#train-file input").set_input_files(tmp_path / "next.txt")
    visitor.wait_until(f"{field} === 'the text of next'")
    page.evaluate("async () => { release(); await late; await new Promise((resolve) => setTimeout(resolve)); }")
    said = page.locator("#train-file .file-line").text_content()
    assert said == ("" if after == "typing" else "next.txt: 16 characters")
    assert page.evaluate(field) == "the text of next"


# The labels of fields that lie below an element, and those of them that a click there would meet.
LABELS_BELOW = """(selector) => {
    const over = document.querySelector(selector), box = over.getBoundingClientRect();
    const labels = [...document.querySelectorAll("[data-testid=block-info]")].filter((label) => {
        const { x, y, width, height } = label.getBoundingClientRect();
        label.middle = [x + width / 2, y + height / 2];
        const [across, down] = label.middle;
        return width && !over.contains(label) && across > box.left && across < box.right && down > box.top
            && down < Math.min(box.bottom, innerHeight);
    });
    const met = labels.filter((label) => !over.contains(document.elementFromPoint(...label.middle)));
    return [labels.length, met.map((label) => label.textContent)];
}"""


@pytest.mark.parametrize("path", ["/", "/?lesson=1"])
def test_what_opens_in_the_bar_lies_on_a_narrow_screen_over_all_else(app, visit, path):
    page = visit(app + path, 360).page
    page.get_by_role("button", name="More settings").click()
    covered = [page.evaluate(LABELS_BELOW, "#lesson")] if "lesson" in path else []
    for opener, opened in (("#link-view summary", ".menu-body"), ("#load > .label-wrap", "#load > .label-wrap + div")):
        page.locator(opener).click()
        box = page.locator(opened).bounding_box()
        assert box["x"] >= 16 and box["x"] + box["width"] <= 360 - 16, opener
        page.locator(opened).locator(":is(input, textarea):visible").first.click()  # nothing lies over it
        covered.append(page.evaluate(LABELS_BELOW, opened))
    assert sum(below for below, _ in covered) > 0
    assert [met for _, met in covered if met] == []


def test_the_panel_that_loads_a_model_opens_and_closes_as_the_menu_link_does(app, visit):
    visitor = visit(app)
    page = visitor.page
    opener, field = page.locator("#load > .label-wrap"), page.locator("#load-name").locator("input, textarea")
    focused = "document.activeElement.closest('#load-name') !== null"
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.locator("#output-a .heat-text").click()):
        opener.click()
        visitor.wait_until(focused)
        field.fill("poems")  # what is typed or clicked within closes nothing
        page.get_by_text("Repository, or words to search for").click()
        assert field.is_visible()
        field.focus()
        close()
        field.wait_for(state="hidden")
    opener.press("Enter")
    visitor.wait_until(focused)
    page.keyboard.press("Escape")
    assert opener.evaluate("opener => opener === document.activeElement")
    page.keyboard.press("Enter")
    visitor.wait_until(focused)
    page.locator("#link-view summary").click()
    field.wait_for(state="hidden")


def test_the_pages_say_what_the_strength_of_a_colour_means(app, visit):
    visitor = visit(shown_at(app, "inside"))
    visitor.page.locator(SEEN["inside"]).first.wait_for()
    ends = ["0, expected", "7.8 nats, surprising"]
    shown = "(words) => document.querySelector('#legend').innerText.trim().split(/\\s*\\n\\s*/).join() === words.join()"
    visitor.wait_until(shown, arg=ends)
    visitor.choose("colour", "difference")
    visitor.wait_until(shown, arg=["5 nats less surprising to A", "to B"])
    visitor.choose_view("Write")
    assert [each for each in visitor.text("colours-legend").splitlines() if each] == ends


def test_what_is_said_of_the_models_of_write_fits_beside_each_other(app, visit):
    page = visit(app).page
    page.set_viewport_size({"width": 1280, "height": 800})
    for side in "ab":
        line = page.locator(f"#about-{side} .line")
        assert line.evaluate("line => line.scrollWidth <= line.clientWidth")
        assert line.get_attribute("title").endswith(" runs on CPU")


def test_empty_panels_take_little_room_on_a_phone(app, visit):
    page = visit(app, 360).page
    for elem_id in ("alternatives", "drawn"):
        assert page.locator(f"#{elem_id}").bounding_box()["height"] < 100
