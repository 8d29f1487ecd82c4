import pytest

from charlm.messages import counted, escape_controls, listed, one_line, printable, show


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\nb", r"'a\nb'"),
        (10**5000, "a huge number"),
        ("x" * 78, f"'{'x' * 78}'"),
        ("x" * 79, f"'{'x' * 78}…"),
        ("x" * 10**6, f"'{'x' * 78}…"),
    ],
    ids=lambda value: str(value)[:10] if isinstance(value, str) else "",
)
def test_a_message_quotes_no_more_of_a_value_than_a_line_holds(value, shown):
    assert show(value) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ada, 한국어 😀 é", "Ada, 한국어 😀 é"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\u202egnp.exe\u2066\u200b\x07", "\\u202egnp.exe\\u2066\\u200b\\x07"),
        ("\ue000\U000e0001\ud800", "\\ue000\\U000e0001\\ud800"),
        ("e" + 5 * "\u0301" + "o\u0301", "e" + 3 * "\u0301" + 2 * "\\u0301" + "o\u0301"),
    ],
)
def test_what_would_be_invisible_or_turn_a_text_around_is_shown_as_its_number(text, shown):
    assert printable(text) == shown


def test_of_a_text_for_a_terminal_the_control_characters_but_tab_and_line_feed_are_escaped():
    kept = "Ada,\t한국어\n😀 é"
    assert escape_controls(f"{kept}\x1b[2J\x9b1m\r\x00\x7f") == kept + r"\x1b[2J\x9b1m\r\x00\x7f"


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 symbols"), (1, "1 symbol"), (2, "2 symbols"), (1_200, "1,200 symbols")]
)
def test_one_of_a_thing_is_called_so(number, shown):
    assert counted(number, "symbol") == shown


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ("", ""),
        ("a", "a"),
        ("abcde", "a, b, c, d, e"),
        ("abcdef", "a, b, c, d, e and 1 more"),
        ("a" * 2005, "a, a, a, a, a and 2,000 more"),
    ],
    ids=lambda value: value[:10],
)
def test_of_many_names_the_first_are_listed_and_the_others_counted(names, shown):
    assert listed(names) == listed(list(names)) == shown


def test_what_somebody_else_says_takes_one_line_of_a_message():
    assert one_line(OSError(" no\n\n  route\tto \u2028 host ")) == "no route to host"
