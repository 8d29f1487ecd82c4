"""The components for taking part in the writing: alternatives, how a character was drawn, branches, unknown symbols."""

import math

import numpy as np
import pytest
from models import make_sampler

from charlm.inference.sampling import log_softmax

STEPS = """async ([details, settings, randoms]) => {
    const { drawnPlace, stepsOfDraw, surprisalAt } = await import("/components/sampling.js");
    const steps = stepsOfDraw(details, settings);
    const drawn = randoms.map((random) => drawnPlace(steps, random));
    return { ...steps, drawn, surprisal: surprisalAt(details, 0) };
}"""


@pytest.fixture
def show(page):
    """A function that shows the details of a character in the components; `chosen` on the page has what was chosen."""

    def call(name, details, settings=None):
        page.evaluate(
            """async ([file, name, details, settings]) => {
                const module = await import(`/components/${file}.js`);
                const element = document.createElement("div");
                document.body.replaceChildren(element);
                window.chosen = [];
                const onChoose = (symbol) => chosen.push(symbol);
                const onNext = () => chosen.push("next");
                window.component = new module[name](element, { onChoose, onNext, onLeave: () => chosen.push("left") });
                component.show(details, settings, "a");
            }""",
            [name.lower(), name, details, {"temperature": 1, "top_k": 0, "top_p": 1} | (settings or {})],
        )

    return call


def details(logits, symbol="a", **more):
    symbols = [chr(ord("a") + place) for place in range(len(logits))]
    made = {"place": 4, "symbol": symbol, "symbols": symbols, "logits": logits, "forced": False, "random": 0.5}
    return made | more


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1, 0, 1), (0, 0, 1), (0.3, 5, 1), (1.5, 0, 0.9), (0.8, 40, 0.5), (1e-300, 0, 1), (2, 1, 1), (1, 0, 0)],
)
def test_the_steps_of_a_draw_are_those_of_python(page, temperature, top_k, top_p):
    random = np.random.default_rng(5)
    for symbols, scale in ((3, 1), (65, 3), (65, 30), (300, 3000)):
        logits = (scale * random.standard_normal(symbols)).astype(np.float32)
        logits[random.integers(symbols, size=symbols // 2)] = logits[0]  # ties
        sampler = make_sampler(temperature, top_k, top_p, 11)
        randoms = np.random.Generator(np.random.PCG64(11)).random(100).tolist()
        settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        found = page.evaluate(STEPS, [{"logits": logits.tolist()}, settings, randoms])
        assert found["drawn"] == [sampler.draw(logits) for _ in randoms]
        assert found["surprisal"] == pytest.approx(-log_softmax(logits)[0], abs=1e-6)
        if temperature:
            assert found["probabilities"] == pytest.approx(sampler.probabilities(logits), rel=1e-9, abs=1e-12)
            assert found["cumulative"] == pytest.approx(np.cumsum(sampler.probabilities(logits)), abs=1e-9)
        if top_p == 1 and temperature:
            assert sum(found["kept"]) == min(top_k or symbols, symbols)


def test_the_symbols_with_the_highest_logits_are_enough_for_the_probabilities(page):
    logits = np.random.default_rng(1).standard_normal(40).astype(np.float32)
    listed = np.sort(np.argsort(-logits)[:10])
    unlisted = np.delete(logits, listed)
    told = {"logits": logits[listed].tolist(), "rest": float(np.logaddexp.reduce(unlisted)), "others": len(unlisted)}
    whole = make_sampler(1, 0, 1, 0).probabilities(logits)
    found = page.evaluate(STEPS, [told, {"temperature": 1, "top_k": 0, "top_p": 1}, [0.5]])
    assert found["probabilities"] == pytest.approx(whole[listed], rel=1e-5)
    assert found["rest"] == pytest.approx(1 - whole[listed].sum(), rel=1e-5)
    assert found["drawn"] == [-1]  # it may be one that is not listed
    cut = page.evaluate(STEPS, [told, {"temperature": 0.7, "top_k": 10, "top_p": 0.9}, [0.5]])
    assert cut["probabilities"] == pytest.approx(make_sampler(0.7, 10, 0.9, 0).probabilities(logits)[listed], rel=1e-6)
    assert cut["rest"] == 0 and cut["drawn"] != [-1]


def test_the_ten_likeliest_are_offered_as_they_were_sampled_and_the_one_that_stands_there(page, show):
    logits = [math.log(weight) for weight in (2, 8, 4, *([1] * 20))]
    show("Alternatives", details(logits, "w"), {"top_k": 2})
    buttons = page.locator(".alternative")
    words = [button.get_attribute("aria-label") for button in buttons.all()]
    assert words[:3] == ["“b”, 66.7 %", "“c”, 33.3 %", "“a”, cut by top-k or top-p"]
    assert len(words) == 11 and words[10] == "“w”, cut by top-k or top-p, stands there"
    assert page.locator(".alternatives-line").inner_text() == f"“w”, character 5 · {math.log2(34):.2f} bits"
    buttons.nth(1).click()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert page.evaluate("chosen") == ["c", "a", "left"]


def test_sliders_redraw_the_draw_at_once_and_next_asks_for_a_symbol(page, show):
    show("Drawn", details([math.log(3), math.log(1)], "a", random=0.8), {"temperature": 2})
    line, slider = page.locator(".drawn-line"), page.locator(".drawn-slider input")
    share = f"{math.sqrt(3) / (math.sqrt(3) + 1):.4f}"
    assert line.inner_text() == f"random number 0.8000 → “b” ({share} to 1.0000)"
    show("Drawn", details([-0.04, -1.26], "a"))
    assert page.locator(".drawn-row").nth(1).locator(".drawn-figure").all_inner_texts() == ["0.0", "−1.3"]
    show("Drawn", details([math.log(3), math.log(1)], "a", random=0.7))
    assert line.inner_text() == "random number 0.7000 → “a” (0.0000 to 0.7500)"
    take = page.locator(".drawn-head button").first
    assert not take.is_visible()
    slider.first.fill("2")
    assert line.inner_text() == f"random number 0.7000 → “b” ({share} to 1.0000); the text has “a”"
    assert page.locator(".drawn-row").nth(2).locator(".drawn-figure").all_inner_texts() == ["0.5", "0.0"]
    take.click()
    page.get_by_role("button", name="As it was drawn").click()
    assert line.inner_text() == "random number 0.7000 → “a” (0.0000 to 0.7500)"
    page.get_by_role("button", name="Next").click()
    assert page.evaluate("chosen") == ["b", "next"]


def test_branches_are_a_tree_with_undo_and_redo(page):
    found = page.evaluate(
        """async () => {
            const { BranchHistory, encodeChoices, withChoice } = await import("/components/branches.js");
            const history = new BranchHistory();
            const visit = (side, forced) => {
                history.record(side, { forced, bits: forced.length });
                history.visit(side, forced);
            };
            visit("a", []);
            visit("b", []);
            const one = withChoice([], 12, "A");
            const two = withChoice(one, 40, "\\n");
            const other = withChoice(two, 12, "é");
            for (const forced of [one, two, other]) visit("a", forced);
            visit("b", withChoice([], 3, "x"));
            const rows = history.rows("a").map(({ branch, depth, isCurrent }) =>
                [encodeChoices(branch.forced), depth, isCurrent]);
            const told = (steps) => steps.map(({ side, branch }) => [side, encodeChoices(branch.forced)]);
            const steps = [-1, -1, -1, 1].map((by) => told(history.step(by)));
            visit("a", withChoice(one, 13, "z"));
            steps.push(told(history.step(1)), told(history.step(-1)), history.canUndo);
            history.start();
            history.start(); // nothing was written meanwhile
            history.record("a", { forced: [[7, "l"]], bits: 1 }); // as a link has it
            history.record("b", { forced: [], bits: 1 });
            const texts = ["a", "b"].map((side) => history.rows(side).map(({ key, depth }) => [key, depth]));
            steps.push(told(history.step(-1)), told(history.step(1)));
            for (let place = 0; place < 100; place++) visit("b", [[place, "y"]]);
            return { rows, steps, texts, kept: history.branches.b.size, last: history.rows("b")[0].key };
        }"""
    )
    assert found["rows"] == [["", 0, False], ["12.41", 1, False], ["12.41-40.a", 2, False], ["12.e9", 1, True]]
    there, back = ["a", "12.41-40.a"], ["a", "12.41"]
    before, after = [["a", "12.41-40.a"], ["b", ""]], [["a", "7.6c"], ["b", ""]]
    assert found["steps"] == [[["b", ""]], [there], [back], [there], [], [there], True, before, after]
    branches = ["0:12.41", "0:12.41-13.7a", "0:12.41-40.a", "0:12.e9"]
    assert [key for key, _ in found["texts"][0]] == ["1:7.6c", "0:", *branches]
    assert found["texts"][1] == [["1:", 0], ["0:", 0], ["0:3.78", 1]]
    assert (found["kept"], found["last"]) == (64, "1:")


def test_the_focus_stays_on_a_branch_when_the_tree_is_drawn_again(page):
    page.evaluate(
        """async () => {
            const { Branches, BranchHistory } = await import("/components/branches.js");
            const history = new BranchHistory();
            for (const side of ["a", "b"]) history.record(side, { forced: [], bits: 1 });
            history.record("b", { forced: [[3, "x"]], bits: 2 });
            const element = document.createElement("div");
            document.body.replaceChildren(element);
            const branches = new Branches(element, history, { onLeave: () => {}, onGo: () => branches.update() });
        }"""
    )
    row = page.get_by_role("button", name="Text B with “x” at 4")
    row.press("Enter")
    assert row.get_attribute("aria-current") == "true"
    assert row.evaluate("row => row === document.activeElement")


def test_a_button_that_can_be_clicked_no_more_hands_the_focus_on(page, show):
    page.evaluate(
        """async () => {
            const { Branches, BranchHistory } = await import("/components/branches.js");
            const history = new BranchHistory();
            history.record("a", { forced: [], bits: 1 });
            history.visit("a", [[3, "x"]]);
            const element = document.createElement("div");
            document.body.replaceChildren(element);
            const branches = new Branches(element, history, { onLeave: () => {}, onGo: () => branches.update() });
        }"""
    )
    focused = "document.activeElement.textContent"
    page.locator("#undo").press("Enter")
    assert page.evaluate(focused) == "Redo" and page.locator("#undo").is_disabled()
    page.locator("#redo").press("Enter")
    assert page.evaluate(focused) == "Undo" and page.locator("#redo").is_disabled()

    draw = details([math.log(3), math.log(1)], "a", random=0.7)
    for button in ("As it was drawn", "Write “b”"):
        show("Drawn", draw)
        page.locator(".drawn-slider input").first.fill("2")
        page.get_by_role("button", name=button).press("Enter")
        page.evaluate("(draw) => component.show(draw, { temperature: 1, top_k: 0, top_p: 1 })", draw | {"symbol": "b"})
        assert page.evaluate(focused) == "Next"


CHOICES = """async () => {
    const { Choices } = await import("/components/choices.js");
    const { HeatText } = await import("/components/heat.js");
    document.body.innerHTML = '<div id="alternatives"></div><div id="drawn"></div><div id="branches"></div>';
    Object.assign(window, { calls: [], restored: [] });
    const details = { symbols: ["a", "b"], logits: [0, 0], forced: false, random: 0.9 }; // draws b
    window.panels = Object.fromEntries(["a", "b"].map((side) => {
        const element = document.createElement("div");
        element.innerHTML = '<div class="heat"></div>';
        document.body.append(element);
        const run = { temperature: 1, top_k: 0, top_p: 1, forced: [] };
        const panel = { side, bits: 1, isWriting: false, stop: () => calls.push(`stop ${side}`) };
        panel.props = { heading: side, value: { text: "abab", shades: "0000", run } };
        panel.heat = new HeatText(element, panel.props, () => {}, {
            onPoint: (place) => choices.point(panel, place),
            onChoose: () => {},
            isOtherHeld: () => choices.isOtherHeld(panel),
        });
        panel.look = async (place) => ({ ...details, place, symbol: "abab"[place] });
        panel.restore = (value) => restored.push([side, value]);
        Object.defineProperty(panel, "value", { get: () => panel.heat.value });
        Object.defineProperty(panel, "symbols", { get: () => Array.from(panel.value.text) });
        return [side, panel];
    }));
    const [write, fail] = ["write", "fail"].map((called) => async () => calls.push(called));
    window.choices = new Choices(panels, { write, extend: () => {}, fail });
    window.answered = async (act) => {
        await act();
        while (choices.isLooking) await new Promise(requestAnimationFrame);
    };
}"""


def test_the_pointer_may_cross_the_other_text_on_its_way_to_what_is_known_of_a_held_character(page):
    page.evaluate(CHOICES)
    a, b = (page.locator(".heat-text").nth(side).locator("span") for side in (0, 1))
    a.nth(2).click()
    b.nth(1).hover()
    assert page.locator(".cursor").count() == 1 and a.nth(2).get_attribute("class") == "cursor held"
    b.nth(1).click()  # which is no crossing
    page.evaluate("answered(() => {})")
    assert page.locator(".cursor").count() == 1 and b.nth(1).get_attribute("class") == "cursor held"
    b.nth(1).click()  # lets go
    a.nth(3).hover()
    page.evaluate("answered(() => {})")
    assert a.nth(3).get_attribute("class") == "cursor" and page.locator(".cursor").count() == 1


def test_a_text_that_ends_before_the_held_character_lets_go_of_it(page):
    """A choice cuts the text before the character that is held; if the model then writes nothing, it is gone."""
    page.evaluate(CHOICES)
    a, b = (page.locator(".heat-text").nth(side).locator("span") for side in (0, 1))
    page.evaluate("answered(() => panels.a.heat.hold(2))")
    page.evaluate("panels.a.props.value = { ...panels.a.value, text: 'ab', shades: '00' }; panels.a.heat.update()")
    page.evaluate("choices.describeAgain(panels.a, 2)")
    b.nth(1).hover()
    page.evaluate("answered(() => {})")
    assert b.nth(1).get_attribute("class") == "cursor"
    a.nth(0).hover()
    page.evaluate("answered(() => {})")
    assert a.nth(0).get_attribute("class") == "cursor"


def test_a_choice_that_changes_nothing_or_is_refused_stops_no_model(page):
    page.evaluate(CHOICES)
    page.evaluate("answered(() => panels.a.heat.hold(1))")
    page.locator("#alternatives [aria-current]").click()
    assert page.evaluate("calls") == []
    page.evaluate("panels.a.value.run.forced = Array(64).fill([0, 'b'])")
    page.locator("#alternatives button:not([aria-current])").click()
    assert page.evaluate("calls.splice(0)") == ["fail"]
    page.evaluate("panels.a.value.run.forced = []")
    page.locator("#alternatives button:not([aria-current])").click()
    assert page.evaluate("calls") == ["stop a", "write"]


def test_going_to_a_text_that_could_not_be_written_shows_an_empty_one(page):
    page.evaluate(CHOICES)
    page.evaluate("choices.go(panels.b, undefined)")
    assert page.evaluate("restored") == [["b", None]]
    told = page.evaluate(
        """async () => {
            const { WrittenText, writing } = await import("/charlm/web/static/write.js"); // of the Gradio page
            const element = document.createElement("div");
            element.innerHTML = '<div class="heat"></div>';
            document.body.append(element);
            const props = { heading: "a", value: { text: "older", shades: "00000" } };
            const line = { props: { value: "of the older text" }, update: () => {} };
            writing.line("a", line);
            const text = new WrittenText("a", element, { props, trigger: () => {}, watch: () => {}, server: {} });
            text.restore(undefined);
            return [element.querySelector(".heat-text").textContent, line.props.value ?? ""];
        }"""
    )
    assert told == ["", ""]


def test_the_choices_of_a_link_are_read_or_refused(page):
    link = {"a": "m", "b": "m", "prompt": "x", "length": "50", "temperature": "1", "top_k": "0", "top_p": "1"}
    links = ["12.65-40.a", "49.1f600", "", "12.65-12.61", "50.61", "9.110000", "9.xyz", "-", "-".join(["0.61"] * 65)]
    found = page.evaluate(
        """async ([link, links]) => {
            const { models } = await import("/models.js");
            const { parametersOf, readAddress } = await import("/address.js");
            models.push({ name: "m" });
            return links.map((fb) => {
                const { settings, problem } = readAddress(new URLSearchParams({ ...link, seed: "1", fb }));
                if (problem) return problem;
                return [settings.forced, parametersOf(settings).fb ?? ""];
            });
        }""",
        [link, links],
    )
    assert found[0] == [{"a": [], "b": [[12, "e"], [40, "\n"]]}, links[0]]
    assert found[1:3] == [[{"a": [], "b": [[49, "😀"]]}, links[1]], [{"a": [], "b": []}, ""]]
    start = "The link cannot be opened here: "
    wrong = "its choice '{}' is none: a choice is PLACE.CODEPOINT, such as 12.65."
    assert found[3:] == [
        start + "its choices are not in the order of their places.",
        start + "its choice at 50 lies beyond the text of 50 characters.",
        *(start + wrong.format(choice) for choice in ("9.110000", "9.xyz", "")),
        start + "it has 65 choices; 64 are allowed.",
    ]


@pytest.mark.parametrize(
    ("symbol", "substitute"),
    [
        ("é", "e"),
        ("’", "'"),
        ("“", '"'),
        ("—", "-"),
        ("…", "..."),
        ("É", "E"),
        ("ß", "ss"),
        ("ﬁ", "fi"),
        ("한", ""),
        ("~", ""),
    ],
)
def test_a_symbol_that_is_not_known_has_a_substitute_that_is(page, symbol, substitute):
    vocab = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'\"-. "
    call = "async (given) => (await import('/components/unknown.js')).substituteFor(given[0], new Set(given[1]))"
    assert page.evaluate(call, [symbol, vocab]) == substitute
    assert page.evaluate(call, ["É", "e"]) == "e"  # where the model knows no capital letters
    assert page.evaluate(call, ["“", "'"]) == "'"  # where it knows no quotation marks


NEXT_FRAME = "() => new Promise(requestAnimationFrame)"


def test_unknown_symbols_are_marked_while_typing_and_replaced_at_a_click(page):
    page.evaluate(
        """async () => {
            const { UnknownMarks } = await import("/components/unknown.js");
            document.body.innerHTML = "<div><textarea aria-label='Prompt'></textarea></div><p></p>";
            const [field, line] = document.querySelectorAll("textarea, p");
            new UnknownMarks(field, line, () => new Set("cafe's "));
            window.told = 0;
            new MutationObserver(() => told++).observe(line, { childList: true });
        }"""
    )
    field, marks = page.get_by_label("Prompt"), page.locator("mark")
    for symbol in "café’s <é한>":
        field.press_sequentially(symbol)
        page.evaluate(NEXT_FRAME)
    assert page.evaluate("told") == 6  # not again for a symbol that is known: a screen reader would read it
    assert [mark.get_attribute("data-text") for mark in marks.all()] == ["é’", "<é한>"]
    page.get_by_role("button", name="Replace “é” by “e”, 2 times").click()
    page.evaluate(NEXT_FRAME)
    assert field.input_value() == "cafe’s <e한>" and marks.count() == 3
    page.get_by_role("button", name="Replace all").click()
    page.evaluate(NEXT_FRAME)
    assert field.input_value() == "cafe's e" and not page.locator("p").is_visible()


def test_many_unknown_symbols_are_marked_once_a_frame_in_runs_of_which_there_are_not_too_many(page):
    drawn, runs, marks, text = page.evaluate(
        """async () => {
            const { UnknownMarks } = await import("/components/unknown.js");
            document.body.innerHTML = "<div><textarea></textarea></div><p></p>";
            const [field, line] = document.querySelectorAll("textarea, p");
            let drawn = 0;
            new UnknownMarks(field, line, () => (drawn++, new Set("a")));
            const enter = async (text) => {
                field.value = text;
                for (let key = 0; key < 10; key++) field.dispatchEvent(new Event("input"));
                await new Promise(requestAnimationFrame);
                return document.querySelectorAll("mark").length;
            };
            const runs = await enter("a" + "é".repeat(5000));
            const marks = await enter("aé".repeat(5000));
            const parts = [...document.querySelectorAll(".unknown-backdrop > *")];
            return [drawn, runs, marks, parts.map(({ dataset }) => dataset.text).join("")];
        }"""
    )
    assert (drawn, runs, marks) == (3, 1, 2000)  # the first one when it was made
    assert text == "aé" * 5000 + "\n"  # so that the marks stand where their symbols do


TEXT = """async (value) => {
    const { encodeShades, HeatText } = await import("/components/heat.js");
    if (!window.shown?.isConnected) {
        window.shown = document.createElement("div");
        shown.innerHTML = '<div class="heat"></div>';
        document.body.replaceChildren(shown);
        window.calls = [];
        window.props = { heading: "text", value: {} };
        const onPoint = (place) => calls.push(["point", place]);
        const onChoose = (place) => calls.push(["choose", place]);
        new HeatText(shown, props, () => {}, { onPoint, onChoose });
    }
    const spans = [...shown.querySelectorAll("span[data-place]")];
    props.value = { text: value.text, shades: encodeShades(value.shades), run: { forced: value.forced } };
    shown.heatText.update();
    await new Promise(requestAnimationFrame);
    const now = [...shown.querySelectorAll("span[data-place]")];
    return now.filter((span) => spans.includes(span)).length;
}"""


def test_a_text_that_is_cut_keeps_what_it_has_in_common_and_marks_the_choices(page):
    page.evaluate("window.shown?.remove()")
    page.evaluate(TEXT, {"text": "abcdef", "shades": [0.1] * 6, "forced": []})
    shown, spans = page.locator(".heat-text"), page.locator(".heat-text span")
    spans.nth(3).click()
    kept = page.evaluate(TEXT, {"text": "abcXe\u0301", "shades": [0.1] * 6, "forced": [[3, "X"]]})
    assert (kept, shown.text_content()) == (3, "abcXe\u0301")
    assert [each.text_content() for each in page.locator(".forced").all()] == ["X"]
    assert spans.nth(3).get_attribute("class") == "forced cursor held"
    assert page.evaluate(TEXT, {"text": "abcXe\u0301gh", "shades": [0.1] * 8, "forced": [[3, "X"]]}) == 6
    assert page.evaluate(TEXT, {"text": "ab", "shades": [0.1] * 2, "forced": []}) == 2


def test_a_character_is_held_until_it_is_chosen_again_and_the_keys_reach_all(page):
    page.evaluate("window.shown?.remove()")
    page.evaluate(TEXT, {"text": "one two\nthree\nfour", "shades": [0.1] * 18, "forced": []})
    page.mouse.move(0, 700)
    page.evaluate("calls.length = 0")
    spans = page.locator(".heat-text span")
    spans.nth(1).hover()
    spans.nth(2).click()
    spans.nth(5).hover()  # on the way to what is known of the third
    page.locator(".heat-text").focus()
    for key in ("ArrowRight", "Enter", "Escape", "Home", "End", "Escape"):
        page.keyboard.press(key)
    spans.nth(4).hover()
    point, choose = (lambda place: ["point", place]), (lambda place: ["choose", place])
    expected = [point(1), point(2), point(2), choose(2), point(3), point(3), choose(3), point(0), point(17), point(4)]
    assert page.evaluate("calls") == expected


def test_a_text_that_grows_scrolls_to_its_end_unless_a_character_is_held(page):
    page.add_style_tag(content=".heat-text { height: 60px; overflow-y: auto; white-space: pre-wrap; }")
    page.evaluate("window.shown?.remove()")
    scroll = "document.querySelector('.heat-text').scrollTop"
    values = [{"text": "a\n" * length, "shades": [0.1] * 2 * length, "forced": []} for length in (4, 30, 60)]
    for value in values[:2]:
        page.evaluate(TEXT, value)
    assert page.evaluate(scroll) > 100
    page.evaluate(TEXT, values[0])
    page.locator(".heat-text span").nth(2).click()
    page.evaluate(TEXT, values[2])
    assert page.evaluate(scroll) < 100


def test_a_text_that_grows_stays_where_a_visitor_has_scrolled_to_and_follows_again_from_its_end(page):
    page.add_style_tag(content=".heat-text { height: 60px; overflow-y: auto; white-space: pre-wrap; }")
    page.evaluate("window.shown?.remove()")
    scroll = "document.querySelector('.heat-text').scrollTop"

    def show(lines):
        page.evaluate(TEXT, {"text": "a\n" * lines, "shades": [0.1] * 2 * lines, "forced": []})

    show(30)
    page.evaluate(f"{scroll} = 40")
    show(40)
    assert page.evaluate(scroll) == 40
    page.evaluate(f"{scroll} = 1e6")
    there = page.evaluate(scroll)
    show(50)
    assert page.evaluate(scroll) > there > 40


def test_updates_of_a_growing_text_measure_nothing_before_the_next_frame(page):
    page.evaluate("window.shown?.remove()")
    page.evaluate(TEXT, {"text": "a", "shades": [0.1], "forced": []})
    measured = page.evaluate(
        """async () => {
            const text = document.querySelector(".heat-text");
            let count = 0;
            for (const name of ["scrollHeight", "scrollTop", "clientHeight"]) {
                Object.defineProperty(text, name, { get: () => (count++, 0), set: () => {} });
            }
            for (const length of [2, 3, 4]) {
                props.value = { ...props.value, text: "a".repeat(length), shades: "1".repeat(length) };
                shown.heatText.shades = "1".repeat(length - 1); // what was shown is the beginning of this
                shown.heatText.update();
            }
            const before = count;
            await new Promise(requestAnimationFrame);
            return [text.textContent, before, count > before];
        }"""
    )
    assert measured == ["aaaa", 0, True]
