import re

import pytest
from huggingface_hub import ModelCard
from hypothesis import example, given
from hypothesis import strategies as st
from models import any_text, laws, make_config, make_record

from charlm.errors import ModelFileError, RequestError
from charlm.model.card import model_card
from charlm.model.published_card import LICENSES, Publication, published_card

SHAKESPEARE = model_card(make_config(), make_record())
LETTERS = model_card(make_config(), make_record(text="letters.txt"))
PAGE = "https://huggingface.co/spaces/ada/page"
INSTALL = f"pip install git+{PAGE}"


def publish(card, **changes):
    return published_card(card, "ada/poems", Publication(**changes))


def metadata(card):
    return ModelCard(card, ignore_metadata_errors=False).data.to_dict()


def text_of(card):
    return ModelCard(card).text


def test_without_options_a_card_changes_in_the_name_of_the_repository_alone():
    for card in (SHAKESPEARE, LETTERS, "no metadata\r\n", "---\nnot: [valid\n---\n"):
        assert publish(card) == card.replace("USER/MODEL", "ada/poems")


@pytest.mark.parametrize("card", [SHAKESPEARE, LETTERS], ids=["with a licence", "without"])
def test_a_licence_and_a_language_are_written_into_the_metadata_and_the_rest_stays(card):
    published = publish(card, license="CC-BY-4.0", language=" DE ")
    before, after = metadata(card.replace("USER/MODEL", "ada/poems")), metadata(published)
    assert (after["license"], after["language"]) == ("cc-by-4.0", "de")
    changed = ("license", "license_name", "license_link", "language")
    assert not after.keys() & {"license_name", "license_link"}
    assert {name: value for name, value in after.items() if name not in changed} == {
        name: value for name, value in before.items() if name not in changed
    }
    assert "stated no licence" not in published
    assert text_of(published).split("## Licence")[0].strip() == text_of(publish(card)).split("## Licence")[0].strip()


def test_the_licence_other_has_a_name_and_a_link_and_keeps_those_that_stand_there():
    published = publish(SHAKESPEARE, license="other")
    assert metadata(published)["license_name"] == "not-stated"
    assert metadata(published)["license_link"] == "https://huggingface.co/ada/poems#licence"
    assert published.rstrip().endswith("for more than a trial.") and published.count("## Licence") == 1
    assert publish(published, license="other") == published
    own = SHAKESPEARE.replace("license: mit", "license: other\nlicense_name: mine\nlicense_link: LICENSE")
    assert publish(own, license="other") == publish(own)


@pytest.mark.parametrize(
    ("license", "message"),
    [
        ("MTI", "license is 'MTI', which is not among the licences of the Hub; did you mean mit? Write `other` for a "),
        ("apache 2", "did you mean apache-2.0?"),
        ("gpl3", "did you mean gpl or lgpl or gpl-3.0?"),
        ("", "license is '', which is not among the licences of the Hub; some are mit, apache-2.0 and "),
        ("mit\nevil: 1", "is not among the licences"),
        (5, "license is 5, which"),
    ],
)
def test_a_licence_that_the_hub_does_not_list_is_answered_with_the_nearest(license, message):
    with pytest.raises(RequestError, match=re.escape(message)):
        Publication(license=license)


@pytest.mark.parametrize("language", ["english", "", "e", "en\n", "en,de", "e1", ["en"]])
def test_what_is_no_code_of_a_language_is_refused(language):
    if language == "en\n":
        assert metadata(publish(LETTERS, language=language))["language"] == "en"
        return
    with pytest.raises(RequestError, match="language is .*; give its code of two or three letters, for example en"):
        Publication(language=language)


@laws
@given(st.sampled_from(LICENSES), st.sampled_from(["en", "ko", "deu", "no", "code", "multilingual"]), any_text())
@example("other", "no", "---\n")
@example("mit", "en", "\r\n---\r\n")
def test_whatever_stands_in_a_card_the_hubs_own_library_finds_the_licence_and_the_text(license, language, text):
    published = publish(text, license=license, language=language)
    data = ModelCard(published, ignore_metadata_errors=False).data
    assert (data.license, data.language) == (license, language)
    assert license != "other" or {data.license_name, data.license_link} == {
        "not-stated",
        "https://huggingface.co/ada/poems#licence",
    }


def test_metadata_that_a_person_wrote_stay_and_their_line_ends_do_not_matter():
    for card in ("---\r\ntags:\r\n- mine # a remark\r\n---\r\n\r\n# Mine\r\n", "\n---  \ntags: [mine]\n---\n# Mine\n"):
        published = publish(card, language="en")
        assert metadata(published) == {"tags": ["mine"], "language": "en"}
        assert text_of(published).strip() == "# Mine"


@pytest.mark.parametrize("front", ["tags: [", "a: 2026-02-30", "- a\n- b", "just words", "\udcff: 1", "[" * 600])
def test_metadata_that_cannot_be_read_are_told_where_they_have_to_be_changed(front):
    card = f"---\n{front}\n---\n# Mine\n"
    with pytest.raises(ModelFileError, match=r"README.md begins with metadata that are not") as error:
        publish(card, language="en")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    assert publish(card) == card


def test_a_card_says_how_to_install_charlm_from_the_space_that_shows_the_model_and_never_from_pypi():
    assert "pip install" not in LETTERS and "The package of that name on PyPI is another one" in LETTERS
    published = publish(LETTERS, space="ada/page", installs=True)
    assert f"the Space [ada/page]({PAGE})" in published
    assert re.findall("pip install.*", published) == [INSTALL]
    assert "PyPI" not in published
    # above the script that imports it
    assert published.index(INSTALL) < published.index("from charlm import CharLM") < published.index("## How it was")


def test_a_space_from_which_pip_cannot_install_is_linked_alone():
    published = publish(LETTERS, space="ada/page")
    assert f"The Space [ada/page]({PAGE}) shows this model." in published
    assert "pip install" not in published and "PyPI is another one" in published


COMMIT = "5" * 40


@pytest.mark.parametrize("installs", [False, True])
def test_a_space_that_has_the_engine_is_told_with_the_five_lines_for_a_web_page(installs):
    published = publish(LETTERS, space="ada/page", installs=installs, engine=f"{COMMIT}/charlm.js", revision="6" * 40)
    (lines,) = re.findall('```html\n<script type="module">\n(.*?)\n</script>\n```', published, re.DOTALL)
    assert len(lines.splitlines()) == 5
    assert f'fetch("{PAGE}/resolve/{COMMIT}/charlm.js")' in lines
    assert f'CharLM.load("https://huggingface.co/ada/poems/resolve/{"6" * 40}")' in lines
    assert published.count(PAGE) == 2 + installs and (INSTALL in published) == installs
    assert ("PyPI" in published) != installs
    other = publish(published, space="ada/page", engine=f"{'7' * 40}/charlm.js")
    assert published.count("<script") == other.count("<script") == 1 and "ada/poems/resolve/main" in other


def test_another_space_takes_the_place_of_the_first_and_a_card_without_one_keeps_it():
    first = publish(LETTERS, space="ada/page", installs=True)
    assert publish(first) == first == publish(first, space="ada/page", installs=True)
    second = publish(first, space="eve/other", installs=True)
    assert second == first.replace("ada/page", "eve/other")


@pytest.mark.parametrize(
    "sample", ["<!-- space --> a", "<!-- end of space -->", "<!-- space -->\n<!-- end of space -->"]
)
def test_a_text_that_holds_the_comments_does_not_move_the_space(sample):
    record = make_record(text=sample, sample=sample)
    card = model_card(make_config(), record, {1.0: sample})
    published = publish(card, space="ada/page", installs=True)
    assert published.index("print(text)\n```") < published.index(INSTALL) < published.index("from charlm import CharLM")
    assert published.count(INSTALL) == 1
    assert metadata(published)["widget"][0]["output"]["text"] == sample


def test_a_card_that_a_person_wrote_gets_the_space_at_its_end():
    assert publish("# Mine", space="ada/page", installs=True) == (
        f"# Mine\n\n<!-- space -->\nWith charlm, from the Space [ada/page]({PAGE}), which shows this model:\n\n"
        f"    {INSTALL}\n\n<!-- end of space -->\n"
    )
