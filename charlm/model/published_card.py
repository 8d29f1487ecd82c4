"""What a card says once it is published: the repository, its licence and language, the Space that shows the model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import yaml

from charlm.errors import ModelFileError, RequestError
from charlm.messages import one_line, show
from charlm.model.card import (
    NO_LICENSE,
    NO_LICENSE_SECTION,
    NO_SPACE,
    REPO_PLACEHOLDER,
    SPACE_COMMENTS,
    front_matter,
)
from charlm.model_name import MAIN_BRANCH, is_repo_id

# The licences that https://huggingface.co/docs/hub/repositories-licenses lists, without those of single models.
LICENSE_LIST = """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-openrail-m bsd bsd-2-clause bsd-3-clause
    bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0
    cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0
    cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m ecl-2.0
    epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr lppl-1.3c
    mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense
    wtfpl zlib
"""
LICENSES = LICENSE_LIST.split()
LANGUAGE = re.compile("[a-z]{2,3}|code|multilingual")  # of ISO 639, and what the Hub takes for texts without one
# The name and the link of a licence that is not among LICENSES: https://huggingface.co/docs/hub/repositories-licenses
OWN_LICENSE = {
    "license_name": re.compile("[a-z0-9.-]{1,100}"),
    "license_link": re.compile(r"https?://\S{1,500}|LICENSE"),
}
MOST_LANGUAGES = 100  # that a published card may name
SPACE_LINK = re.compile(r"\[([^\s\[\]]{3,200})\]\(https://huggingface\.co/spaces/\1\)")
FRONT_MATTER = re.compile(r"\A\s*---[ \t]*[\r\n]+(.*?)[\r\n]+---[ \t]*(?:\r?\n|\Z)", re.DOTALL)

# The Hub gives out a script as plain text, which no page may import: so it is read as text, and imported from there.
WEB_PAGE = """```html
<script type="module">
const source = await (await fetch("{engine}")).text();
const {{CharLM}} = await import(URL.createObjectURL(new Blob([source], {{type: "text/javascript"}})));
const lm = await CharLM.load("https://huggingface.co/{repo}/resolve/{revision}");
const text = await lm.generate("", {{length: 300, temperature: 0.8, seed: 7}});
document.body.append(text);
</script>
```"""


@dataclass(frozen=True)
class Publication:
    """What `published_card` writes into a card; None leaves it as it is.

    license: an entry of LICENSES, in any case. language: a code of ISO 639. space: USER/SPACE, a Space that shows the
    model. installs: whether pip can install charlm from that Space. engine: the commit of that Space and the path of
    charlm.js in it, COMMIT/PATH; empty if it has none. revision: of the model, for a web page that loads it.

    Raises RequestError when built with another licence or language.
    """

    license: str | None = None
    language: str | None = None
    space: str | None = None
    installs: bool = False
    engine: str = ""
    revision: str = MAIN_BRANCH

    def __post_init__(self) -> None:
        if self.license is not None and _fold(self.license) not in LICENSES:
            close = get_close_matches(_fold(self.license), LICENSES, n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(close)}?" if close else "some are mit, apache-2.0 and cc-by-4.0."
            raise RequestError(
                f"license is {show(self.license)}, which is not among the licences of the Hub; {hint} "
                "Write `other` for a licence that is not among them"
            )
        if self.language is not None and not LANGUAGE.fullmatch(_fold(self.language)):
            raise RequestError(
                f"language is {show(self.language)}; give its code of two or three letters, for example en, or "
                "`multilingual`, or `code`"
            )


def published_card(card: str, repo_id: str, publication: Publication) -> str:
    """Return the text of a card as it is published in a repository.

    Raises ModelFileError if a licence or a language has to be written into metadata that are not valid YAML.
    """
    if publication.license is not None or publication.language is not None:
        card = _change_metadata(card, publication)
    if publication.space is not None:
        card = _tell_space(card, publication.space, publication)
    return card.replace(REPO_PLACEHOLDER, repo_id)


def keep_published(card: str, published: Mapping[str, Any], publication: Publication) -> str:
    """Return a card with the licence and the language of the one that it replaces, where nothing else states them.

    card: of the model folder. published: the metadata of the card that is on the Hub, which anyone may have written:
        only a licence of the Hub's list and codes of languages are taken from it.
    publication: what is asked for in place of them.

    Raises ModelFileError if something has to be kept in metadata that are not valid YAML.
    """
    language = _languages(published.get("language")) if publication.language is None else ""
    license = _license(published) if publication.license is None else {}
    if not language and not license:
        return card
    values, body = _split_card(card)
    if language and not values.get("language"):
        values["language"] = language
    is_stated = values.get("license") and values.get("license_name") != NO_LICENSE["license_name"]
    if license and not is_stated:
        body = body.replace(NO_LICENSE_SECTION, "").rstrip() + "\n"
        values, body = _change_license(values | license, body, license["license"])
    return _join_card(values, body)


def _languages(stated: object) -> str | list[str]:
    """Return the code of the language that a card states, or the codes; empty for what is not one."""
    codes = stated if isinstance(stated, list) else [stated]
    known = [code for code in codes if isinstance(code, str) and LANGUAGE.fullmatch(code)][:MOST_LANGUAGES]
    return known if isinstance(stated, list) else "".join(known)


def _license(stated: Mapping[str, Any]) -> dict[str, str]:
    """Return the licence that the metadata of a card state, with its name and link if it has some; empty for none."""
    license = stated.get("license")
    if not isinstance(license, str) or license not in LICENSES:
        return {}
    if license != NO_LICENSE["license"]:
        return {"license": license}
    own = {name: str(stated.get(name)) for name in OWN_LICENSE}
    is_sound = all(OWN_LICENSE[name].fullmatch(value) for name, value in own.items())
    return {"license": license, **own} if is_sound and own["license_name"] != NO_LICENSE["license_name"] else {}


def read_space(card: str) -> str | None:
    """Return the Space to which a published card links, USER/SPACE; None for none."""
    start, end = SPACE_COMMENTS
    told, closed, _ = card.rpartition(start)[2].partition(end)
    found = SPACE_LINK.search(told) if closed else None
    return found[1] if found and is_repo_id(found[1]) else None


def read_license(card: str) -> str:
    """Return the licence that a card names, by its own name if it is one that the Hub does not list; empty for none.

    Raises ModelFileError if its metadata are not valid YAML.
    """
    found = FRONT_MATTER.match(card)
    values = _read_metadata(found[1]) if found else {}
    license = values.get("license")
    if license == NO_LICENSE["license"]:
        license = values.get("license_name", license)
    return license if isinstance(license, str) else ""


def _fold(value: object) -> str:
    return str(value).strip().lower()


def _change_metadata(card: str, publication: Publication) -> str:
    values, body = _split_card(card)
    if publication.language is not None:
        values["language"] = _fold(publication.language)
    if publication.license is not None:
        values, body = _change_license(values, body, _fold(publication.license))
    return _join_card(values, body)


def _split_card(card: str) -> tuple[dict[str, Any], str]:
    """Return the metadata of a card and what follows them. Raises ModelFileError if they are not valid YAML."""
    found = FRONT_MATTER.match(card)
    return (_read_metadata(found[1]), card[found.end() :]) if found else ({}, card)


def _join_card(values: Mapping[str, Any], body: str) -> str:
    return f"{front_matter(values)}\n\n" + body.lstrip("\r\n")


def _read_metadata(text: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-02-30
        reason = one_line(error)
        raise ModelFileError(f"README.md begins with metadata that are not valid YAML: {reason:.200}") from None
    if not isinstance(values, dict | None):
        raise ModelFileError("README.md begins with metadata that are not names with values; write `name: value`")
    return values or {}


def _change_license(values: Mapping[str, Any], body: str, license: str) -> tuple[dict[str, Any], str]:
    """Return metadata and text of a card with another licence.

    `other` keeps the name and the link of a licence that stand there.
    """
    if license != NO_LICENSE["license"]:
        kept = {name: value for name, value in values.items() if name not in NO_LICENSE or name == "license"}
        return kept | {"license": license}, body.replace(NO_LICENSE_SECTION, "").rstrip() + "\n"
    changed = {
        **values,
        **{name: values.get(name, missing) for name, missing in NO_LICENSE.items()},
        "license": license,
    }
    if changed["license_link"] == NO_LICENSE["license_link"] and NO_LICENSE_SECTION not in body:
        body = f"{body.rstrip()}\n\n{NO_LICENSE_SECTION}\n"
    return changed, body


def _tell_space(card: str, space: str, publication: Publication) -> str:
    """Put the Space into its place in a card, or at the end of one that has none."""
    address = f"https://huggingface.co/spaces/{space}"
    install = f"    pip install git+{address}"
    if publication.engine:
        engine = f"{address}/resolve/{publication.engine}"
        told = f"In a web page, with charlm.js from the Space [{space}]({address}), which shows this model:\n\n"
        told += WEB_PAGE.format(engine=engine, repo=REPO_PLACEHOLDER, revision=publication.revision)
        told += f"\n\nWith charlm, from the same Space:\n\n{install}" if publication.installs else f"\n\n{NO_SPACE}"
    elif publication.installs:
        told = f"With charlm, from the Space [{space}]({address}), which shows this model:\n\n{install}"
    else:
        told = f"The Space [{space}]({address}) shows this model.\n\n{NO_SPACE}"
    start, end = SPACE_COMMENTS
    told = f"{start}\n{told}\n\n{end}"
    before, found, rest = card.rpartition(start)  # the last: samples and names that precede it can hold anything
    _, closed, after = rest.partition(end)
    return before + told + after if found and closed else f"{card.rstrip()}\n\n{told}\n"
