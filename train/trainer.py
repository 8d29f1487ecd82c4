"""Trainer: a run in progress, from one step to the next and from one epoch to the next."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from charlm.errors import TrainingError
from charlm.lm import CharLM
from charlm.model.config import ModelConfig, Weights
from charlm.model.folder import round_to_bfloat16
from charlm.model.history import EpochRecord, HistoryRecord, longest_sample, make_history
from charlm.vocab import Vocab
from train.batches import Batches
from train.checkpoint import Checkpoint, Interrupts, delete_checkpoint, save_checkpoint
from train.config import TrainConfig
from train.distributed import ProcessGroup
from train.network import LayerStates, TrainingNetwork
from train.protocols import Protocol
from train.report import Report

FINAL_LR = 0.02  # of the highest, at the end of the cosine
SAMPLE_LENGTH = 500
SAMPLE_TEMPERATURE = 0.8
SECONDS_BETWEEN_READINGS = 0.2
STEPS_BETWEEN_ALL_REDUCE_READS = 16  # of several processes on GPUs


class Trainer:
    """A run in progress: everything that a checkpoint has to hold.

    epoch, step: where the run stands; the step is the next one of that epoch, from 0.
    """

    def __init__(
        self, config: TrainConfig, protocol: Protocol, run: dict[str, Any], report: Report, group: ProcessGroup
    ) -> None:
        assert config.batch_size is not None and config.seq_length is not None and config.embedding_dropout is not None
        assert config.weight_decay is not None
        self._config = config
        self._protocol = protocol
        self._run = run
        self._report = report
        self._group = group
        self._share = group.share(config.batch_size)
        self._batches: Batches = protocol.batches(config.batch_size, config.seq_length, config.seed)
        self._model_config = model_config(protocol.vocab, config)
        self._network = TrainingNetwork(
            self._model_config,
            config.embedding_dropout,
            config.device,
            torch.bfloat16 if config.precision == "bf16" else torch.float32,
            config.batch_size,
            self._share,
        )
        self._parameters = list(self._network.parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
        )
        self._epochs: list[EpochRecord] = []
        self._best_weights: Weights = {}
        self._measured_weights: Weights = {}  # of the epoch that ends next
        self.epoch: int
        self.step: int
        self._states: LayerStates | None  # before the next step
        self._seconds: float
        self._loss_sum: torch.Tensor  # over the steps of the epoch
        self._shown_loss: float
        self._arriving: tuple[torch.cuda.Event, torch.Tensor, int] | None
        self._start_epoch(1)

    def train_epoch(self, interrupts: Interrupts) -> None:
        """Train from where the run stands to the end of the epoch.

        Raises TrainingError if the loss is NaN, and KeyboardInterrupt after the step in which a signal came.
        """
        total, per_step = self._batches.steps_per_epoch, self._batches.chars_per_step
        self._network.train()
        self._report.start_epoch(self.epoch, self._config.epochs, self.step * per_step, total * per_step)
        read_at, read_step, stopped = time.perf_counter(), self.step, False
        try:
            while self.step < total and not stopped:
                stopped = self._train_step(stop=interrupts.signal is not None)
                # when it stops too: no checkpoint may replace the last one once the loss is NaN
                ends = stopped or self.step == total
                if ends or self._reading_is_due(read_at):
                    loss = self._loss_so_far(wait=ends or self._group.world_size > 1)
                    self._seconds += time.perf_counter() - read_at
                    self._report.step((self.step - read_step) * per_step, loss, self._seconds_left())
                    read_at, read_step = time.perf_counter(), self.step
        finally:
            self._report.end_epoch()
        if self.step == total:
            self._states = None  # the next epoch begins with others
        if stopped:
            self._states = self._whole_states()
            raise KeyboardInterrupt

    def _train_step(self, stop: bool = False) -> bool:
        """Make a step. stop: whether this process was told to stop after it; return whether all shall stop now."""
        inputs, targets = self._batches.batch(self.epoch, self.step, self._config.device)  # (T, B) each
        inputs, targets = inputs[:, self._share], targets[:, self._share]
        if self._states is None or not self._batches.carries_state:
            self._states = self._network.zero_states(inputs.shape[1])
        logits, self._states = self._network(inputs, self._states)  # (T, B, V)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        loss, stop_flag = loss.detach(), loss.new_full((), float(stop))
        self._group.all_reduce_mean([*gradients, loss, stop_flag])
        self._loss_sum += loss
        if self._config.clip_norm > 0:
            clip_grad_norm_(self._parameters, self._config.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate(self.step)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return stop if self._group.world_size == 1 else self._reads_all_reduced() and bool(stop_flag > 0)

    def _reads_all_reduced(self) -> bool:
        """Tell whether all processes read the all-reduced loss and stop flag after this step."""
        # on a GPU, reading waits until all queued work is done
        return self._config.device != "cuda" or self.step % STEPS_BETWEEN_ALL_REDUCE_READS == 0

    def _reading_is_due(self, read_at: float) -> bool:
        if self._group.world_size == 1:
            return time.perf_counter() - read_at > SECONDS_BETWEEN_READINGS
        return self._reads_all_reduced()  # not by a clock: a loss that is no number must end all at the same step

    def _whole_states(self) -> LayerStates | None:
        """Return the states of all streams, whichever process reads them."""
        if self._states is None:
            return None
        return [[self._group.all_gather(part) for part in layer] for layer in self._states]

    def _learning_rate(self, step: int) -> float:
        """Cosine decay over the whole run (Loshchilov and Hutter, "SGDR", 2017), to FINAL_LR of the highest."""
        per_epoch = self._batches.steps_per_epoch
        done = ((self.epoch - 1) * per_epoch + step) / (self._config.epochs * per_epoch)
        assert self._config.lr is not None
        return self._config.lr * (FINAL_LR + (1 - FINAL_LR) * (1 + math.cos(math.pi * done)) / 2)

    def _loss_so_far(self, wait: bool) -> float:
        """Return the mean training loss of the epoch so far; if not `wait`, as it was a moment ago.

        Raises TrainingError if it is no number.
        """
        if wait or self._config.device != "cuda":
            self._shown_loss = self._loss_sum.item() / self.step
        elif self._arriving is None or self._arriving[0].query():  # type: ignore[no-untyped-call]
            # asking for the loss at once would wait for the GPU: the copy that was begun last time has come by now
            if self._arriving is not None:
                _, copy, step = self._arriving
                self._shown_loss = copy.item() / step
            copy = torch.empty((), pin_memory=True).copy_(self._loss_sum, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
            self._arriving = arrived, copy, self.step
        return self._check_loss(self._shown_loss)

    def _check_loss(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is no longer a number (epoch {self.epoch}, step {self.step}); the last checkpoint is kept: "
                f"begin again with a lower --lr than {self._config.lr}, a lower --clip-norm or --precision fp32"
            )
        return loss

    def _seconds_left(self) -> float:
        steps_left = (self._config.epochs - self.epoch + 1) * self._batches.steps_per_epoch - self.step
        return self._seconds / self.step * steps_left

    def measure(self, interrupts: Interrupts) -> EpochRecord:
        """Measure the model that this epoch would export, and keep its weights; return the epoch's record.

        Raises TrainingError if the last update made its losses NaN, and KeyboardInterrupt when a signal comes.
        """
        with interrupts.raised():
            train_loss = self._loss_so_far(wait=True)
            self._measured_weights = round_to_bfloat16(self._network.export_weights())
            lm = CharLM(self._model_config, self._measured_weights, device=self._config.device)
            losses = self._protocol.epoch_losses(lm.network)
            length = min(SAMPLE_LENGTH, longest_sample(self._config.epochs))
            assert losses["val_loss"] is not None
            return {
                "epoch": self.epoch,
                "train_loss": train_loss,
                "val_loss": self._check_loss(losses["val_loss"]),
                "unseen_loss": losses["unseen_loss"],
                "learning_rate": self._learning_rate(self.step - 1),
                "seconds": self._seconds,
                "chars_per_second": self.step * self._batches.chars_per_step / self._seconds,
                "sample": lm.generate("", length, SAMPLE_TEMPERATURE, seed=self._config.seed),
            }

    def end_epoch(self, record: EpochRecord) -> bool:
        """Add a measured epoch to the record and go on to the next; tell whether it is the best so far."""
        is_best = all(record["val_loss"] < epoch["val_loss"] for epoch in self._epochs)
        self._epochs = [*self._epochs, record]
        if is_best:
            self._best_weights = self._measured_weights
        self._start_epoch(self.epoch + 1)
        return is_best

    def save(self, out: Path, is_best: bool) -> None:
        """Save a checkpoint, and after that the model if the epoch that has ended is the best so far."""
        save_checkpoint(out, self.checkpoint())
        if is_best:
            self.best_model().save_pretrained(out)

    def best_model(self) -> CharLM:
        """Return the model of the best epoch so far, with the record up to now."""
        return CharLM(
            self._model_config, self._best_weights, make_history(self._run, self._epochs), device=self._config.device
        )

    def finish(self, out: Path, interrupts: Interrupts) -> HistoryRecord:
        """Export the best epoch's model with the whole record, and remove the checkpoint.

        Raises KeyboardInterrupt when a signal comes before that.
        """
        lm = self.best_model()
        assert lm.history is not None
        with interrupts.raised():
            lm.history["best"] |= self._protocol.best_losses(lm.network)  # type: ignore[typeddict-item]
        lm.save_pretrained(out)
        delete_checkpoint(out)
        return lm.history

    def _start_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.step = 0
        self._states = None
        self._seconds = 0.0
        self._loss_sum = torch.zeros((), device=self._config.device)
        self._shown_loss = math.log(len(self._model_config.vocab))  # that of a guess, until one is read
        self._arriving = None

    def checkpoint(self) -> Checkpoint:
        """Return all that `restore` needs to go on from here."""
        tensors = {f"network.{name}": tensor for name, tensor in self._network.exported_parameters().items()}
        for place, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{place}.{name}": tensor for name, tensor in moments.items()}
        tensors |= {f"best.{name}": torch.from_numpy(array) for name, array in self._best_weights.items()}
        for layer, parts in enumerate(self._states or []):
            tensors |= {f"state.{layer}.{place}": part for place, part in enumerate(parts)}
        tensors |= {"loss_sum": self._loss_sum, "random.cpu": torch.get_rng_state()}
        if self._config.device == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        values = {"run": self._run, "epochs": self._epochs}
        tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        return Checkpoint(tensors, values | {"epoch": self.epoch, "step": self.step, "seconds": self._seconds})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over where a checkpoint left off."""
        tensors, values = checkpoint.tensors, checkpoint.values
        self._start_epoch(values["epoch"])
        self.step, self._seconds, self._epochs = values["step"], values["seconds"], values["epochs"]
        saved = _under(tensors, "network.")
        with torch.no_grad():
            for name, parameter in self._network.exported_parameters().items():
                parameter.copy_(saved[name])
        optimizer_state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _under(tensors, "optimizer.").items():
            place, moment = name.split(".")
            optimizer_state.setdefault(int(place), {})[moment] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": optimizer_state, "param_groups": groups})
        self._best_weights = {name: tensor.numpy() for name, tensor in _under(tensors, "best.").items()}
        self._states = self._restore_states(_under(tensors, "state."))
        self._loss_sum = tensors["loss_sum"].to(self._config.device)
        torch.set_rng_state(tensors["random.cpu"])
        if self._config.device == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])

    def _restore_states(self, saved: dict[str, torch.Tensor]) -> LayerStates | None:
        if not saved:
            return None
        layers: LayerStates = [[] for _ in range(self._config.num_layers)]
        for name in sorted(saved, key=lambda name: [int(place) for place in name.split(".")]):
            layers[int(name.split(".")[0])].append(saved[name][self._share].to(self._config.device))
        return layers


def model_config(vocab: Vocab, config: TrainConfig) -> ModelConfig:
    """Return the model that a run's settings and its text's symbols describe."""
    assert config.dropout is not None
    return ModelConfig(
        config.cell, vocab.symbols, config.embedding_size, config.hidden_size, config.num_layers, config.dropout
    )


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
