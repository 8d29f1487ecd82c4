"""The commands `python -m train fit`, `evaluate`, `push` and `deploy`.

Each imports what it needs when it runs: torch takes seconds, and `--help`, `push` and `deploy` do without it.
"""

import argparse
import dataclasses
import functools
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from charlm import cli
from charlm.checks import check_number, check_whole
from charlm.errors import HubError, RequestError
from charlm.installation import load_extra, program
from charlm.messages import counted
from charlm.model.cells import CELLS
from charlm.model_name import check_folder, is_repo_id

from .config import GROUPS, MODEL, PROTOCOL_NAMES, PUBLISHING, START_DEFAULTS, TEXT, TRAINING, TrainConfig, value_type
from .launcher import is_main_process, launch_or_default, mute_other_ranks, read_launch
from .report import JsonReport, Report, failed_event, format_time, print_json
from .split import DEFAULT_SPLIT, check_split, normal_split, recorded_split
from .tracking import TRACKERS, tracked

if TYPE_CHECKING:
    from charlm.model.history import HistoryRecord

    from .data import Text
    from .encode import Folding
    from .init_from import StartModel
    from .teachers import Teachers

EXAMPLES = (
    ("train a model on a text of yours; it goes to runs/my-text-lstm", "fit --text my-text.txt"),
    ("measure it", "evaluate ./runs/my-text-lstm --text my-text.txt"),
    ("publish it", "push runs/my-text-lstm USER/my-text"),
)
FIT_EXAMPLES = (
    ("a text of yours, in UTF-8; the model goes to runs/my-text-lstm", "--text my-text.txt"),
    ("the model that learns most of the built-in text in three minutes here", "--text tinyshakespeare --minutes 3"),
    ("go on after Ctrl-C or for more epochs", "--text my-text.txt --epochs 48 --resume"),
)
EVALUATE_EXAMPLES = (("the validation loss of a model, again", "./runs/my-text-lstm --text my-text.txt"),)
PUSH_EXAMPLES = (("after `hf auth login`", "runs/my-text-lstm USER/my-text"),)
DEPLOY_EXAMPLES = (
    ("a page that shows a model of the Hub", "USER/my-page --model USER/my-text"),
    ("one that needs no server and is free for every account", "USER/my-page --model USER/my-text --sdk static"),
)
INIT_FROM_HELP = (
    "begin with the weights of this model, which also gives the settings of this group; defaults are then "
    + ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in START_DEFAULTS.items())
)
ALSO_TEXT_HELP = (
    "with --init-from: measure the loss on this text before and after, for example the text that the model was "
    "trained on"
)
KEEP_EPOCHS_HELP = "also keep the weights of epochs 1, 2, 3, 5, 8, 13 … and the last, in epochs/ of the model folder"
TEACHER_HELP = (
    "also learn what this model predicts, for example a larger one of the same text; repeat the flag, and the mean of "
    "their predictions is learnt"
)
TEACHER_WEIGHT_HELP = (
    "weight of the teachers' predictions in the target, from 0 to 1; the text's own next character has the rest "
    "(default 0.5)"
)
TEACHERS_WRITE_HELP = (
    "characters that the teachers write as further training text; several times the length of the text helps, since "
    "they know the text itself by heart"
)
# That `evaluate --dynamic` takes for a character, and more for each parameter of the model: on a core, 0.12 ms with
# 1×128 units and 0.95 ms with 2×512.
DYNAMIC_SECONDS, DYNAMIC_SECONDS_PER_PARAMETER = 1e-4, 2e-10
MINUTES = 0.1, 100_000.0  # that may be asked for
MINUTES_HELP = (
    "in place of --epochs: the time for the whole run; the size and the settings that learn most in it on this machine "
    "are chosen, beside those that are given"
)
MOST_COUNT = 10**9  # of a symbol in a text
CONTROL_HELP = 'a JSON file that is read before each step: {"paused": true, "learning_rates": [0.001]}'
RESUME_HELP = (
    "continue from the checkpoint in --out; a higher --epochs makes the run longer, without --epochs its number stays; "
    "--device and --precision may change"
)


def with_torch(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Prepare for a command that imports torch.

    Where torchrun starts it in several processes, one of each machine prints. A current folder that was deleted, in
    which torch would end the process, is a RequestError.
    """

    @functools.wraps(command)
    def run(args: argparse.Namespace) -> None:
        with mute_other_ranks():
            check_current_folder()
            command(args)

    return run


def failure_as_event(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Report the error that ends a command as its last event, too, if it is run with --json-lines."""

    @functools.wraps(command)
    def run(args: argparse.Namespace) -> None:
        try:
            command(args)
        except Exception as error:
            if args.json_lines and is_main_process():
                try:
                    print_json(failed_event(error))
                except OSError:  # nobody reads any longer, or the disk is full: standard error has the message
                    cli.drop_unwritable_output()
            raise

    return run


def check_current_folder() -> None:
    """Raise RequestError if the current folder was deleted."""
    try:
        os.getcwd()
    except OSError:
        raise RequestError("the current folder was deleted; go to another one first") from None


@failure_as_event
@with_torch
def run_fit(args: argparse.Namespace) -> None:
    """Train a model; publish it if that was asked for."""
    begun = time.monotonic()

    # 1) refuse what is wrong or contradicts itself before a model or a text is read
    launch = read_launch()
    names = [spec.name for spec in dataclasses.fields(TrainConfig)]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    config = TrainConfig(**given)
    minutes, folding = check_fit(args, config, launch.world_size)
    from .budget import Budget
    from .control import ControlFile
    from .data import check_texts
    from .loop import fit
    from .schedule import TimeLimit

    budget = None if minutes is None else Budget(minutes, TimeLimit(60 * minutes, begun), frozenset(given))

    if args.init_from is not None or args.teacher:  # they may have to be downloaded
        check_texts(args.text)
        check_texts(args.also_text or [])

    # 2) load the models, read the text and train
    report = JsonReport() if args.json_lines and is_main_process() else Report()
    start, config, out = choose_start(args, given, config, launch.world_size)
    teachers = choose_teachers(args)
    tracker = args.report_to if is_main_process() else None
    with tracked(report, tracker, out, resumes=args.resume) as watched:
        text, also_text = read_texts(args, folding, out, "" if start is None else start.lm.vocab.symbols, report.say)
        history = fit(
            text,
            out,
            config,
            watched,
            resume=args.resume,
            asks_epochs="epochs" in given,
            start=start,
            also_text=also_text,
            keep_epochs=args.keep_epochs,
            teachers=teachers,
            control=None if args.control is None else ControlFile(args.control),
            budget=budget,
        )

    # 3) tell what there is now, and publish it
    report.say(describe_end(out, history))
    if not args.json_lines:
        report.say(next_steps(out, text.beginning(), is_published=args.push_to_hub is not None))
    if args.push_to_hub is not None and is_main_process():
        publish(out, args.push_to_hub, as_json=args.json_lines)


def check_fit(args: argparse.Namespace, config: TrainConfig, processes: int) -> tuple[float | None, "Folding"]:
    """Check the options of `fit`; return the minutes of --minutes, None without it, and which symbols are replaced.

    Raises RequestError for options that are wrong or contradict each other, MissingPackageError if a package
    for the training is not installed, and what `check_can_push` raises if the model is to be published.
    """
    check_options(args, processes)
    minutes, folding = check_minutes(args, processes), parse_folding(args)
    load_extra("train")  # matplotlib, too, which would else be missed when the first epoch is saved
    from .budget import check_protocol
    from .protocols import PROTOCOLS, check_in_order

    check_in_order(PROTOCOLS[config.protocol], {"--teacher": bool(args.teacher)})
    if minutes is not None:
        check_protocol(config)
    return minutes, folding


def check_options(args: argparse.Namespace, processes: int) -> None:
    """Raise RequestError for an option of `fit` without the one that it belongs to, or that several processes refuse.

    And what `check_can_push` raises, if the model is to be published.
    """
    if args.control is not None and processes > 1:
        raise RequestError(
            f"--control is for a training in one process, and torchrun has started {processes}: leave it out"
        )
    if args.control is not None and args.control.is_dir():
        raise RequestError(f"--control {args.control} is a folder; name a file in it, {args.control / 'control.json'}")
    if args.also_text and args.init_from is None:
        raise RequestError("--also-text measures what the model of --init-from forgets; give both, or leave both out")
    if args.teacher_weight is not None and not args.teacher:
        raise RequestError("--teacher-weight says how much --teacher counts; give both, or leave both out")
    if args.teachers_write is not None and not args.teacher:
        raise RequestError("--teachers-write needs a model that writes; give a --teacher, or leave it out")
    if args.push_to_hub is not None:
        from charlm.publishing import check_can_push

        check_can_push(args.push_to_hub)  # a missing token should not come to light after hours of training


def choose_start(
    args: argparse.Namespace, given: dict[str, Any], config: TrainConfig, processes: int
) -> tuple["StartModel | None", TrainConfig, Path]:
    """Return the model that a training begins with, if there is one, the settings for it, and the folder of the run.

    given: the settings that the user gave. config: these, for a training that begins with random weights.

    Raises RequestError if a setting contradicts the model, or the folder holds another model or nothing to resume.
    """
    from .init_from import load_start_model
    from .run_folder import NothingToResumeError, begun_revision, check_folder

    start = load_start_model(args.init_from) if args.init_from is not None else None
    out = args.out or default_folder(args.text, config.cell if start is None else start.lm.config.cell)
    if processes == 1:  # of several, `fit` lets the main one look: the folder may be on its machine alone
        try:
            check_folder(out, args.resume)
        except NothingToResumeError as error:
            raise RequestError(f"{error}: {command_to_begin(args)}") from None
    if start is None:
        return None, config, out
    if args.resume:
        start = start.at(begun_revision(out))  # the repository may have changed since, and with it the settings
    return start, TrainConfig(**start.settings(given)), out


def choose_teachers(args: argparse.Namespace) -> "Teachers | None":
    """Load the models whose predictions are learnt, if there are any."""
    from .teachers import DEFAULT_WEIGHT, load_teachers

    weight = DEFAULT_WEIGHT if args.teacher_weight is None else args.teacher_weight
    return load_teachers(args.teacher, weight, args.teachers_write or 0) if args.teacher else None


def read_texts(
    args: argparse.Namespace, folding: "Folding", out: Path, known: str, say: Callable[[str], None]
) -> tuple["Text", "Text | None"]:
    """Return the text to train on, and that of --also-text.

    out: the folder of the run. known: the symbols of the model to begin with. say: takes lines for the user.
    """
    from .data import load_text

    # the ids of a large text go to the disk of --out: into that folder, or the nearest of its parents that exists
    workspace = next(folder for folder in (out, *out.absolute().parents) if os.path.isdir(folder))
    read = functools.partial(load_text, workspace=workspace, folding=folding, say=say)
    text = read(*args.text, known=known)
    also_text = read(*args.also_text, known=text.encoded.symbols) if args.also_text else None
    return text, also_text


def check_minutes(args: argparse.Namespace, processes: int) -> float | None:
    """Return the time for the run; None if --minutes is not given.

    Raises RequestError for one out of bounds, with an option that contradicts it, or in several processes.
    """
    if args.minutes is None:
        return None
    minutes = check_number("minutes", args.minutes, *MINUTES)
    if args.epochs is not None:
        raise RequestError("--minutes chooses the number of epochs: give --minutes or --epochs, not both")
    if args.init_from is not None:
        raise RequestError("--minutes chooses the size of a new model: with --init-from, give --epochs")
    if args.teachers_write is not None:
        raise RequestError("--minutes plans for the text alone: with --teachers-write, give --epochs")
    if processes > 1:
        raise RequestError(
            f"--minutes measures the speed of one process, and torchrun has started {processes}: give --epochs"
        )
    return minutes


def describe_end(out: Path, history: "HistoryRecord") -> str:
    """Return what a finished training leaves: a line, and one more for the loss on --also-text."""
    best, run = history["best"], history["run"]
    tested = f", test loss {best['test_loss']:.4f}" if "test_loss" in best else ""
    line = f"done: {out} holds the model of epoch {best['epoch']}, validation loss {best['val_loss']:.4f}{tested}"
    if "also_text_loss" in best and "also_text" in run:
        before, after = run["before"]["also_text_loss"], best["also_text_loss"]
        change = f"{abs(after - before):.4f} {'higher' if after > before else 'lower'} than before the training"
        line += f"\non {run['also_text']['name']}: validation loss {after:.4f}, {change}"
    return line


def publish(out: Path, repo: str, *, as_json: bool) -> None:
    """Publish the model of a finished training and print the commit's address, as an event if `as_json`.

    Raises HubError, with the command that publishes the model, if the Hub refuses or does not answer.
    """
    from charlm.publishing import push_folder

    try:
        address = push_folder(out, repo)
    except HubError as error:
        command = f"{program()} push {shlex.quote(folder_argument(out))} {shlex.quote(repo)}"
        raise type(error)(f"{error}; {out} holds the model: `{command}` publishes it") from None
    if as_json:
        print_json({"event": "published", "address": address})
    else:
        print(address)


def folder_argument(out: Path) -> str:
    """Return the path of a folder, written so that no command reads it as a repository."""
    return str(out) if out.is_absolute() else f".{os.sep}{out}"


def default_folder(texts: Sequence[str], cell: str) -> Path:
    """Return the folder for the model of a text, given as on the command line, where --out does not name one."""
    from .data import text_name

    return Path("runs", f"{text_name(texts) or 'text'}-{cell}")


def command_to_begin(args: argparse.Namespace) -> str:
    """Return this command line without --resume, for a message."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    return f"{args.prog} {shlex.join(arguments)}"


def next_steps(out: Path, prompt: str, is_published: bool) -> str:
    """Return the commands to use a trained model with, one a line. prompt: something for it to continue.

    A prompt that cannot be printed is left out: the command would be another one once it is copied from a terminal.
    """
    name = shlex.quote(folder_argument(out))
    asked = f" --prompt {shlex.quote(prompt)}" if prompt and prompt.isprintable() else ""
    steps = {"write": f"generate {name}{asked}", "show": f"serve --model {name}"}
    if not is_published:
        repo = f"USER/{out.resolve().name}"
        steps["publish"] = f"push {name} {repo if is_repo_id(repo) else 'USER/MODEL'}"
    return "\n".join(f"  {what + ':':9}{program()} {command}" for what, command in steps.items())


def exit_rank(status: int) -> NoReturn:
    """Exit with a status. One of several processes skips the interpreter's shutdown.

    torch has aborted some of them at their end (SIGABRT, rarely, with Gloo), and a finished training counted as failed.
    Every file is closed before.
    """
    if launch_or_default().world_size == 1:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(status)


def print_losses(losses: Mapping[str, float]) -> None:
    """Print each loss in nats and in bits."""
    from charlm.model.history import bits_per_char

    for name, loss in losses.items():
        print(f"{name:28} {loss:.4f} nats per character, {bits_per_char(loss):.4f} bits", flush=True)


@with_torch
def run_evaluate(args: argparse.Namespace) -> None:
    """Measure a model on a text."""
    from charlm.lm import CharLM

    from .data import check_texts, load_text
    from .protocols import PROTOCOLS, check_in_order, evaluate

    check_in_order(PROTOCOLS[args.protocol], {"--halves": args.halves, "--dynamic": args.dynamic})
    split = normal_split(args.split)
    check_split(args.protocol, split)
    folding = parse_folding(args)
    check_texts(args.text)  # before a model is downloaded
    lm = CharLM.from_pretrained(args.model, epoch=args.epoch)  # before the text, which may be long
    known = lm.vocab.symbols  # the rare ones among them were kept in the training, too
    text = load_text(*args.text, folding=folding, known=known, say=cli.say)
    run = lm.history["run"] if lm.history else {}
    asked = {"protocol": args.protocol, "split": {"shares": split}}
    asked |= {"lowercase": args.lowercase, "min_count": args.min_count}
    if (difference := explain_difference(run, text, asked)) is not None:
        cli.say(f"note: {difference}")
    printed: dict[str, float] = {}

    def before_dynamic(losses: dict[str, float], chars: int) -> None:
        if not args.json:
            print_losses(losses)
            printed.update(losses)
            seconds = chars * (DYNAMIC_SECONDS + DYNAMIC_SECONDS_PER_PARAMETER * lm.config.parameters)
            note = f"the model now learns from {chars:,} characters as it reads them: about {format_time(seconds)}"
            cli.say(f"note: {note}")

    losses, unknown_chars = evaluate(lm, text, args.protocol, split, args.halves, args.dynamic, before_dynamic)
    if unknown_chars:
        were = "was" if unknown_chars == 1 else "were"
        unknown = f"{counted(unknown_chars, 'character')} that the model does not know {were} left out"
        cli.say(f"note: {unknown}")
    if args.json:
        print(json.dumps(losses))
        return
    print_losses({name: loss for name, loss in losses.items() if name not in printed})


def run_push(args: argparse.Namespace) -> None:
    """Publish a model folder."""
    from charlm.publishing import push_folder

    check_folder(args.folder)
    options = {name: getattr(args, name) for name in ("private", "license", "language", "space")}
    print(push_folder(args.folder, args.repo, **options))


def run_deploy(args: argparse.Namespace) -> None:
    """Put the page on a Space."""
    from .deploy import deploy

    print(deploy(args.space, args.model, args.sdk, args.hardware))


def parse() -> argparse.Namespace:
    """Read the command line."""
    description = "Train, measure and publish character-level models."
    parser = cli.Parser(prog=f"python -m {__package__}", description=description, examples=EXAMPLES)
    parser.set_defaults(less_memory=cli.LESS_MEMORY, exit=sys.exit)
    add_commands(parser.add_subparsers(required=True, metavar="COMMAND"))
    return parser.parse_args()


def add_commands(commands: "argparse._SubParsersAction[cli.Parser]") -> None:
    """Add the commands of this package to a parser."""
    add_fit(commands)
    add_evaluate(commands)
    add_push(commands)
    add_deploy(commands)


def add_evaluate(commands: "argparse._SubParsersAction[cli.Parser]") -> None:
    """Add the command that measures a model."""
    command = commands.add_parser("evaluate", help="measure a model on a text", examples=EVALUATE_EXAMPLES)
    cli.add_model(command)
    add_text(command)
    command.add_argument(
        "--protocol",
        choices=PROTOCOL_NAMES,
        default="holdout",
        help="how the text is split and measured (default %(default)s)",
    )
    command.add_argument(
        "--split",
        default=DEFAULT_SPLIT,
        metavar="A,B",
        help="shares of its parts, as in training (default %(default)s)",
    )
    command.add_argument(
        "--halves",
        action="store_true",
        help="also measure each half of the text that validates: choose settings by the first, report the second",
    )
    command.add_argument(
        "--dynamic",
        action="store_true",
        help="also measure the model as it learns from what it has read (dynamic evaluation), with 2×512 units "
        "about 1 ms per character",
    )
    cli.add_json(command)
    command.set_defaults(run=run_evaluate)


def explain_difference(run: dict[str, Any], text: "Text", asked: dict[str, Any]) -> str | None:
    """Return why the losses of a model on a text differ from those of its record; None if they do not.

    run: of history.json; empty if the model has no record. asked: what `run` would have of how the text is read now.
    """
    if not run:
        return None
    if run.get("text_sha256") not in (None, text.encoded.sha256):
        return f"the model was trained on another text than {text.name}"
    recorded = describe_reading(run)
    if recorded == describe_reading(asked):
        return None
    how = f"with {recorded}" if recorded else "without these options"
    return f"the model's own record was measured {how}, so its losses differ from these"


def describe_reading(run: dict[str, Any]) -> str:
    """Return the options by which a run read and split its text, where they differ from the defaults.

    run: as in history.json.
    """
    protocol, least = run.get("protocol", "holdout"), run.get("min_count", 1)
    shares = recorded_split(run)
    measured = "" if protocol == "holdout" else f"--protocol {protocol}"
    split = "" if shares == DEFAULT_SPLIT else f"--split {shares}"
    lowercase = "--lowercase" if run.get("lowercase") else ""
    return " ".join(filter(None, (measured, split, lowercase, "" if least == 1 else f"--min-count {least}")))


def add_push(commands: "argparse._SubParsersAction[cli.Parser]") -> None:
    """Add the command that publishes a model."""
    command = commands.add_parser(
        "push",
        help="publish a model folder on the Hub",
        description="Publish a model folder on the Hub, in one commit. What the options change is changed in the card "
        "that is published; the folder stays as it is. What they leave out stays as an earlier push has published it.",
        examples=PUSH_EXAMPLES,
    )
    command.add_argument("folder", type=cli.folder, metavar="FOLDER", help="the model folder")
    command.add_argument("repo", metavar="USER/REPO", help="the repository, created if it is not there")
    command.add_argument(
        "--private", action="store_true", help="create the repository as private; refused if it is public"
    )
    command.add_argument(
        "--license", metavar="ID", help="the licence, as the Hub names it, for example mit; for the published card"
    )
    command.add_argument("--language", metavar="CODE", help="of the text, for example en; for the published card")
    command.add_argument(
        "--space",
        metavar="USER/SPACE",
        help="a Space that shows the model; the published card links to it and says how to install charlm from there",
    )
    command.set_defaults(run=run_push)


def add_deploy(commands: "argparse._SubParsersAction[cli.Parser]") -> None:
    """Add the command that puts the page on a Space."""
    command = commands.add_parser("deploy", help="put the page on a Space of the Hub", examples=DEPLOY_EXAMPLES)
    command.add_argument("space", metavar="USER/SPACE", help="the Space, created if it is not there")
    command.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="USER/REPO",
        help="a model to show; repeat the flag for more",
    )
    command.add_argument(
        "--sdk",
        choices=("gradio", "static"),
        default="gradio",
        help="kind of Space (default %(default)s); a static one is free for every account: its models run in the "
        "browsers of its visitors",
    )
    command.add_argument(
        "--hardware",
        metavar="NAME",
        help="what a Gradio Space runs on, as the Hub names it; default what the account has free",
    )
    command.set_defaults(run=run_deploy)


def add_fit(commands: "argparse._SubParsersAction[cli.Parser]") -> None:
    """Add the command that trains, with its options in groups."""
    command = commands.add_parser("fit", help="train a model on a text", examples=FIT_EXAMPLES)
    groups = {title: command.add_argument_group(title) for title in GROUPS}
    add_text(groups[TEXT])
    out_help = "where the model goes; one that is there is not overwritten (default runs/<text>-<cell>)"
    groups[TEXT].add_argument("--out", type=cli.folder, metavar="FOLDER", help=out_help)
    for spec in dataclasses.fields(TrainConfig):
        add_setting(groups[spec.metadata["group"]], spec)
    groups[MODEL].add_argument("--init-from", metavar="FOLDER_OR_REPO", help=INIT_FROM_HELP)
    groups[TEXT].add_argument("--also-text", nargs="+", action="extend", metavar="TEXT", help=ALSO_TEXT_HELP)
    groups[TRAINING].add_argument("--minutes", type=float, metavar="M", help=MINUTES_HELP)
    groups[TRAINING].add_argument("--teacher", action="append", metavar="FOLDER_OR_REPO", help=TEACHER_HELP)
    groups[TRAINING].add_argument("--teacher-weight", type=float, metavar="X", help=TEACHER_WEIGHT_HELP)
    groups[TRAINING].add_argument("--teachers-write", type=int, metavar="N", help=TEACHERS_WRITE_HELP)
    groups[TRAINING].add_argument("--resume", action="store_true", help=RESUME_HELP)
    groups[TEXT].add_argument("--keep-epochs", action="store_true", help=KEEP_EPOCHS_HELP)
    publishing = groups[PUBLISHING]
    publishing.add_argument("--push-to-hub", metavar="USER/REPO", help="publish the finished model there")
    publishing.add_argument("--json-lines", action="store_true", help="print the progress as JSON, an object a line")
    publishing.add_argument("--control", type=cli.file, metavar="FILE", help=CONTROL_HELP)
    publishing.add_argument(
        "--report-to",
        choices=TRACKERS,
        help="also store the progress for a tracker on this computer, if it is installed",
    )
    less_memory = "train with a lower --batch-size, --seq-length or --hidden-size"
    command.set_defaults(run=run_fit, exit=exit_rank, less_memory=less_memory, prog=command.prog.removesuffix(" fit"))


def add_text(parser: "cli.Parser | argparse._ArgumentGroup") -> None:
    """Add the options that name a text and say how it is read."""
    parser.add_argument(
        "--text",
        required=True,
        nargs="+",
        action="extend",
        metavar="TEXT",
        help="tinyshakespeare, a UTF-8 file, a folder of *.txt files, or hf://datasets/USER/NAME[@REVISION]/FILE; "
        "several are put together in their order",
    )
    parser.add_argument("--lowercase", action="store_true", help="read capitals as small letters")
    parser.add_argument(
        "--min-count",
        type=int,
        default=1,
        metavar="N",
        help="read symbols that occur less often as U+FFFD, the replacement character (default %(default)s)",
    )


def parse_folding(args: argparse.Namespace) -> "Folding":
    """Return which symbols of the text are replaced. Raises RequestError for a wrong --min-count."""
    min_count = check_whole("min_count", args.min_count, 1, MOST_COUNT)
    from .encode import Folding

    return Folding(args.lowercase, min_count)


def add_setting(group: "argparse._ArgumentGroup", spec: "dataclasses.Field[object]") -> None:
    """Add the flag of a field of TrainConfig, which checks its bounds."""
    kind = value_type(spec)
    group.add_argument(
        "--" + spec.name.replace("_", "-"),
        type=kind,
        choices=spec.metadata["choices"],
        default=None,  # not given: TrainConfig has the defaults, and a model to begin with has others
        metavar=spec.metadata["metavar"] or {int: "N", float: "X"}.get(kind),
        help=spec.metadata["help"] + describe_default(spec),
    )


def describe_default(spec: "dataclasses.Field[object]") -> str:
    """Return what the help says about the default of a setting, unless its own help text does."""
    if spec.default is not None:
        return f" (default {spec.default})"
    values = [(name, getattr(cell.recipe, spec.name, None)) for name, cell in CELLS.items()]
    described = ", ".join(f"{name} {value}" for name, value in values if value is not None)
    return f" (default by cell: {described})" if described else ""


def main() -> None:
    """Run the command of the command line and exit with its status."""
    with mute_other_ranks():
        args = parse()
    args.exit(cli.run(lambda: args.run(args), args.less_memory))


if __name__ == "__main__":
    main()
