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
