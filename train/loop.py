"""fit(): the training loop, from the text to the model folder. Each part is explained in trainer.py."""

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from charlm.device import pick_device
from charlm.errors import RequestError
from charlm.model.history import HistoryRecord

from .advice import CurveAdvice, advise, explain_rare, explain_untrained
from .budget import Budget, check_protocol, plan
from .checkpoint import save_checkpoint
from .config import TrainConfig
from .control import ControlFile
from .data import Text
from .distributed import ProcessGroup, join_process_group
from .init_from import StartModel
from .interrupts import Interrupts
from .precision import flushed_denormals
from .protocols import Holdout, Protocol, split_text
from .report import Report
from .run_folder import DERIVED, MAY_DIFFER, BegunRun, FolderLock, continue_run, find_begun_run, prepare_folder
from .split import DEFAULT_SHARES, parse_split
from .teachers import TaughtTargets, Teachers
from .trainer import Trainer, seeded


def fit(
    text: Text,
    out: Path,
    config: TrainConfig,
    report: Report,
    *,
    resume: bool = False,
    asks_epochs: bool = True,
    start: StartModel | None = None,
    also_text: Text | None = None,
    keep_epochs: bool = False,
    teachers: Teachers | None = None,
    control: ControlFile | None = None,
    budget: Budget | None = None,
) -> HistoryRecord:
    """Train a model on a text, write the model of the best epoch to the folder `out`, and return its record.

    After every epoch, and at Ctrl-C or another of train.interrupts.SIGNALS, a checkpoint is written there; a signal
    then raises KeyboardInterrupt. `resume` continues from the checkpoint, with the same result as an uninterrupted
    run. A resumed run may have more epochs than it was begun with; from then on, its learning rate is that of the
    longer run. Under torchrun, all processes train one model.

    asks_epochs: whether the user chose the number of epochs in `config`. If not, a resumed run keeps its own.
    start: the model to begin with; `config` has its architecture, and `text.known` its symbols. also_text: another text
        whose validation loss is measured before and after. keep_epochs: keep weights as charlm.model.kept says.
    teachers: models whose predictions are learnt besides the text; each process lets them read it.
    control: a file by which another program pauses the run or changes its learning rate; for a single process only.
    budget: the time that a run in a single process may take; size, epochs and recipe are chosen for it. A resumed run
        keeps what was chosen.

    Raises RequestError if the text or a setting does not fit, or if `out` holds another model or nothing to resume;
    TrainingError if the loss is no longer a number.
    """
    return train_model(
        FitArguments(
            text=text,
            out=out,
            config=config,
            report=report,
            resume=resume,
            asks_epochs=asks_epochs,
            start=start,
            also_text=also_text,
            keep_epochs=keep_epochs,
            teachers=teachers,
            control=control,
            budget=budget,
        )
    )


@dataclass(frozen=True, kw_only=True)
class FitArguments:
    """The arguments of `fit`, and its texts as they are split.

    protocol: the split of `text`. also: that of `also_text`.
    """

    text: Text
    out: Path
    config: TrainConfig
    report: Report
    resume: bool
    asks_epochs: bool
    start: StartModel | None
    also_text: Text | None
    keep_epochs: bool
    teachers: Teachers | None
    control: ControlFile | None
    budget: Budget | None
    protocol: Protocol = field(init=False)
    also: Holdout | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.budget is not None:
            check_protocol(self.config)
        protocol = split_text(self.text, self.config.protocol, self.config.split)
        object.__setattr__(self, "protocol", protocol)
        if self.also_text is not None:
            also = Holdout(self.also_text, protocol.vocab, parse_split(self.config.split))
            object.__setattr__(self, "also", also)


def train_model(given: FitArguments) -> HistoryRecord:
    """Train a model as `fit` describes."""
    out, config = given.out, given.config
    device = pick_device(config.device)
    # denormals first: torch's threads copy the setting when they start, and resolving the precision starts them
    with (
        flushed_denormals(),
        join_process_group(device) as group,
        seeded(config.seed, device),
        FolderLock() as lock,
        Interrupts() as interrupts,
    ):
        # 1) choose what the settings leave open
        resolved = choose_settings(given, group)
        # 2) lock the folder; a run to resume must have been begun with the same text and settings
        group.broadcast_from_main(lambda: lock.acquire(out, given.resume))
        begun = group.broadcast_from_main(lambda: find_begun_run(out, given.resume))
        if begun is not None:
            resolved = keep_settings(given, resolved, begun.run, group)
        run = describe_fit(given, resolved, begun, group)
        if begun is not None and begun.is_finished and run["epochs"] == begun.run["epochs"]:
            return report_finished(given, begun)
        # 3) build the network and the optimiser, with the weights to begin with or to go on from; then train
        trainer = prepare_trainer(given, resolved, run, begun, group, interrupts)
        return train_epochs(given, trainer, group, interrupts)


def choose_settings(given: FitArguments, group: ProcessGroup) -> TrainConfig:
    """Return the settings with every choice made. All processes take rank 0's, since the precision is measured.

    Raises RequestError, before anything is written, if the text is too short for them, or the streams of a batch cannot
    be divided among the processes.
    """
    written_chars = 0 if given.teachers is None else given.teachers.written_chars
    resolved = group.broadcast_from_main(
        lambda: given.config.resolve(
            given.protocol, group.world_size, adapts=given.start is None, written_chars=written_chars
        )
    )
    assert resolved.batch_size is not None
    group.share(resolved.batch_size)
    return resolved


def keep_settings(given: FitArguments, resolved: TrainConfig, run: dict[str, Any], group: ProcessGroup) -> TrainConfig:
    """Return the settings with the choices that were made for a begun run. run: of its history.json."""
    config = given.config
    if not given.asks_epochs and isinstance(epochs := run.get("epochs"), int):  # the default is another number
        config, resolved = replace(config, epochs=epochs), replace(resolved, epochs=epochs)
    if given.budget is not None:
        config = given.budget.keep(config, run)
        resolved = config.resolve(given.protocol)
    return group.broadcast_from_main(lambda: keep_choices(config, resolved, run))


def describe_fit(
    given: FitArguments, resolved: TrainConfig, begun: BegunRun | None, group: ProcessGroup
) -> dict[str, Any]:
    """Return `run` of history.json, with what a begun run has recorded. What is planned for a time is added later.

    Raises RequestError if the processes were given something different, or the begun run something else.
    """
    run = describe_run(given.text, given.protocol, resolved)
    run |= describe_start(given.start, given.also_text, given.also)
    if given.budget is not None and begun is not None:
        run |= plan_record(given.budget, begun.run.get("epoch_steps"))
    run |= {"keep_epochs": True} if given.keep_epochs else {}
    run |= {} if given.teachers is None else given.teachers.record()
    check_same_everywhere(run, given.config, group)
    return run if begun is None else continue_run(begun, run, given.out)


def report_finished(given: FitArguments, begun: BegunRun) -> HistoryRecord:
    """Say that the run to resume has had all of its epochs, and return its record."""
    history = begun.history
    assert history is not None
    further = "" if given.budget is not None else "; a higher --epochs trains it further"
    given.report.say(
        f"{given.out} is finished already: best validation loss {history['best']['val_loss']:.4f}{further}"
    )
    return history


def prepare_trainer(
    given: FitArguments,
    resolved: TrainConfig,
    run: dict[str, Any],
    begun: BegunRun | None,
    group: ProcessGroup,
    interrupts: Interrupts,
) -> Trainer:
    """Return a trainer that is ready for its next step, and say what it trains.

    Raises KeyboardInterrupt when a signal comes: then nothing has to be saved.
    """
    report, start, budget = given.report, given.start, given.budget
    group.broadcast_from_main(lambda: prepare_folder(given.out, keeps_epochs=given.keep_epochs))
    try:
        # 1) let the teachers write and read, and plan a new run for the time that they have left
        trained, taught, resolved, planned = teach_and_plan(given, resolved, begun, interrupts)
        run = run | planned
        # 2) build the network and the optimiser
        trainer = Trainer(
            resolved,
            trained,
            run,
            report,
            group,
            taught=taught,
            control=given.control,
            limit=None if budget is None else budget.limit,
            earlier_runs=[] if start is None else start.earlier_runs(run),
        )
        # 3) restore what a checkpoint holds, or take the weights of the model to begin with
        if begun is not None:
            restore(trainer, begun, resolved.epochs, report)
        elif start is not None:
            trainer.network.load_weights(group.broadcast_from_main(partial(start.widened, given.protocol)))
            run["before"] = group.broadcast_from_main(lambda: trainer.measure_before(interrupts, given.also))
    except KeyboardInterrupt:
        report.say(f"interrupted before the first step: {given.out} is as it was, so give the same command again")
        raise
    report.start(run, given.text.unigram_loss())
    if begun is None:
        report_start(report, run, given.protocol, resolved, start)
    return trainer


def teach_and_plan(
    given: FitArguments, resolved: TrainConfig, begun: BegunRun | None, interrupts: Interrupts
) -> tuple[Protocol, TaughtTargets | None, TrainConfig, dict[str, Any]]:
    """Let the teachers write and read, then plan a new run for the time that is left.

    Returns the text to train on, the teachers' targets, the settings, and the entries of the plan for `run`.

    A run without teachers trains on its text alone; one that is not planned, or was planned before, keeps its settings.

    Raises KeyboardInterrupt when a signal comes while the teachers write or read.
    """
    report, budget = given.report, given.budget
    trained, taught = given.protocol, None
    if given.teachers is not None:
        trained, taught = given.teachers.teach(given.protocol, given.out, resolved, report.say, interrupts)
    if budget is None or begun is not None:
        return trained, taught, resolved, {}
    config = replace(given.config, precision=resolved.precision)  # in which the teachers have read
    config, epoch_steps = plan(budget, config, trained, report, taught)
    resolved = config.resolve(given.protocol)
    planned = describe_run(given.text, given.protocol, resolved) | plan_record(budget, epoch_steps)
    return trained, taught, resolved, planned


def train_epochs(given: FitArguments, trainer: Trainer, group: ProcessGroup, interrupts: Interrupts) -> HistoryRecord:
    """Train until all epochs are over, and return the record of the run.

    Raises KeyboardInterrupt when a signal comes, after it has saved a checkpoint.
    """
    out, report = given.out, given.report
    advice = CurveAdvice(trainer.history if trainer.epoch > 1 else None)
    try:
        # 1) every epoch: train, measure the validation loss, save a checkpoint and, if it is the best so far, the model
        while trainer.epoch <= trainer.last_epoch:
            trainer.train_epoch(interrupts)
            record = group.broadcast_from_main(lambda: trainer.measure(interrupts))
            is_best = trainer.end_epoch(record)
            group.broadcast_from_main(partial(trainer.save, out, is_best))
            report.epoch(record, trainer.last_epoch, is_best)
            for note in advice.after_epoch(trainer.history):
                report.say(note)
        # 2) save the best model once more, with the record of all epochs
        history = group.broadcast_from_main(lambda: trainer.finish(out, interrupts, given.also))
    except KeyboardInterrupt:
        group.broadcast_from_main(lambda: save_checkpoint(out, trainer.checkpoint()))
        report.say("interrupted; the same command with --resume goes on from here")
        raise
    if interrupts.received is not None:  # its context ends with KeyboardInterrupt
        report.say(f"the run is finished and {out} holds its model: the interrupt came while that was saved")
    return history


def plan_record(budget: Budget, epoch_steps: int | None) -> dict[str, Any]:
    """Return what `run` of history.json has for a time, beside the settings that were chosen for it."""
    return {"minutes": budget.minutes, "epoch_steps": epoch_steps, "paces": []}


def report_start(
    report: Report, run: dict[str, Any], protocol: Protocol, config: TrainConfig, start: StartModel | None
) -> None:
    """Say what is known before the first step: of the model to begin with, of the size, of symbols that are rare."""
    if start is not None:
        report.start_model(run, start.new_symbols(protocol.vocab))
    size = advise(run, config.model(protocol.vocab))
    for note in filter(None, (size, explain_rare(run), explain_untrained(protocol.untrained, run["split"]))):
        report.say(note)


def restore(trainer: Trainer, begun: BegunRun, epochs: int, report: Report) -> None:
    """Let a trainer go on from the checkpoint of a begun run, or from its model if it was finished."""
    if begun.checkpoint is not None:
        trainer.restore(begun.checkpoint)
        report.say(f"resuming at epoch {trainer.epoch}, step {trainer.step}")
    else:
        assert begun.history is not None and begun.weights is not None
        trainer.restore_model(begun.history, begun.weights)
        report.say(
            f"going on at epoch {trainer.epoch} from the weights of epoch {begun.history['best']['epoch']}, the best"
        )
    if epochs > begun.run["epochs"]:
        report.say(
            f"{epochs} epochs in place of {begun.run['epochs']}: "
            f"from here on, the learning rate is that of a run of {epochs} epochs"
        )


def keep_choices(asked: TrainConfig, resolved: TrainConfig, run: dict[str, Any]) -> TrainConfig:
    """Return `resolved` with the choices of a begun run where the user left them open.

    Made anew, they might differ, and with them the result: the precision depends on a measurement, the batch size on
    the number of processes, the recipe on the number of epochs, which may have grown.
    """
    if asked.precision == "auto" and run.get("device") == resolved.device:
        resolved = replace(resolved, precision=run.get("precision", resolved.precision))
    left_open = [name for name, value in asdict(asked).items() if value is None and name in run]
    return replace(resolved, **{name: run[name] for name in left_open})


def describe_run(text: Text, protocol: Protocol, config: TrainConfig) -> dict[str, Any]:
    """Return the `run` of history.json: the text, every setting, and what follows from them."""
    shares = {} if parse_split(config.split) == DEFAULT_SHARES else {"shares": config.split}
    untrained = {"symbols": len(protocol.untrained), "chars": sum(protocol.untrained.values())}
    run = {
        "text": text.name,
        "text_sha256": text.encoded.sha256,
        **asdict(config),
        # these follow from those above
        "text_chars": len(text),
        "vocab_size": len(protocol.vocab),
        "split": protocol.split | shares,
        "parameters": config.model(protocol.vocab).parameters,
        "torch": torch.__version__.split("+")[0],
    }
    # a run to which these do not apply has no record of them
    run |= {"texts": list(text.sources)} if text.sources else {}
    run |= {"lowercase": True} if text.folding.lowercase else {}
    if text.folding.min_count > 1:
        symbols, chars = text.encoded.replaced
        run |= {"min_count": text.folding.min_count, "rare": {"symbols": symbols, "chars": chars}}
    return run | ({"untrained": untrained} if protocol.untrained else {})


def describe_start(start: StartModel | None, also_text: Text | None, also: Holdout | None) -> dict[str, Any]:
    """Return what `run` of history.json says of the model that a training begins with, and of a further text."""
    record = {} if start is None else {"init_from": start.record()}
    if also_text is None or also is None:
        return record
    about = {"name": also_text.name, "text_sha256": also_text.encoded.sha256, "val_chars": also.split["val_chars"]}
    return record | {"also_text": about}


def check_same_everywhere(run: dict[str, Any], config: TrainConfig, group: ProcessGroup) -> None:
    """Raise RequestError, the same in every process, if the processes were given different texts, models or settings.

    run: of history.json. config: the settings as this process was given them; those of `run` are rank 0's.
    """
    runs = group.gather(run | asdict(config))
    names = sorted({name for one in runs for name in one} - MAY_DIFFER)
    differing = [name for name in names if any(one.get(name) != runs[0].get(name) for one in runs)]
    if not differing:
        return
    causes = [name for name in differing if name not in DERIVED] or differing
    of_the_hub = "; name a commit of a repository: USER/NAME@COMMIT" if {"init_from", "teachers"} & {*causes} else ""
    raise RequestError(
        f"the processes of this training differ in {', '.join(causes)}; give all of them the same text, models and "
        f"options{of_the_hub}"
    )
