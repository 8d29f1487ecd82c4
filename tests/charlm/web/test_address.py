import pytest
from models import make_lm

from charlm.web.address import read_address
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
    view, values, problems = read_address(LINK, REGISTRY)
    assert (view, problems) == ("write", [])
    assert values == ["two", "one", "ab\n<b>&", 300, 0.5, 0, 1.0, "12345678901234567890"]


@pytest.mark.parametrize("view", ["write", "learn", "inside", "train"])
def test_an_address_may_name_a_view_alone(view):
    assert read_address({"view": view}, REGISTRY) == (view, [None] * 8, [])


@pytest.mark.parametrize("query", [{}, {"view": ""}, {"view": "<script>"}, {"view": "api", "__theme": "dark"}])
def test_any_other_address_opens_the_first_view(query):
    assert read_address(query, REGISTRY) == ("write", [None] * 8, [])


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
        ({"seed": "x"}, "seed"),
        ({"length": "9" * 5000}, "The link is damaged"),
        ({"prompt": "a" * 20_001}, "prompt"),
    ],
)
def test_a_link_that_cannot_be_opened_says_why_and_fills_in_nothing(change, message):
    view, values, problems = read_address(LINK | change, REGISTRY)
    assert (view, values) == ("write", [None] * 8)
    assert len(problems) == 1
    assert message in problems[0]
    assert len(problems[0]) < 300


def test_a_link_with_a_part_missing_fills_in_nothing():
    assert read_address({name: value for name, value in LINK.items() if name != "seed"}, REGISTRY)[1] == [None] * 8
