"""The components that both pages load: heat texts and curves, in a browser, by themselves."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
from models import make_joined_record, make_lm, make_record

from charlm.analysis.published import TINYSHAKESPEARE
from charlm.browser.scripts import COMPONENTS_STYLE
from charlm.model.history import join_runs
from charlm.web import address
from charlm.web.answers.inside import Inspector
from charlm.web.heat import HIGHEST, LOWEST, MOST_NATS, shades
from charlm.web.models import ModelRegistry, ServedModel
from charlm.web.plots import AXES, COLUMNS, LOSS_UNITS, SCALES, PlotSettings, draw_plot

DRAW = """async (value) => {
    const { Curves } = await import("/components/curves.js");
    const element = document.createElement("div");
    element.innerHTML = '<div class="curves"></div>';
    document.body.replaceChildren(element);
    window.curves = new Curves(element, { value });
}"""


@pytest.fixture
def chart(page):
    """A function that returns the chart of some records, as curves.js makes it."""

    def call(*records, unit="nats per character", axis="epochs", scale="linear"):
        value = draw_plot(records, PlotSettings(unit, axis, scale))
        return page.evaluate(
            'async (value) => (await import("/components/curves.js")).lossChart(value.records, value)', value
        )

    return call


def curves_of(chart):
    return {series["name"]: series["points"] for series in chart["series"]}


def test_the_curves_are_the_numbers_of_the_record(chart):
    found = curves_of(chart(("small", make_record((2.0, 1.5, 1.75)))))
    assert found["small, validation"] == [[1, 2.0], [2, 1.5], [3, 1.75]]
    assert [loss for _, loss in found["small, training"]] == pytest.approx([1.8, 1.35, 1.575])


def test_the_best_epoch_is_marked_where_its_validation_loss_lies(chart):
    (mark,) = chart(("small", make_record((2.0, 1.5, 1.75))))["marks"]
    assert mark == {"name": "small, best: 1.5000 at epoch 2", "colour": 0, "at": [2, 1.5]}


def test_a_learning_rate_that_was_asked_for_is_marked_on_the_training_loss_of_its_epoch(page, chart):
    asked = [(2, 0.001), (2, 0.0005), (3, 1 / 3000), (4, 0.1)]  # of the fourth epoch nothing is recorded
    edits = [{"epoch": epoch, "step": 7, "lr": lr} for epoch, lr in asked]
    record = make_record((2.0, 1.5, 1.75), lr_edits=edits)
    _, *marks = chart(("small", record), axis="seconds", unit="perplexity")["marks"]
    assert [mark["name"] for mark in marks] == [
        "small, learning rate 0.0005 in epoch 2",
        "small, learning rate 0.000333 in epoch 3",
    ]
    assert [mark["at"] for mark in marks] == [
        pytest.approx([25, math.exp(0.9 * 1.5)]),
        pytest.approx([37.5, math.exp(0.9 * 1.75)]),
    ]
    # the page without a server has the record itself
    settings = {"unit": "nats per character", "axis": "epochs", "scale": "linear"}
    page.evaluate(DRAW, {"records": [["small", record]], **settings})
    assert page.evaluate("curves.chart.marks[1].at") == pytest.approx([2, 0.9 * 1.5])
    entries = page.locator(".curves-legend span.curves-entry")
    assert [each.inner_text() for each in entries.all()][1:] == [mark["name"] for mark in marks]
    star, arrow, _ = (each.locator("path").get_attribute("d") for each in entries.all())
    drawn = page.locator(f'.curves-plot path[d="{arrow}"]')
    assert star != arrow and drawn.count() == 2 and page.locator(f'.curves-plot path[d="{star}"]').count() == 1


def test_further_runs_are_marked_where_they_begin_and_listed_once(page):
    record = make_joined_record((2.0, 1.5, 1.75), (1.6, 1.4), (1.3,))
    page.evaluate(DRAW, draw_plot([("small", record)]))
    marks = page.evaluate("curves.chart.marks.map(({ at, sign, name }) => [at, sign, name])")
    assert marks[1:] == [[[3, 1.6], "bar", "small, further runs begin at epochs 3, 5"], [[5, 1.3], "bar", ""]]
    assert page.locator(".curves-legend span.curves-entry").all_inner_texts() == [
        "small, best: 1.3000 at epoch 5",
        "small, further runs begin at epochs 3, 5",
    ]
    page.evaluate(DRAW, draw_plot([("worse", make_joined_record((2.0, 1.5), (1.7, 1.6)))]))
    assert page.locator(".curves-legend span.curves-entry").all_inner_texts() == [
        "worse, best of the last run: 1.6000 at epoch 4",
        "worse, a further run begins at epoch 3",
    ]


@pytest.mark.parametrize(
    "record",
    [make_record(), make_joined_record((2.0, 1.5, 1.75), (1.6,), (1.4, 1.3), lr_edits=[{"epoch": 1, "lr": 0.1}])],
    ids=["one run", "three runs"],
)
def test_the_browser_joins_runs_as_python_does(page, record):
    call = 'async (record) => (await import("/components/curves.js")).joinRuns(record)'
    assert page.evaluate(call, record) == join_runs(record)


def test_a_loss_that_was_not_recorded_has_no_curve_and_one_that_was_has(chart):
    record = make_record((2.0, 1.5))
    assert "small, unseen text" not in curves_of(chart(("small", record)))
    record["epochs"][1]["unseen_loss"] = 3.0
    assert curves_of(chart(("small", record)))["small, unseen text"] == [[2, 3.0]]


def test_each_model_has_a_colour_of_its_own_for_all_its_curves(chart):
    found = chart(("one", make_record()), ("two", make_record()))
    colours = {each["name"]: each["colour"] for each in [*found["series"], *found["marks"]]}
    assert len({colours[name] for name in colours if name.startswith("one")}) == 1
    assert len(set(colours.values())) == 2


def test_models_a_and_b_have_their_colours_and_each_curve_a_marker_of_its_model(page):
    records = [(name, make_record((2.0, 1.5, 1.4))) for name in ("one", "two", "three")]
    page.evaluate(DRAW, draw_plot(records, sides=["two", "one"]))
    colours = page.evaluate("window.curves.chart.series.map(({ model, colour }) => [model, colour])")
    assert {tuple(each) for each in colours} == {("two", 0), ("one", 1), ("three", 2)}
    shapes = page.locator(".curves-legend button").evaluate_all(
        "entries => entries.map((entry) => [entry.innerText, entry.querySelector('[transform]').getAttribute('d')])"
    )
    assert len({shape for _, shape in shapes}) == 3
    assert len({(name.split(",")[0], shape) for name, shape in shapes}) == 3


def test_a_published_loss_is_a_line_where_it_was_measured_on_the_same_text_and_split(page):
    record = make_record((2.0, 1.5))
    record["run"] |= TINYSHAKESPEARE
    page.evaluate(DRAW, draw_plot([("ours", record)], PlotSettings("perplexity")))
    levels = {level["label"]: level["at"] for level in page.evaluate("window.curves.chart.levels")}
    assert levels["nanoGPT"] == pytest.approx(math.exp(1.4697))
    assert "its README" in page.locator(".curves-legend").inner_text()
    other = make_record((2.0, 1.5)) | {"run": record["run"] | {"protocol": "windows"}}
    for records in ([("other", other)], [("ours", record), ("other", other)], []):
        assert draw_plot(records)["published"] == []


@pytest.mark.parametrize(
    ("unit", "losses"),
    [
        ("nats per character", [2.0, 1.5]),
        ("bits per character", [2.0 / math.log(2), 1.5 / math.log(2)]),
        ("perplexity", [math.e**2, math.e**1.5]),
    ],
)
def test_losses_are_shown_in_the_unit_that_is_asked_for(chart, unit, losses):
    found = chart(("small", make_record((2.0, 1.5))), unit=unit)
    assert [loss for _, loss in curves_of(found)["small, validation"]] == pytest.approx(losses)
    assert found["marks"][0]["at"][1] == pytest.approx(losses[1])


@pytest.mark.parametrize(
    ("axis", "places"),
    [("epochs", [1, 2, 3]), ("seconds", [12.5, 25, 37.5]), ("characters read", [1e6, 2e6, 3e6])],
)
def test_losses_are_shown_over_what_is_asked_for(chart, axis, places):
    found = chart(("small", make_record((2.0, 1.5, 1.75))), axis=axis)
    assert [place for place, _ in curves_of(found)["small, validation"]] == pytest.approx(places)
    assert found["marks"][0]["at"][0] == pytest.approx(places[1])


def test_the_loss_may_have_a_logarithmic_scale(chart):
    assert chart(("small", make_record()), scale="log")["y"]["log"]


def test_the_units_and_axes_have_the_same_names_in_python(page):
    names = page.evaluate(
        """async () => {
            const { AXES, LOSS_UNITS } = await import("/components/curves.js");
            return [Object.keys(LOSS_UNITS), Object.keys(AXES)];
        }"""
    )
    assert names == [[*LOSS_UNITS], [*AXES]]


def test_twenty_models_are_drawn(page, chart):
    records = [(f"model {number}", make_record()) for number in range(20)]
    found = chart(*records)
    assert len(found["series"]) + len(found["marks"]) == 60
    page.evaluate(DRAW, draw_plot(records))
    assert page.locator(".curves-legend .curves-entry").count() == 60


def test_no_models_leave_an_empty_plot(page):
    page.evaluate(DRAW, draw_plot([]))
    assert page.locator(".curves-plot svg").count() == 1
    assert page.locator(".curves-entry").count() == 0


def test_a_single_epoch_shows_as_a_point(page):
    page.evaluate(DRAW, draw_plot([("small", make_record((2.0,)))]))
    assert page.locator(".curves-plot svg > circle").count() == 2  # of both losses


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("unit", LOSS_UNITS)
def test_the_wildest_figures_can_be_drawn(page, unit, axis, scale):
    record = make_record((1e308, -1e308, 0.0))
    for epoch in record["epochs"]:
        epoch["seconds"] = epoch["chars_per_second"] = 1e200
    page.evaluate(DRAW, draw_plot([("wild", record)], PlotSettings(unit, axis, scale)))
    drawn = page.locator(".curves-plot").inner_html()
    assert "NaN" not in drawn and "Infinity" not in drawn and "undefined" not in drawn
    page.locator(".curves-plot").focus()
    page.keyboard.press("End")


def test_a_name_cannot_bring_markup_into_the_plot(page):
    page.evaluate(DRAW, draw_plot([("<img src=x onerror=window.ran=1>\u202e", make_record())]))
    assert page.evaluate("[window.ran, document.querySelectorAll('img').length]") == [None, 0]
    assert "<img src=x onerror=window.ran=1>\\u{202e}, training" in page.locator(".curves-legend").inner_text()


@pytest.mark.parametrize(("epochs", "step"), [(3, 1), (6, 1), (7, 2), (20, 5), (31, 10), (200, 50)])
def test_ticks_stand_at_round_epochs_and_are_never_more_than_six(page, epochs, step):
    page.evaluate(DRAW, draw_plot([("small", make_record((2.0,) * epochs))]))
    labels = [int(label) for label in page.locator(".curves-tick").all_text_contents()]
    assert labels == [*range(step, epochs + 1, step)] or labels == [1, *range(step, epochs + 1, step)]
    assert len(labels) <= 6


def test_the_values_at_a_place_are_read_off_with_the_pointer_and_with_the_keys(page):
    page.evaluate(DRAW, draw_plot([("small", make_record((2.0, 1.5, 1.75)))]))
    page.locator(".curves-plot").hover(position={"x": 70, "y": 50})
    assert page.locator(".curves-readout").text_content() == "epoch 1; small, training 1.8000; small, validation 2.0000"
    assert page.locator(".curves-entry strong").all_inner_texts() == ["1.8000", "2.0000"]
    page.locator(".curves-plot").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".curves-entry strong").all_inner_texts() == ["1.3500", "1.5000"]
    page.keyboard.press("End")
    assert page.locator(".curves-entry strong").all_inner_texts() == ["1.5750", "1.7500"]


def test_while_curves_grow_their_buttons_keep_the_focus_and_the_cursor_stays_where_it_is(page):
    def grow(*losses):
        value = draw_plot([("small", make_record(losses))])
        page.evaluate("(value) => { curves.props.value = value; curves.update(); }", value)

    page.evaluate(DRAW, draw_plot([("small", make_record((2.0, 1.5)))]))
    page.locator(".curves-plot").focus()
    for key in ("Home", "ArrowRight"):
        page.keyboard.press(key)
    page.evaluate("""() => {
        window.said = [];
        const { readout } = curves;
        new MutationObserver(() => said.push(readout.textContent)).observe(readout, { childList: true });
    }""")
    read = "epoch 2; small, training 1.3500; small, validation 1.5000"
    grow(2.0, 1.5, 1.4)
    assert page.locator(".curves-readout").text_content() == read
    assert page.locator(".curves-entry strong").all_inner_texts() == ["1.3500", "1.5000"]
    assert page.locator(".curves-legend span.curves-entry").all_inner_texts() == ["small, best: 1.4000 at epoch 3"]
    page.keyboard.press("ArrowRight")
    page.wait_for_function("said.length")
    assert page.evaluate("said") == ["epoch 3; small, training 1.2600; small, validation 1.4000"]
    entry = page.get_by_role("button", name="small, training")
    entry.focus()
    grow(2.0, 1.5, 1.4, 1.3)
    assert entry.evaluate("entry => document.activeElement === entry")
    value = draw_plot([("large", make_record((2.0, 1.5)))])
    page.evaluate("(value) => { curves.props.value = value; curves.update(); }", value)
    assert page.get_by_role("button").all_inner_texts() == ["large, training", "large, validation"]


def test_a_curve_is_hidden_and_shown_again(page):
    page.evaluate(DRAW, draw_plot([("small", make_record((2.0, 1.5, 1.75)))]))
    count = "document.querySelectorAll('.curves-plot path[stroke-linejoin]').length"
    entry = page.get_by_role("button", name="small, training")
    assert (page.evaluate(count), entry.get_attribute("aria-pressed")) == (2, "true")
    entry.click()
    assert (page.evaluate(count), entry.get_attribute("aria-pressed")) == (1, "false")
    entry.click()
    assert page.evaluate(count) == 2


def test_a_value_that_is_missing_cuts_a_curve(page):
    points = [[1, 0.5], [2, 0.4], [3, None], [4, 0.2]]
    page.evaluate(DRAW, {"series": [{"name": "cut", "colour": 0, "points": points}]})
    path = page.locator(".curves-plot path[stroke-linejoin]").get_attribute("d")
    assert path.count("M") == 2 and path.count("L") == 1


def test_a_number_has_a_minus_sign_unless_it_rounds_to_zero(page):
    numbers = [-0.04, 0.04, -0.0, -0.05001, -1.26, -10.0, 10.0]
    shown = page.evaluate(
        """async (numbers) => {
            const { decimal } = await import("/components/text.js");
            return [...numbers.map((number) => decimal(number, 1)), decimal(-0.4, 0), decimal(-3, 0)];
        }""",
        numbers,
    )
    assert shown == ["0.0", "0.0", "0.0", "−0.1", "−1.3", "−10.0", "10.0", "0", "−3"]


def test_an_activation_is_described_as_a_share_of_the_largest(page):
    page.evaluate(
        """async (value) => {
            const { HeatText } = await import("/components/heat.js");
            const element = document.createElement("div");
            element.innerHTML = '<div class="heat"></div>';
            document.body.replaceChildren(element);
            new HeatText(element, { explained: "hint", value }, () => {});
        }""",
        {"kind": "activation", "text": "abc", "shades": shades([0, 0.25, 0.5])},
    )
    said = []
    for place in range(3):
        page.locator(f"[data-place='{place}']").hover()
        said.append(page.locator(".detail-line").inner_text())
    assert said[0] == "“a”: activation −1.00 × the largest in this text"
    assert said[2] == "“c”: activation 0.00 × the largest in this text"
    assert said[1].startswith("“b”: activation −0.")


def test_a_text_that_is_shown_in_part_says_how_much_of_it_is(page):
    described = page.evaluate(
        """async () => {
            const { Inspected } = await import("/inspected.js");
            return [5000, 5005].map((length) => {
                const symbols = Array(5000).fill("a");
                const inspections = [{ surprisals: symbols.map(() => Math.LN2) }];
                const read = { names: ["one"], text: "a".repeat(length), symbols, skipped: [""], inspections };
                return new Inspected(read).describe(0);
            });
        }"""
    )
    whole = "5,000 characters · 1.00 bits per character, perplexity 2.0"
    assert described == [whole, f"{whole} · the first 5,000 of 5,005 are shown"]


def test_one_character_is_called_so(page):
    described = page.evaluate(
        """async () => {
            const { Inspected } = await import("/inspected.js");
            const inspections = [{ surprisals: [NaN] }];
            return new Inspected({ names: ["one"], text: "a", symbols: ["a"], skipped: [""], inspections }).describe(0);
        }"""
    )
    assert described == "1 character"


FOCUSED = {
    "text": """new HeatText(element, { explained: "hint", value: { text: "ab" } }, () => {});
        return element.querySelector(".heat-text");""",
    "empty text": """new HeatText(element, { explained: "hint", value: {} }, () => {});
        return element.querySelector(".heat-text");""",
    "curves": """new Curves(element, { value: { series: [{ name: "one", colour: 0, points: [[1, 2], [2, 1]] }] } });
        return element.querySelector(".curves-plot");""",
    "cell": """const gates = { sum: [1, 2], h: [0.5, 0.6] };
        new CellPanel(element).show({ title: "unit", symbols: ["a", "b"], cell: "rnn", gates });
        return element;""",
    "alternatives": """const drawn = { place: 0, symbol: "a", symbols: ["a", "b"], logits: [1, 0], random: 0.5 };
        new Alternatives(element, {}).show(drawn, { temperature: 1, top_k: 0, top_p: 1 });
        element.querySelector("button").focus();
        return element.querySelector("button");""",
}


@pytest.mark.parametrize("component", FOCUSED)
def test_an_arrow_key_with_alt_control_or_command_is_left_to_the_browser(page, component):
    taken, errors = page.evaluate(
        f"""async () => {{
            const {{ Alternatives }} = await import("/components/alternatives.js");
            const {{ CellPanel }} = await import("/components/cell.js");
            const {{ Curves }} = await import("/components/curves.js");
            const {{ HeatText }} = await import("/components/heat.js");
            const element = document.createElement("div"), errors = [];
            element.innerHTML = '<div class="heat curves"></div>';
            document.body.replaceChildren(element);
            addEventListener("error", ({{ message }}) => errors.push(message));
            const focused = (() => {{ {FOCUSED[component]} }})();
            const isTaken = (modifier) => !focused.dispatchEvent(new KeyboardEvent(
                "keydown", {{ key: "ArrowRight", bubbles: true, cancelable: true, [modifier]: true }}));
            return [["none", "altKey", "ctrlKey", "metaKey"].map(isTaken), errors];
        }}"""
    )
    assert taken == [component != "empty text", False, False, False] and errors == []


def test_shades_are_those_of_python(page):
    numbers = [-1.0, 0.0, 0.1, 0.333, 0.5, 0.77, 1.0, 2.0, math.nan]
    encoded, decoded, most = page.evaluate(
        """async ([text, shades]) => {
            const { decodeShade, encodeShades, MOST_NATS } = await import("/components/heat.js");
            const encoded = encodeShades(JSON.parse(text).map((each) => each ?? NaN));
            return [encoded, Array.from(shades, decodeShade), MOST_NATS];
        }""",
        [json.dumps([None if math.isnan(number) else number for number in numbers]), shades(numbers)],
    )
    assert (encoded, most) == (shades(numbers), MOST_NATS)
    half_a_step = 0.5 / (HIGHEST - LOWEST)
    assert decoded[:-1] == pytest.approx([min(max(number, 0), 1) for number in numbers[:-1]], abs=half_a_step)
    assert decoded[-1] is None


CELLS_BY_HAND = {
    "lstm": (
        {"i": [0.5, 0.05], "f": [0.95, 0.25], "g": [0.8, -1], "o": [0.5, 0.5], "c": [0.4, 0.05], "h": [0.19, 0.025]},
        ["c 0.050 = f 0.250 · c before 0.400 + i 0.050 · g −1.000", "h 0.025 = o 0.500 · tanh c 0.050"],
        {"i": (50, 0), "f": (0, 50), "o": (0, 0)},
    ),
    "gru": (
        {"r": [0.01, 0.02], "z": [0.75, 0.95], "n": [0.4, -0.5], "h": [0.1, 0.07]},
        ["h 0.070 = (1 − z 0.950 ) · n −0.500 + z 0.950 · h before 0.100"],
        {"r": (100, 0), "z": (0, 50)},
    ),
    "rnn": ({"sum": [2, -0.1], "h": [0.964, -0.0997]}, ["h −0.100 = tanh sum −0.100"], {}),
}


@pytest.mark.parametrize("cell", CELLS_BY_HAND)
def test_a_cell_shows_its_equations_with_the_numbers_of_a_step_and_how_often_its_gates_are_saturated(page, cell):
    gates, equations, shares = CELLS_BY_HAND[cell]
    page.evaluate(
        """async (value) => {
            const { CellPanel } = await import("/components/cell.js");
            const element = document.createElement("div");
            document.body.replaceChildren(element);
            window.went = [];
            const panel = new CellPanel(element, { onPlace: (place) => went.push(place) });
            panel.show({ title: "small, layer 0, unit 1", symbols: ["a", "\\n"], ...value });
            element.focus();
        }""",
        {"cell": cell, "gates": gates},
    )

    def words(selector):
        return [" ".join(text.split()) for text in page.locator(selector).all_text_contents()]

    first = words(".cell-where"), words(".cell-equation")
    assert first[0] == ["at “a”, 1 of 2"] and first[1] != equations
    if cell != "rnn":
        assert "before 0.000" in first[1][0]  # the text begins from the zero state
    page.keyboard.press("ArrowRight")
    assert page.evaluate("went") == [1] and words(".cell-where") == ["at line break, 2 of 2"]
    assert words(".cell-equation") == equations
    assert "line break, 2 of 2" in words(".cell-said")[0]
    numbers = dict(zip(words(".cell-name b"), words(".cell-here"), strict=True))
    assert numbers == {name: f"{each[1]:.3f}".replace("-", "−") for name, each in gates.items()}
    saturated = [words(f"tr:has(b:text-is('{name}')) .cell-saturated > :not(.cell-shares)") for name in gates]
    assert saturated == [[f"{share} %" for share in shares.get(name, ())] for name in gates]
    page.get_by_role("button", name="Previous character").click()
    assert page.evaluate("went") == [1, 0] and words(".cell-equation") == first[1]
    page.locator(".cell-plot svg").first.click(position={"x": 1, "y": 5})
    page.keyboard.press("ArrowLeft")  # there is nothing before the first
    assert page.evaluate("went") == [1, 0, 0]


@pytest.mark.parametrize(
    ("text", "width"), [("a line of letters " * 10, 7), ("宝玉笑道：「가나다」" * 20, 13), ("あ🙂" * 90, 13)]
)
def test_the_characters_below_the_plots_of_a_cell_do_not_overlap(page, text, width):
    widths = page.evaluate(
        """async ([text, style]) => {
            const { CellPanel } = await import("/components/cell.js");
            const [element, sheet] = [document.createElement("div"), document.createElement("style")];
            sheet.textContent = style;
            element.style.width = "600px";
            document.body.replaceChildren(sheet, element);
            const symbols = Array.from(text);
            const numbers = symbols.map(() => 0.5);
            new CellPanel(element).show({ title: "unit", symbols, cell: "rnn", gates: { sum: numbers, h: numbers } });
            return Array.from(element.querySelectorAll(".cell-line span"), (each) =>
                each.getBoundingClientRect().width);
        }""",
        [text, COMPONENTS_STYLE],
    )
    assert len(widths) >= 16 and min(widths) > width - 1  # the line is measured with the space beside it


def saved_table(page, *names):
    """The rows of the table of some records, as a spreadsheet reads them, and its first line."""
    page.evaluate(DRAW, draw_plot([(name, make_record((2.0, 1.5))) for name in names]))
    with page.expect_download() as waiting:
        page.evaluate("curves.saveCsv('curves.csv')")
    assert waiting.value.suggested_filename == "curves.csv"
    text = Path(waiting.value.path()).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text))), text.splitlines()[0]


def test_a_spreadsheet_reads_the_saved_table_back(page):
    name = 'a "name", with\nall'
    rows, heading = saved_table(page, name, "small")
    assert heading == ",".join(["model", *COLUMNS])
    assert [row["model"] for row in rows] == [name] * 2 + ["small"] * 2
    assert [float(row["val_loss"]) for row in rows] == [2.0, 1.5] * 2
    recorded = [epoch["learning_rate"] for epoch in make_record((2.0, 1.5))["epochs"]]
    assert [float(row["learning_rate"]) for row in rows] == recorded * 2
    assert rows[0]["unseen_loss"] == ""


def test_a_spreadsheet_reads_no_name_in_the_saved_table_as_a_formula(page):
    names = ["=1+1", "+1", "-1", "@SUM(A1)"]
    rows, _ = saved_table(page, *names)
    assert [row["model"] for row in rows[::2]] == [f"'{name}" for name in names]


PAIR = """async ([text, style]) => {
    const { TextPair } = await import("/components/pair.js");
    document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
    const elements = ["a", "b"].map((id) => {
        const element = Object.assign(document.createElement("div"), { id });
        element.innerHTML = '<div class="heat"></div>';
        return element;
    });
    document.body.replaceChildren(...elements);
    const makeProps = () => ({ explained: "hint", value: { text, details: [] } });
    window.told = [];
    const onHold = () => told.push(`held ${pair.held}`);
    window.pair = new TextPair(elements, [makeProps(), makeProps()], { onPlace: (place) => told.push(place), onHold });
}"""


def places(page, kind):
    return [each.get_attribute("data-place") for each in page.locator(kind).all()]


def test_two_texts_point_at_the_same_character_and_hold_it_together(page):
    page.evaluate(PAIR, ["abcdef", COMPONENTS_STYLE])
    page.locator("#a [data-place='2']").hover()
    page.locator("#b [data-place='3']").click()
    page.locator("#a [data-place='4']").hover()  # it is held
    assert places(page, ".cursor") == places(page, ".held") == ["3", "3"]
    page.keyboard.press("ArrowRight")  # in b, which the click has focused
    assert places(page, ".cursor") == places(page, ".held") == ["4", "4"]
    page.locator("#a [data-place='4']").click()
    assert (places(page, ".cursor"), places(page, ".held")) == (["4", "4"], [])
    assert page.evaluate("told") == [2, 3, 3, "held 3", 4, "held 4", 4, "held undefined"]


def test_a_text_that_is_made_anew_holds_what_the_other_one_holds(page):
    page.evaluate(PAIR, ["abcdef", COMPONENTS_STYLE])
    page.locator("#a [data-place='2']").click()
    page.evaluate(
        """() => {
            const [, text] = pair.texts;
            text.props.value = { ...text.props.value, details: [] };
            text.update();
            pair.explain(pair.place);
        }"""
    )
    assert places(page, ".held") == ["2", "2"]
    page.locator("#b .heat-text").focus()
    page.keyboard.press("Escape")
    assert places(page, ".held") == [] and page.evaluate("pair.held") is None


def test_two_texts_scroll_together_also_to_the_end_of_the_lower_one(page):
    page.evaluate(PAIR, ["one\n" * 200, COMPONENTS_STYLE])
    page.evaluate("document.querySelector('#b .heat-text').style.cssText = 'max-height: none; height: 100px'")
    page.evaluate("document.querySelector('#a .heat-text').style.cssText = 'max-height: none; height: 300px'")
    tops = "[...document.querySelectorAll('.heat-text')].map(({ scrollTop }) => scrollTop)"
    page.evaluate("document.querySelector('#a .heat-text').scrollTop = 70")
    page.wait_for_function(f"() => {tops}.every((top) => top === 70)")
    page.evaluate("document.querySelector('#b .heat-text').scrollTop = 1e6")  # farther than a can go
    page.wait_for_function(f"() => {tops}[0] > 1000")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    above, end = page.evaluate(tops)
    assert end - above == 200


PATTERN = """async (text) => {
    const { HeatText } = await import("/components/heat.js");
    const { PatternPanel, StretchPicker } = await import("/components/pattern.js");
    const [seen, panel] = [document.createElement("div"), document.createElement("div")];
    seen.innerHTML = '<div class="heat"></div>';
    document.body.replaceChildren(seen, panel);
    const symbols = Array.from(text);
    const heat = new HeatText(seen, { heading: "seen", explained: "hint", value: { text } }, () => {});
    window.asked = [];
    window.chosen = [];
    const pattern = new PatternPanel(panel, {
        search: async (request) => {
            asked.push(request);
            if (request.threshold > 0.9) return { error: "the search failed; try again" };
            return { units: [[0, 3], [1, 5]], places: [[10, 14, 0.875], [0, 1, 0.5]], ...window.found };
        },
        onPlace: (start, end) => chosen.push([start, end]),
        onUnit: (unit) => chosen.push(unit),
    });
    const shown = window.shownSymbols ?? symbols.length;
    new StretchPicker(heat, (stretch) => pattern.show({ title: "small", symbols, shown, ...stretch, units: 8 }));
}"""


def test_a_stretch_is_selected_by_keyboard_and_mouse_and_its_units_and_places_can_be_chosen(page):
    page.evaluate(PATTERN, "one two\nsix ten two")
    assert page.locator(".pattern-line").inner_text().startswith("Select part of the text")
    page.locator(".heat-text").focus()
    for key in [*["ArrowRight"] * 5, *["Shift+ArrowRight"] * 3, "Shift+ArrowLeft"]:
        page.keyboard.press(key)
    page.wait_for_function("() => window.asked.length")
    assert page.evaluate("asked") == [{"start": 4, "end": 7, "threshold": 0.3}]
    assert page.locator(".picked").all_inner_texts() == list("two")
    page.locator(".pattern-place").first.wait_for()
    said = "2 of 8 units are on all along, and off just before and after it; 2 other places of the text."
    assert page.locator(".pattern-line").inner_text() == said
    assert page.locator(".pattern-place").all_text_contents() == ["one two↵six ten two88 %", "one two↵six ten50 %"]
    assert page.locator("mark").all_text_contents() == ["x te", "o"]
    page.locator(".pattern-place").first.click()
    page.get_by_role("button", name="Look at unit 5 of layer 1").click()
    assert page.evaluate("chosen") == [[10, 14], [1, 5]]

    first, last = (page.locator(f"[data-place='{place}']").bounding_box() for place in (8, 10))
    page.mouse.move(first["x"] + 1, first["y"] + 5)
    page.mouse.down()
    page.mouse.move(last["x"] + last["width"] - 1, last["y"] + 5, steps=4)
    page.mouse.up()
    page.wait_for_function("() => window.asked.length === 2")
    assert page.evaluate("asked[1]") == {"start": 8, "end": 11, "threshold": 0.3}
    page.locator(".pattern input").fill("0.95")
    page.wait_for_function("() => document.querySelector('.pattern-line').textContent.startsWith('the search failed')")
    assert page.evaluate("asked[2].threshold") == 0.95 and page.locator(".pattern-place").count() == 0


def test_a_threshold_that_is_pulled_is_searched_for_where_it_stays(page):
    page.evaluate(PATTERN, "one two")
    steps = """(thresholds) => {
        const slider = document.querySelector(".pattern input");
        for (const threshold of thresholds) {
            slider.value = threshold;
            slider.dispatchEvent(new Event("input"));
        }
    }"""
    stretch = """() => document.querySelector(".pattern").patternPanel.show(
        { title: "small", symbols: [..."one two"], shown: 7, start: 0, end: 2, units: 8 })"""
    thresholds = "asked.map(({ threshold }) => threshold)"
    page.evaluate(stretch)
    page.evaluate(steps, [0.35, 0.4, 0.45])
    page.wait_for_function("() => window.asked.length > 1")
    assert page.evaluate(thresholds) == [0.3, 0.45]
    page.evaluate(steps, [0.5])
    page.evaluate(stretch)  # which searches with that threshold at once, and nothing else follows
    page.evaluate(steps, [0.6])
    page.wait_for_function("() => window.asked.at(-1).threshold === 0.6")
    assert page.evaluate(thresholds) == [0.3, 0.45, 0.5, 0.6]


@pytest.mark.parametrize(
    ("searched", "said"),
    [
        (15, ""),
        (4, " The search took too long and was ended: 4 of 15 characters were searched."),
        (0, " The search took too long and was ended: 0 of 15 characters were searched."),
    ],
)
def test_places_after_what_is_shown_are_no_buttons_and_a_search_that_ended_early_says_what_it_read(
    page, searched, said
):
    page.evaluate(f"Object.assign(window, {{ found: {{ searched: {searched} }}, shownSymbols: 10 }})")
    page.evaluate(PATTERN, "one two\nsix ten")
    page.locator(".heat-text").focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    page.locator(".pattern-place").first.wait_for()
    page.evaluate("delete window.found, delete window.shownSymbols")
    places = "2 other places of the text, 1 of them after the 10 characters that are shown."
    line = "2 of 8 units are on all along, and off just before and after it; "
    assert page.locator(".pattern-line").inner_text() == line + places + said
    assert [each.evaluate("place => place.tagName") for each in page.locator(".pattern-place").all()] == [
        "DIV",
        "BUTTON",
    ]
    assert page.locator("div.pattern-place").get_attribute("title") == "88 % of the units are on here, at character 11"


def test_a_line_that_changes_all_the_time_is_announced_when_it_rests(page):
    said = page.evaluate(
        """async () => {
            const { announceAtRest } = await import("/components/announce.js");
            const line = document.createElement("p");
            document.body.replaceChildren(line);
            announceAtRest(line);
            const region = document.querySelector("[aria-live=polite]"), said = [];
            const note = new MutationObserver(() => said.push(region.textContent));
            note.observe(region, { childList: true, subtree: true });
            for (let count = 1; count <= 20; count++) {
                line.textContent = `${count} characters`;
                await new Promise((resolve) => setTimeout(resolve, 10));
            }
            while (!said.length) await new Promise((resolve) => setTimeout(resolve, 50));
            return said;
        }"""
    )
    assert said == ["20 characters"]


@pytest.mark.parametrize(("is_allowed", "outcome"), [(True, "Copied"), (False, "Select and copy by hand")])
def test_two_clicks_on_copy_say_the_outcome_for_a_while_and_tell_it_to_a_screen_reader(page, is_allowed, outcome):
    names, said = page.evaluate(
        """async (isAllowed) => {
            const { HeatText } = await import("/components/heat.js");
            const write = () => (isAllowed ? Promise.resolve() : Promise.reject(new Error("refused")));
            Object.defineProperty(navigator, "clipboard", { value: { writeText: write }, configurable: true });
            const element = document.createElement("div");
            element.innerHTML = '<div class="heat"></div>';
            document.body.append(element);
            const props = { heading: "", called: "The text as model A read it", value: { text: "abc" } };
            new HeatText(element, props, () => {});
            const [copy, keep] = element.querySelectorAll("button"), said = [];
            const told = document.querySelector("[aria-live=polite]")?.lastElementChild;
            const note = () => {
                const now = `${copy.textContent}, told: ${told?.textContent}`;
                if (said.at(-1) !== now) said.push(now);
            };
            const noted = new MutationObserver(note);
            for (const each of [copy, told ?? copy]) noted.observe(each, { childList: true, subtree: true });
            const rest = () => new Promise((resolve) => setTimeout(resolve, 50));
            const end = performance.now() + 5000;
            copy.click();
            while (copy.textContent === "Copy") await rest();
            copy.click();
            await rest();
            while (copy.textContent !== "Copy" && performance.now() < end) await rest();
            return [[copy, keep].map((each) => each.getAttribute("aria-label")), said];
        }""",
        is_allowed,
    )
    assert names == ["Copy: The text as model A read it", "Save: The text as model A read it"]
    assert said == [f"{outcome}, told: {outcome}", "Copy, told: "]


def test_of_a_long_text_the_first_characters_are_looked_into_whether_the_models_know_them_or_not(page):
    text = "x" * 100 + "a" * 5050
    shown, searched, line = page.evaluate(
        """async (text) => {
            const { addModel } = await import("/models.js");
            const { Inspected } = await import("/inspected.js");
            const inspect = async ({ length }) => ({ surprisals: new Float64Array(length), likeliest: [] });
            addModel({ name: "long" }, { unknown: (all) => (all.includes("x") ? "x" : ""), inspect });
            const seen = await Inspected.read(["long", "long"], text, () => {});
            return [seen.symbols.length, seen.searched.length, seen.describe(0)];
        }""",
        text,
    )
    inspector = Inspector(ModelRegistry([ServedModel("long", make_lm(), "bundled")]))
    assert len(inspector.look("long", "long", text, "surprisal")["a"]["heat"]["text"]) == shown == 4900
    assert searched == 5050
    assert line.endswith("the first 5,000 of 5,150 are shown · skipped, as long does not know it: 'x'")


def test_only_a_view_that_can_be_shown_alone_is_opened_by_the_parameter_embed(page):
    views, embedded = page.evaluate(
        """async (queries) => {
            const { EMBEDDED, viewOf } = await import("/components/state.js");
            return [queries.map((query) => viewOf(new URLSearchParams(query))), EMBEDDED];
        }""",
        ["embed=learn&view=write", "embed=train", "embed=about&view=inside", "view=train", ""],
    )
    assert views == ["learn", "write", "inside", "train", "write"]
    assert tuple(embedded) == address.EMBEDDED


def test_the_address_bar_of_a_spaces_page_follows_and_links_lead_there(page):
    said, link = page.evaluate(
        """async () => {
            const frame = document.createElement("iframe");
            frame.src = "/page";
            document.body.replaceChildren(frame);
            await new Promise((resolve) => (frame.onload = resolve));
            const message = new Promise((resolve) => addEventListener("message", ({ data }) => resolve(data)));
            const inside = frame.contentWindow;
            const meta = inside.document.createElement("meta");
            Object.assign(meta, { name: "charlm-space", content: `${location.origin}/spaces/ada/page` });
            inside.document.head.append(meta);
            const state = await inside.eval(`import("${location.origin}/components/state.js")`);
            await state.showState("write");
            await state.keepState("learn", { unit: "perplexity" });
            await state.showState("learn");
            const { link } = await state.shareState();
            return [await message, link.replace(location.origin, "")];
        }"""
    )
    assert said == {"queryString": "?view=learn&unit=perplexity", "hash": ""}
    assert link == "/spaces/ada/page?view=learn&unit=perplexity"
