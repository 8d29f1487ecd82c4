"""Prompts and texts to begin with fit the models that are chosen, in the Gradio page and in the other one."""

from types import SimpleNamespace

import gradio as gr
import pytest
from models import make_model, make_record

from charlm.lm import CharLM
from charlm.web.answers.examples import PROMPTS, SCENE, next_prompt, prompts_of, shared_prompts, text_to_read
from charlm.web.models import ModelRegistry, ServedModel
from charlm.web.views.write import _change_prompts

LETTERS = "\nABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ENGLISH = LETTERS + " '&!,-.:;?"
NAMES = "Maria\nJo\nAnn\nMartin\nAnna\nMaria\nBe"
VERSE = "the old man of the sea\n  a tree\n\nthe old man of the hills\nso it was, they say, so it is\ncut o"
PROSE = "'Well, so it was,' said the prince. He smiled! They went on. Anna was to be se"
MODELS = {
    "plays": (ENGLISH, make_record(sample=VERSE)),
    "names": (LETTERS, make_record(sample=NAMES, text="names")),
    "verse": (ENGLISH, make_record(sample=VERSE, text="verse")),
    "korean": ("\n가나다라마 ", make_record(sample="가나다라 마 가나 다\n나다라가\n", text="korean")),
    "korean-plays": ("\n가나다라마 ", make_record(sample="가나다라 마 가나 다\n나다라가\n")),
    "prose": (ENGLISH, make_record(sample=PROSE, text="prose")),
    "chinese": (
        "宝玉笑道：“好．”黛",
        make_record(sample="宝玉笑道：“好．”黛玉道：“好．”宝玉好玉．玉笑", text="chinese"),
    ),
    "empty": (ENGLISH, make_record(sample="", text="nothing")),
    "bare": (ENGLISH, None),
    "strange": ("\n{}", None),
}
OF_VERSE = ["the old man", "a t", "so it was,"]
OF_KOREAN = ["가나다라 마 가나", "나다라"]
OF_PROSE = ["'Well, so it", "He ", "The"]
OF_CHINESE = ["宝玉笑", "黛玉道", "宝玉好"]
OWN = {
    "plays": list(PROMPTS),
    "names": ["Mar", "Ann"],
    "verse": OF_VERSE,
    "korean": OF_KOREAN,
    "korean-plays": OF_KOREAN,
    "prose": OF_PROSE,
    "chinese": OF_CHINESE,
    "empty": list(PROMPTS),
    "bare": list(PROMPTS),
    "strange": [],
}
READ = dict.fromkeys(("plays", "empty", "bare", "strange"), SCENE) | {
    "names": NAMES,
    "verse": VERSE,
    "prose": PROSE,
    "chinese": MODELS["chinese"][1]["epochs"][0]["sample"],
    "korean": MODELS["korean"][1]["epochs"][0]["sample"],
    "korean-plays": MODELS["korean"][1]["epochs"][0]["sample"],
}
SHARED = {
    ("plays", "names"): ["Apple", "University", "Seoul", "Coffee", "Computer"],
    ("names", "plays"): ["Mar", "Ann"],
    ("korean", "names"): OF_KOREAN,  # of which the other knows nothing
    ("verse", "names"): OWN["names"],  # which does not know the space in any prompt of the first
    ("names", "bare"): ["Mar", "Ann"],
}
EXCHANGED = [
    ("ROMEO:\n", list(PROMPTS), ["Mar", "Ann"], "Mar"),
    ("Apple", list(PROMPTS), ["Mar", "Ann"], "Mar"),
    ("my own", list(PROMPTS), ["Mar", "Ann"], "my own"),
    ("", list(PROMPTS), ["Mar", "Ann"], ""),  # which the visitor has emptied
    ("Apple", list(PROMPTS), ["Coffee", "Apple"], "Apple"),
    ("Mar", ["Mar"], [], ""),
    ("", [], ["Mar"], "Mar"),
]


@pytest.fixture(scope="module")
def registry():
    def serve(name, vocab, record):
        model = make_model(vocab=vocab)
        return ServedModel(name, CharLM(model.config, model.weights, record, device="cpu"), "folder")

    return ModelRegistry(serve(name, *each) for name, each in MODELS.items())


def test_a_model_of_plays_begins_with_a_speaker_and_any_other_as_its_own_lines_do(registry):
    assert {name: prompts_of(registry[name]) for name in MODELS} == OWN


def test_the_text_to_look_into_is_the_scene_for_a_model_of_plays_and_what_any_other_wrote(registry):
    assert {name: text_to_read(registry[name]) for name in MODELS} == READ


def test_two_models_are_offered_prompts_that_both_know_if_there_are_any(registry):
    found = {names: shared_prompts(registry, *names) for names in SHARED}
    assert found == SHARED
    for names, prompts in found.items():
        vocabs = [set(registry[name].lm.config.vocab) for name in names]
        assert set("".join(prompts)) <= (vocabs[0] if "korean" in names else vocabs[0] & vocabs[1])


@pytest.mark.parametrize(("prompt", "offered", "prompts", "expected"), EXCHANGED)
def test_other_models_exchange_a_prompt_that_the_page_offered_and_keep_one_that_was_typed(
    prompt, offered, prompts, expected
):
    assert next_prompt(prompt, offered, prompts) == expected


def test_a_prompt_that_stays_is_not_sent_back_over_what_is_typed_meanwhile(registry):
    parts = SimpleNamespace(offered=None, buttons=[])
    change = _change_prompts(registry, [], None, parts)["fn"]
    assert change("plays", "bare", "Apple", list(PROMPTS))[0] == gr.update()
    assert change("plays", "bare", "my own", list(PROMPTS))[0] == gr.update()
    assert change("names", "bare", "Apple", list(PROMPTS))[0] == "Mar"


def test_a_record_that_cannot_be_shown_offers_nothing(registry):
    record = MODELS["names"][1] | {"best": {"epoch": 9, "val_loss": 1.0}}
    whole = registry["names"].lm
    model = ServedModel("names", CharLM(whole.config, whole._weights, record, device="cpu"), "folder")
    assert prompts_of(model) == ["Apple", "University", "Seoul", "Coffee", "Computer"]
    assert text_to_read(model) == SCENE


def test_the_page_without_a_server_begins_with_the_same(registry, page):
    entries = [{"config": {"vocab": vocab}, "history": record} for vocab, record in MODELS.values()]
    places = [[list(MODELS).index(name) for name in names] for names in SHARED]
    own, read, shared, prompts = page.evaluate(
        """async ([models, places, exchanged, scene]) => {
            const { nextPrompt, promptsOf, sharedPrompts, textToRead } = await import("/examples.js");
            const shared = places.map(([one, other]) => sharedPrompts(models[one], models[other]));
            return [models.map(promptsOf), models.map((model) => textToRead(model, scene)), shared,
                exchanged.map(([prompt, offered, prompts]) => nextPrompt(prompt, offered, prompts))];
        }""",
        [entries, places, [list(each) for each in EXCHANGED], SCENE],
    )
    assert dict(zip(MODELS, own, strict=True)) == OWN
    # where it has no text for a model, the model writes one there
    assert dict(zip(MODELS, read, strict=True)) == READ | {"strange": ""}
    assert shared == list(SHARED.values())
    assert prompts == [expected for *_, expected in EXCHANGED]
