"""fit(): the whole of training."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from charlm.device import pick_device
from charlm.errors import ModelFileError, RequestError
from charlm.model.folder import MODEL_FILES, clear_leftovers, make_folder, read_model
from charlm.model.history import HistoryRecord
from train.checkpoint import Checkpoint, Interrupts, load_checkpoint, save_checkpoint
from train.config import TrainConfig
from train.data import Text
from train.distributed import join_process_group
from train.precision import flushed_denormals
from train.protocols import PROTOCOLS, Protocol
from train.report import Report
from train.trainer import Trainer, model_config

# What may differ when a run goes on: where it runs, not what it computes.
MAY_DIFFER = {"device", "precision", "torch"}


def fit(text: Text, out: Path, config: TrainConfig, report: Report, *, resume: bool = False) -> HistoryRecord:
    """Train a model on a text, leave the best epoch's in the folder `out`, and return its record.

    A checkpoint is written there after every epoch and at Ctrl-C or SIGTERM, after which
    KeyboardInterrupt goes on to the caller; `resume` continues from it, and the result is the same
    as if the run had never stopped. Started by torchrun, the processes train one model together.

    Raises RequestError if the text or a setting does not fit, or `out` holds another model;
    TrainingError if the loss is no longer a number.
    """
    protocol, device = PROTOCOLS[config.protocol](text), pick_device(config.device)
    # flushing comes first: threads of torch take it over when they start, and choosing a precision starts them
    with (
        flushed_denormals(),
        join_process_group(device) as group,
        seeded(config.seed, device),
        Interrupts() as interrupts,
    ):
        resolved = config.resolve(protocol)
        run, checkpoint = group.broadcast_from_main(lambda: begin(text, protocol, config, resolved, out, resume))
        resolved = replace(resolved, precision=run["precision"])
        if resume and checkpoint is None and (history := group.broadcast_from_main(lambda: finished_history(out, run))):
            report.say(f"{out} is finished already: best validation loss {history['best']['val_loss']:.4f}")
            return history
        trainer = Trainer(resolved, protocol, run, report, group)
        group.broadcast_from_main(
            lambda: prepare_folder(out)
        )  # now, not after an epoch, is the time to learn that it cannot be
        if checkpoint is not None:
            trainer.restore(checkpoint)
            report.say(f"resuming at epoch {trainer.epoch}, step {trainer.step}")
        report.start(run)
        try:
            while trainer.epoch <= config.epochs:
                trainer.train_epoch(interrupts)
                record = group.broadcast_from_main(lambda: trainer.measure(interrupts))
                is_best = trainer.end_epoch(record)
                group.broadcast_from_main(partial(trainer.save, out, is_best))
                report.epoch(record, config.epochs, is_best)
            return group.broadcast_from_main(lambda: trainer.finish(out, interrupts))
        except KeyboardInterrupt:
            group.broadcast_from_main(lambda: save_checkpoint(out, trainer.checkpoint()))
            report.say("interrupted; the same command with --resume goes on from here")
            raise


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Draw every random number from a seed, and leave those of the caller as they were."""
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def begin(
    text: Text, protocol: Protocol, config: TrainConfig, resolved: TrainConfig, out: Path, resume: bool
) -> tuple[dict[str, Any], Checkpoint | None]:
    """Return the `run` of history.json, and the checkpoint to go on from or None.

    Raises RequestError if `out` already holds something that a fresh run would overwrite, or the
    checkpoint there is of another run.
    """
    checkpoint = find_checkpoint(out, resume)
    if checkpoint is not None and config.precision == "auto" and checkpoint.values["run"]["device"] == resolved.device:
        # what was the faster then is kept, so that the result is the same
        resolved = replace(resolved, precision=checkpoint.values["run"]["precision"])
    run = describe_run(text, protocol, resolved)
    if checkpoint is not None:
        _check_same_run(checkpoint.values["run"], run, out)
    return run, checkpoint


def prepare_folder(out: Path) -> None:
    """Make the folder of a run, or tidy it. Raises RequestError if it cannot be made."""
    make_folder(out)
    clear_leftovers(out)


def describe_run(text: Text, protocol: Protocol, config: TrainConfig) -> dict[str, Any]:
    """Return the `run` of history.json: what is trained, on what, and every setting."""
    return {
        "text": text.name,
        "text_sha256": text.encoded.sha256,
        **asdict(config),
        # the rest follows from those
        "text_chars": len(text),
        "vocab_size": len(protocol.vocab),
        "split": protocol.split,
        "parameters": model_config(protocol.vocab, config).parameters,
        "torch": torch.__version__.split("+")[0],
    }


def find_checkpoint(out: Path, resume: bool) -> Checkpoint | None:
    """Return the checkpoint to go on from, or None to begin. Raises RequestError if `out` is not free for that."""
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file; give a folder as --out")
    checkpoint = load_checkpoint(out)
    if not resume:
        if checkpoint is not None:
            raise RequestError(f"{out} holds an unfinished run; continue it with --resume or choose another --out")
        if present := [name for name in MODEL_FILES if (out / name).exists()]:
            raise RequestError(f"{out} already holds {', '.join(present)}; choose another --out")
    return checkpoint


def finished_history(out: Path, run: dict[str, Any]) -> HistoryRecord | None:
    """Return the record of the finished run in `out`, or None. Raises RequestError if something else is there."""
    if not any((out / name).exists() for name in MODEL_FILES):
        return None
    try:
        history = read_model(out).history
    except ModelFileError as error:
        raise RequestError(f"{error}; there is no checkpoint to resume from either: choose another --out") from None
    if history is None:
        raise RequestError(f"{out} holds a model without a record; choose another --out")
    _check_same_run(history["run"], run, out)
    if (measured := len(history["epochs"])) < run["epochs"]:
        raise RequestError(
            f"{out} holds a model of {measured} of {run['epochs']} epochs, and no checkpoint to go on from; "
            "choose another --out, or delete the model there to begin anew"
        )
    return history


def _check_same_run(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    for name in now | before:  # what the user said comes first, before what follows from it
        if name not in MAY_DIFFER and before.get(name) != now.get(name):
            raise RequestError(
                f"{out} holds a run with {name} {before.get(name)!r}, not {now.get(name)!r}; "
                "resume with the settings it was started with, or choose another --out"
            )
