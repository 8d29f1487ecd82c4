"""Progress of a run: as text on standard error, or as JSON on standard output."""

import json
import math
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from charlm import cli
from charlm.errors import CharLMError, TrainingError
from charlm.messages import counted, escape_controls
from charlm.model.cells import CELLS

from .curve import draw_curves

if TYPE_CHECKING:
    from charlm.model.history import EpochRecord

SAMPLE_LINES = 8
SECONDS_BETWEEN_STEP_EVENTS = 0.5  # the web page redraws its curves at each
FIRST_LINE_SECONDS, LINE_SECONDS = 10.0, 30.0  # in a log file: to the first line of progress, and from each to the next
SECONDS_BETWEEN_CURVES = 5.0  # on a terminal; after the last epoch they are shown in any case
# A bar for terminals of at least WIDE columns, and what fits into 40: the loss and the time left must be seen.
WIDE = 80
WIDE_BAR = "epoch {desc}: {percentage:3.0f}%|{bar}| {rate_fmt}{postfix}"
NARROW_BAR = "{desc} {percentage:3.0f}%{postfix}"


class Report:
    """Progress for people: what is trained, a progress bar during each epoch, its figures and a sample after it.

    The loss curves so far follow them. Where standard error is no terminal, there are none, and lines stand in place of
    the bar, the first after FIRST_LINE_SECONDS. If it cannot be written (its reader has ended, the disk of a log file
    is full), nothing more is printed.
    """

    def __init__(self) -> None:
        from tqdm import tqdm  # here, because `--help` needs neither it nor numpy

        self._tqdm = tqdm
        self._bar: tqdm[Any] | None = None
        self._next_line_at = 0.0
        self._epoch_name, self._done, self._total = "", 0, 1
        self._is_first_step = True
        self._losses = list[tuple[int, float, float]]()  # of each epoch
        self._curves_shown_at = -math.inf

    def say(self, message: str) -> None:
        """Print a line, its control characters escaped: a text, or a name, could change the terminal with them."""
        self._print(escape_controls(message))

    def _print(self, lines: str) -> None:
        with _stderr_may_fail():
            self._tqdm.write(lines, file=sys.stderr)
            sys.stderr.flush()

    def start(self, run: dict[str, Any], unigram_loss: float) -> None:
        """Print what will be trained, on which text and where, and what a loss is worth.

        unigram_loss: of guessing each symbol by how often it occurs, in nats per character.
        """
        self._next_line_at = time.monotonic() + FIRST_LINE_SECONDS
        split = run["split"]
        self.say(
            f"{CELLS[run['cell']].label} {run['num_layers']}×{run['hidden_size']}, {run['parameters']:,} parameters, "
            f"on {run['device']} in {run['precision']}"
        )
        if "train_windows" in split:
            kind, train, val, sequence = "overlapping windows", split["train_windows"], split["val_windows"], "window"
        else:
            kind, train, val, sequence = "characters", split["train_chars"], split["val_chars"], "stream"
        kind += " and what the teachers write" if run.get("teachers_write") else ""
        tested = f", {split['test_chars']:,} to test at the end" if "test_chars" in split else ""
        self.say(
            f"{run['text']}: {train:,} {kind} to train on, {val:,} to validate{tested}; "
            f"{run['vocab_size']} symbols; batches of {counted(run['batch_size'], sequence)} × "
            f"{counted(run['seq_length'], 'character')}"
        )
        self.say(
            f"losses are in nats per character, lower is better: guessing any symbol costs "
            f"{math.log(run['vocab_size']):.2f}, guessing by how often each occurs {unigram_loss:.2f}"
        )

    def start_model(self, run: dict[str, Any], new_symbols: str) -> None:
        """Print which model a run begins with, and how well it predicts the text before the first step.

        new_symbols: those that the text has and the model had not.
        """
        before, name = run["before"], run["init_from"]["name"]
        are = "is" if len(new_symbols) == 1 else "are"
        new = f"; {counted(len(new_symbols), 'symbol')} of the text {are} new to it" if new_symbols else ""
        self.say(f"begins with {name}: validation loss {before['val_loss']:.4f} before the first step{new}")
        if "also_text" in run:
            also = run["also_text"]["name"]
            self.say(f"{also}: validation loss {before['also_text_loss']:.4f} before the first step")

    def start_epoch(self, epoch: int, epochs: int, done: int, total: int) -> None:
        """Begin to show the progress of an epoch of `total` characters, `done` of them read already."""
        self._epoch_name, self._done, self._total = f"{epoch}/{epochs}", done, total
        if not sys.stderr.isatty():
            return
        with _stderr_may_fail():
            self._bar = self._tqdm(
                desc=self._epoch_name,
                initial=done,
                total=total,
                unit=" chars",
                unit_scale=True,
                leave=False,
                dynamic_ncols=True,
                bar_format=WIDE_BAR if shutil.get_terminal_size().columns >= WIDE else NARROW_BAR,
                file=sys.stderr,
                mininterval=0.25,
            )

    def step(self, chars: int, loss: float, run_seconds_left: float) -> None:
        """Show that `chars` more were read; `run_seconds_left` is the time that the rest of the run will take.

        The first time left is not shown: it includes the slow first step of a process and may be hours too long.
        """
        self._done += chars
        figures = f"loss {loss:.3f}" + ("" if self._is_first_step else f", {format_time(run_seconds_left)} left")
        self._is_first_step = False
        if self._bar is not None:
            self._bar.set_postfix_str(figures, refresh=False)
            with _stderr_may_fail():
                self._bar.update(chars)
        elif time.monotonic() >= self._next_line_at:
            self._next_line_at = time.monotonic() + LINE_SECONDS
            self.say(f"epoch {self._epoch_name}, {self._done / self._total:.0%}: {figures}")

    def change_total(self, total: int) -> None:
        """Let the epoch have another number of characters, as a run with a time limit is slower or faster."""
        self._total = total
        if self._bar is not None:
            self._bar.total = total

    def paused(self, seconds: float) -> None:
        """Show that the run has been paused for so long; told again and again while it is."""
        if seconds == 0:
            self.say(f"paused in epoch {self._epoch_name}, as the control file asks")

    def edit(self, edit: dict[str, Any]) -> None:
        """Print a learning rate that was asked for. edit: an entry of `lr_edits` in history.json."""
        self.say(f"learning rate {edit['lr']:g} from epoch {edit['epoch']}, step {edit['step']} on")

    def end_epoch(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            with _stderr_may_fail():
                self._bar.close()
            self._bar = None

    def epoch(self, record: "EpochRecord", epochs: int, is_best: bool) -> None:
        """Print the figures of an epoch and the first lines of its sample."""
        unseen = "" if record["unseen_loss"] is None else f"loss on unseen text {record['unseen_loss']:.4f}, "
        self.say(
            f"epoch {record['epoch']}/{epochs}: training loss {record['train_loss']:.4f}, "
            f"validation loss {record['val_loss']:.4f}{' (best so far)' if is_best else ''}, {unseen}"
            f"{format_time(record['seconds'])}, {record['chars_per_second']:,.0f} characters/s"
        )
        self.say(textwrap.indent("\n".join(record["sample"].splitlines()[:SAMPLE_LINES]), "    │ ", lambda _: True))
        self._losses.append((record["epoch"], record["train_loss"], record["val_loss"]))
        if record["epoch"] == epochs or time.monotonic() - self._curves_shown_at >= SECONDS_BETWEEN_CURVES:
            self._show_curves(epochs)

    def _show_curves(self, epochs: int) -> None:
        """Show the loss curves on a terminal that has braille letters, in colour unless NO_COLOR is set."""
        if not sys.stderr.isatty() or not _can_encode("⣿│"):
            return
        coloured = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        columns = shutil.get_terminal_size().columns - 1  # a full line would be followed by an empty one
        if lines := draw_curves(self._losses, epochs, columns, coloured=coloured):
            self._print("\n".join(lines))
            self._curves_shown_at = time.monotonic()


def failed_event(error: Exception) -> dict[str, Any]:
    """Return the last event of a run that an error ends."""
    if isinstance(error, TrainingError):
        return {"event": "failed", "problem": error.problem, "reason": error.reason}
    if isinstance(error, CharLMError | OSError):
        problem = str(error)
    else:
        problem = "out of memory" if cli.is_out_of_memory(error) else f"{type(error).__name__}: {error}"
    return {"event": "failed", "problem": problem, "reason": None}


def print_json(event: dict[str, Any]) -> None:
    """Print an event as a line of JSON on standard output."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class JsonReport(Report):
    """Progress for programs: events of the types of JSON, their kind in `event`, one a line on standard output.

    start: `run` as in history.json.
    step, every half a second: the share `done` of `epoch`, its mean training `loss` so far, and the `seconds_left` of
        the run. The share never falls, even when a time limit changes the length of the epoch.
    paused, every half a second while the run is paused: for how many `seconds`.
    edit: the learning rate `lr` that was asked for, with the `epoch` and `step` from which on.
    epoch: `record` as in history.json; `is_best`, whether its model is the best so far, and saved in the folder.
    published: the `address` of the commit that has the finished model, if `fit` publishes it.
    failed: the `problem` of a run that has ended with an error, and the `reason` of a TrainingError, else null.

    Messages still go to standard error. If standard output is closed, BrokenPipeError ends the run: the program that
    started it is gone.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None] = print_json) -> None:
        """send: takes each event, in place of standard output."""
        super().__init__()
        self._send = send
        self._epoch, self._share = 0, 0.0
        self._printed_at = 0.0

    def start(self, run: dict[str, Any], unigram_loss: float) -> None:
        """See Report.start."""
        self._send({"event": "start", "run": run})

    def start_epoch(self, epoch: int, epochs: int, done: int, total: int) -> None:
        """See Report.start_epoch."""
        self._epoch, self._done, self._total = epoch, done, total
        self._share = done / total

    def step(self, chars: int, loss: float, run_seconds_left: float) -> None:
        """See Report.step."""
        self._share += (1 - self._share) * chars / (self._total - self._done)  # of what is left
        self._done += chars
        if (now := time.monotonic()) - self._printed_at >= SECONDS_BETWEEN_STEP_EVENTS:
            self._printed_at = now
            step = {"epoch": self._epoch, "done": self._share, "loss": loss, "seconds_left": run_seconds_left}
            self._send({"event": "step", **step})

    def paused(self, seconds: float) -> None:
        """See Report.paused. Told again and again, so that a reader that is gone is noticed."""
        now = time.monotonic()
        if seconds == 0 or now - self._printed_at >= SECONDS_BETWEEN_STEP_EVENTS:
            self._printed_at = now
            self._send({"event": "paused", "seconds": seconds})

    def edit(self, edit: dict[str, Any]) -> None:
        """See Report.edit."""
        self._send({"event": "edit", **edit})

    def epoch(self, record: "EpochRecord", epochs: int, is_best: bool) -> None:
        """See Report.epoch."""
        self._send({"event": "epoch", "record": record, "is_best": is_best})


def format_time(seconds: float) -> str:
    """Format a duration: 48 s, 3 min 20 s, 27 min, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if 600 <= whole < 3600:  # shorter, for terminals of 40 columns
        return f"{whole // 60} min"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _can_encode(text: str) -> bool:
    """Tell whether standard error can show a text."""
    try:
        text.encode(getattr(sys.stderr, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _stderr_may_fail() -> Iterator[None]:
    """Discard standard error from now on if it cannot be written inside the block."""
    try:
        yield
    except OSError:
        cli.discard(sys.stderr)
