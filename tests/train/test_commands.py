import errno
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser import ROOT
from forked_programs import Program
from models import contents, make_model, raise_full_disk, save
from reference import load_plain, mean_loss
from stopping import overflow

from charlm import cli
from charlm.errors import HubUnavailableError, RequestError
from charlm.model.folder import read_model
from train.__main__ import default_folder, describe_end, main, next_steps, parse, run_evaluate, run_fit, run_push
from train.config import GROUPS
from train.run_folder import FolderLock
from train.trainer import Trainer

SMALL = ["--epochs", "2", "--hidden-size", "8", "--embedding-size", "4", "--seq-length", "16", "--device", "cpu"]
KOREAN = b"\xef\xbb\xbf" + "나는 봄을 기다린다 🌸\r\n너는 겨울을 보낸다 ❄️\r\n".encode() * 40


@pytest.fixture
def train(monkeypatch, capsys):
    """`python -m train` in this process, which has torch already: its exit status and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        with warnings.catch_warnings():  # the command shows warnings in a way of its own
            try:
                status = cli.run(main)
            except SystemExit as ended:
                status = ended.code
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=printed.out, stderr=printed.err)

    return run


def call(monkeypatch, *arguments):
    """Run a command in this process."""
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    args = parse()
    args.run(args)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "봄.txt"
    path.write_bytes(KOREAN)
    return path


@pytest.mark.slow
def test_a_text_with_hangul_emoji_crlf_and_a_byte_order_mark_is_learnt_from_and_measured_again(train, tmp_path, text):
    trained = train("fit", "--cell", "rnn", "--text", text, "--out", tmp_path / "out", *SMALL)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == ""
    for shown in ("CharRNN 2×8", "봄: ", "epoch 2/2: training loss ", ", validation loss ", " characters/s", "done: "):
        assert shown in trained.stderr
    model = read_model(tmp_path / "out")
    assert set(model.config.vocab) == set(KOREAN.decode("utf-8-sig")) - {"\r"}

    measured = train("evaluate", tmp_path / "out", "--text", text, "--json")
    losses = json.loads(measured.stdout)
    assert measured.stdout.count("\n") == 1
    assert losses.keys() == {"val_loss", "val_loss_reset256"}
    for name, loss in losses.items():
        assert loss == pytest.approx(model.history["best"][name], abs=1e-3)


WRONG = {
    "an empty text": (b"", [], "has nothing in it"),
    "a text of one symbol": (b"aaaa" * 500, [], "has only one symbol"),
    "a text shorter than a sequence": (b"abc" * 40, [], "give a longer text or a lower --seq-length"),
    "a binary file": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", [], "is a binary or a damaged file"),
    "a text in another encoding": ("café ".encode("latin-1") * 500, [], "is not UTF-8 text"),
    "a missing file": (None, [], "cannot read the text"),
    "an unknown cell": (b"abcd" * 500, ["--cell", "transformer"], "invalid choice: 'transformer'"),
    "a split that adds up to more": (
        b"abcd" * 500,
        ["--split", "80,20"],
        "adds up to 100; shares add up to 1, for example",
    ),
    "a split of windows": (
        b"abcd" * 500,
        ["--split", "0.8,0.2", "--protocol", "windows"],
        "windows has a split of its own",
    ),
    "a second text that is none": (b"abcd" * 500, ["--text", "none.txt"], "cannot read the text none.txt"),
    "an unknown protocol": (b"abcd" * 500, ["--protocol", "kfold"], "invalid choice: 'kfold'"),
    "a size of zero": (b"abcd" * 500, ["--hidden-size", "0"], "hidden_size is 0; it must be from 1"),
    "a number that is none": (b"abcd" * 500, ["--epochs", "many"], "invalid int value: 'many'"),
    "a time and a number of epochs": (
        b"abcd" * 500,
        ["--minutes", "3", "--epochs", "2"],
        "--minutes chooses the number of epochs: give --minutes or --epochs, not both",
    ),
    "no time": (b"abcd" * 500, ["--minutes", "0"], "minutes is 0.0; it must be from 0.1 to 100000"),
    "a time for windows": (
        b"abcd" * 500,
        ["--minutes", "3", "--protocol", "windows"],
        "--minutes is for the protocol holdout; with windows, give --epochs",
    ),
    "a time for a model to begin with": (
        b"abcd" * 500,
        ["--minutes", "3", "--init-from", "ada/model"],
        "--minutes chooses the size of a new model: with --init-from, give --epochs",
    ),
    "a time for what teachers write": (
        b"abcd" * 500,
        ["--minutes", "3", "--teacher", "ada/model", "--teachers-write", "640"],
        "--minutes plans for the text alone: with --teachers-write, give --epochs",
    ),
    "written text without a teacher": (
        b"abcd" * 500,
        ["--teachers-write", "640"],
        "--teachers-write needs a model that writes; give a --teacher, or leave it out",
    ),
    "a weight without a teacher": (
        b"abcd" * 500,
        ["--teacher-weight", "1"],
        "--teacher-weight says how much --teacher counts; give both, or leave both out",
    ),
    "a repository without an owner": (b"abcd" * 500, ["--push-to-hub", "model"], "give it as USER/NAME"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_ends_with_one_line_that_tells_what_to_do(train, tmp_path, case):
    content, arguments, message = WRONG[case]
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    ended = train("fit", "--cell", "rnn", "--text", path, "--out", tmp_path / "out", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["evaluate", "./none", "--halves"],
            "--halves needs a text that is read in its order, as by the protocol holdout: leave it out",
        ),
        (
            ["evaluate", "./none", "--dynamic"],
            "--dynamic needs a text that is read in its order, as by the protocol holdout: leave it out",
        ),
        (
            ["fit", "--teacher", "./none"],
            "--teacher needs a text that is read in its order, as by the protocol holdout: leave it out",
        ),
        (["fit", "--minutes", "3"], "--minutes is for the protocol holdout; with windows, give --epochs"),
    ],
    ids=str,
)
def test_what_windows_cannot_have_is_refused_before_a_text_or_a_model_is_read(train, in_folder, arguments, message):
    ended = train(*arguments, "--protocol", "windows", "--text", "none.txt")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"error: {message}\n")


def test_a_folder_that_holds_another_model_is_refused_and_not_touched(train, tmp_path, text):
    out = save(make_model(), tmp_path / "out")
    before = contents(out)
    ended = train("fit", "--cell", "rnn", "--text", text, "--out", out, *SMALL)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "already holds config.json" in ended.stderr
    assert contents(out) == before


def test_a_folder_that_is_not_free_is_refused_before_a_text_is_read(train, in_folder):
    asked = ["fit", "--cell", "rnn", "--text", "none.txt", "--out"]
    save(make_model(), in_folder / "model")
    (in_folder / "begun").mkdir()
    (in_folder / "begun" / "checkpoint.safetensors").write_bytes(b"anything")
    (in_folder / "other").mkdir()
    before = contents(in_folder)
    for arguments, message in [
        (["model"], "model already holds config.json, "),
        (
            ["begun"],
            "begun holds an unfinished run; continue it with --resume or choose another --out, such as begun-2",
        ),
        (["other", "--resume"], "nothing to resume: other is empty; begin without --resume: "),
        (["봄.txt"], "봄.txt is a file; give a folder as --out"),
        (["begun", "--resume"], "cannot read the text none.txt"),  # that may be resumed
        (["new"], "cannot read the text none.txt"),
    ]:
        ended = train(*asked, *arguments)
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
        assert message in ended.stderr
    if sys.platform != "win32":  # which has no flock
        with FolderLock() as lock:
            lock.acquire(in_folder / "other")
            assert "another training is running in other; wait until" in train(*asked, "other").stderr
    assert contents(in_folder) == before and not (in_folder / "new").exists()


def test_of_several_processes_none_looks_into_its_own_folder_before_the_text_is_read(train, in_folder, monkeypatch):
    save(make_model(), in_folder / "model")
    launch = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in launch.items():
        monkeypatch.setenv(name, value)
    ended = train("fit", "--cell", "rnn", "--text", "none.txt", "--out", "model")
    assert "cannot read the text none.txt" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_checkpoint_and_status_130_and_resume_goes_on(tmp_path, text, number):
    arguments = ["fit", "--cell", "rnn", "--text", text, "--out", tmp_path / "out", *SMALL, "--epochs", "5000"]
    output = {"folder": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = Program(["-m", "train", *arguments], **output)
    while "epoch 1/" not in (line := process.stdout.readline()):
        assert line, "the run ended before its first epoch"
    while "training loss" not in (line := process.stdout.readline()):
        assert line, "the run ended in its first epoch"
    process.send_signal(number)
    rest, _ = process.communicate()
    assert process.returncode == 130
    assert "the same command with --resume goes on from here" in rest
    assert "Traceback" not in rest
    assert (tmp_path / "out" / "checkpoint.safetensors").exists()
    assert len(read_model(tmp_path / "out").history["epochs"]) >= 1

    process = Program(["-m", "train", *arguments, "--resume"], **output)
    assert "resuming at epoch " in process.stdout.readline()
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("begins", [[], ["--init-from", "./model"]], ids=str)
def test_a_finished_run_is_as_it_was_after_a_resume_that_asks_for_no_epochs(train, in_folder, begins):
    save(make_model("gru", vocab="\n 나는봄을q"), in_folder / "model")
    sizes = SMALL[2:] if not begins else ["--seq-length", "16", "--device", "cpu"]
    asked = ["fit", "--text", "봄.txt", "--cell", "gru", "--out", "out", *begins, *sizes]
    begun = train(*asked, "--epochs", "4")  # more than with --init-from, fewer than without
    assert begun.returncode == 0, begun.stderr
    before = contents(in_folder / "out")
    resumed = train(*asked, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "out is finished already: best validation loss " in resumed.stderr
    assert contents(in_folder / "out") == before


@pytest.mark.slow
def test_evaluate_says_nothing_of_the_record_that_a_model_does_not_have(train, in_folder):
    save(make_model("gru", vocab="\n 나는봄을q", history=False), in_folder / "model")
    measured = train("evaluate", "./model", "--text", "봄.txt", "--split", "0.8,0.2", "--lowercase", "--json")
    assert measured.returncode == 0, measured.stderr
    assert "record" not in measured.stderr and "trained" not in measured.stderr


@pytest.mark.slow
def test_evaluate_says_in_words_what_it_measured_and_what_it_left_out(tmp_path, text, monkeypatch, capsys):
    call(monkeypatch, "fit", "--cell", "gru", "--text", text, "--out", tmp_path / "out", *SMALL)
    other = tmp_path / "other.txt"
    other.write_text("나는 €" * 100, encoding="utf-8")
    capsys.readouterr()
    call(monkeypatch, "evaluate", tmp_path / "out", "--text", other, "--halves", "--dynamic")
    printed = capsys.readouterr()
    assert "note: the model was trained on another text than other" in printed.err
    assert "note: 10 characters that the model does not know were left out" in printed.err
    kinds = ["", "_reset256", "_first_half", "_second_half", "_dynamic", "_dynamic_first_half", "_dynamic_second_half"]
    assert [line.split()[0] for line in printed.out.splitlines()] == [f"val_loss{kind}" for kind in kinds]


def test_the_other_losses_are_there_before_the_dynamic_evaluation_and_how_long_that_takes(
    train, in_folder, monkeypatch, capsys
):
    save(make_model(), in_folder / "model")
    Path("text.txt").write_text("a bad cab\nx" * 2_000)  # of 22,000 characters the model knows 20,000
    before = []

    def dynamic_losses(*_):
        before.append(capsys.readouterr())
        return {"val_loss_dynamic": 1.0}

    monkeypatch.setattr("train.protocols.Holdout.dynamic_losses", dynamic_losses)
    measured = train("evaluate", "model", "--text", "text.txt", "--dynamic")
    assert [line.split()[0] for line in before[0].out.splitlines()] == ["val_loss", "val_loss_reset256"]
    assert before[0].err.endswith("note: the model now learns from 20,000 characters as it reads them: about 2 s\n")
    assert measured.stdout == f"{'val_loss_dynamic':28} 1.0000 nats per character, 1.4427 bits\n"
    assert list(json.loads(train("evaluate", "model", "--text", "text.txt", "--dynamic", "--json").stdout)) == [
        "val_loss",
        "val_loss_reset256",
        "val_loss_dynamic",
    ]
    assert before[1].out == ""


@pytest.mark.slow
def test_texts_in_a_folder_and_behind_it_are_split_in_three_and_measured_again(train, tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "poems").mkdir()
    text.rename(tmp_path / "poems" / "spring.txt")
    (tmp_path / "summer.txt").write_bytes(KOREAN * 2)
    asked = ["--text", "poems", "summer.txt", "--text", "poems", "--split", "0.6,0.2,0.2"]
    trained = train("fit", "--cell", "rnn", *asked, *SMALL)
    assert trained.returncode == 0, trained.stderr
    model = read_model(tmp_path / "runs" / "poems+summer-rnn")
    best, run = model.history["best"], model.history["run"]
    assert f", test loss {best['test_loss']:.4f}\n" in trained.stderr
    assert f", {run['split']['test_chars']} to test at the end; " in trained.stderr
    chars = len(KOREAN.decode("utf-8-sig").replace("\r", ""))
    assert [(source["name"], source["chars"]) for source in run["texts"]] == [
        ("poems", chars),
        ("summer.txt", 2 * chars + 1),  # the mark in its middle is a symbol
        ("poems", chars),
    ]
    measured = train("evaluate", "runs/poems+summer-rnn", *asked, "--json")
    twice = trained.stderr.splitlines(keepends=True)[0]
    assert "spring.txt is there twice: " in twice and measured.stderr == twice
    losses = json.loads(measured.stdout)
    assert losses == {
        name: pytest.approx(best[name], abs=1e-3) for name in ("val_loss", "val_loss_reset256", "test_loss")
    }
    otherwise = train("evaluate", "runs/poems+summer-rnn", *asked[:-2], "--json")
    assert otherwise.stderr == twice + (
        "note: the model's own record was measured with --split 0.6,0.2,0.2, so its losses differ from these\n"
    )
    assert json.loads(otherwise.stdout).keys() == {"val_loss", "val_loss_reset256"}


@pytest.mark.parametrize("recorded", [None, "0.9,0.1"])
def test_evaluate_takes_a_split_that_is_written_otherwise_for_the_recorded_one(train, tmp_path, text, recorded):
    content = KOREAN.decode("utf-8-sig").replace("\r", "")
    model = make_model("rnn", vocab="".join(sorted(set(content))))
    model.history["run"] |= {"text_sha256": hashlib.sha256(content.encode()).hexdigest()}
    model.history["run"]["split"] |= {"shares": recorded} if recorded else {}
    save(model, tmp_path / "model")
    measured = train("evaluate", tmp_path / "model", "--text", text, "--split", "0.9, 1e-1", "--json")
    assert (measured.returncode, measured.stderr) == (0, "")
    assert measured.stdout == train("evaluate", tmp_path / "model", "--text", text, "--json").stdout
    noted = train("evaluate", tmp_path / "model", "--text", text, "--split", "0.80,0.20", "--json").stderr
    assert noted == "note: the model's own record was measured without these options, so its losses differ from these\n"


@pytest.mark.slow
def test_small_letters_and_few_symbols_are_trained_on_and_measured_again(train, tmp_path):
    path, asked = tmp_path / "names.txt", ["--lowercase", "--min-count", "3"]
    path.write_text("Ann and Ben met Zoë; XII. " * 40 + "Ça va? Çava, Ω." * 2, encoding="utf-8")
    trained = train("fit", "--cell", "rnn", "--text", path, "--out", tmp_path / "out", *asked, *SMALL)
    assert trained.returncode == 0, trained.stderr
    assert "note: 3 symbols occur fewer than 3 times, 6 characters in all: they are read as U+FFFD" in trained.stderr
    model = read_model(tmp_path / "out")
    assert set(model.config.vocab) == set("ann and ben met zoë; xii. ça v") | {"\ufffd"}
    run = model.history["run"]
    assert (run["lowercase"], run["min_count"], run["rare"]) == (True, 3, {"symbols": 3, "chars": 6})
    losses = json.loads(train("evaluate", tmp_path / "out", "--text", path, *asked, "--json").stdout)
    assert losses["val_loss"] == pytest.approx(model.history["best"]["val_loss"], abs=1e-3)
    noted = train("evaluate", tmp_path / "out", "--text", path, "--json").stderr
    assert "note: the model's own record was measured with --lowercase --min-count 3, so" in noted
    refused = train("fit", "--text", path, "--out", tmp_path / "other", "--min-count", "0")
    assert (refused.returncode, refused.stderr) == (2, "error: min_count is 0; it must be from 1 to 1,000,000,000\n")


@pytest.mark.slow
def test_rare_symbols_that_the_first_model_knows_are_read_alike_in_training_and_measuring(train, in_folder):
    line = "the cat sat on the mat; the dog sat on the log.\n"
    vocab = "".join(sorted({*line, *"ΩZ"}))
    save(make_model("rnn", vocab=vocab, history=False), in_folder / "model")
    # each part that validates has rare symbols: some that the model knows, and in the text one that it does not
    text, also = line * 25 + "Ω cat Ж mat Ω\n" + line, line * 25 + "Z Ω mat Ω Z\n" + line
    (in_folder / "text.txt").write_text(text, encoding="utf-8")
    (in_folder / "also.txt").write_text(also, encoding="utf-8")
    small = ["--epochs", "1", "--seq-length", "16", "--device", "cpu", "--min-count", "3"]
    trained = train(
        "fit", "--text", "text.txt", "--init-from", "./model", "--also-text", "also.txt", "--out", "out", *small
    )
    assert trained.returncode == 0, trained.stderr
    best = read_model(in_folder / "out").history["best"]

    def plain_loss(content):
        plain, symbols = load_plain(in_folder / "out")
        return mean_loss(plain, [symbols.index(symbol) for symbol in content[int(0.9 * len(content)) :]])

    folded = text.replace("Ж", "\ufffd")
    assert set(read_model(in_folder / "out").config.vocab) == {*vocab, "\ufffd"}
    assert best["val_loss"] == pytest.approx(plain_loss(folded), abs=1e-5)
    assert best["also_text_loss"] == pytest.approx(plain_loss(also), abs=1e-5)
    measured = train("evaluate", "./out", "--text", "text.txt", "--min-count", "3", "--json")
    assert json.loads(measured.stdout)["val_loss"] == pytest.approx(best["val_loss"], abs=1e-5)
    assert measured.stderr == ""


def test_a_wrong_name_of_a_model_is_told_before_a_text_is_read(train, in_folder):
    save(make_model(), in_folder / "runs" / "spring-gru")
    (in_folder / "unfit.txt").write_text("aaaa")  # refused when it is read: it has one symbol only
    ended = train("evaluate", "spring-gru", "--text", "unfit.txt")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "did you mean runs/spring-gru?" in ended.stderr


def test_a_split_that_the_protocol_does_not_have_is_refused_before_a_text_is_read_or_a_model_downloaded(train, hub):
    ended = train("evaluate", "ada/model", "--text", "missing.txt", "--protocol", "windows", "--split", "0.8,0.2")
    said = "error: the protocol windows has a split of its own; leave --split 0.8,0.2 out, or the protocol\n"
    assert (ended.returncode, ended.stderr) == (2, said)
    assert hub.requests == []


@pytest.mark.parametrize("missing", ["missing.txt", "./empty", "latin-1.txt"])
@pytest.mark.parametrize(
    "arguments",
    ["evaluate ada/model --text", "fit --init-from ada/model --text", "fit --teacher ada/model --text"],
)
def test_a_text_that_cannot_be_read_is_told_before_a_model_is_downloaded(
    train, monkeypatch, hub, tmp_path, text, arguments, missing
):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("latin-1.txt").write_bytes("naïve".encode("latin-1"))
    ended = train(*arguments.split(), text, missing)
    assert (ended.returncode, ended.stdout) == (2, "") and missing.removeprefix("./") in ended.stderr
    assert hub.requests == []


@pytest.mark.slow
def test_a_training_can_begin_with_a_model_of_the_hub_go_on_though_that_has_changed_and_be_published(
    train, hub, hub_environment, tmp_path, text
):
    hub.add_user("ada", token="hf_ada")
    hub_environment(HF_TOKEN="hf_ada")
    old = tmp_path / "old.txt"
    old.write_text("나는 봄을\n" * 100, encoding="utf-8")
    repo = hub.add_repo("ada/spring", contents(save(make_model("gru", vocab="\n 나는봄을q"), tmp_path / "model")))
    first = repo.refs["main"]
    asked = ["fit", "--text", text, "--init-from", "hf://ada/spring", "--also-text", old, "--out", tmp_path / "out"]
    asked += ["--seq-length", "16", "--device", "cpu"]
    begun = train(*asked, "--epochs", "1")
    assert begun.returncode == 0, begun.stderr
    assert "begins with ada/spring: validation loss " in begun.stderr
    assert "old: validation loss " in begun.stderr and "\non old: validation loss " in begun.stderr

    repo.commit(contents(save(make_model("gru", seed=1, dropout=0.25), tmp_path / "other")))
    resumed = train(*asked, "--epochs", "2", "--resume", "--push-to-hub", "ada/summer")
    assert resumed.returncode == 0, resumed.stderr
    history = read_model(tmp_path / "out").history
    sha256 = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))["weights_sha256"]
    assert history["run"]["init_from"] == {"name": "ada/spring", "revision": first, "weights_sha256": sha256}
    assert len(history["epochs"]) == 2 and history["run"]["hidden_size"] == 8
    assert "\nbase_model: ada/spring\n" in hub.repos["ada/summer"].files["README.md"].decode()
    before, after = history["run"]["before"]["also_text_loss"], history["best"]["also_text_loss"]
    change = f"{abs(after - before):.4f} {'higher' if after > before else 'lower'} than before the training"
    assert f"\non old: validation loss {after:.4f}, {change}\n" in resumed.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--init-from", "model", "--hidden-size", "9"],
            "--hidden-size 9 contradicts model, which has 8: leave it out",
        ),
        (["--init-from", "model", "--cell", "lstm"], "--cell lstm contradicts model, which has gru: leave it out"),
        (["--init-from", "modle"], "there is no folder modle here; did you mean model?"),
        (["--also-text", "봄.txt"], "--also-text measures what the model of --init-from forgets; give both"),
    ],
    ids=str,
)
def test_what_contradicts_the_model_to_begin_with_is_refused_in_one_line(train, in_folder, arguments, message):
    save(make_model("gru"), in_folder / "model")
    ended = train("fit", "--text", "봄.txt", *arguments)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert message in ended.stderr
    assert not (in_folder / "runs").exists()


def test_a_rank_whose_command_ends_does_not_end_the_tests(train, text, monkeypatch):
    launch = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in launch.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "_exit", lambda status: pytest.fail(f"this would have ended pytest with {status}"))
    ended = train("fit", "--text", text, "--control", "control.json")
    assert ended.returncode == RequestError.exit_status
    assert "--control is for a training in one process" in ended.stderr


def test_a_control_file_and_a_time_are_refused_where_torchrun_has_started_several_processes(text, monkeypatch):
    launch = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in launch.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RequestError) as refused:
        call(monkeypatch, "fit", "--text", text, "--control", "control.json")
    assert str(refused.value) == (
        "--control is for a training in one process, and torchrun has started 2: leave it out"
    )
    with pytest.raises(RequestError) as refused:
        call(monkeypatch, "fit", "--text", text, "--minutes", "3")
    assert str(refused.value) == (
        "--minutes measures the speed of one process, and torchrun has started 2: give --epochs"
    )


def test_a_folder_for_the_control_file_is_refused_before_the_text_is_read(train, in_folder):
    refused = train("fit", "--text", "no-such.txt", "--control", in_folder)
    said = f"error: --control {in_folder} is a folder; name a file in it, {in_folder / 'control.json'}\n"
    assert (refused.returncode, refused.stderr) == (2, said)


@pytest.mark.slow
def test_a_model_of_windows_is_measured_again_with_the_text_after_them(tmp_path, text, monkeypatch, capsys):
    monkeypatch.setattr("train.protocols.WINDOWS_TEXT", 500)  # of some 900 characters
    small = [*SMALL[: SMALL.index("--seq-length")], "--device", "cpu", "--protocol", "windows"]
    call(monkeypatch, "fit", "--cell", "rnn", "--text", text, "--out", tmp_path / "out", *small)
    history = read_model(tmp_path / "out").history
    capsys.readouterr()
    call(monkeypatch, "evaluate", tmp_path / "out", "--text", text, "--protocol", "windows", "--json")
    losses = json.loads(capsys.readouterr().out)
    recorded = history["epochs"][history["best"]["epoch"] - 1]
    assert losses == {name: pytest.approx(recorded[name], abs=1e-3) for name in ("val_loss", "unseen_loss")}
    call(monkeypatch, "evaluate", tmp_path / "out", "--text", text, "--json")
    noted = "note: the model's own record was measured with --protocol windows, so its losses differ from these\n"
    assert noted in capsys.readouterr().err


def test_every_flag_that_the_contract_names_is_there(monkeypatch):
    monkeypatch.setattr(
        sys,
        "argv",
        shlex.split(
            "train fit --cell lstm --text t --out o --protocol holdout --epochs 1 --hidden-size 2 --num-layers 3 "
            "--embedding-size 4 --dropout 0.5 --batch-size 6 --seq-length 7 --lr 0.8 --seed 9 --device cpu "
            "--precision fp32 --resume --push-to-hub ada/m"
        ),
    )
    args = parse()
    assert (args.run, args.resume, args.push_to_hub) == (run_fit, True, "ada/m")
    assert [args.epochs, args.minutes, args.hidden_size, args.num_layers, args.embedding_size] == [1, None, 2, 3, 4]
    assert [args.dropout, args.batch_size, args.seq_length, args.lr, args.seed] == [0.5, 6, 7, 0.8, 9]
    monkeypatch.setattr(sys, "argv", shlex.split("train fit --text t --minutes 2.5"))
    assert parse().minutes == 2.5
    monkeypatch.setattr(sys, "argv", shlex.split("train evaluate ada/m --text t --protocol windows --json"))
    args = parse()
    assert (args.run, args.model, args.protocol, args.json) == (run_evaluate, "ada/m", "windows", True)
    options = "--private --license mit --language en --space ada/page"
    monkeypatch.setattr(sys, "argv", shlex.split(f"train push runs/m ada/m {options}"))
    args = parse()
    assert (args.run, args.folder, args.repo, args.private) == (run_push, Path("runs/m"), "ada/m", True)
    assert (args.license, args.language, args.space) == ("mit", "en", "ada/page")


@pytest.mark.slow
def test_push_writes_its_options_into_the_published_card_and_refuses_a_wrong_one_in_one_line(
    train, hub, hub_environment, tmp_path
):
    hub.add_user("ada", token="hf_ada")
    hub_environment(HF_TOKEN="hf_ada")
    folder = save(make_model(), tmp_path / "model")
    ended = train("push", folder, "hf://ada/m", "--license", "MIT", "--language", "ko")
    assert ended.returncode == 0
    assert ended.stdout == f"{hub.url}/ada/m/commit/{hub.repos['ada/m'].refs['main']}\n"
    card = hub.repos["ada/m"].files["README.md"].decode()
    assert "\nlicense: mit\n" in card and "\nlanguage: ko\n" in card
    for arguments, message in [
        (["ada/m", "--license", "gpl3"], "did you mean gpl or lgpl or gpl-3.0?"),
        (["ada/m", "--language", "Korean"], "language is 'Korean'; give its code of two or three letters"),
        (["ada/m", "--space", "ada/page"], "the Hub has no Space ada/page, or it is private"),
        (["ada/m@v1"], "ada/m@v1 names the revision v1, and a push goes to the main branch: give ada/m"),
    ]:
        ended = train("push", folder, *arguments)
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
        assert message in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ada/m@v1", "hf://ada/m@v1", "https://huggingface.co/ada/m/tree/v1"])
def test_a_model_to_measure_is_named_on_the_hub_in_any_way(hub, tmp_path, monkeypatch, capsys, name):
    repo = hub.add_repo("ada/m", contents(save(make_model("gru", history=False), tmp_path / "model")))
    repo.refs["v1"] = repo.refs["main"]
    repo.commit({"model.safetensors": None})
    text = tmp_path / "text.txt"
    text.write_text("a bad cab\n" * 60, encoding="utf-8")
    measured = []
    for model in (tmp_path / "model", name):
        call(monkeypatch, "evaluate", model, "--text", text, "--json")
        measured.append(json.loads(capsys.readouterr().out))
    assert measured[0] == measured[1]


@pytest.mark.slow
def test_fit_can_end_on_the_hub(train, hub, tmp_path, text, monkeypatch):
    hub.add_user("ada", token="hf_ada")
    monkeypatch.setitem(os.environ, "HF_TOKEN", "hf_ada")
    pushed = train(
        "fit", "--cell", "gru", "--text", text, "--out", tmp_path / "out", *SMALL, "--push-to-hub", "ada/spring"
    )
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.startswith(f"{hub.url}/ada/spring/commit/")
    files = hub.repos["ada/spring"].files
    for name in ("config.json", "model.safetensors", "history.json", "loss.png"):
        assert files[name] == (tmp_path / "out" / name).read_bytes()


@pytest.mark.slow
def test_the_address_of_a_published_model_is_an_event_like_all_others(train, hub, in_folder, monkeypatch):
    hub.add_user("ada", token="hf_ada")
    monkeypatch.setitem(os.environ, "HF_TOKEN", "hf_ada")
    asked = ["fit", "--cell", "gru", "--text", "봄.txt", "--out", "out", *SMALL, "--json-lines"]
    pushed = train(*asked, "--push-to-hub", "ada/spring")
    assert pushed.returncode == 0, pushed.stderr
    events = [json.loads(line) for line in pushed.stdout.splitlines()]
    address = f"{hub.url}/ada/spring/commit/{hub.repos['ada/spring'].refs['main']}"
    assert events[-1] == {"event": "published", "address": address}
    assert {event["event"] for event in events[:-1]} <= {"start", "step", "epoch"}


def test_the_error_that_ends_a_run_is_its_last_event_with_the_reason(train, in_folder, monkeypatch):
    asked = ["fit", "--cell", "gru", "--out", "out", *SMALL, "--json-lines", "--text"]
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", overflow)
        diverged = train(*asked, "봄.txt")
    event = json.loads(diverged.stdout.splitlines()[-1])
    assert (diverged.returncode, event["event"], event["reason"]) == (1, "failed", "diverged")
    (said,) = [line for line in diverged.stderr.splitlines() if line.startswith("error: ")]
    assert said.startswith(f"error: {event['problem']}; begin again in another --out")
    refused = train(*asked, "겨울.txt")
    (error,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert refused.returncode == 2
    problem = error.removeprefix("error: ")
    assert json.loads(refused.stdout) == {"event": "failed", "problem": problem, "reason": None}
    assert train(*asked[:-2], "--text", "겨울.txt").stdout == ""
    monkeypatch.setattr("train.__main__.print_json", raise_full_disk)
    unwritten = train(*asked, "겨울.txt")
    assert (unwritten.returncode, unwritten.stdout) == (2, "") and error in unwritten.stderr.splitlines()


@pytest.mark.parametrize(
    ("error", "status", "problem"),
    [
        (MemoryError(), 1, "out of memory"),
        (OSError(errno.EIO, "Input/output error"), 1, f"[Errno {errno.EIO}] Input/output error"),
        (ZeroDivisionError("a fault of ours"), None, "ZeroDivisionError: a fault of ours"),
    ],
    ids=repr,
)
def test_every_error_that_ends_a_run_is_its_last_event(monkeypatch, capsys, in_folder, error, status, problem):
    def fail(*_):
        raise error

    monkeypatch.setattr("train.__main__.read_launch", fail)
    monkeypatch.setattr(sys, "argv", ["train", "fit", "--text", "봄.txt", "--json-lines"])
    args = parse()
    if status is None:
        with pytest.raises(ZeroDivisionError):
            run_fit(args)
    else:
        with warnings.catch_warnings():  # the command shows warnings in a way of its own
            assert cli.run(lambda: run_fit(args)) == status
    assert json.loads(capsys.readouterr().out) == {"event": "failed", "problem": problem, "reason": None}


@pytest.mark.slow
def test_the_command_that_publishes_a_trained_model_is_told_if_the_hub_refuses_it(train, hub, in_folder, monkeypatch):
    hub.add_user("ada", token="hf_ada")
    monkeypatch.setitem(os.environ, "HF_TOKEN", "hf_ada")

    def refuse(*_):
        raise HubUnavailableError("the Hub does not answer")

    with monkeypatch.context() as patched:
        patched.setattr("charlm.publishing.push_folder", refuse)
        asked = ["fit", "--cell", "gru", "--text", "봄.txt", "--out", "my run", *SMALL]
        ended = train(*asked, "--push-to-hub", "hf://ada/spring")
    assert ended.returncode == HubUnavailableError.exit_status
    command = f"push {shlex.quote(os.path.join('.', 'my run'))} hf://ada/spring"
    assert ended.stderr.splitlines()[-1] == (
        f"error: the Hub does not answer; my run holds the model: `python -m charlm {command}` publishes it"
    )
    pushed = train(*shlex.split(command))
    assert pushed.returncode == 0, pushed.stderr
    assert hub.repos["ada/spring"].files["history.json"] == (in_folder / "my run" / "history.json").read_bytes()


def test_a_missing_token_is_told_before_anything_is_trained(train, hub, tmp_path, text):
    ended = train(
        "fit", "--cell", "gru", "--text", text, "--out", tmp_path / "out", *SMALL, "--push-to-hub", "ada/spring"
    )
    assert ended.returncode == 2
    assert "hf auth login" in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [("fit", "--cell", "rnn", "--text", "text.txt", "--out", ""), ("push", "", "ada/poems")], ids=str
)
def test_an_empty_name_is_not_taken_for_the_current_folder(train, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_bytes(KOREAN)
    refused = train(*arguments)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "the folder's name is empty; . is the current folder" in refused.stderr
    assert set(contents(tmp_path)) == {"text.txt"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no folder that is in use")
def test_a_current_folder_that_was_deleted_is_told_in_one_line(train, tmp_path, monkeypatch, text):
    save(make_model(), tmp_path / "model")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    told = "the current folder was deleted; go to another one first"
    refused = train("fit", "--cell", "rnn", "--text", text, "--out", tmp_path / "out", "--json-lines", *SMALL)
    assert (refused.returncode, refused.stderr) == (2, f"error: {told}\n")
    assert json.loads(refused.stdout)["event"] == "failed"
    refused = train("evaluate", tmp_path / "model", "--text", text)
    assert (refused.returncode, refused.stderr) == (2, f"error: {told}\n")


def test_an_empty_repository_is_refused_before_the_training(train, tmp_path, text):
    refused = train("fit", "--cell", "rnn", "--text", text, "--out", tmp_path / "out", "--push-to-hub", "", *SMALL)
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: '' is not the name of a repository; give it as USER/NAME\n",
    )
    assert not (tmp_path / "out").exists()


# The first five minutes


@pytest.fixture
def in_folder(tmp_path, monkeypatch, text):
    """The current folder, with a short text in it and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("charlm.model.card.draw_curves", lambda *_: b"picture")
    return tmp_path


def test_fit_alone_shows_what_it_needs_and_three_examples(train):
    ended = train("fit")
    assert (ended.returncode, ended.stdout) == (2, "")
    first, *rest = ended.stderr.splitlines()
    assert first == "python -m train fit: the following arguments are required: --text"
    assert sum(line.startswith("  python -m train fit --text ") for line in rest) == 3
    assert rest[-1] == "python -m train fit --help shows everything that is allowed"


@pytest.mark.parametrize("command", ["evaluate", "push", "deploy", ""])
def test_every_other_command_alone_shows_an_example_too(train, command):
    ended = train(*[command] if command else [])
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "the following arguments are required: " in ended.stderr.splitlines()[0]
    assert f"\n  python -m train {command}" in ended.stderr


@pytest.mark.parametrize("name", ["fit", "evaluate", "push", "deploy"])
def test_every_example_is_a_command_that_is_allowed(train, monkeypatch, name):
    lines = train(name, "--help").stdout.splitlines()
    examples = [line.split()[3:] for line in lines if line.startswith(f"  python -m train {name} ")]
    assert examples
    for example in examples:
        monkeypatch.setattr(sys, "argv", ["train", *example])
        assert parse().run.__name__ == f"run_{name}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--hiden-size", "3"], "no option --hiden-size; did you mean --hidden-size?"),
        (["fit", "--text", "spring.txt", "--epoch", "1"], "no option --epoch; did you mean --epochs?"),
        (["fit", "--text", "t", "--cell", "ltsm"], "(choose from rnn, lstm, gru); did you mean lstm?"),
        (["fitt"], "did you mean fit?"),
        (
            ["fit", "--text", "sprung.txt"],
            "cannot read the text sprung.txt: No such file or directory; did you mean spring",
        ),
        (["fit", "--text", "tinyshakespear"], "did you mean the built-in name tinyshakespeare?"),
        (
            ["push", "run/sprin-gru", "ada/spring"],
            "there is no folder run/sprin-gru here; did you mean runs/spring-gru?",
        ),
        (["push", "elsewhere", "ada/spring"], "there is no folder elsewhere here; check the path"),
        (["evaluate", "spring-gru", "--text", "spring.txt"], "did you mean runs/spring-gru?"),
        (["evaluate", "run/spring-gru", "--text", "spring.txt"], "did you mean runs/spring-gru?"),
    ],
    ids=str,
)
def test_a_mistyped_name_is_answered_in_one_line_with_the_nearest_one(train, in_folder, arguments, message):
    (in_folder / "spring.txt").write_bytes(KOREAN)
    save(make_model(), in_folder / "runs" / "spring-gru")
    ended = train(*arguments)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert message in ended.stderr
    assert "network" not in ended.stderr


def test_the_help_of_fit_has_its_options_in_groups_each_with_its_default(train):
    shown = train("fit", "--help").stdout
    groups = [line.removesuffix(":") for line in shown.splitlines() if line.endswith(":") and line[0] != " "]
    assert groups == ["options", *GROUPS, "examples"]
    one_line = " ".join(shown.split())
    for default in ("runs/<text>-<cell>", "lstm", "holdout", "0.9,0.1", "24", "512", "0", "1.0", "auto"):
        assert f"(default {default})" in one_line
    assert "(default by cell: rnn 0.2, lstm 0.4, gru 0.4)" in one_line
    assert one_line.count("(default ") == 21  # all options but --text, and those that are off
    assert "--split A,B " in one_line and "U+FFFD, the replacement character (default 1)" in one_line


def test_the_loss_on_another_text_is_told_beside_that_before_the_training():
    run = {"also_text": {"name": "old"}, "before": {"val_loss": 3.0, "also_text_loss": 0.6523}}
    best = {"epoch": 2, "val_loss": 1.5, "also_text_loss": 0.6555}
    assert describe_end(Path("out"), {"run": run, "epochs": [], "best": best}).splitlines() == [
        "done: out holds the model of epoch 2, validation loss 1.5000",
        "on old: validation loss 0.6555, 0.0032 higher than before the training",
    ]
    best |= {"also_text_loss": 0.6500}
    assert describe_end(Path("out"), {"run": run, "epochs": [], "best": best}).endswith(
        "\non old: validation loss 0.6500, 0.0023 lower than before the training"
    )


@pytest.mark.slow
def test_evaluate_counts_a_single_unknown_character(train, in_folder):
    save(make_model("gru", vocab="\n 나는봄을q", history=False), in_folder / "model")
    (in_folder / "other.txt").write_text("나는 " * 100 + "€ 나는 봄을", encoding="utf-8")
    measured = train("evaluate", "./model", "--text", "other.txt")
    assert "note: 1 character that the model does not know was left out\n" in measured.stderr


@pytest.mark.slow
def test_without_out_and_cell_an_lstm_goes_to_a_folder_named_after_both(train, in_folder):
    trained = train("fit", "--text", "봄.txt", *SMALL)
    assert trained.returncode == 0, trained.stderr
    folder = os.path.join("runs", "봄-lstm")
    model = f".{os.sep}{folder}"
    best = read_model(in_folder / folder).history["best"]
    assert trained.stderr.splitlines()[-4:] == [
        f"done: {folder} holds the model of epoch {best['epoch']}, validation loss {best['val_loss']:.4f}",
        f"  write:   python -m charlm generate {shlex.quote(model)} --prompt '나는'",
        f"  show:    python -m charlm serve --model {shlex.quote(model)}",
        f"  publish: python -m charlm push {shlex.quote(model)} USER/MODEL",
    ]

    before = contents(in_folder)
    again = train("fit", "--text", "봄.txt", *SMALL)
    assert (again.returncode, again.stderr) == (
        2,
        f"error: {folder} already holds config.json, model.safetensors, history.json, loss.png, README.md, "
        f"which is not overwritten; choose another --out, such as {folder}-2, "
        "or train it further with --resume and a higher --epochs, unless it was given --minutes\n",
    )
    assert contents(in_folder) == before


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("my-text.txt", "runs/my-text-gru"),
        ("books/a.b.txt", "runs/a.b-gru"),
        ("tinyshakespeare", "runs/tinyshakespeare-gru"),
        ("/", "runs/text-gru"),
    ],
)
def test_the_folder_of_a_model_is_named_after_its_text_and_cell(text, folder):
    assert default_folder([text], "gru") == Path(folder)


def test_the_commands_after_a_training_are_those_of_the_installed_program_there(monkeypatch):
    monkeypatch.setattr(sys, "argv", [os.path.join("bin", "charlm"), "fit"])
    assert next_steps(Path("runs", "my text"), "Shall I", is_published=True).splitlines() == [
        f"  write:   charlm generate {shlex.quote(os.path.join('.', 'runs', 'my text'))} --prompt 'Shall I'",
        f"  show:    charlm serve --model {shlex.quote(os.path.join('.', 'runs', 'my text'))}",
    ]
    assert next_steps(Path("runs", "poems"), "", is_published=False).endswith("/poems USER/poems")
    assert "--prompt" not in next_steps(Path("runs", "poems"), "\x1b[2J", is_published=True)


@pytest.mark.parametrize("out", [[], ["--out", "no where"]], ids=str)
def test_resume_where_nothing_is_shows_the_command_that_begins(train, in_folder, out):
    refused = train("fit", "--text", "봄.txt", *out, "--resume", *SMALL)
    assert (refused.returncode, refused.stderr) == (
        2,
        f"error: nothing to resume: {out[-1] if out else os.path.join('runs', '봄-lstm')} does not exist; "
        f"begin without --resume: python -m train {shlex.join(['fit', '--text', '봄.txt', *out, *SMALL])}\n",
    )
    assert set(contents(in_folder)) == {"봄.txt"}
