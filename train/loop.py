"""fit(): the whole of training."""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from charlm.config import ModelConfig, Weights
from charlm.errors import ModelFileError, RequestError, TrainingError
from charlm.folder import MODEL_FILES, clear_leftovers, make_folder, read_model, round_to_bfloat16
from charlm.history import EpochRecord, HistoryRecord, make_history
from charlm.lm import CharLM
from charlm.network import Network, State, detach
from charlm.vocab import Ids, Vocab
from train.checkpoint import Checkpoint, Interrupts, delete_checkpoint, load_checkpoint, save_checkpoint
from train.config import TrainConfig
from train.data import Streams, Text, split_holdout
from train.evaluate import carried_loss, flushed_denormals, reset_loss
from train.report import Report

FINAL_LR = 0.02  # of the highest, at the end of the cosine
SAMPLE_LENGTH = 500
SAMPLE_TEMPERATURE = 0.8
SECONDS_BETWEEN_READINGS = 0.2  # reading the loss waits for the GPU, so not after every step

# What may differ when a run goes on: where it runs, not what it computes.
MAY_DIFFER = {"device", "precision", "torch"}


def fit(text: Text, out: Path, config: TrainConfig, report: Report, *, resume: bool = False) -> HistoryRecord:
    """Train a model on a text, leave the best epoch's in the folder `out`, and return its record.

    A checkpoint is written there after every epoch and at Ctrl-C or SIGTERM, after which
    KeyboardInterrupt goes on to the caller; `resume` continues from it, and the result is the same
    as if the run had never stopped.

    Raises RequestError if the text or a setting does not fit, or `out` holds another model;
    TrainingError if the loss is no longer a number.
    """
    vocab = Vocab.from_text(text.content)
    train_ids, val_ids = map(vocab.encode, split_holdout(text.content))
    config = config.resolve(len(train_ids))
    run = describe_run(text, vocab, config, len(train_ids), len(val_ids))
    checkpoint = find_checkpoint(out, run, resume)
    if resume and checkpoint is None and (history := finished_history(out, run)) is not None:
        report.say(f"{out} is finished already: best validation loss {history['best']['val_loss']:.4f}")
        return history

    make_folder(out)  # now, not after an epoch, is the time to learn that it cannot be
    clear_leftovers(out)
    cuda = [torch.cuda.current_device()] if config.device == "cuda" else []
    with torch.random.fork_rng(devices=cuda), flushed_denormals(), Interrupts() as interrupts:
        torch.manual_seed(config.seed)
        trainer = Trainer(config, vocab, Streams(train_ids, *_stream_settings(config)), run, report)
        if checkpoint is not None:
            trainer.restore(checkpoint)
            report.say(f"resuming at epoch {trainer.epoch}, step {trainer.step}")
        report.start(run)
        try:
            while trainer.epoch <= config.epochs:
                trainer.train_epoch(interrupts)
                record, weights = trainer.measure(val_ids)
                with interrupts.held():
                    is_best = trainer.end_epoch(record, weights)
                    save_checkpoint(out, trainer.checkpoint())
                    if is_best:
                        trainer.best_model().save_pretrained(out)
                report.epoch(record, config.epochs, is_best)
            with interrupts.held():
                history = trainer.finish(out, val_ids)
        except KeyboardInterrupt:
            with interrupts.held():  # nor may a second one cut the saving short
                save_checkpoint(out, trainer.checkpoint())
                report.say("interrupted; the same command with --resume goes on from here")
            raise
    return history


class Trainer:
    """A run in progress: everything that a checkpoint has to hold.

    epoch, step: where the run stands; the step is the next one of that epoch, from 0.
    """

    def __init__(
        self, config: TrainConfig, vocab: Vocab, streams: Streams, run: dict[str, Any], report: Report
    ) -> None:
        self._config = config
        self._streams = streams
        self._run = run
        self._report = report
        self._model_config = model_config(vocab, config)
        self._network = Network(self._model_config).to(config.device)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
        )
        self._epochs: list[EpochRecord] = []
        self._best_weights: Weights = {}
        self._state: State = None
        self._loss_sum = torch.zeros(())
        self._start_epoch(1)

    def train_epoch(self, interrupts: Interrupts) -> None:
        """Train from where the run stands to the end of the epoch. Raises TrainingError if the loss is NaN."""
        streams, total = self._streams, self._streams.steps_per_epoch
        per_step = streams.chars_per_step
        self._network.train()
        self._report.start_epoch(self.epoch, self._config.epochs, self.step * per_step, total * per_step)
        read_at, read_step = time.perf_counter(), self.step
        try:
            while self.step < total:
                with interrupts.held():
                    self._train_step()
                    due = time.perf_counter() - read_at > SECONDS_BETWEEN_READINGS
                    # at an interrupt too: no checkpoint may replace the last one once the loss is NaN
                    if due or self.step == total or interrupts.signal is not None:
                        loss = self._read_loss()
                        self._seconds += time.perf_counter() - read_at
                        self._report.step((self.step - read_step) * per_step, loss, self._seconds_left())
                        read_at, read_step = time.perf_counter(), self.step
        finally:
            self._report.end_epoch()

    def _train_step(self) -> None:
        inputs, targets = self._streams.batch(self.epoch, self.step)  # (T, B) each
        device = self._config.device
        with torch.autocast(device, torch.bfloat16, enabled=self._config.precision == "bf16"):
            logits, self._state = self._network(inputs, self._state)  # (T, B, V)
        loss = cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        if self._config.clip_norm > 0:
            clip_grad_norm_(self._network.parameters(), self._config.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate(self.step)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._state = detach(self._state)  # truncated backpropagation: the state goes on, the graph does not
        self._loss_sum += loss.detach()
        self.step += 1

    def _learning_rate(self, step: int) -> float:
        """Cosine decay over the whole run (Loshchilov and Hutter, "SGDR", 2017), to FINAL_LR of the highest."""
        per_epoch = self._streams.steps_per_epoch
        done = ((self.epoch - 1) * per_epoch + step) / (self._config.epochs * per_epoch)
        assert self._config.lr is not None
        return self._config.lr * (FINAL_LR + (1 - FINAL_LR) * (1 + math.cos(math.pi * done)) / 2)

    def _read_loss(self) -> float:
        """Return the mean training loss of the epoch so far."""
        return self._check_loss(self._loss_sum.item() / self.step)

    def _check_loss(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is no longer a number (epoch {self.epoch}, step {self.step}); the last checkpoint is kept: "
                f"begin again with a lower --lr than {self._config.lr}, a lower --clip-norm or --precision fp32"
            )
        return loss

    def _seconds_left(self) -> float:
        steps_left = (self._config.epochs - self.epoch + 1) * self._streams.steps_per_epoch - self.step
        return self._seconds / self.step * steps_left

    def measure(self, val_ids: Ids) -> tuple[EpochRecord, Weights]:
        """Measure the model that this epoch would export; return its record and its weights.

        Raises TrainingError if the last update made its losses NaN.
        """
        weights = round_to_bfloat16(self._network.export_weights())
        lm = CharLM(self._model_config, weights, device=self._config.device)
        record: EpochRecord = {
            "epoch": self.epoch,
            "train_loss": self._read_loss(),
            "val_loss": self._check_loss(carried_loss(lm.network, val_ids)),
            "unseen_loss": None,
            "learning_rate": self._learning_rate(self.step - 1),
            "seconds": self._seconds,
            "chars_per_second": self.step * self._streams.chars_per_step / self._seconds,
            "sample": lm.generate("", SAMPLE_LENGTH, SAMPLE_TEMPERATURE, seed=self._config.seed),
        }
        return record, weights

    def end_epoch(self, record: EpochRecord, weights: Weights) -> bool:
        """Add a measured epoch to the record and go on to the next; tell whether it is the best so far."""
        is_best = all(record["val_loss"] < epoch["val_loss"] for epoch in self._epochs)
        self._epochs = [*self._epochs, record]
        if is_best:
            self._best_weights = weights
        self._start_epoch(self.epoch + 1)
        return is_best

    def best_model(self) -> CharLM:
        """Return the model of the best epoch so far, with the record up to now."""
        return CharLM(
            self._model_config, self._best_weights, make_history(self._run, self._epochs), device=self._config.device
        )

    def finish(self, out: Path, val_ids: Ids) -> HistoryRecord:
        """Export the best epoch's model with the whole record, and remove the checkpoint."""
        lm = self.best_model()
        assert lm.history is not None
        lm.history["best"]["val_loss_reset256"] = reset_loss(lm.network, val_ids)
        lm.save_pretrained(out)
        delete_checkpoint(out)
        return lm.history

    def _start_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.step = 0
        self._state = None
        self._seconds = 0.0
        self._loss_sum = torch.zeros((), device=self._config.device)

    def checkpoint(self) -> Checkpoint:
        """Return all that `restore` needs to go on from here."""
        tensors = {f"network.{name}": tensor for name, tensor in self._network.state_dict().items()}
        for place, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{place}.{name}": tensor for name, tensor in moments.items()}
        tensors |= {f"best.{name}": torch.from_numpy(array) for name, array in self._best_weights.items()}
        parts = self._state if isinstance(self._state, tuple) else [] if self._state is None else [self._state]
        tensors |= {f"state.{place}": part for place, part in enumerate(parts)}
        tensors |= {"loss_sum": self._loss_sum, "random.cpu": torch.get_rng_state()}
        if self._config.device == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        values = {"run": self._run, "epochs": self._epochs}
        return Checkpoint(tensors, values | {"epoch": self.epoch, "step": self.step, "seconds": self._seconds})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over where a checkpoint left off."""
        tensors, values = checkpoint.tensors, checkpoint.values
        self._start_epoch(values["epoch"])
        self.step, self._seconds, self._epochs = values["step"], values["seconds"], values["epochs"]
        self._network.load_state_dict(_under(tensors, "network."))
        optimizer_state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _under(tensors, "optimizer.").items():
            place, moment = name.split(".")
            optimizer_state.setdefault(int(place), {})[moment] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": optimizer_state, "param_groups": groups})
        self._best_weights = {name: tensor.numpy() for name, tensor in _under(tensors, "best.").items()}
        state = tuple(part.to(self._config.device) for _, part in sorted(_under(tensors, "state.").items()))
        self._state = None if not state else state if len(state) > 1 else state[0]
        self._loss_sum = tensors["loss_sum"].to(self._config.device)
        torch.set_rng_state(tensors["random.cpu"])
        if self._config.device == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])


def model_config(vocab: Vocab, config: TrainConfig) -> ModelConfig:
    """Return the model that a run's settings and its text's symbols describe."""
    assert config.dropout is not None
    return ModelConfig(
        config.cell, vocab.symbols, config.embedding_size, config.hidden_size, config.num_layers, config.dropout
    )


def describe_run(text: Text, vocab: Vocab, config: TrainConfig, train_chars: int, val_chars: int) -> dict[str, Any]:
    """Return the `run` of history.json: what is trained, on what, and every setting."""
    return {
        "text": text.name,
        "text_sha256": text.sha256,
        **asdict(config),
        # the rest follows from those
        "text_chars": len(text.content),
        "vocab_size": len(vocab),
        "split": {"train_chars": train_chars, "val_chars": val_chars},
        "parameters": model_config(vocab, config).parameters,
        "torch": torch.__version__.split("+")[0],
    }


def find_checkpoint(out: Path, run: dict[str, Any], resume: bool) -> Checkpoint | None:
    """Return the checkpoint to go on from, or None to begin.

    Raises RequestError if `out` already holds something that a fresh run would overwrite, or the
    checkpoint there is of another run.
    """
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file; give a folder as --out")
    checkpoint = load_checkpoint(out)
    if not resume:
        if checkpoint is not None:
            raise RequestError(f"{out} holds an unfinished run; continue it with --resume or choose another --out")
        if present := [name for name in MODEL_FILES if (out / name).exists()]:
            raise RequestError(f"{out} already holds {', '.join(present)}; choose another --out")
    if checkpoint is not None:
        _check_same_run(checkpoint.values["run"], run, out)
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
    return history


def _check_same_run(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    for name in now | before:  # what the user said comes first, before what follows from it
        if name not in MAY_DIFFER and before.get(name) != now.get(name):
            raise RequestError(
                f"{out} holds a run with {name} {before.get(name)!r}, not {now.get(name)!r}; "
                "resume with the settings it was started with, or choose another --out"
            )


def _stream_settings(config: TrainConfig) -> tuple[int, int, int, torch.device]:
    assert config.batch_size is not None
    return config.batch_size, config.seq_length, config.seed, torch.device(config.device)


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
