import json
import math
import os
import runpy
import signal
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run_train
from models import VOCAB, contents, keep_epochs, make_model, save
from reference import load_plain, mean_loss

from charlm import CharLM, __version__, cli
from charlm.device import has_cuda
from charlm.errors import ModelFileError
from charlm.inference.compiled import describe_engine

ROOT = Path(__file__).parents[2]
TEXT = "a bad cab\né한😀 dead\n\nbee"
FIGURES = ["chars", "nats_per_char", "bits_per_char", "perplexity", "skipped"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(make_model(), tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def charlm(monkeypatch, capsys):
    """`python -m charlm` in this process: the exit status and what it printed, on standard output and error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["charlm", *map(str, arguments)])
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # as in a process of its own
            with pytest.raises(SystemExit) as caught:
                runpy.run_module("charlm", run_name="__main__", alter_sys=True)
        return caught.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def kept(tmp_path):
    """A model folder that has kept the weights of epochs 1 and 3."""
    folder = save(make_model(), tmp_path / "kept")
    keep_epochs(folder, 1, 3)
    return folder


@pytest.fixture
def text_file(tmp_path):
    def write(text):
        path = tmp_path / "text.txt"
        path.write_bytes(text.encode())
        return path

    return write


def refused(result):
    """The one line that a command says when it refuses."""
    status, output, message = result
    assert (status, output) == (2, "")
    assert message.count("\n") == 1 and message.endswith("\n") and "Traceback" not in message
    return message


def process(*arguments, **options):
    """`python -m charlm` in a process of its own, with its output held back as long as Python does."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "charlm", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, **options)


# generate


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ([], {}),
        (["--prompt", "a cab"], {"prompt": "a cab"}),
        (["--prompt", "bad\n한😀", "--length", "30"], {"prompt": "bad\n한😀", "length": 30}),
        (["--temperature", "1.5", "--top-k", "4"], {"temperature": 1.5, "top_k": 4}),
        (["--temperature", "0", "--length", "40"], {"temperature": 0, "length": 40}),
        (["--top-p", "0.8", "--length", "1"], {"top_p": 0.8, "length": 1}),
        (["--length", "0"], {"length": 0}),
        (["--length", "80", "--stop", "ab", "--stop", "\n\n"], {"length": 80, "stop": ["ab", "\n\n"]}),
        (["--length", "30", "--device", "cpu"], {"length": 30}),
    ],
    ids=str,
)
def test_generate_prints_the_text_that_the_model_writes(charlm, folder, flags, arguments):
    expected = CharLM.from_pretrained(folder).generate(**arguments, seed=7)
    assert charlm("generate", folder, *flags, "--seed", 7) == (0, expected + "\n", "")


def test_on_a_terminal_the_text_follows_its_prompt(charlm, folder, monkeypatch):
    expected = CharLM.from_pretrained(folder).generate("a cab", 30, seed=7)
    arguments = ("generate", folder, "--prompt", "a cab", "--length", 30, "--seed", 7)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert charlm(*arguments) == (0, f"a cab{expected}\n", "")


@pytest.mark.parametrize("several", [[], ["--num-samples", "2"]], ids=str)
def test_what_a_model_writes_cannot_command_the_terminal_and_is_exact_in_a_file(charlm, tmp_path, monkeypatch, several):
    folder = save(make_model(vocab="\n\x1b[2J"), tmp_path / "model")
    arguments = ("generate", folder, "--prompt", "\x1b[J", "--length", 40, "--seed", 7, *several)
    text = CharLM.from_pretrained(folder).generate("\x1b[J", 40, seed=7)
    assert "\x1b" in text
    assert text in charlm(*arguments)[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output = charlm(*arguments)[1]
    assert ("\x1b[J" + text).replace("\x1b", r"\x1b") in output and "\x1b" not in output


def test_unknown_symbols_of_the_prompt_are_named_on_standard_error_only(charlm, folder):
    expected = CharLM.from_pretrained(folder).generate("a cab", 30, seed=7)
    status, output, message = charlm("generate", folder, "--prompt", "a€ cXab", "--length", 30, "--seed", 7)
    assert (status, output) == (0, expected + "\n")
    assert message == "warning: the prompt's '€X' was skipped: the model does not know it\n"


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["-a", "-h", "--", "-- a", "--help", "--length", "--prompt", "--prompt=a", "-1"])
def test_a_prompt_may_begin_with_a_dash(charlm, tmp_path, monkeypatch, prompt):
    folder = save(make_model(vocab="\n -=1abcdefghijklmnopqrstuvwxyz"), tmp_path / "model")
    expected = CharLM.from_pretrained(folder).generate(prompt, 30, seed=7)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)  # on a terminal the prompt is printed too
    for flags in (["--prompt", prompt], [f"--prompt={prompt}"]):
        assert charlm("generate", folder, *flags, "--length", 30, "--seed", 7) == (0, prompt + expected + "\n", "")


# score


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["-a", "--", "--help", "--stop", "-1"])
def test_a_stop_string_may_begin_with_a_dash(charlm, tmp_path, stop):
    folder = save(make_model(vocab="-abehlopst1"), tmp_path / "model")
    expected = CharLM.from_pretrained(folder).generate("", 200, seed=7, stop=stop)
    assert charlm("generate", folder, "--length", 200, "--seed", 7, "--stop", stop) == (0, expected + "\n", "")


@pytest.mark.parametrize("prompt", ["a cab", "bad\n한😀\n", ""])
def test_a_prompt_may_stand_in_a_file_whose_last_line_break_counts(charlm, folder, text_file, prompt):
    expected = CharLM.from_pretrained(folder).generate(prompt, 30, seed=7)
    path = text_file("\ufeff" + prompt.replace("\n", "\r\n"))  # as some editors write it
    result = charlm("generate", folder, "--prompt-file", path, "--length", 30, "--seed", 7)
    assert result == (0, expected + "\n", "")


def test_a_prompt_file_that_cannot_be_read_is_refused_in_one_line(charlm, folder, tmp_path):
    path = tmp_path / "prompt.txt"
    assert refused(charlm("generate", folder, "--prompt-file", path)) == (
        f"error: cannot read the text {path}: No such file or directory; give a UTF-8 text file\n"
    )
    assert "is a binary or a damaged file" in refused(
        charlm("generate", folder, "--prompt-file", folder / "model.safetensors")
    )


def test_several_texts_have_headings_with_what_repeats_each_alone(charlm, folder, monkeypatch):
    samples = CharLM.from_pretrained(folder).generate_many("a cab", 3, 30, seed=7)
    arguments = ("generate", folder, "--prompt", "a cab", "--length", 30, "--seed", 7)
    headings = [
        f"--- sample {number} of 3, seed {6 + number}, {sample.bits_per_char:.3f} bits per character ---\n"
        for number, sample in enumerate(samples, 1)
    ]
    expected = "".join(f"{heading}{sample.text}\n" for heading, sample in zip(headings, samples, strict=True))
    assert charlm(*arguments, "--num-samples", 3) == (0, expected, "")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    expected = "".join(f"{heading}a cab{sample.text}\n" for heading, sample in zip(headings, samples, strict=True))
    assert charlm(*arguments, "--num-samples", 3) == (0, expected, "")


@pytest.mark.parametrize(
    "flags", [[], ["--num-samples", 4], ["--num-samples", 2, "--stop", "a", "--length", 60]], ids=str
)
def test_generate_with_json_prints_an_object_for_each_text(charlm, folder, flags):
    status, output, message = charlm("generate", folder, "--prompt", "bé", "--seed", 7, *flags, "--json")
    assert (status, message) == (0, "")
    samples = [json.loads(line) for line in output.splitlines()]
    lm = CharLM.from_pretrained(folder)
    assert len(samples) == dict(zip(flags[::2], flags[1::2], strict=True)).get("--num-samples", 1)
    for number, sample in enumerate(samples):
        assert list(sample) == ["text", "seed", "bits_per_char"] and sample["seed"] == 7 + number
        options = {"length": 60, "stop": "a"} if "--stop" in flags else {}
        assert sample["text"] == lm.generate("bé", seed=sample["seed"], **options)
        if sample["text"]:
            nats = lm.score("bé" + sample["text"])[1:].mean()
            assert sample["bits_per_char"] == pytest.approx(nats / math.log(2), abs=1e-5)
        else:
            assert sample["bits_per_char"] is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ada/m@v1", "hf://ada/m@v1", "https://huggingface.co/ada/m/tree/v1"])
def test_every_command_takes_each_name_of_a_model_on_the_hub(charlm, hub, folder, text_file, name):
    repo = hub.add_repo("ada/m", contents(folder))
    repo.refs["v1"] = repo.refs["main"]
    repo.commit({"model.safetensors": None})
    file = text_file("a bad cab\n" * 300)
    for command in (["generate", "--length", 20, "--seed", 1], ["score", file], ["units", file]):
        here, there = (charlm(command[0], model, *command[1:]) for model in (folder, name))
        assert here == there and here[0] == 0


@pytest.mark.parametrize("text", [TEXT, "ab", "\ufeff" + TEXT.replace("\n", "\r\n")], ids=ascii)
def test_score_measures_as_plain_torch_does(charlm, folder, text_file, text):
    status, output, message = charlm("score", folder, text_file(text), "--json")
    assert (status, message) == (0, "")
    figures = json.loads(output)
    read = text.removeprefix("\ufeff").replace("\r\n", "\n")
    plain, vocab = load_plain(folder)
    nats = mean_loss(plain, [vocab.index(symbol) for symbol in read])
    assert list(figures) == FIGURES
    assert (figures["chars"], figures["skipped"]) == (len(list(pairwise(read))), 0)
    assert figures["nats_per_char"] == pytest.approx(nats, abs=1e-5)
    assert figures["bits_per_char"] == pytest.approx(nats / math.log(2), abs=1e-5)
    assert figures["perplexity"] == pytest.approx(math.e**nats, rel=1e-5)


def test_score_gives_the_mean_of_what_the_model_gives_in_python(charlm, folder, text_file):
    output = charlm("score", folder, text_file(TEXT), "--json")[1]
    assert json.loads(output)["nats_per_char"] == CharLM.from_pretrained(folder).score(TEXT).mean()


def test_json_is_one_object_on_one_line(charlm, folder, text_file):
    output = charlm("score", folder, text_file(TEXT), "--json")[1]
    assert output.startswith("{") and output.endswith("}\n") and output.count("\n") == 1


def test_unknown_characters_are_left_out_and_counted_each_time(charlm, folder, text_file):
    known = json.loads(charlm("score", folder, text_file(TEXT), "--json")[1])
    more = json.loads(charlm("score", folder, text_file("€" + TEXT[:5] + "XX€" + TEXT[5:] + "Z"), "--json")[1])
    assert more == known | {"skipped": 5}


def test_the_figures_for_people_are_those_of_the_json(charlm, folder, text_file):
    path = text_file(TEXT * 100 + "€")
    figures = json.loads(charlm("score", folder, path, "--json")[1])
    nats, bits, perplexity = (figures[name] for name in FIGURES[1:4])
    assert charlm("score", folder, path) == (
        0,
        f"{nats:.4f} nats per character, {bits:.4f} bits, perplexity {perplexity:.3f}\n"
        "2,299 characters scored, 1 skipped that the model does not know\n",
        "",
    )


def test_a_file_that_is_read_in_pieces_scores_as_plain_torch_reads_the_whole(charlm, folder, text_file, monkeypatch):
    text = "".join(np.random.default_rng(0).choice(list(VOCAB + "€"), 3000))
    path = text_file(text.replace("\n", "\r\n"))
    monkeypatch.setattr("charlm.text.CHUNK_BYTES", 7)  # pieces of some characters, of one and of none
    figures = json.loads(charlm("score", folder, path, "--json")[1])
    plain, vocab = load_plain(folder)
    known = [vocab.index(symbol) for symbol in text if symbol in vocab]
    assert (figures["chars"], figures["skipped"]) == (len(known) - 1, text.count("€"))
    assert figures["nats_per_char"] == pytest.approx(mean_loss(plain, known), abs=1e-5)


@pytest.mark.skipif(has_cuda(), reason="where there is CUDA, torch is asked whether it is the faster")
@pytest.mark.parametrize("command", ["generate", "score"])
def test_on_a_cpu_neither_command_imports_torch(folder, text_file, command):
    arguments = ["--length", "20"] if command == "generate" else [text_file(TEXT), "--json"]
    code = """
import atexit, runpy, sys
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
runpy.run_module("charlm", run_name="__main__", alter_sys=True)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, command, folder, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "False\n")


# Requests that are wrong


@pytest.mark.parametrize("command", ["generate", "score"])
def test_a_model_that_diverged_is_refused_in_one_line(charlm, text_file, tmp_path, command):
    model = make_model()
    model.weights["head.weight"][:] = 3e38
    more = [text_file(TEXT)] if command == "score" else []
    status, output, message = charlm(command, save(model, tmp_path / "model"), *more)
    assert (status, output, message.count("\n")) == (ModelFileError.exit_status, "", 1)
    assert message.startswith("error: ") and message.endswith("after a training that diverged; use another model\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["improvise"], "invalid choice: 'improvise'"),
        (["generate", "--length", "3"], "the following arguments are required: FOLDER_OR_REPO"),
        (["score", "folder"], "the following arguments are required: FILE"),
        (["generate", "folder", "--length", "many"], "argument --length: invalid int value: 'many'"),
        (["generate", "folder", "--temperature", "hot"], "argument --temperature: invalid float value: 'hot'"),
        (["generate", "folder", "--seed", "1.5"], "argument --seed: invalid int value: '1.5'"),
        (["generate", "folder", "--tokens", "1"], "no option --tokens"),
        (["generate", "folder", "--prompt"], "argument --prompt: expected one argument"),
        (["generate", "folder", "--stop"], "argument --stop: expected one argument"),
        (["generate", "folder", "--num-samples", "some"], "argument --num-samples: invalid int value: 'some'"),
        (["generate", "folder", "--prompt", "a", "--prompt-file", "b"], "--prompt-file: not allowed with argument"),
        (["generate", "folder", "--prompt", "", "--prompt-file", "b"], "--prompt-file: not allowed with argument"),
        (["generate", "folder", "--seed", "-x"], "write --option=VALUE if the value begins with a dash"),
        (["score", "folder", "file", "another"], "unrecognized arguments: another"),
    ],
    ids=str,
)
def test_a_command_line_that_is_wrong_is_refused_in_one_line(charlm, arguments, message):
    line = refused(charlm(*arguments))
    assert line.startswith("python -m charlm") and message in line
    assert line.endswith("; --help shows what is allowed\n")


@pytest.mark.parametrize(
    ("arguments", "required"),
    [([], "COMMAND"), (["generate"], "FOLDER_OR_REPO"), (["score"], "FOLDER_OR_REPO, FILE"), (["fit"], "--text")],
    ids=str,
)
def test_what_needs_arguments_and_has_none_shows_examples(charlm, arguments, required):
    status, output, message = charlm(*arguments)
    assert (status, output) == (2, "")
    called = " ".join(["python -m charlm", *arguments])
    assert message.startswith(f"{called}: the following arguments are required: {required}\n\nexamples:\n  # ")
    assert f"\n  {called} " in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "folder", "--sed", "1"], "python -m charlm generate: no option --sed; did you mean --seed?\n"),
        (["genrate", "folder"], "did you mean generate?\n"),
        (["generate", "folder", "--device", "cpp"], "(choose from auto, cpu, cuda, mps); did you mean cpu?\n"),
    ],
    ids=str,
)
def test_a_mistyped_word_is_answered_with_the_nearest_one(charlm, arguments, message):
    assert refused(charlm(*arguments)).endswith(message)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--length", "-1"], "length is -1; it must be from 0"),
        (["--temperature", "-1"], "temperature is -1.0; it must be a finite number from 0"),
        (["--temperature", "nan"], "temperature is nan; it must be a finite number from 0"),
        (["--top-k", "-5"], "top_k is -5; it must be from 0"),
        (["--top-p", "1.5"], "top_p is 1.5; it must be from 0 to 1"),
        (["--seed", "-3"], "seed is -3; it must be from 0"),
        (["--num-samples", "0"], "num_samples is 0; it must be from 1"),
        (["--num-samples", "-2", "--json"], "num_samples is -2; it must be from 1"),
        (["--stop", ""], "stop has ''; each stop string must be a string of at least one character"),
    ],
    ids=str,
)
def test_a_value_out_of_bounds_is_refused_in_one_line(charlm, folder, flags, message):
    assert refused(charlm("generate", folder, *flags)) == f"error: {message}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        "generate ada/model --length -1",
        "generate ada/model --temperature -1",
        "generate ada/model --top-p 2",
        "generate ada/model --num-samples 0",
        "generate ada/model --stop=",
        "generate ada/model --prompt-file missing.txt",
        "score ada/model missing.txt",
        "score ada/model not-a-text.txt",
        "units ada/model missing.txt",
        "units ada/model short.txt",
        "units ada/model long.txt --best 0",
        "export ada/model --html .",
        "export ada/model --html short.txt",
    ],
)
def test_a_wrong_argument_is_refused_before_the_hub_is_asked(charlm, hub, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    Path("not-a-text.txt").write_bytes(b"a\xff")
    Path("short.txt").write_text("a bad cab\n")
    Path("long.txt").write_text("a bad cab\n" * 300)
    refused(charlm(*arguments.split()))
    assert hub.requests == []


def test_a_file_is_found_where_a_shell_has_left_the_tilde(charlm, folder, text_file, monkeypatch, tmp_path):
    text_file("a bad cab\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert charlm("score", folder, "~/text.txt")[0] == 0
    assert charlm("generate", folder, "--prompt-file=~/text.txt", "--length", 3)[0] == 0


@pytest.mark.parametrize("command", ["generate", "score"])
def test_a_model_that_is_not_there_is_refused_in_one_line(charlm, text_file, command):
    more = [text_file(TEXT)] if command == "score" else []
    assert refused(charlm(command, "no such folder", *more)) == (
        "error: 'no such folder' is neither a folder here nor the name of a Hub repository (USER/NAME); "
        "check the path\n"
    )


def test_a_folder_of_something_else_is_refused_in_one_line(charlm, tmp_path):
    assert refused(charlm("generate", tmp_path)) == (
        f"error: {tmp_path}: config.json is missing: this is not a whole model folder\n"
    )


def test_a_hub_that_cannot_be_reached_may_be_back_later(charlm):
    status, output, message = charlm("generate", "user/model")
    assert (status, output) == (1, "")
    assert message.count("\n") == 1 and message.startswith("error: ")


def test_a_file_that_is_not_there_is_refused_in_one_line(charlm, folder, tmp_path):
    path = tmp_path / "text.txt"
    assert refused(charlm("score", folder, path)) == (
        f"error: cannot read the text {path}: No such file or directory; give a UTF-8 text file\n"
    )


def test_a_file_that_is_no_text_is_refused_in_one_line(charlm, folder, tmp_path):
    assert "is a binary or a damaged file" in refused(charlm("score", folder, folder / "model.safetensors", "--json"))
    (tmp_path / "latin-1.txt").write_bytes("naïve".encode("latin-1"))
    assert "is not UTF-8 text (byte 3 is 0xef)" in refused(charlm("score", folder, tmp_path / "latin-1.txt"))


@pytest.mark.parametrize(
    ("text", "known"), [("", "0 characters"), ("a", "1 character"), ("€", "0 characters"), ("€a€", "1 character")]
)
def test_a_text_with_nothing_to_predict_is_refused_in_one_line(charlm, folder, text_file, text, known):
    path = text_file(text)
    assert refused(charlm("score", folder, path, "--json")) == (
        f"error: {path} has {known} that the model knows; scoring needs at least 2\n"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["score", "--help"]], ids=str)
def test_help_names_every_argument(charlm, arguments):
    status, output, message = charlm(*arguments)
    assert (status, message) == (0, "")
    known = {
        "generate": [
            *("FOLDER_OR_REPO", "--prompt", "--length", "--temperature", "--top-k", "--top-p", "--seed"),
            *("--prompt-file", "--num-samples", "--stop", "--device", "--json"),
        ],
        "score": ["FOLDER_OR_REPO", "FILE", "--json"],
    }
    assert all(name in output for name in known.get(arguments[0], known))


# How it ends


def test_ctrl_c_ends_generate_with_130_and_no_traceback(folder):
    # a shell that started the tests in the background makes its children ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = process("generate", folder, "--length", 10**9, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    with child:
        assert child.stdout.read(1)  # it is writing
        child.send_signal(signal.SIGINT)
        _, message = child.communicate()
    assert (child.returncode, message) == (130, b"")


def test_ctrl_c_during_the_imports_ends_without_a_traceback():
    code = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "charlm.inference":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupted())
import charlm.__main__
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, b"", b"")


def test_a_reader_that_has_had_enough_ends_generate_quietly(folder):
    with process("generate", folder, "--length", 10**9, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout.read(1).decode(errors="ignore") in VOCAB
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 1


def test_a_reader_that_is_gone_ends_score_quietly(folder, text_file):
    reading, writing = os.pipe()
    os.close(reading)
    with process("score", folder, text_file(TEXT), "--json", stdout=writing, stderr=subprocess.PIPE) as child:
        os.close(writing)
        assert child.stderr.read() == b""
    assert child.returncode == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_reported_in_one_line(folder, text_file):
    with open("/dev/full", "wb") as full:
        child = process("score", folder, text_file(TEXT), stdout=full, stderr=subprocess.PIPE)
    with child:
        assert child.stderr.read() == b"error: [Errno 28] No space left on device\n"
    assert child.returncode == 1


def test_symbols_that_standard_output_cannot_hold_are_written_as_escapes(folder, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    child = process("generate", folder, "--length", 200, "--seed", 7, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with child:
        output, message = child.communicate()
    expected = CharLM.from_pretrained(folder).generate("", 200, seed=7) + "\n"
    assert {"한", "😀"} <= set(expected)
    assert (child.returncode, output, message) == (0, expected.encode("ascii", "backslashreplace"), b"")


@pytest.mark.parametrize("arguments", [["--help"], ["score", "--help"]], ids=str)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
def test_help_that_cannot_be_written_is_reported_in_one_line(arguments):
    with open("/dev/full", "wb") as full:
        child = process(*arguments, stdout=full, stderr=subprocess.PIPE)
    with child:
        assert child.stderr.read() == b"error: [Errno 28] No space left on device\n"
    assert child.returncode == 1


CLOSED = {"input": "<&-", "output": ">&-", "errors": "2>&-", "output and errors": ">&- 2>&-", "all": "<&- >&- 2>&-"}


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED)
@pytest.mark.parametrize(
    ("arguments", "status", "output", "errors"),
    [
        (["generate", "FOLDER", "--length", "0", "--prompt", "€"], 0, "\n", "warning: "),
        (["generate", "FOLDER", "--length", "-1"], 2, "", "error: "),
        (["generate", "FOLDER", "--length", "many"], 2, "", "python -m charlm generate: "),
    ],
    ids=["done", "wrong value", "wrong option"],
)
@pytest.mark.slow
def test_what_is_written_to_a_closed_stream_is_discarded(folder, closed, arguments, status, output, errors):
    """None of it appears on another stream, and the status is that of the command."""
    command = f'"$0" -m charlm "$@" {closed}'
    arguments = [str(folder) if each == "FOLDER" else each for each in arguments]
    ended = subprocess.run(
        ["sh", "-c", command, sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == status
    assert ended.stdout == ("" if ">&-" in closed.split() else output)
    if "2>&-" in closed:
        assert ended.stderr == ""
    else:
        assert ended.stderr.startswith(errors) and ended.stderr.count("\n") == 1


def test_files_do_not_get_the_numbers_of_closed_streams():
    code = """
import os, sys
from charlm import cli
for number in range(3):
    os.close(number)
sys.stdin = sys.stdout = sys.stderr = None
def command():
    with open(sys.argv[1], "w+b") as file:
        os.write(2, b"a library's warning")
        print("a result")
        os._exit(file.fileno() > 2 and file.read() == b"")
cli.run(command)
"""
    ended = subprocess.run([sys.executable, "-c", code, os.devnull], cwd=ROOT, check=False)
    assert ended.returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize(
    ("flags", "status", "output"),
    [(["--length", "-1"], 2, b""), (["--length"], 2, b""), (["--prompt", "€", "--length", "0"], 0, b"\n")],
    ids=["wrong value", "wrong option", "warning"],
)
def test_a_message_that_cannot_be_written_changes_nothing_else(folder, flags, status, output):
    with open("/dev/full", "wb") as full:
        child = process("generate", folder, *flags, stdout=subprocess.PIPE, stderr=full)
    with child:
        assert child.stdout.read() == output
    assert child.returncode == status


# A memory that is full

OUT_OF_MEMORY = "error: out of memory; close other programs, or use a smaller model\n"
OUT_OF_MEMORY_IN_TRAINING = (
    "error: out of memory; close other programs, or train with a lower --batch-size, --seq-length or --hidden-size\n"
)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total of 1 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you …"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried …"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB, …)"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:60],
)
def test_a_full_memory_is_told_in_one_line_with_what_the_command_can_do_about_it(capsys, error):
    def command():
        raise error

    settings = "train with a lower --batch-size, --seq-length or --hidden-size"
    assert (cli.run(command, settings), *capsys.readouterr()) == (1, "", OUT_OF_MEMORY_IN_TRAINING)
    assert (cli.run(command), *capsys.readouterr()) == (1, "", OUT_OF_MEMORY)


def test_numpy_without_memory_is_told_so_too(capsys):
    assert cli.run(lambda: np.empty(2**60, np.uint8)) == 1
    assert capsys.readouterr().err == OUT_OF_MEMORY


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RecursionError("deep")])
def test_a_mistake_of_ours_is_not_taken_for_a_full_memory(error):
    def command():
        raise error

    with pytest.raises(type(error), match=str(error)):
        cli.run(command)


def test_a_command_that_never_needed_torch_does_not_import_it_to_fail():
    code = "import sys; from charlm import cli; cli.run(lambda: bytearray(2**62)); sys.exit('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, OUT_OF_MEMORY)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a size of its memory")
def test_a_network_too_large_for_the_memory_is_told_in_one_line(text_file, tmp_path):
    code = """
import resource, runpy, train.loop
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**31, size + 2**31))
runpy.run_module("train", run_name="__main__")
"""
    # its largest matrix has 4 × 15,000 × 15,000 numbers of 4 bytes
    arguments = ["--num-layers", "1", "--hidden-size", "15000", "--device", "cpu", "--out", tmp_path / "out"]
    command = [sys.executable, "-c", code, "fit", "--cell", "lstm", "--text", text_file(TEXT * 100), *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", OUT_OF_MEMORY_IN_TRAINING)


def test_units_lists_for_each_feature_those_that_track_it_best(charlm, folder, text_file):
    path = text_file("a bad cab\nbade a dad\n\n" * 200)
    found = json.loads(charlm("units", folder, path, "--json", "--best", "2")[1])
    assert {"position in the line", "end of a line", "empty line", "vowel"} <= set(found)
    for units in found.values():
        assert [set(unit) for unit in units] == [{"state", "layer", "unit", "rises", "score"}] * 2
        assert units[0]["score"] >= units[1]["score"]
    lines = charlm("units", folder, path, "--best", "1")[1].splitlines()
    best = {name: units[0] for name, units in found.items()}
    assert lines == [
        f"{name:<28}{unit['state']} {unit['layer']}:{unit['unit']} {unit['score']:.3f}" for name, unit in best.items()
    ]


def test_a_text_too_short_to_search_units_on_is_refused_in_one_line(charlm, folder, text_file):
    text = "a€" * 1100  # long enough, but not of symbols that the model knows
    assert "has 1,100 characters that the model knows; finding units takes a text of at least 2,048" in refused(
        charlm("units", folder, text_file(text))
    )
    assert "the text has 2 characters; finding" in refused(charlm("units", folder, text_file("ab")))


def test_units_are_found_on_the_cpu_so_no_other_device_is_measured(charlm, folder, text_file, monkeypatch):
    monkeypatch.setattr(CharLM, "_faster_device", lambda _: pytest.fail("a device is chosen"))
    assert charlm("units", folder, text_file("a bad cab\n" * 300))[0] == 0


@pytest.mark.parametrize("best", ["0", "-1"])
def test_fewer_units_than_one_are_refused_in_one_line(charlm, folder, text_file, best):
    path = text_file("a bad cab\nbade a dad\n\n" * 200)
    assert refused(charlm("units", folder, path, "--best", best)) == f"error: best is {best}; it must be from 1\n"


# one command for everything


def test_it_says_its_version_and_which_engine_runs(charlm):
    assert charlm("--version") == (0, f"charlm {__version__}, {describe_engine()}\n", "")


def test_an_instruction_set_that_there_is_not_is_refused_in_one_line(charlm, monkeypatch):
    monkeypatch.setenv("CHARLM_KERNELS", "fastest")
    line = "error: CHARLM_KERNELS is 'fastest'; it must be auto, avx512, avx2, plain or numpy\n"
    assert refused(charlm("--version")) == line


def test_what_python_m_train_offers_it_offers_with_the_same_options(charlm, monkeypatch, capsys):
    for command in ("fit", "evaluate", "push", "deploy"):
        _, ours, _ = charlm(command, "--help")
        run_train(monkeypatch, command, "--help")
        theirs = capsys.readouterr().out
        assert ours.split() == theirs.replace("python -m train", "python -m charlm").split()


@pytest.mark.slow
def test_it_trains_and_measures(charlm, text_file, tmp_path):
    text, out = text_file(TEXT * 40), tmp_path / "out"
    sizes = ["--epochs", "1", "--hidden-size", "8", "--embedding-size", "4", "--seq-length", "16", "--device", "cpu"]
    status, output, said = charlm("fit", "--cell", "gru", "--text", text, "--out", out, *sizes)
    assert (status, output) == (0, "") and "done: " in said
    status, output, _ = charlm("evaluate", out, "--text", text, "--json")
    assert status == 0
    recorded = json.loads((out / "history.json").read_text(encoding="utf-8"))["best"]["val_loss"]
    assert json.loads(output)["val_loss"] == pytest.approx(recorded, abs=1e-3)


def test_a_training_that_needs_less_memory_is_told_how_to_have_it(charlm, text_file, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("train.loop.fit", fail)
    arguments = ["--cell", "gru", "--text", text_file(TEXT * 40), "--out", tmp_path / "out"]
    assert charlm("fit", *arguments) == (1, "", OUT_OF_MEMORY_IN_TRAINING)


# export


def test_export_says_what_it_wrote_and_how_large_it_is(charlm, folder, tmp_path):
    path = tmp_path / "page.html"
    status, output, messages = charlm("export", folder, "--html", path)
    assert (status, messages) == (0, "")
    assert output.splitlines() == [
        f"{path}: {path.stat().st_size / 1e6:.1f} MB with model",
        "It opens in any browser, from the disk or from a web server, and needs nothing else.",
    ]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("mine.html", "mine.html is not a page that this command made, and is kept; choose another name for --html"),
        ("folder", "folder is a folder; name a file in it: --html"),
        ("", "argument --html: the file's name is empty"),
    ],
)
def test_export_keeps_what_is_not_its_own(charlm, folder, tmp_path, monkeypatch, target, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "folder").mkdir()
    assert said in refused(charlm("export", folder, "--html", target))
    assert (tmp_path / "mine.html").read_text() == "mine" and sorted(os.listdir()) == ["folder", "mine.html"]


def test_export_needs_a_model_and_a_file(charlm, tmp_path):
    path = tmp_path / "page.html"
    assert "--html" in refused(charlm("export", "model"))
    assert "is neither a folder here nor" in refused(charlm("export", tmp_path / "nothing", "--html", path))
    assert not path.exists()


def test_each_command_that_loads_a_model_takes_an_epoch_of_its_training(charlm, kept, text_file, monkeypatch, capsys):
    path = text_file("a bad cab\n" * 40)
    lm = CharLM.from_pretrained(kept, epoch=3, device="cpu")
    status, written, _ = charlm("generate", kept, "--epoch", 3, "--length", 20, "--seed", 7, "--device", "cpu")
    assert (status, written) == (0, lm.generate("", 20, seed=7) + "\n")
    status, scored, _ = charlm("score", kept, path, "--epoch", 3, "--json")
    assert status == 0
    assert json.loads(scored)["nats_per_char"] == pytest.approx(float(lm.score("a bad cab\n" * 40).mean()), abs=1e-6)
    run_train(monkeypatch, "evaluate", kept, "--text", path, "--epoch", 3, "--json")
    at_three = json.loads(capsys.readouterr().out)["val_loss"]
    run_train(monkeypatch, "evaluate", kept, "--text", path, "--json")
    assert json.loads(capsys.readouterr().out)["val_loss"] != at_three


@pytest.mark.parametrize("command", ["generate", "score"])
def test_a_command_refuses_an_epoch_that_was_not_kept_in_one_line(charlm, kept, text_file, command):
    result = charlm(command, kept, *([text_file("a bad cab")] if command == "score" else []), "--epoch", 2)
    assert refused(result) == f"error: {kept} has not kept the weights of epoch 2; choose one of 1, 3\n"
