import json

import numpy as np
import pytest
from models import make_lm, make_sampler
from reference import load_plain, plain_logits

from charlm.errors import RequestError, VocabError
from charlm.model.cells import CELLS
from charlm.web.answers import draws
from charlm.web.answers.draws import look_at
from charlm.web.answers.write import WriteSettings, write
from charlm.web.components import server_function
from charlm.web.models import ModelRegistry, ServedModel

LARGE = "\n" + "".join(map(chr, range(0x4E00, 0x4E00 + 400)))


def registry_of(lm):
    return ModelRegistry([ServedModel("one", lm, "folder"), ServedModel("other", make_lm("rnn", seed=1), "folder")])


def written(registry, **fields):
    """A text of the first model, as a browser has it."""
    defaults = {"model_a": "one", "model_b": "one", "prompt": "", "length": 80, "temperature": 1.2, "top_k": 0}
    settings = WriteSettings.from_fields(defaults | {"top_p": 1.0, "seed": "7"} | fields)
    return json.loads(json.dumps(list(write(registry, settings))[-1][0]))


@pytest.mark.parametrize("cell", CELLS)
def test_a_character_is_drawn_from_torchs_logits_by_numpys_random_number(tmp_path, cell):
    lm = make_lm(cell)
    lm.save_pretrained(tmp_path)
    plain, vocab = load_plain(tmp_path)
    heat = written(registry_of(lm), prompt="bad€", top_k=6, top_p=0.9)
    ids = [vocab.index(symbol) for symbol in "bad" + heat["text"]]
    logits, numbers = plain_logits(plain, ids), np.random.default_rng(7).random(80)
    sampler = make_sampler(1.2, 6, 0.9, seed=7)
    for place in range(80):
        details = json.loads(json.dumps(look_at(registry_of(lm), "a", place, heat)))
        assert "".join(details["symbols"]) == vocab
        np.testing.assert_allclose(details["logits"], logits[2 + place], atol=1e-4)
        assert details["random"] == numbers[place]
        drawn = sampler.draw(np.array(details["logits"], np.float32))
        assert details["symbols"][drawn] == details["symbol"] == heat["text"][place]
        assert (details["place"], details["forced"]) == (place, False)


def test_of_a_large_vocabulary_the_likeliest_are_listed_and_the_others_summed_up():
    lm = make_lm("gru", vocab=LARGE)
    heat = written(registry_of(lm), length=10)
    details = look_at(registry_of(lm), "b", 9, heat)
    logits = lm.logits("", heat["text"][:9]).astype(float)
    ids = [LARGE.index(symbol) for symbol in details["symbols"]]
    assert ids == sorted(ids) and len(ids) == 256 and details["others"] == len(LARGE) - 256
    assert details["logits"] == logits[ids].tolist()
    left_out = np.delete(logits, ids)
    assert min(details["logits"]) >= left_out.max()
    assert details["rest"] == pytest.approx(np.log(np.exp(left_out).sum()))


def test_a_chosen_character_says_so_and_the_text_may_end_with_it():
    registry = registry_of(make_lm())
    heat = written(registry, forced_a=[[5, "é"]])
    details = look_at(registry, "a", 5, heat | {"text": heat["text"][:6]})
    assert details["forced"] and details["symbol"] == "é"
    assert not look_at(registry, "a", 6, heat)["forced"]


def test_what_is_looked_at_may_be_of_either_model():
    registry = registry_of(make_lm())
    heat = written(registry, model_b="other")
    heat["text"] = heat["text"][:3]
    expected = make_lm("rnn", seed=1).logits("", heat["text"][:2])
    np.testing.assert_array_equal(look_at(registry, "b", 2, heat)["logits"], expected.astype(float))


RUN = {"model_a": "one", "model_b": "one", "prompt": "", "length": 9, "temperature": 1, "top_k": 0, "top_p": 1}
HEAT = {"text": "abc", "shades": "000", "run": RUN | {"seed": "7", "forced": []}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("c", 0, HEAT), "side must be a or b"),
        (([], 0, HEAT), "side must be a or b"),
        (("", 0, HEAT), "side must be a or b"),
        (("ab", 0, HEAT), "side must be a or b"),
        (("a", 3, HEAT), "place is 3; it must be from 0 to 2"),
        (("a", None, HEAT), "place is None"),
        (("a", 0, None), "there is no text"),
        (("a", 0, HEAT | {"text": ""}), "there is no text yet"),
        (("a", 0, HEAT | {"text": "a" * 20_001}), "over 20,000 characters"),
        (("a", 0, HEAT | {"run": RUN | {"seed": "7", "model_a": "nobody"}}), "there is no model 'nobody' here"),
        (("a", 0, HEAT | {"run": RUN | {"seed": "x"}}), "seed"),
        (("a", 0, HEAT | {"run": RUN | {"seed": "7", "forced": 5}}), "the choices are 5"),
        (("a", 0, HEAT | {"run": RUN | {"seed": "7", "prompt": "a" * 20_001}}), "prompt"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(arguments, message):
    with pytest.raises(RequestError, match=message):
        look_at(registry_of(make_lm()), *arguments)


def test_a_text_that_the_model_cannot_have_written_is_refused():
    with pytest.raises(VocabError, match="'x'"):
        look_at(registry_of(make_lm()), "a", 2, HEAT | {"text": "axa"})


def test_the_symbols_of_a_model_are_told():
    registry = registry_of(make_lm())
    assert draws.symbols_of(registry, "one") == registry["one"].lm.config.vocab
    for name in ("nobody", None, ["one"], {}):
        with pytest.raises(RequestError, match="there is no model"):
            draws.symbols_of(registry, name)


def test_a_browser_gets_the_answer_of_a_function_or_a_sentence_about_what_is_wrong():
    registry = registry_of(make_lm())
    ask = server_function("look_at", lambda side, place, heat: look_at(registry, side, place, heat))
    assert ask.__name__ == "look_at"
    assert ask(["a", 1, HEAT])["symbol"] == "b"
    assert ask(["a", 7, HEAT]) == {"error": "Place is 7; it must be from 0 to 2."}
    for data in (None, [], ["a", 1], "abc", {"side": "a"}, 5):
        assert ask(data) == {"error": "look_at takes 3 arguments."}
    tell = server_function("symbols_of", lambda name: draws.symbols_of(registry, name))
    assert tell("one") == registry["one"].lm.config.vocab
    assert tell(["one"])["error"].startswith("There is no model ['one'] here")
