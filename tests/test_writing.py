"""Taking part in the writing, walked through as a person does, in a real browser whose network ends at this machine."""

import urllib.parse

import numpy as np
import pytest
from browser import CLICK_WHEN_WRITTEN, ROOT
from models import stream_shared

from charlm.lm import CharLM
from charlm.web.answers.write import SIDES

WEIGHTS = ROOT / "weights"
WINDOWS = [(1280, 720), (1440, 900)]
IN_SIGHT = [
    "#prompt",
    "#generate",
    "#output-a .heat-text",
    "#output-b .heat-text",
    "#alternatives",
    "#drawn .drawn-bar",
]


def sampled(lm, prompt, text, temperature, top_k=0):
    """The symbols that could stand behind a text, the likeliest first, with their probabilities as they are sampled."""
    logits = lm.logits(prompt, text).astype(float) / temperature
    order = np.argsort(-logits, kind="stable")[: top_k or None]
    weights = np.exp(logits[order] - logits[order[0]])
    return [(lm.vocab.symbols[id], weight) for id, weight in zip(order, weights / weights.sum(), strict=True)]


def character(visitor, side, place):
    return visitor.page.locator(f"#output-{side} .heat-text [data-place='{place}']")


def wait_for_character(visitor, place):
    visitor.wait_for_words("alternatives", f"character {place + 1:,}")


def wait_for(visitor, side, text):
    visitor.wait_until(
        "([side, text]) => document.querySelector(`#output-${side} .heat-text`).textContent === text", arg=[side, text]
    )


def shown(visitor):
    """What #alternatives shows: each symbol with its percentage, and the one that stands there."""
    buttons = visitor.page.locator("#alternatives button")
    words = [
        button.replace("␣", " ").replace("↵", "\n")
        for button in buttons.evaluate_all("all => all.map(one => one.textContent)")
    ]
    current = visitor.page.locator("#alternatives [aria-current]").get_attribute("data-symbol")
    return [(word[0], word[1:]) for word in words], current


def test_a_visitor_takes_part_in_the_writing_and_shares_it(app, visit):
    lms = {
        side: CharLM.from_pretrained(WEIGHTS / name)
        for side, name in zip(SIDES, ("shakespeare-lstm", "shakespeare-rnn"), strict=True)
    }
    visitor = visit(app)
    page = visitor.page

    # 1) a symbol of the prompt that the models do not know is marked while typing, and replaced at a click
    page.locator("#prompt textarea").fill("Café:")
    page.get_by_role("button", name="Replace “é” by “e”").click()
    visitor.wait_until("document.querySelector('#prompt textarea').value === 'Cafe:'")
    page.locator("#unknown").wait_for(state="hidden")

    # 2) pointing at a character shows what else could stand there, as it was sampled
    for elem_id, value in {"length": "300", "seed": "3", "temperature": "0.7"}.items():
        visitor.fill(elem_id, value)
    visitor.generate(300)
    drawn = {side: lms[side].generate("Cafe:", 300, 0.7, seed=3) for side in SIDES}
    assert {side: visitor.text(f"output-{side}") for side in SIDES} == drawn
    for side, place in (("a", 290), ("b", 120)):
        character(visitor, side, place).hover()
        wait_for_character(visitor, place)
        symbols, current = shown(visitor)
        likeliest = sampled(lms[side], "Cafe:", drawn[side][:place], 0.7)[:10]
        assert symbols[:10] == [(symbol, f"{100 * share:.1f} %") for symbol, share in likeliest]
        assert current == drawn[side][place]
    assert f"random number {np.random.default_rng(3).random(121)[-1]:.4f}" in visitor.text("drawn")
    page.locator("#output-b .heat-text").focus()
    page.keyboard.press("ArrowRight")
    wait_for_character(visitor, 121)

    # 3) another symbol cuts the text there, and it goes on from it with the random numbers that it would have had
    character(visitor, "a", 20).click()
    wait_for_character(visitor, 20)
    symbol = next(each for each, _ in sampled(lms["a"], "Cafe:", drawn["a"][:20], 0.7) if each != drawn["a"][20])
    page.locator("#alternatives button").filter(has_not=page.locator("[aria-current]")).and_(
        page.locator(f"[data-symbol={symbol!r}]")
    ).click()
    start = drawn["a"][:20] + symbol
    branch = start + "".join(stream_shared(lms["a"], "Cafe:", 279, 0.7, seed=3, after=start))
    wait_for(visitor, "a", branch)
    assert visitor.text("output-b") == drawn["b"]
    visitor.wait_for_words("alternatives", "your choice")  # the symbol before it was at the same character
    assert "character 21" in visitor.text("alternatives")
    visitor.wait_for_words("progress-a", "1 chosen by you")

    # 4) undo and redo go between both
    page.locator("#undo").click()
    wait_for(visitor, "a", drawn["a"])
    visitor.wait_until("!document.getElementById('progress-a').innerText.includes('chosen')")
    page.locator("#redo").click()
    wait_for(visitor, "a", branch)
    visitor.wait_for_words("progress-a", "1 chosen by you")
    bits = lms["a"].score("Cafe:" + branch)[-300:].mean() / np.log(2)
    assert page.locator("#branches .branch").count() == 3
    told = float(page.locator("#branches .branch").nth(1).locator(".branch-bits").inner_text().split()[0])
    assert told == pytest.approx(bits, abs=0.03)

    # 5) Next draws one symbol at a time at the end of the texts
    page.locator("#output-a .heat-text").focus()
    page.keyboard.press("End")
    wait_for_character(visitor, 299)
    page.locator(".drawn-next").click()
    longer = start + "".join(stream_shared(lms["a"], "Cafe:", 280, 0.7, seed=3, after=start))
    wait_for(visitor, "a", longer)
    wait_for_character(visitor, 300)

    # 6) the link holds the choice: who opens it sees the same texts
    page.locator("#share").click()
    visitor.wait_until("document.querySelector('#link textarea, #link input')?.value.includes('seed=')")
    link = page.locator("#link").locator("textarea, input").input_value()
    shared = urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)
    assert shared["fa"] == [f"20.{ord(symbol):x}"] and "fb" not in shared
    other = visit(link)
    wait_for(other, "a", longer)
    other.wait_for_text("output-b", 301)
    assert other.text("output-b") == lms["b"].generate("Cafe:", 301, 0.7, seed=3)
    other.page.locator("#generate").click()
    wait_for(other, "a", lms["a"].generate("Cafe:", 301, 0.7, seed=3))  # what is generated anew has no choices

    # 7) all of it is in sight at once
    character(other, "a", 5).hover()
    wait_for_character(other, 5)
    for width, height in WINDOWS:
        other.page.set_viewport_size({"width": width, "height": height})
        for selector in IN_SIGHT:
            box = other.page.locator(selector).bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= height, (selector, width, box)
        assert other.page.locator("#output-a .heat-text").bounding_box()["height"] > 150


def test_undo_while_texts_are_written_ends_them_and_brings_back_those_before(app, visit):
    lm = CharLM.from_pretrained(WEIGHTS / "shakespeare-lstm")
    visitor = visit(app)
    for elem_id, value in {"prompt": "JULIET:\n", "length": "40", "seed": "1"}.items():
        visitor.fill(elem_id, value)
    visitor.generate(40)
    before = {side: visitor.text(f"output-{side}") for side in SIDES}
    for elem_id, value in {"length": "5000", "seed": "2"}.items():
        visitor.fill(elem_id, value)
    visitor.page.evaluate(CLICK_WHEN_WRITTEN, "undo")
    with visitor.page.expect_request("**/gradio_api/cancel"):
        visitor.page.locator("#generate").click()
    assert {side: visitor.text(f"output-{side}") for side in SIDES} == before
    visitor.page.locator("#redo").click()
    begun = visitor.text("output-a")
    assert 50 <= len(begun) < 5000 and begun == lm.generate("JULIET:\n", len(begun), seed=2)
    visitor.page.locator("#undo").click()
    assert {side: visitor.text(f"output-{side}") for side in SIDES} == before


def test_a_link_whose_choices_cannot_be_applied_says_so(app, visit):
    lm = CharLM.from_pretrained(WEIGHTS / "shakespeare-lstm")
    query = "a=shakespeare-lstm&b=shakespeare-rnn&prompt=x&length=30&temperature=1&top_k=0&top_p=1&seed=1&fa=3.263a"
    visitor = visit(f"{app}/?view=write&{query}")
    visitor.wait_for_words("notices", "The link's choices cannot be applied: '☺', chosen for character 4, is not among")
    wait_for(visitor, "a", lm.generate("x", 30, 1.0, seed=1))
