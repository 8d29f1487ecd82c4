import ast

import pytest

from charlm.web.training.settings import LARGEST_TEXT, SHORTEST_TEXT
from charlm.web.training.texts import FOLDER, KINDS, LENGTH, REFERENCE, make_text, read_grammar, title


def test_every_grammar_is_offered_under_a_title_of_its_own():
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(KINDS)
    assert len({title(kind) for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_to_try_is_the_same_each_time_and_long_enough_to_learn_from(kind):
    text = make_text(kind)
    assert SHORTEST_TEXT < LENGTH <= len(text) < LENGTH + 2_000 and len(text.encode()) < LARGEST_TEXT
    assert text == make_text(kind)
    assert "\\n" not in text and not REFERENCE.search(text), "a rule was not replaced"
    blocks = text.split("\n\n") if kind != "names" else text.splitlines()
    assert len(set(blocks)) > 0.7 * len(blocks)  # it can't be learnt by heart alone


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_of_a_grammar_is_reached_and_every_reference_has_a_rule_or_a_label(kind):
    grammar = read_grammar(kind)
    references = [match.groups() for options in grammar.values() for match in REFERENCE.finditer("|".join(options))]
    labels, rules = {label for _, label, _ in references}, {name for *_, name in references}
    assert set(grammar) - {"title", "text"} <= rules
    assert rules <= {*grammar, *labels, "count"}


def test_the_code_is_python():
    ast.parse(make_text("code"))
