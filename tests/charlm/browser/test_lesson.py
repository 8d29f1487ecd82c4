"""The file of a lesson: what is read, and which line is named when it cannot be."""

import re
import urllib.parse

import numpy as np
import pytest
from browser import ROOT
from models import make_lm, make_model

from charlm.browser.export import export as export_to
from charlm.browser.lesson import CHECKS, LONGEST, chosen_lesson, parse_lesson, read_lesson
from charlm.browser.page import PageModel, page_data
from charlm.errors import RequestError
from charlm.model.folder import Model
from charlm.web import address
from charlm.web.heat import shades
from charlm.web.models import ModelRegistry, ServedModel

HEAD = "title: A lesson\nstep: One\ntext: Do it.\n"
WHOLE = """# for the second year

title: Two things to do
models: ada/poems, shakespeare-lstm

step: The first
text: Type a number,
  and look at it.
open: https://ada.example/page?view=write&temperature=1.5
check: number 1.4 0.2 The temperature, in nothing:
check: use drawn Look at the drawing
done: So it is.

step: The second
text: Open a view.
open: view=write&prompt=Who is there?&length=100
check: view learn It is open
"""


def test_a_lesson_is_read():
    lesson = parse_lesson(WHOLE)
    assert (lesson.title, lesson.models) == ("Two things to do", ("ada/poems", "shakespeare-lstm"))
    first, second = lesson.steps
    assert first.text == "Type a number, and look at it."
    assert first.open == "view=write&temperature=1.5"  # of an address, what stands behind the ?
    assert first.done == "So it is."
    number, use = first.checks
    assert (number.kind, number.arguments) == ("number", {"value": 1.4, "tolerance": 0.2})
    assert number.words == "The temperature, in nothing:"
    assert (use.arguments, use.words) == ({"id": "drawn"}, "Look at the drawing")
    assert (second.open, second.done) == ("view=write&prompt=Who is there?&length=100", "")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "the lesson has no step; begin one with step: WORDS"),
        ("title: A lesson\n", 2, "the lesson has no step"),
        ("step: One\n", 1, "the lesson has no title; begin the file with title: WORDS"),
        (
            "# a comment\nTitle: A lesson",
            2,
            "'Title: A lesson' is not an entry; write KEY: VALUE with a key among title,",
        ),
        ("  title: A lesson", 1, "an indented line goes on with the line before, and there is none"),
        (
            "titel: A lesson",
            1,
            "'titel' is not one of title, models, step, text, open, check, done; did you mean",
        ),
        ("title:\nstep: One", 1, "nothing stands behind 'title'; write title: WORDS"),
        ("title: A\ntitle: B\n", 2, "'title' stands once, before the first step"),
        (HEAD + "models: b\n", 4, "'models' stands once, before the first step"),
        ("title: A\ntext: Do it.\n", 2, "'text' belongs to a step; begin one with step: WORDS"),
        (HEAD + "text: Do it again.\n", 4, "the step has two entries 'text'; indent a line that goes on"),
        (HEAD + "open: nowhere\n", 4, "'nowhere' is not an address; write open: view=write&temperature=1.5, as after"),
        ("title: A\nstep: One\ncheck: use a b\n", 2, "the step 'One' does not say what to do; add text:"),
        (HEAD + "step: Two\n", 2, "the step 'One' has no check; add check: KIND ARGUMENTS WORDS"),
        (HEAD, 2, "the step 'One' has no check"),
        (HEAD + "check: view learn it\n" * 9, 12, "a step has at most 8 checks; make two steps of it"),
        (
            "title: A\n" + "step: S\ntext: T\ncheck: use a b\n" * 41,
            122,
            "a lesson has at most 40 steps; make two",
        ),
        (HEAD + "check: veiw learn it\n", 4, "'veiw' is not a kind of check; they are view, set, choose,"),
        (HEAD + "check: veiw learn it\n", 4, "did you mean 'view'?"),
        (HEAD + "check: view learn\n", 4, "'view learn' lacks something; write check: view NAME WORDS"),
        (HEAD + "check: view lern it\n", 4, "NAME is 'lern'; it must be one of write, learn, inside, train, about"),
        (HEAD + "check: set temperature hot 2 it\n", 4, "LOW is 'hot'; it must be a number: set ID LOW HIGH WORDS"),
        (HEAD + "check: set temperature 2 nan it\n", 4, "HIGH is 'nan'; it must be a number"),
        (HEAD + "check: set temperature 2 1 it\n", 4, "LOW 2.0 is above HIGH 1.0"),
        (HEAD + "check: set #temperature 1 2 it\n", 4, "ID is '#temperature'; it must be the id of an element"),
        (HEAD + "check: predict 0 it\n", 4, "COUNT is '0'; it must be a whole number from 1 to 1000"),
        (HEAD + "check: track 1.5 it\n", 4, "SCORE is '1.5'; it must be a number above 0, at most 1"),
        (HEAD + "check: forget c 50 it\n", 4, "SIDE is 'c'; it must be one of a, b"),
        (HEAD + "check: loss m loss 10 0.1 it\n", 4, "CURVE is 'loss'; it must be one of train_loss, val_loss, unseen"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path, text, line, said):
    path = tmp_path / "lesson.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RequestError) as raised:
        read_lesson(path)
    assert str(raised.value).startswith(f"{path}, line {line}: ")
    assert said in str(raised.value)


def test_a_lesson_of_ones_own_takes_the_place_of_the_bundled_one(tmp_path, monkeypatch):
    assert len(chosen_lesson().steps) == 8
    (tmp_path / "mine.txt").write_text(WHOLE, encoding="utf-8")
    monkeypatch.setenv("CHARLM_LESSON", str(tmp_path / "mine.txt"))
    assert chosen_lesson().title == "Two things to do"
    monkeypatch.setenv("CHARLM_LESSON", str(tmp_path / "mein.txt"))
    with pytest.raises(RequestError, match=r"cannot read the text .*mein.txt: No such file or directory; did you mean"):
        chosen_lesson()
    (tmp_path / "long.txt").write_text(WHOLE + "#" * LONGEST, encoding="utf-8")
    with pytest.raises(RequestError, match=r"long.txt has 50,\d+ characters, and a lesson at most 50,000; make it"):
        read_lesson(tmp_path / "long.txt")
    with pytest.raises(RequestError, match="mein.txt"):
        export_to([str(ROOT / "weights" / "shakespeare-rnn")], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_addresses_of_the_bundled_lesson_can_be_opened():
    lesson = chosen_lesson()
    models = {path.name for path in (ROOT / "weights").iterdir()}
    assert set(lesson.models) <= models
    registry = ModelRegistry([ServedModel(name, make_lm(), "bundled") for name in models])
    for step in lesson.steps:
        query = dict(urllib.parse.parse_qsl(step.open, strict_parsing=True))
        found = address.read_address(query, registry)
        assert (found.view, found.problems) == (query["view"], [])
        assert ("seed" in query) == (found.settings is not None)


def test_the_page_has_a_function_for_each_kind_of_check():
    script = (ROOT / "charlm" / "browser" / "components" / "deeds.js").read_text(encoding="utf-8")
    table = re.search(r"const CHECKS = \{\n(.*?)\n\};", script, re.DOTALL)[1]
    assert re.findall(r"^  (\w+):", table, re.MULTILINE) == list(CHECKS)


def test_a_page_holds_the_lesson_as_it_was_read():
    model = make_model("rnn")
    lesson = parse_lesson(WHOLE)
    data = page_data([PageModel.from_model("small", Model(model.config, model.weights, None))], lesson)
    assert data["lesson"] == lesson.to_json()
    assert data["lesson"]["steps"][0]["checks"][0] == {
        "kind": "number",
        "arguments": {"value": 1.4, "tolerance": 0.2},
        "words": "The temperature, in nothing:",
    }


# In a browser


SITE = "http://components.test"
HOSTILE = "<img src=x onerror=alert(1)> ${7*7} \u202egnp"
LESSON = {
    "title": "Hostile " + HOSTILE,
    "models": ["poems"],
    "steps": [
        {
            "title": HOSTILE,
            "text": HOSTILE,
            "open": "view=write&a=poems&prompt=%3Cb%3E#text",
            "done": HOSTILE,
            "checks": [
                {"kind": "set", "arguments": {"id": "temperature", "low": 1.3, "high": 2}, "words": HOSTILE},
                {"kind": "choose", "arguments": {"id": "colour", "value": "gate f"}, "words": "choose"},
                {"kind": "bits", "arguments": {"side": "b", "tolerance": 0.05}, "words": "bits"},
                {"kind": "number", "arguments": {"value": 1.4, "tolerance": 0.2}, "words": "number"},
            ],
        },
        {
            "title": "Last",
            "text": "Open it.",
            "open": "",
            "done": "",
            "checks": [{"kind": "view", "arguments": {"name": "learn"}, "words": "view"}],
        },
    ],
}
PAGE = """<header class="top"></header>
    <div id="temperature"><input type="number" value="0.8"><input type="range" value="0.8"></div>
    <fieldset id="colour"><input type="radio" name="c" value="surprisal" checked>
    <input type="radio" name="c" value="gate f"></fieldset>
    <p id="progress-b">poems · 1.98 bits per character</p><div id="view-learn" hidden>curves</div>"""


def test_a_lesson_sees_what_is_done_and_keeps_its_place_in_the_address(page):
    """The checks that no step of the bundled lesson makes; the others are made in the tests of both pages."""
    page.goto(f"{SITE}/?a=1&lesson=7")
    page.evaluate(
        """async ([lesson, html]) => {
            document.body.innerHTML = html;
            (await import("/components/lesson.js")).openLesson({ lesson, names: ["ada/poems@0123"] }, document.body);
        }""",
        [LESSON, PAGE],
    )
    assert page.locator(".lesson-title").inner_text() == "2 of 2: Last"  # the nearest step there is
    page.wait_for_url("**/?a=1&lesson=2")
    page.locator("#lesson-back").click()
    page.wait_for_url("**/?a=1&lesson=1")
    assert page.evaluate("document.activeElement.innerText") == f"1 of 2: {LESSON['steps'][0]['title']}".replace(
        "\u202e", "\\u{202e}"
    )

    # what the file says is text; its models are those of the page
    assert page.locator("#lesson :is(img, b, script)").count() == 0
    assert "<img src=x" in page.locator(".lesson-text").inner_text()
    query = urllib.parse.urlsplit(page.locator("#lesson-open").get_attribute("href"))
    assert dict(urllib.parse.parse_qsl(query.query)) == {
        "view": "write",
        "a": "ada/poems@0123",
        "prompt": "<b>",
        "lesson": "1",
    }
    assert query.fragment == "text"

    done = page.locator(".lesson-check.done")
    state = page.locator(".lesson-state")
    assert state.inner_text() == "0 of 4 done"
    page.locator("#temperature [type=number]").fill("1.3")
    page.locator("#colour input").nth(1).check()
    bits, number = page.get_by_label("bits"), page.get_by_label("number")
    number.fill("1,61")  # a decimal comma; beyond the tolerance
    bits.fill("2.02")
    bits.blur()
    page.get_by_text("3 of 4 done").wait_for()
    assert [each.inner_text() for each in done.locator("> :nth-child(2)").all()][1:] == ["choose", "bits"]
    page.get_by_text("Not this number: look again.").wait_for()
    page.locator("#temperature [type=number]").fill("0.1")  # what was done stays done
    number.fill("1.6")
    page.locator(".lesson.done").wait_for()
    assert state.inner_text() == "Done"
    assert page.locator(".lesson-result").is_visible()

    # by the keyboard: the next step, fold, end
    page.locator("#lesson-next").press("Enter")
    page.locator("#view-learn").evaluate("view => view.hidden = false")
    page.get_by_text("Done", exact=True).wait_for()
    assert not page.locator(".lesson-result").is_visible()
    page.locator("#lesson-fold").press("Enter")
    assert page.locator("#lesson-body").is_hidden()
    assert page.locator("#lesson-fold").get_attribute("aria-expanded") == "false"
    page.locator("#lesson-end").press("Enter")
    assert page.locator("#lesson").count() == 0
    assert page.url == f"{SITE}/?a=1"
    assert page.evaluate("document.activeElement.id") == "lesson-start"
    page.locator("#lesson-start").press("Enter")  # in the bar at the top
    page.wait_for_url("**/?a=1&lesson=1")
    assert page.locator("#lesson-start").is_hidden()


def test_a_lesson_may_call_a_field_by_the_name_that_it_had_before(page):
    arguments = [{"id": each, "value": "poems"} for each in ("inspect-model", "inspect-model-a", "inspect-model-b")]
    checks = [{"kind": "choose", "arguments": each, "words": each["id"]} for each in arguments]
    checks.append({"kind": "use", "arguments": {"id": "inspect-model"}, "words": "use"})
    step = {"title": "One", "text": "Choose.", "open": "", "done": "", "checks": checks}
    page.goto(f"{SITE}/?lesson=1")
    page.evaluate(
        """async (lesson) => {
            const models = "<option>prose</option><option>poems</option>";
            const field = (side) => `<select id="inspect-model-${side}">${models}</select>`;
            document.body.innerHTML = `<header class="top"></header>${field("a")}${field("b")}`;
            (await import("/components/lesson.js")).openLesson({ lesson, names: ["poems"] }, document.body);
        }""",
        {"title": "Fields", "models": ["poems"], "steps": [step]},
    )
    assert page.locator(".lesson-state").inner_text() == "0 of 4 done"
    page.locator("#inspect-model-a").select_option("poems")
    page.get_by_text("3 of 4 done").wait_for()
    done = page.locator(".lesson-check.done > :nth-child(2)")
    assert done.all_inner_texts() == ["inspect-model", "inspect-model-a", "use"]


def test_the_step_of_a_lesson_is_in_the_address_bar_of_a_spaces_page(page):
    said = page.evaluate(
        """async ([lesson, html]) => {
            const frame = document.createElement("iframe");
            frame.src = "/page";
            document.body.replaceChildren(frame);
            await new Promise((resolve) => (frame.onload = resolve));
            const said = [];
            addEventListener("message", ({ data }) => said.push(data.queryString));
            const inside = frame.contentWindow;
            inside.document.body.innerHTML = html;
            const meta = inside.document.createElement("meta");
            Object.assign(meta, { name: "charlm-space", content: `${location.origin}/spaces/ada/page` });
            inside.document.head.append(meta);
            const { openLesson } = await inside.eval(`import("${location.origin}/components/lesson.js")`);
            openLesson({ lesson, names: ["poems"] }, inside.document.body);
            for (const name of ["start", "next", "end"]) inside.document.getElementById(`lesson-${name}`).click();
            const end = performance.now() + 5000;
            while (said.length < 3 && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 10));
            return said;
        }""",
        [LESSON, PAGE],
    )
    assert said == ["?lesson=1", "?lesson=2", ""]


def test_a_unit_follows_the_line_if_a_straight_line_explains_its_activation(page):
    text = "a line of verse,\nand another, longer one,\nand short\n" * 4
    positions = [len(text[:place].rpartition("\n")[2]) + (symbol != "\n") for place, symbol in enumerate(text)]
    positions = [0 if symbol == "\n" else position for position, symbol in zip(positions, text, strict=True)]
    noise = np.random.default_rng(0).normal(size=len(text))
    for amount in (0, 0.5, 100):
        values = np.array(positions) / 25 + amount * noise
        values = (values - values.min()) / np.ptp(values)
        found = page.evaluate(
            'async (value) => (await import("/components/deeds.js")).followsLine(value)',
            {"text": text, "shades": shades(values)},
        )
        assert found == pytest.approx(np.corrcoef(positions, values)[0, 1] ** 2, abs=0.02)


def test_a_view_and_a_unit_are_seen_where_the_browser_has_no_check_visibility(page):
    text = "abcdefghi\n" * 20
    line = [(place + 1) % 10 / 9 for place in range(len(text))]
    seen = page.evaluate(
        """async (value) => {
            const { CHECKS } = await import("/components/deeds.js");
            const { checkVisibility } = Element.prototype;
            document.body.innerHTML = `<div id="view-learn">curves</div>
                <div id="view-inside"><p class="heat"></p></div>`;
            const [learn, inside] = document.body.children;
            inside.heatText = { value };
            delete Element.prototype.checkVisibility; // as in Safari before 17.4
            try {
                return [[learn, inside], [inside], [learn]].map((hidden) => {
                    for (const view of [learn, inside]) view.hidden = hidden.includes(view);
                    const [isSeen, isMissing] = ["learn", "about"].map((name) => CHECKS.view({ name }));
                    return [isSeen, CHECKS.track({ score: 0.9 }), isMissing];
                });
            } finally {
                Object.assign(Element.prototype, { checkVisibility });
            }
        }""",
        {"kind": "activation", "text": text, "shades": shades(line)},
    )
    assert seen == [[False, False, False], [True, False, False], [False, True, False]]


def test_a_lesson_may_be_named_from_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text(WHOLE, encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CHARLM_LESSON", "~/mine.txt")
    assert chosen_lesson().title == "Two things to do"
