"""The page without a server as one file with the models in it, or as the files of a static Space that fetches them.

Everything about a model, its name and vocabulary too, may come from strangers. It stands in the page as JSON, in which
no `<` can end the element, and the page's JavaScript shows it as text.
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

from charlm.analysis.diagnosis import read_curves
from charlm.analysis.published import ON_TINYSHAKESPEARE, TINYSHAKESPEARE
from charlm.browser.lesson import Lesson
from charlm.browser.scripts import COMPONENTS_STYLE, FOLDER, THEME_STYLE, imported, join_modules, without_comments
from charlm.errors import RequestError
from charlm.messages import printable
from charlm.model.card import NO_LICENSE
from charlm.model.config import ModelConfig
from charlm.model.folder import Model
from charlm.model.history import EpochRecord, HistoryRecord, JoinedHistory, best_epoch, bits_per_char, join_runs
from charlm.model.weights import pack_weights

ENGINE, SCRIPT, STYLE, TEMPLATE = (FOLDER / name for name in ("charlm.js", "page.js", "page.css", "page.html"))
STARTER = FOLDER / "start.js"  # runs the script of an exported page, which stands in it packed
SCENE = FOLDER.parent / "web" / "static" / "scene.txt"  # a text to look into, which no model was trained on
LOADER = FOLDER / "load.js"  # the part of a page on a static Space that loads models from the Hub
MARK = '<meta name="generator" content="charlm export">'  # by which an exported page is known
MOST_MODELS = 20
MOST_WEIGHTS = 256 << 20  # bytes in one file: with more, phones run out of memory
LARGEST_REST = 200_000  # bytes of a page beyond 4/3 of its weights
DIGITS = 8  # of the losses, rates and times of an epoch
MOST_ALWAYS_KEPT = 3  # samples of a model: those of the first, the best and the last epoch
STYLE_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
PIECE = 6 << 20  # bytes of weights in one element; a multiple of 3, so that each piece is base64 of its own


@dataclass(frozen=True)
class PageModel:
    """A model as the page shows it.

    size, sha256: of its model.safetensors. license: as its card names it, empty if it states none, None if unknown.
    source: where it came from, as a reader is told: USER/REPO@COMMIT, or empty for a folder.
    weights: the content of model.safetensors, or None if the page fetches it.
    address: of the folder that the page fetches it from, at a commit; empty if the page holds the weights.
    """

    name: str
    config: ModelConfig
    size: int
    sha256: str
    history: HistoryRecord | None = None
    license: str | None = None
    source: str = ""
    weights: bytes | None = field(default=None, repr=False)
    address: str = ""

    @classmethod
    def from_model(cls, name: str, model: Model, license: str | None = None, source: str = "") -> "PageModel":
        """Return a model whose weights the page holds."""
        packed = pack_weights(model.weights)
        sha256 = hashlib.sha256(packed).hexdigest()
        return cls(printable(name), model.config, len(packed), sha256, model.history, license, source, packed)


def export_html(models: Sequence[PageModel], lesson: Lesson | None = None) -> bytes:
    """Return the page as one file that holds these models, and that asks for nothing else.

    It takes 4/3 of their weights and at most LARGEST_REST bytes, for which samples of some epochs are left out if need
    be. Raises RequestError if there are no models, too many, or more weights than a browser holds.
    """
    _check(models)
    starter = STARTER.read_text(encoding="utf-8")
    style = _compact(_style())
    policy = {
        "default-src": "'none'",
        # blob: the page's script, the engine, and the Worker that it runs in
        "script-src": f"{_hash(starter)} blob: 'wasm-unsafe-eval'",
        "worker-src": "blob:",
        "style-src": _hash(style),
        "img-src": "data: blob:",  # the icon, and the curves on their way to a PNG
    }
    before, after = _template(_head(models, policy, f"<style>{style}</style>"))
    engine = without_comments(ENGINE.read_text(encoding="utf-8"))
    packed = _pack("engine", engine.encode()) + _pack("script", join_modules(SCRIPT).encode())
    scripts = f"{packed}<script>{starter}</script>\n{after}"
    weights = b"".join(part for place, model in enumerate(models) for part in _pieces(place, model.weights or b""))
    most = LARGEST_REST + sum(model.size for model in models) * 4 // 3
    data = _fit(page_data(models, lesson), most - len(before.encode()) - len(weights) - len(scripts.encode()))
    return b"".join([before.encode(), data.encode(), weights, scripts.encode()])


def static_files(
    models: Sequence[PageModel], hub: str, hosts: Sequence[str], lesson: Lesson | None = None, space: str = ""
) -> dict[str, bytes]:
    """Return the files of a static Space, by path, whose page fetches the models from their addresses.

    hub: the address of the Hub, from which a visitor may load other models. hosts: from which the page may fetch, as a
    Content-Security-Policy names them. space: its name, USER/NAME, to whose page on the Hub links then lead.
    """
    _check(models)
    policy = {
        "default-src": "'none'",
        "script-src": "'self' 'wasm-unsafe-eval'",
        "worker-src": "'self' blob:",
        "style-src": "'self'",
        "img-src": "data: blob:",
        "connect-src": " ".join(["'self'", *hosts]),
    }
    page = f'<meta name="charlm-space" content="{escape(f"{hub}/spaces/{space}")}">\n' if space else ""
    head = _head(models, policy, f'{page}<link rel="stylesheet" href="page.css">')
    before, after = _template(head)
    data = f'<script type="application/json" id="data">{_to_json(page_data(models, lesson) | {"hub": hub})}</script>'
    index = f'{before}{data}\n<script type="module" src="page.js"></script>\n{after}'
    modules = [*imported(SCRIPT), *imported(LOADER), ENGINE]
    content = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in modules}
    return {"index.html": index.encode(), "page.css": _style().encode(), **content}


def page_data(models: Sequence[PageModel], lesson: Lesson | None = None) -> dict[str, Any]:
    """Return what the page knows, as JSON holds it: `models`, `reading`, what their curves show, and `scene`, a text.

    Of each model it has `name`, `about` (a line), `card` (the card in short, in sentences), `license`, `source`,
    `address`, `size`, `sha256`, `config` (the content of config.json) and `history`, by `join_runs` and shortened. The
    reading has remarks on each model by name, `own`, and comparisons of any two, `pairs`. `published` has the losses of
    others, and the `run` of a record that they can be compared with. `lesson` is there if there is one.
    """
    records = [(model.name, model.history) for model in models if model.history is not None]
    own = {name: [asdict(remark) for remark in read_curves([(name, history)])] for name, history in records}
    pairs = [
        [a, b, [asdict(remark) for remark in read_curves([(a, one), (b, other)]) if not remark.model]]
        for (a, one), (b, other) in combinations(records, 2)
    ]
    scene = SCENE.read_text(encoding="utf-8")
    published = {"run": TINYSHAKESPEARE, "losses": [asdict(each) for each in ON_TINYSHAKESPEARE]}
    data = {
        "models": [_describe(model) for model in models],
        "reading": {"own": own, "pairs": pairs},
        "published": published,
        "scene": scene,
    }
    return data | ({"lesson": lesson.to_json()} if lesson else {})


def _fit(data: dict[str, Any], most: int) -> str:
    """Return the element with the data of a page, with as many samples of the epochs as fit into `most` bytes.

    Of the model that has most of them, every second is left out, as often as needed; those of the first, the best and
    the last epoch stay.
    """
    models, steps = list(data["models"]), [1] * len(data["models"])
    while len(element := _pack("data", _to_json(data | {"models": models}).encode())) > most:
        counts = [_count_samples(model["history"]) for model in models]
        longest = counts.index(max(counts))
        if counts[longest] <= MOST_ALWAYS_KEPT:
            break
        steps[longest] *= 2
        models[longest] = models[longest] | {"history": _thin(data["models"][longest]["history"], steps[longest])}
    return element


def _count_samples(history: HistoryRecord | None) -> int:
    return sum(bool(epoch["sample"]) for epoch in history["epochs"]) if history else 0


def _thin(history: HistoryRecord, step: int) -> HistoryRecord:
    kept = {1, history["best"]["epoch"], history["epochs"][-1]["epoch"]}
    epochs: list[EpochRecord] = [
        epoch if epoch["epoch"] in kept or epoch["epoch"] % step == 0 else {**epoch, "sample": ""}
        for epoch in history["epochs"]
    ]
    return {**history, "epochs": epochs}


def _check(models: Sequence[PageModel]) -> None:
    assert len({model.name for model in models}) == len(models)
    if not 1 <= len(models) <= MOST_MODELS:
        raise RequestError(f"a page shows 1 to {MOST_MODELS} models, not {len(models)}")
    weights = sum(len(model.weights or b"") for model in models)
    if weights > MOST_WEIGHTS:
        raise RequestError(
            f"these models have {weights / 1e6:,.0f} MB of weights, and browsers cannot hold a file with more than "
            f"{MOST_WEIGHTS / 1e6:,.0f} MB; export fewer models or smaller ones"
        )


def _describe(model: PageModel) -> dict[str, Any]:
    config = model.config
    about = f"{config.kind.label} {config.num_layers}×{config.hidden_size} · {config.parameters:,} parameters"
    return {
        "name": model.name,
        "about": about,
        "card": _card(model),
        "license": model.license,
        "source": model.source,
        "address": model.address,
        "size": model.size,
        "sha256": model.sha256,
        "config": json.loads(config.to_json(model.sha256)),
        "history": None if model.history is None else _shorten(join_runs(model.history)),
    }


def _shorten(history: JoinedHistory) -> JoinedHistory:
    """Return a record with numbers rounded to DIGITS digits: the nine bundled records take 7 kB less, compressed."""
    epochs = [
        {name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value for name, value in epoch.items()}
        for epoch in history["epochs"]
    ]
    return {**history, "epochs": epochs}  # type: ignore[typeddict-item]


def _card(model: PageModel) -> list[str]:
    """Return the card in short: what the model is, what it was trained on, how good it is, and its licence."""
    config, history = model.config, model.history
    said = [f"{config.kind.label}: {config.sizes}."]
    if history is not None:
        said.append(_results(history))
    said.append(
        "It writes text in the style of its training text, and may repeat passages of it. It knows no facts and "
        "follows no instructions."
    )
    if model.source:
        said.append(f"From the Hub: {model.source}.")
    if model.license is None:
        said.append("Its licence is not known here: look for it where the model comes from.")
    elif model.license in ("", NO_LICENSE["license_name"]):
        said.append("Its author has stated no licence: ask before you use it for more than a trial.")
    else:
        said.append(f"Licence: {model.license}.")
    return said


def _results(history: HistoryRecord) -> str:
    run, best = history["run"], best_epoch(history)
    begin = f"Trained on {run.get('text', 'a text')}; after epoch {best['epoch']} of {len(history['epochs'])} its"
    loss, unseen = best["val_loss"], best.get("unseen_loss")
    if run.get("protocol") != "windows":
        return f"{begin} validation loss is {loss:.4f} nats per character, {bits_per_char(loss):.4f} bits."
    if unseen is None:
        return f"{begin} validation loss, which leaks, is {loss:.4f} nats per character."
    return (
        f"{begin} loss on text that it never saw is {unseen:.4f} nats per character, {bits_per_char(unseen):.4f} bits."
    )


def _head(models: Sequence[PageModel], policy: dict[str, str], style: str) -> str:
    """Return what the page's head holds besides the template's: the policy first, as it binds only what follows it."""
    rules = "; ".join(f"{name} {sources}" for name, sources in {**policy, **CLOSED}.items())
    title = escape(f"charlm: {', '.join(model.name for model in models)}")
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">\n{MARK}\n<title>{title}</title>\n{style}'


CLOSED = {"base-uri": "'none'", "form-action": "'none'", "object-src": "'none'"}


def _template(head: str) -> tuple[str, str]:
    """Return the template with a head, before and after the place of data and scripts."""
    start, body = TEMPLATE.read_text(encoding="utf-8").split("<!-- head -->")
    before, after = body.split("<!-- data and scripts -->")
    return start + head + before, after


def _pack(name: str, content: bytes) -> str:
    """Return an element that holds a content as base64 of gzip."""
    packed = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f'<script type="text/plain" id="{name}" data-encoding="gzip">{packed}</script>\n'


def _to_json(data: dict[str, Any]) -> str:
    # in JSON a < stands only inside a string, where \u003c means the same
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _pieces(place: int, weights: bytes) -> list[bytes]:
    """Return weights as elements of base64: a browser holds no string of half a GB, and decodes one piece at a time."""
    start = f'<script type="text/plain" data-weights="{place}">'.encode()
    return [
        part
        for begin in range(0, len(weights), PIECE)
        for part in (start, base64.b64encode(weights[begin : begin + PIECE]), b"</script>\n")
    ]


def _style() -> str:
    return THEME_STYLE + COMPONENTS_STYLE + STYLE.read_text(encoding="utf-8")


def _compact(style: str) -> str:
    """Return a style sheet without comments, indentation and empty lines: it stands in the page as it is, unpacked."""
    lines = (line.strip() for line in STYLE_COMMENT.sub("", style).splitlines())
    return "\n".join(filter(None, lines)) + "\n"


def _hash(content: str) -> str:
    """Return the hash by which a Content-Security-Policy allows an inline element with this content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def is_page(path: Path) -> bool:
    """Tell whether a file begins as an exported page does."""
    with path.open("rb") as file:
        return MARK.encode() in file.read(4096)
