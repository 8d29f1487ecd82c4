"""Trainer: the state of a run, and what is done to it: a step, an epoch, measuring, saving."""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from charlm.errors import ModelFileError, TrainingError
from charlm.lm import CharLM
from charlm.model.card import card_picture, model_card
from charlm.model.config import Weights
from charlm.model.folder import Model, write_model
from charlm.model.history import (
    MOST_EARLIER_RUNS,
    MOST_RECORDED_EPOCHS,
    EarlierRun,
    EpochRecord,
    HistoryRecord,
    longest_sample,
    make_history,
)
from charlm.model.kept import is_kept
from charlm.model.weights import pack_weights, round_to_bfloat16

from .batches import Batches
from .checkpoint import Checkpoint, delete_checkpoint, explain_failed_write, save_checkpoint, save_kept_epoch
from .config import TrainConfig
from .control import ControlFile
from .distributed import ProcessGroup
from .interrupts import Interrupts
from .network import LayerStates, TrainingNetwork
from .optimizer import AdamW
from .precision import product_dtype
from .protocols import Protocol
from .recipes import most_chars
from .report import Report
from .schedule import CHECKS_PER_EPOCH, Schedule, TimeLimit
from .teachers import TaughtTargets

FINAL_LR_SHARE = 0.02  # of the highest learning rate, at the end of the cosine
SAMPLE_LENGTH = 500
SAMPLE_TEMPERATURE = 0.8
SECONDS_BETWEEN_PROGRESS = 0.2
STEPS_BETWEEN_SYNCS = 16  # where several processes train on GPUs
PAUSE_SECONDS = 0.1  # between two looks at the control file while the run is paused


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Seed torch's random numbers inside the block, and restore the caller's generators after it.

    Of several GPUs, only the current one's generator is restored: to read that of another would make a CUDA context
    there, which takes some hundred megabytes of its memory.
    """
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class Trainer:
    """The state of a run: everything that a checkpoint holds.

    epoch, step: the next step, and its epoch (from 1); steps count from 0 in each epoch. last_epoch: of the run.
    states: of every layer before the next step; None where an epoch begins.
    loss_sum: of the epoch's steps so far, on the device.
    """

    def __init__(
        self,
        config: TrainConfig,
        protocol: Protocol,
        run: dict[str, Any],
        report: Report,
        group: ProcessGroup,
        *,
        taught: TaughtTargets | None = None,
        control: ControlFile | None = None,
        limit: TimeLimit | None = None,
        earlier_runs: Sequence[EarlierRun] = (),
    ) -> None:
        """config: with every choice made. run: for history.json. group: the processes that train this model.

        taught: what the steps learn, if there are teachers.
        control: the file that may pause the run and change its learning rate, where one process trains.
        limit: the time that the run may take, where one process trains; `run` then has `epoch_steps` and `paces`.
        earlier_runs: those whose weights this run continues, for history.json.
        """
        assert control is None or group.world_size == 1, "several processes would read the file at different steps"
        assert limit is None or group.world_size == 1, "several processes would have different clocks"
        assert config.batch_size is not None and config.seq_length is not None and config.embedding_dropout is not None
        assert config.weight_decay is not None
        self._config = config
        self._protocol = protocol
        self._taught = taught
        self._run = run
        self._report = report
        self._group = group
        self._control = control
        self._limit = limit
        self.last_epoch = config.epochs
        self._own_streams = group.share(config.batch_size)
        self._model_config = config.model(protocol.vocab)
        self.batches: Batches = protocol.batches(config.batch_size, config.seq_length, config.seed)
        self.schedule = Schedule(
            self.batches.steps_per_epoch, self.last_epoch, run.get("epoch_steps"), run.get("paces", ())
        )
        self.network = TrainingNetwork(
            self._model_config,
            config.embedding_dropout,
            config.device,
            product_dtype(config.precision),
            config.batch_size,
            self._own_streams,
        )
        self._parameters = list(self.network.parameters())
        self._optimizer = AdamW(self._parameters, betas=(0.9, 0.99), weight_decay=config.weight_decay)
        self._set_earlier_runs(earlier_runs)
        self._epochs: list[EpochRecord] = []
        self._best_weights: Weights = {}
        self._measured_weights: Weights = {}  # those that `measure` has measured
        self.epoch: int
        self.step: int
        self.states: LayerStates | None
        self.loss_sum: Tensor
        self._seconds: float  # spent on the steps of the epoch
        self._shown_loss: float
        self._pending_copy: tuple[torch.cuda.Event, Tensor, int] | None  # of loss_sum, after that many steps
        self._speed_since: tuple[float, int] | None = None  # `_seconds` and `step` when progress was first shown
        self._reset_for_epoch(1)

    def _reset_for_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.step = 0
        self.states = None
        self.loss_sum = torch.zeros((), device=self._config.device)
        self._seconds = 0.0
        if self._speed_since is not None:  # the slow first step of the process is over, so all of this epoch counts
            self._speed_since = 0.0, 0
        self._shown_loss = math.log(len(self._model_config.vocab))  # until the first is known: that of guessing
        self._pending_copy = None

    # Training

    def train_epoch(self, interrupts: Interrupts) -> None:
        """Make the steps that are left of the epoch.

        Raises TrainingError if the loss is NaN, and KeyboardInterrupt after the step in which a signal came.
        """
        per_step = self.batches.chars_per_step
        if self._limit is not None:
            self._limit.begin_epoch()
        total = self._adjust_to_time_limit()
        self._report.start_epoch(self.epoch, self.last_epoch, self.step * per_step, total * per_step)
        shown_at, shown_step, stopped = time.perf_counter(), self.step, False
        try:
            while self.step < total and not stopped:
                shown_at += self._apply_controls(interrupts)
                stopped = self.train_step(stop=interrupts.received is not None)
                total = self._adjust_to_time_limit()
                # check the loss after a stop, too: a state with a NaN must not replace the last checkpoint
                is_last = stopped or self.step == total
                if is_last or self._progress_is_due(shown_at):
                    loss = self._mean_train_loss(wait=is_last or self._group.world_size > 1)
                    self._seconds += time.perf_counter() - shown_at
                    self._report.step((self.step - shown_step) * per_step, loss, self._seconds_left())
                    shown_at, shown_step = time.perf_counter(), self.step
        finally:
            self._report.end_epoch()
        if self.step == total:
            if self._limit is not None:  # an epoch that was stopped goes on later: its time so far is still needed
                self._limit.end_epoch()
            self.states = None  # the next epoch starts elsewhere in the text
        if stopped:
            self.states = self._gather_states()
            raise KeyboardInterrupt

    def _adjust_to_time_limit(self) -> int:
        """Change the schedule if the time left allows or demands it; return how many steps this epoch has."""
        total = self.schedule.steps(self.epoch)
        if self._limit is None or self.step == total or self.step % max(total // CHECKS_PER_EPOCH, 1):
            return total
        wanted = self._limit.steps_left(self.step, self.last_epoch - self.epoch + 1)
        planned = self.schedule.steps_left(self.epoch, self.step)
        if wanted is not None:  # however much time is left, the text is not read more often than is worth it
            chars = most_chars(self._config.hidden_size, self._protocol.split["train_chars"])
            wanted = min(wanted, chars / self.batches.chars_per_step - self.schedule.steps_done(self.epoch, self.step))
        if wanted is None or not self._limit.is_off(planned, wanted):
            return total
        if (change := self.schedule.change(self.epoch, self.step, wanted)) is not None:
            self._run["paces"].append(change)
            total = self.schedule.steps(self.epoch)
            self._report.change_total(total * self.batches.chars_per_step)
        return total

    def train_step(self, stop: bool = False) -> bool:
        """Make one update by truncated backpropagation through time: over the T characters of this batch.

        stop: whether this process was told to stop. Return whether all processes shall stop after this step.
        """
        # 1) this process's streams of the batch, and the states in which the step before left them
        reads = self.schedule.reads(self.epoch, self.step)
        inputs, targets = self.batches.batch(*reads, self._config.device)  # (T, B) each
        inputs, targets = inputs[:, self._own_streams], targets[:, self._own_streams]  # (T, B) → (T, B / processes)
        if self.states is None or not self.batches.carries_state or reads[1] == 0:
            self.states = self.network.zero_states(inputs.shape[1])
        # 2) forward: the mean cross-entropies in nats, for what is learnt and for the text; the states come back
        # detached, so the next step's gradients end where its batch begins
        taught = self._teach(targets)
        learnt, loss, self.states = self.network.mean_losses(inputs, targets, self.states, taught)
        # 3) backward
        learnt.backward()  # type: ignore[no-untyped-call]
        # 4) all-reduce: means over the processes
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        stop_flag = loss.new_full((), float(stop))
        self._group.all_reduce_mean([*gradients, loss, stop_flag])
        self.loss_sum += loss
        # 5) scale the gradient down to a norm of at most clip_norm
        if self._config.clip_norm > 0:
            clip_grad_norm_(self._parameters, self._config.clip_norm)
        # 6) AdamW, at the scheduled learning rate
        self._optimizer.step(self.learning_rate(self.step))
        self.step += 1
        return stop if self._group.world_size == 1 else self._is_sync_step() and bool(stop_flag > 0)

    def _teach(self, targets: Tensor) -> Tensor | None:
        """Return the distributions that this step learns in place of its targets (T, B); None without teachers."""
        if self._taught is None:
            return None
        return self._taught.at(
            self.batches.positions(*self.schedule.reads(self.epoch, self.step))[:, self._own_streams], targets
        )

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step of this epoch.

        Cosine decay over the whole run (Loshchilov and Hutter, "SGDR", 2017), to FINAL_LR_SHARE of the highest. In the
        steps of the warm-up, it rises linearly to that. A rate that was asked for meanwhile holds at that step, and
        falls along the rest of the same cosine.
        """

        def cosine(place: float, total: int) -> float:
            return FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * (1 + math.cos(math.pi * place / total)) / 2

        place, total = self.schedule.progress(self.epoch, step)
        if self._lr_edits:
            edit = self._lr_edits[-1]
            rate: float = edit["lr"]
            return rate * (cosine(place, total) / cosine(*self.schedule.progress(edit["epoch"], edit["step"])))
        risen = min(1.0, (place + 1) / (self._config.warm_up * total + 1))
        assert self._config.lr is not None
        return self._config.lr * risen * cosine(place, total)

    @property
    def _lr_edits(self) -> list[dict[str, Any]]:
        """The learning rates that were asked for during the run, each with the epoch and step from which it holds."""
        edits: list[dict[str, Any]] = self._run.get("lr_edits", [])
        return edits

    def _apply_controls(self, interrupts: Interrupts) -> float:
        """Do what the control file asks for before the next step; return for how many seconds the run was paused."""
        if self._control is None:
            return 0.0
        begun, seconds, say = time.perf_counter(), 0.0, self._report.say
        while self._control.read(say).paused and interrupts.received is None:
            self._report.paused(seconds)
            time.sleep(PAUSE_SECONDS)
            seconds = time.perf_counter() - begun
        if seconds and self._limit is not None:
            self._limit.skip(seconds)
        for rate in self._control.read(say).learning_rates[len(self._lr_edits) :]:
            edit = {"epoch": self.epoch, "step": self.step, "lr": rate}
            self._run["lr_edits"] = [*self._lr_edits, edit]
            self._report.edit(edit)
        return seconds

    def _is_sync_step(self) -> bool:
        """Tell whether all processes look at the all-reduced loss and stop flag after this step.

        All at the same step, so that all stop or fail together. On a GPU looking waits for all queued work.
        """
        return self._config.device != "cuda" or self.step % STEPS_BETWEEN_SYNCS == 0

    def _progress_is_due(self, shown_at: float) -> bool:
        """Tell whether to check and show the loss now; `shown_at` is when that was last done."""
        if self._group.world_size > 1:  # not by each process's clock: see _is_sync_step
            return self._is_sync_step()
        return time.perf_counter() - shown_at > SECONDS_BETWEEN_PROGRESS

    def _mean_train_loss(self, wait: bool) -> float:
        """Return the mean training loss of the epoch so far; if not `wait`, on a GPU, as it was a moment ago.

        Raises TrainingError if it is NaN or infinite.
        """
        if wait or self._config.device != "cuda":
            self._shown_loss = self.loss_sum.item() / self.step
        elif self._pending_copy is None or self._pending_copy[0].query():  # type: ignore[no-untyped-call]
            # item() would wait for the GPU: start a copy now, and read the one that was started last time
            if self._pending_copy is not None:
                _, copy, step = self._pending_copy
                self._shown_loss = copy.item() / step
            copy = torch.empty((), pin_memory=True).copy_(self.loss_sum, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
            self._pending_copy = arrived, copy, self.step
        return self._check_loss(self._shown_loss)

    def _check_loss(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise self._divergence("the loss is no longer a number")
        return loss

    def _divergence(self, what: str) -> TrainingError:
        norm, edits = self._config.clip_norm, self._lr_edits
        rate = edits[-1]["lr"] if edits else self._config.lr
        clipping = f"a --clip-norm below {norm:g}" if norm else "--clip-norm 1"
        return TrainingError(
            f"{what} (epoch {self.epoch}, step {self.step})",
            f"begin again in another --out with a lower --lr than {rate}, {clipping} or --precision fp32",
            "diverged",
        )

    def _seconds_left(self) -> float:
        """Return how long the rest of the run will take, by the speed of the epoch without its first steps."""
        steps_left = self.schedule.steps_left(self.epoch, self.step)
        if self._speed_since is None:  # the first step of a process takes several times as long as others
            self._speed_since = self._seconds, self.step
            return self._seconds / self.step * steps_left
        seconds, steps = self._speed_since
        return (self._seconds - seconds) / max(self.step - steps, 1) * steps_left

    def _gather_states(self) -> LayerStates | None:
        """Return the states of all streams, those of the other processes included."""
        if self.states is None:
            return None
        return [[self._group.all_gather(part) for part in layer] for layer in self.states]

    # Measuring and saving

    def measure_before(self, interrupts: Interrupts, also: Protocol | None = None) -> dict[str, float]:
        """Return the losses of the model as it is before the first step. also: another text to measure it on.

        Raises KeyboardInterrupt when a signal comes.
        """
        _, lm = self._rounded_model()
        with interrupts.immediate():
            losses = self._protocol.epoch_losses(lm)
            before = {name: loss for name, loss in losses.items() if loss is not None}
            return before if also is None else before | _also_text_loss(also, lm)

    def measure(self, interrupts: Interrupts) -> EpochRecord:
        """Measure the model in the precision it is saved in, and return the epoch's record.

        Raises TrainingError if it has diverged, and KeyboardInterrupt when a signal comes.
        """
        with interrupts.immediate():
            train_loss = self._mean_train_loss(wait=True)
            self._measured_weights, lm = self._rounded_model()
            try:
                losses = self._protocol.epoch_losses(lm)
                assert losses["val_loss"] is not None
                val_loss, sample = self._check_loss(losses["val_loss"]), self._write_sample(lm)
            except ModelFileError:
                raise self._divergence("the weights or logits are no longer numbers, or too large") from None
            record: EpochRecord = {
                "epoch": self.epoch,
                "train_loss": train_loss,
                "val_loss": val_loss,
                "unseen_loss": losses["unseen_loss"],
                "learning_rate": self.learning_rate(self.step - 1),
                "seconds": self._seconds,
                "chars_per_second": self.step * self.batches.chars_per_step / self._seconds,
                "sample": sample,
            }
            if self._run.get("keep_epochs") and is_kept(self.epoch, self.last_epoch):
                record["weights_sha256"] = hashlib.sha256(pack_weights(self._measured_weights)).hexdigest()
            return record

    def _rounded_model(self) -> tuple[Weights, CharLM]:
        """Return the weights as they are now, in the precision that they are saved in, and the model with them."""
        weights = round_to_bfloat16(self.network.export_weights())
        return weights, CharLM(self._model_config, weights, device=self._config.device)

    def _write_sample(self, lm: CharLM) -> str:
        length = min(SAMPLE_LENGTH, self._longest_sample)
        return lm.generate("", length, SAMPLE_TEMPERATURE, seed=self._config.seed)

    def end_epoch(self, record: EpochRecord) -> bool:
        """Add a measured epoch to the record and begin the next one; return whether it is the best so far."""
        is_best = all(record["val_loss"] < epoch["val_loss"] for epoch in self._epochs)
        self._epochs = [*self._epochs, record]
        if is_best:
            self._best_weights = self._measured_weights
        self._reset_for_epoch(self.epoch + 1)
        return is_best

    def save(self, out: Path, is_best: bool) -> None:
        """Save a checkpoint and then, if the epoch that has ended is the best so far, the model.

        If the weights of the epoch are kept, they are written before: a run that resumes from the checkpoint does not
        have them. The model's card shows the epoch's sample of the record; `finish` writes samples for the final one.

        Raises TrainingError if one of these files cannot be written.
        """
        if "weights_sha256" in self._epochs[-1]:
            save_kept_epoch(out, self._epochs[-1]["epoch"], pack_weights(self._measured_weights))
        save_checkpoint(out, self.checkpoint())
        if is_best:
            model = Model(self._model_config, self._best_weights, self.history)
            card = model_card(model.config, model.history)
            picture = card_picture(model.config, model.history)
            with explain_failed_write(out, f"the model to {out}"):
                write_model(out, model, card, picture)

    @property
    def history(self) -> HistoryRecord:
        """The record of the epochs so far, of which there has to be one."""
        return make_history(self._run, self._epochs, self._earlier_runs)

    def best_model(self) -> CharLM:
        """Return the model of the best epoch so far, with the record up to now."""
        return CharLM(self._model_config, self._best_weights, self.history, device=self._config.device)

    def finish(self, out: Path, interrupts: Interrupts, also: Protocol | None = None) -> HistoryRecord:
        """Save the best epoch's model with the record of all epochs, and delete the checkpoint.

        also: another text that the model is measured on. Raises KeyboardInterrupt when a signal comes before that, and
        TrainingError if the model cannot be written.
        """
        lm = self.best_model()
        assert lm.history is not None
        with interrupts.immediate():
            best = self._protocol.best_losses(lm)
            if also is not None:
                best |= _also_text_loss(also, lm)
            lm.history["best"] |= best  # type: ignore[typeddict-item]
        with explain_failed_write(out, f"the model to {out}"):
            lm.save_pretrained(out)
        delete_checkpoint(out)
        return lm.history

    # Resuming

    def checkpoint(self) -> Checkpoint:
        """Return everything that `restore` needs to continue from here."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.exported_parameters().items()}
        for place, moments in enumerate(self._optimizer.state):
            tensors |= {f"optimizer.{place}.{name}": tensor for name, tensor in moments.items()}
        tensors |= {f"best.{name}": torch.from_numpy(array) for name, array in self._best_weights.items()}
        for layer, parts in enumerate(self.states or []):
            tensors |= {f"state.{layer}.{place}": part for place, part in enumerate(parts)}
        tensors |= {"loss_sum": self.loss_sum, "random.cpu": torch.get_rng_state()}
        if self._config.device == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        values: dict[str, Any] = {"run": self._run, "epochs": self._epochs, "earlier_runs": self._earlier_runs}
        values |= {} if self._limit is None else {"limit": self._limit.state()}
        tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        return Checkpoint(tensors, values | {"epoch": self.epoch, "step": self.step, "seconds": self._seconds})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        tensors, values = checkpoint.tensors, checkpoint.values
        self._reset_for_epoch(values["epoch"])
        self.step, self._seconds = values["step"], values["seconds"]
        self._set_earlier_runs(values["earlier_runs"])
        self._epochs = self._with_short_samples(values["epochs"])
        if self._limit is not None:
            self._limit.resume(values["limit"])
        saved = _strip_prefix(tensors, "network.")
        self.network.load_weights(saved)
        for name, tensor in _strip_prefix(tensors, "optimizer.").items():
            place, moment = name.split(".")
            self._optimizer.state[int(place)][moment].copy_(tensor)
        self._best_weights = {name: tensor.numpy() for name, tensor in _strip_prefix(tensors, "best.").items()}
        self.states = self._restore_states(_strip_prefix(tensors, "state."))
        self.loss_sum = tensors["loss_sum"].to(self._config.device)
        torch.set_rng_state(tensors["random.cpu"])
        if self._config.device == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])

    def restore_model(self, history: HistoryRecord, weights: Weights) -> None:
        """Go on after the last epoch of a finished run from its model, the weights of its best epoch.

        Its optimiser's state is gone: the moments begin at zero, as in a new run.
        """
        self.network.load_weights(weights)
        self._set_earlier_runs(history.get("earlier_runs", []))
        self._epochs, self._best_weights = self._with_short_samples(history["epochs"]), weights
        self._reset_for_epoch(len(self._epochs) + 1)

    def _set_earlier_runs(self, runs: Sequence[EarlierRun]) -> None:
        """Take over the runs before this one, or none if one record cannot hold so many runs or epochs."""
        epochs = self.last_epoch + sum(len(run["epochs"]) for run in runs)
        if len(runs) > MOST_EARLIER_RUNS or epochs > MOST_RECORDED_EPOCHS:
            runs, epochs = [], self.last_epoch
        self._longest_sample = longest_sample(epochs, len(runs))
        self._earlier_runs: list[EarlierRun] = [
            {"name": run["name"], "epochs": self._with_short_samples(run["epochs"])} for run in runs
        ]

    def _with_short_samples(self, epochs: list[EpochRecord]) -> list[EpochRecord]:
        """Shorten the samples of some epochs so that the record of all epochs can be read."""
        return [{**epoch, "sample": epoch["sample"][: self._longest_sample]} for epoch in epochs]

    def _restore_states(self, saved: dict[str, Tensor]) -> LayerStates | None:
        if not saved:
            return None
        layers: LayerStates = [[] for _ in range(self._config.num_layers)]
        for name in sorted(saved, key=lambda name: [int(place) for place in name.split(".")]):
            layers[int(name.split(".")[0])].append(saved[name][self._own_streams].to(self._config.device))
        return layers


def _also_text_loss(also: Protocol, lm: CharLM) -> dict[str, float]:
    loss = also.epoch_losses(lm)["val_loss"]
    assert loss is not None
    return {"also_text_loss": loss}


def _strip_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
