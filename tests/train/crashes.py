"""Kill trainings, or fill their disk, and check that each goes on to the same model, bit for bit.

    PYTHONPATH=. OMP_NUM_THREADS=1 python tests/train/crashes.py random FOLDER KILLS
    PYTHONPATH=. OMP_NUM_THREADS=1 python tests/train/crashes.py kill FOLDER STEP
    PYTHONPATH=. OMP_NUM_THREADS=1 python tests/train/crashes.py full FOLDER STEP

random: SIGKILL at random instants, that many times. kill: SIGKILL just before a change to the file system: before the
one numbered STEP in a first run, 2 STEP in a second, and so on to the last. full: instead, the disk is full from that
change on. FOLDER has to be empty.

A fork server: this process imports all that training needs, trains nothing, and so has a single thread; every
training is a fork of it, there at once.
"""

import argparse
import errno
import gc
import hashlib
import importlib
import itertools
import json
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import charlm.model.card
from charlm import cli
from charlm.errors import ModelFileError
from charlm.lm import CharLM
from charlm.model.folder import read_model
from train.checkpoint import load_checkpoint
from train.config import TrainConfig
from train.data import Text
from train.encode import encode_pieces
from train.loop import fit
from train.report import Report
from train.run_folder import holds_run

CONTENT = "the cat sat on the mat; the dog sat on the log.\n" * 6
TEXT = Text("cats", encode_pieces([CONTENT], "cats"))
CONFIG = TrainConfig(
    "rnn",
    epochs=2,
    hidden_size=6,
    embedding_size=4,
    num_layers=1,
    dropout=0.2,
    batch_size=2,
    seq_length=16,
    lr=0.02,
    device="cpu",
    precision="fp32",
)
KEPT = ("epochs/0001.safetensors", "epochs/0002.safetensors")
TIMES = {"seconds", "chars_per_second"}

Crash = Callable[[int, int, str, tuple[Any, ...]], None]

# The audit events of Python that announce a change to the file system; opening a file to write is another.
REMOVALS = {"os.remove", "os.rmdir"}
CHANGES = REMOVALS | {"os.rename", "os.link", "os.symlink", "os.mkdir", "os.truncate"}


# The state of a run's folder


def without_times(value: Any) -> Any:
    """Return a JSON value without measured times."""
    if isinstance(value, dict):
        return {name: without_times(part) for name, part in value.items() if name not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def digest(value: object, arrays: dict[str, Any]) -> str:
    """Return a SHA-256 of a JSON value without its times, and of named arrays."""
    whole = hashlib.sha256(json.dumps(without_times(value), sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        whole.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return whole.hexdigest()


def list_files(folder: Path) -> list[str]:
    """Return the paths of everything below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def check_kept_epochs(out: Path) -> None:
    """Fail if weights of an epoch are there in part, or missing although the record of the checkpoint names them."""
    checkpoint, kept = load_checkpoint(out), {}
    for path in (out / "epochs").glob("*.safetensors"):
        safetensors.torch.load(path.read_bytes())
        kept[int(path.stem)] = hashlib.sha256(path.read_bytes()).hexdigest()
    for epoch in checkpoint.values["epochs"] if checkpoint is not None else []:
        assert kept.get(epoch["epoch"]) == epoch["weights_sha256"], f"{out} lacks the weights of {epoch['epoch']}"


def read_model_state(out: Path) -> str | None:
    """Return a digest of the model in a folder, or None if there is none or it is refused."""
    try:
        model = read_model(out)
    except ModelFileError:
        return None
    return digest([model.config.to_json(""), model.history], model.weights)


def read_checkpoint_state(out: Path) -> str | None:
    """Return a digest of the checkpoint in a folder, or None if there is none."""
    checkpoint = load_checkpoint(out)
    if checkpoint is None:
        return None
    return digest(checkpoint.values, {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()})


class RecordingReport(Report):
    """Records the states of the files of an uninterrupted run whenever it reports: then it is not writing."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.out = out
        self.models: list[str] = []
        self.checkpoints: list[str] = []

    def record(self) -> None:
        for state, known in (
            (read_model_state(self.out), self.models),
            (read_checkpoint_state(self.out), self.checkpoints),
        ):
            if state is not None and state not in known:
                known.append(state)

    def start_epoch(self, *arguments: Any) -> None:
        self.record()
        super().start_epoch(*arguments)

    def epoch(self, *arguments: Any) -> None:
        self.record()
        super().epoch(*arguments)


class UninterruptedRun:
    """A run that nothing interrupted: the reference for the others."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "straight"
        began = time.monotonic()
        assert wait(*fork(self._train, folder / "straight.log")) == 0, read_log(folder / "straight.log")
        self.seconds = time.monotonic() - began
        states = json.loads((folder / "states.json").read_text())
        self.models, self.checkpoints = states["models"], states["checkpoints"]
        assert len(self.models) == 1 + CONFIG.epochs  # each epoch is the best so far, and the end adds to the record
        assert len(self.checkpoints) == CONFIG.epochs

    def _train(self) -> int:
        report = RecordingReport(self.out)
        status = train(self.out, report)
        report.record()
        states = {"models": report.models, "checkpoints": report.checkpoints}
        self.out.with_name("states.json").write_text(json.dumps(states))
        return status

    def progress(self, out: Path) -> int:
        """Return how many epochs of the run in `out` are safe, one more if it is finished.

        Fails if what a reader finds there is something that the uninterrupted run has never written.
        """
        check_kept_epochs(out)
        model, checkpoint = read_model_state(out), read_checkpoint_state(out)
        assert model in [None, *self.models], f"{out} holds a model that the uninterrupted run never wrote"
        if checkpoint is None:
            return 1 + CONFIG.epochs if model == self.models[-1] else 0
        assert checkpoint in self.checkpoints, f"{out} holds a checkpoint that the uninterrupted run never wrote"
        return 1 + self.checkpoints.index(checkpoint)

    def check_same(self, out: Path) -> None:
        """Fail unless a finished run left the same files as the uninterrupted one."""
        assert list_files(out) == list_files(self.out)
        for name in ("model.safetensors", "config.json", *KEPT):
            assert (out / name).read_bytes() == (self.out / name).read_bytes(), f"{name} of {out} differs"
        records = [json.loads((place / "history.json").read_text()) for place in (out, self.out)]
        assert without_times(records[0]) == without_times(records[1]), f"history.json of {out} differs"


# Trainings, as child processes


def train(out: Path, report: Report) -> int:
    """Train to the end, resuming what is in the folder if there is a run, and return the exit status of the command."""

    def command() -> None:
        fit(TEXT, out, CONFIG, report, resume=holds_run(out), keep_epochs=True)

    return cli.run(command)


def fork(work: Callable[[], int], log: Path) -> tuple[int, int]:
    """Start a child process that calls `work` and exits with the status it returns.

    Return the child's process id and a pipe that is closed when the child ends.
    """
    pipe, childs_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)  # without flushing or closing what the parent has open
    os.close(childs_end)
    return child, pipe


def wait(child: int, pipe: int, seconds: float | None = None) -> int:
    """Wait until a child ends, or kill it after that time; return its exit status, -9 if it was killed."""
    ended, _, _ = select.select([pipe], [], [], seconds)
    if not ended:
        os.kill(child, signal.SIGKILL)
    os.close(pipe)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def read_log(path: Path) -> str:
    return path.read_text(errors="replace")


def do_less() -> None:
    """Skip most of the work that is unrelated to files and takes longer than so small a training."""
    os.fsync = lambda file: None  # a process that is killed loses nothing that it has written
    write = CharLM.generate
    charlm.model.card.draw_curves = lambda history, title: b"picture"
    CharLM.generate = lambda lm, prompt, length, *others, **more: write(lm, prompt, 20, *others, **more)


def import_all(folder: Path) -> None:
    """Import every module that a training imports: a fork that is killed early would never get past the imports."""

    def list_modules() -> int:
        status = train(folder / "first", Report())
        (folder / "modules.json").write_text(json.dumps(list(sys.modules)))
        return status

    assert wait(*fork(list_modules, folder / "first.log")) == 0, read_log(folder / "first.log")
    for name in json.loads((folder / "modules.json").read_text()):
        with suppress(ImportError):  # some modules exist only in sys.modules
            importlib.import_module(name)


# What goes wrong


def before_changes(act: Callable[[int, str, tuple[Any, ...]], None]) -> None:
    """From now on, call `act` before each change to the file system, with its number from 1, its kind and arguments.

    Opening a file to write counts as two: that it is there and empty, and that something is written to it.
    """
    numbers = itertools.count(1)
    acting = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal acting
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if acting or not (writes or event in CHANGES):
            return
        acting = True  # what `act` itself changes does not count
        try:
            act(next(numbers), event, arguments)
            if writes:
                act(next(numbers), "write", arguments)
        finally:
            acting = False

    sys.addaudithook(watch)


def killed_at(number: int, change: int, event: str, arguments: tuple[Any, ...]) -> None:
    """Kill this process before the change of that number."""
    if change == number:
        leave_empty(event, arguments)
        os.kill(os.getpid(), signal.SIGKILL)


def full_from(number: int, change: int, event: str, arguments: tuple[Any, ...]) -> None:
    """Fail as on a full disk from the change of that number on; removing files still works."""
    if change >= number and event not in REMOVALS:
        if change == number:
            leave_empty(event, arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def leave_empty(event: str, arguments: tuple[Any, ...]) -> None:
    """Open the file that is about to be written to, as the program would have."""
    if event == "write":
        path, _, flags = arguments
        os.close(os.open(path, flags))


def crash_at_random(folder: Path, straight: UninterruptedRun, kills: int) -> dict[str, int]:
    """Kill runs at random instants, `kills` times in all, each run until it finishes."""
    instants = random.Random(kills)
    done = {"runs": 0, "kills": 0}
    while done["kills"] < kills:
        done["runs"] += 1
        out, log = folder / f"run-{done['runs']}", folder / "run.log"
        safe, longest = 0, straight.seconds / 2
        while True:
            patience = instants.uniform(0, longest) if done["kills"] < kills else None
            status = wait(*fork(lambda out=out: train(out, Report()), log), patience)
            before, safe = safe, straight.progress(out)
            assert safe >= before, f"{out} has lost a checkpoint"
            if status == 0:
                break
            assert status == -signal.SIGKILL, read_log(log)
            done["kills"] += 1
            # each try lives longer than the one before, until one gets a step further
            longest = straight.seconds / 2 if safe > before else 1.5 * longest
        straight.check_same(out)
    return done


def crash_at_changes(folder: Path, straight: UninterruptedRun, step: int, crash: Crash) -> int:
    """Crash a run at each step-th change to the file system, and let it go on; return how many crashed."""
    log, safe = folder / "run.log", 0
    for crashes in itertools.count():
        number = step * (crashes + 1)
        out = folder / f"run-{number}"
        out.mkdir()

        def work(out: Path = out, number: int = number) -> int:
            before_changes(partial(crash, number))
            return train(out, Report())

        status = wait(*fork(work, log))
        before, safe = safe, straight.progress(out)
        assert safe >= before, f"{out} has kept less than the run that crashed {step} changes earlier"
        if status != 0:
            check_crash(status, read_log(log), crash)
            assert wait(*fork(lambda out=out: train(out, Report()), log)) == 0, read_log(log)
        straight.check_same(out)
        if status == 0:
            return crashes
    raise AssertionError


def check_crash(status: int, log: str, crash: Crash) -> None:
    """Fail unless a run was killed, or ended with one line that says that the disk is full."""
    if crash is killed_at:
        assert status == -signal.SIGKILL, log
        return
    *_, last = log.splitlines()
    assert status == 1 and last.startswith("error: ") and "No space left on device" in last, log
    assert log.count("error: ") == 1 and "Traceback" not in log, log
    assert last.endswith(
        (
            "; make room and begin again",
            "; make room and give the same command again",
            ": make room and go on from it with --resume",
        )
    ), log


def main() -> None:
    """Run what the command line asks for, and print what was done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=["random", "kill", "full"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("number", type=int, help="kills, or changes from one crash to the next")
    args = parser.parse_args()

    torch.set_num_threads(1)
    do_less()
    import_all(args.folder)
    gc.freeze()  # what is frozen is not copied when a fork looks for garbage
    straight = UninterruptedRun(args.folder)
    if args.how == "random":
        done = crash_at_random(args.folder, straight, args.number)
    else:
        crash = killed_at if args.how == "kill" else full_from
        done = {"crashes": crash_at_changes(args.folder, straight, args.number, crash)}
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    main()
