import pytest
from models import make_lm

from charlm.inference.sampling import SamplingSettings
from charlm.web.address import Address, read_address
from charlm.web.answers.write import WriteSettings
from charlm.web.models import ModelRegistry, ServedModel

REGISTRY = ModelRegistry([ServedModel(name, make_lm(), "folder") for name in ("one", "two")])
LINK = {
    "view": "write",
    "a": "two",
    "b": "one",
    "prompt": "ab\n<b>&",
    "length": "300",
    "temperature": "0.5",
    "top_k": "0",
    "top_p": "1",
    "seed": "12345678901234567890",
}


def test_a_link_fills_in_what_it_was_made_of():
    sampling = SamplingSettings(0.5, 0, 1.0, 12345678901234567890)
    settings = WriteSettings(("two", "one"), "ab\n<b>&", 300, sampling)
    assert read_address(LINK, REGISTRY) == Address("write", settings, [])
    assert list(settings.to_fields().values()) == ["two", "one", "ab\n<b>&", 300, 0.5, 0, 1.0, "12345678901234567890"]


def test_an_address_names_the_models_of_its_view():
    queries = [LINK, {"view": "learn", "models": "one,two"}, {"view": "inside", "b": "two"}, {"view": "train"}]
    assert [read_address(query, REGISTRY).models for query in queries] == [["two", "one"], ["one", "two"], ["two"], []]


@pytest.mark.parametrize("view", ["write", "learn", "inside", "train"])
def test_an_address_may_name_a_view_alone(view):
    assert read_address({"view": view}, REGISTRY) == Address(view, None, [])


@pytest.mark.parametrize("query", [{}, {"view": ""}, {"view": "<script>"}, {"view": "api", "__theme": "dark"}])
def test_any_other_address_opens_the_first_view(query):
    assert read_address(query, REGISTRY) == Address("write", None, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": "nobody"}, "there is no model 'nobody' here"),
        ({"length": "many"}, "The link is damaged"),
        ({"length": "1e9"}, "The link is damaged"),
        ({"length": "1000000"}, "length is 1000000"),
        ({"temperature": "nan"}, "temperature"),
        ({"top_p": "7"}, "top_p"),
        ({"top_k": "-1"}, "top_k"),
        ({"top_k": "500"}, "top_k is 500; it must be from 0 to 100"),
        ({"temperature": "5"}, "temperature is 5.0; it must be from 0 to 2"),
        ({"seed": "x"}, "seed"),
        ({"length": "9" * 5000}, "The link is damaged"),
        ({"prompt": "a" * 20_001}, "prompt"),
    ],
)
def test_a_link_that_cannot_be_opened_says_why_and_fills_in_nothing(change, message):
    address = read_address(LINK | change, REGISTRY)
    assert (address.view, address.settings) == ("write", None)
    (problem,) = address.problems
    assert message in problem
    assert len(problem) < 300


def test_a_link_with_a_part_missing_fills_in_nothing():
    part = {name: value for name, value in LINK.items() if name != "seed"}
    assert read_address(part, REGISTRY).settings is None


def test_a_link_holds_the_choices_of_both_texts():
    address = read_address(LINK | {"fa": "0.61-299.d55c", "fb": ""}, REGISTRY)
    assert address.settings.forced == (((0, "a"), (299, "한")), ())
    assert address.problems == []


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ("5", "are damaged"),
        ("5.61.7", "are damaged"),
        ("x.61", "are damaged"),
        ("5.110000", "are damaged"),
        ("5.-1", "are damaged"),
        ("5.", "are damaged"),
        ("5.fffffffffff", "are damaged"),
        ("7.61-5.61", "cannot be applied: the choices are at [7, 5]; their places must ascend."),
        ("5.61-5.62", "their places must ascend"),
        ("5.78", "cannot be applied: 'x', chosen for character 6, is not among the 10 symbols of two"),
        ("5.d800", "is not among the 10 symbols"),
        ("300.61", "cannot be applied: one is for character 301, behind the end of the text."),
        ("90000.61", "the place of a choice is 90000; it must be from 0 to 19,999"),
        ("-".join(f"{place}.61" for place in range(65)), "these are 65 choices; a text has at most 64"),
    ],
)
def test_choices_that_cannot_be_applied_are_told_and_left_out(choices, message):
    address = read_address(LINK | {"fa": choices}, REGISTRY)
    assert address.settings == read_address(LINK, REGISTRY).settings
    (problem,) = address.problems
    assert problem.startswith("The link's choices ") and message in problem
    assert len(problem) < 300


def test_a_link_to_the_curves_fills_in_what_is_drawn():
    query = {"view": "learn", "models": "two,one", "unit": "perplexity", "scale": "log", "epoch": "3", "prompt": "x"}
    learn = {"models": ["two", "one"], "unit": "perplexity", "scale": "log", "epoch": 3}
    assert read_address(query, REGISTRY) == Address("learn", learn=learn)
    assert read_address(query | {"embed": "learn", "view": "write"}, REGISTRY) == Address("learn", learn=learn)
    assert read_address({"embed": "train"}, REGISTRY).view == "write"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": "one,nobody"}, "The link cannot be opened here: there is no model 'nobody' here"),
        ({"models": ",".join(["one"] * 21)}, "choose up to 20 models"),
        ({"unit": "bananas"}, "'bananas' is not one of nats per character"),
        ({"epoch": "9" * 5000}, "The link is damaged: its epoch cannot be read."),
        ({"epoch": "1.5"}, "The link is damaged: its epoch cannot be read."),
        ({"epoch": "-1"}, "epoch is -1"),
    ],
)
def test_a_link_to_curves_that_cannot_be_drawn_says_why(change, message):
    address = read_address({"view": "learn", "models": "one", **change}, REGISTRY)
    assert (address.view, address.learn) == ("learn", {})
    (problem,) = address.problems
    assert message in problem


def test_a_link_to_look_inside_fills_in_models_text_and_colour():
    query = {"view": "inside", "a": "two", "colour": "B hidden 0:1", "place": "3", "text": "ab\nba"}
    filled = {"a": "two", "colour": "B hidden 0:1", "text": "ab\nba"}
    assert read_address(query, REGISTRY) == Address("inside", inside=filled)
    address = read_address(query | {"b": "nobody"}, REGISTRY)
    assert address.inside == {} and "there is no model 'nobody' here" in address.problems[0]


def test_a_link_to_a_training_fills_in_its_text_and_its_settings():
    query = {"view": "train", "example": "names", "start": "two", "cell": "gru", "size": "time", "minutes": "1.5"}
    train = {"example": "names", "start": "two", "cell": "gru", "size": "time", "minutes": 1.5}
    assert read_address(query, REGISTRY) == Address("train", train=train)
    assert read_address({"view": "train", "size": "small"}, REGISTRY) == Address("train", train={"size": "small"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"example": "novel"}, "there is no text to try 'novel'; choose play, tales, rules, names, code"),
        ({"start": "nobody"}, "there is no model 'nobody' here to start from"),
        ({"cell": "transformer"}, "there is no cell 'transformer'; choose one of rnn, lstm, gru"),
        ({"size": "huge" * 5000}, "there is no size 'huge"),
        ({"minutes": "many"}, "The link is damaged: its minutes cannot be read."),
        ({"minutes": "nan"}, "the number of minutes"),
        ({"minutes": "inf"}, "the number of minutes"),
        ({"minutes": "0"}, "the number of minutes"),
        ({"minutes": "9" * 5000}, "the number of minutes"),
    ],
)
def test_a_link_to_a_training_that_cannot_be_opened_says_why_and_fills_in_nothing(change, message):
    address = read_address({"view": "train", "cell": "gru", **change}, REGISTRY)
    assert (address.view, address.train) == ("train", {})
    (problem,) = address.problems
    assert message in problem
    assert len(problem) < 300
