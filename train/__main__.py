"""The commands `python -m train fit`, `evaluate`, `push` and `deploy`.

Each imports what it needs when it runs: torch takes seconds, and `--help`, `push` and `deploy` do without it.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from charlm import cli
from charlm.errors import RequestError

from .config import PROTOCOL_NAMES, TrainConfig, value_type
from .report import JsonReport, Report, is_main_process, mute_other_ranks


def in_each_process(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Make a command one that torchrun may start several times: one process of each machine prints."""

    @functools.wraps(command)
    def run(args: argparse.Namespace) -> None:
        with mute_other_ranks():
            try:
                os.getcwd()
            except OSError:  # torch would end the process
                raise RequestError("the current folder was deleted; go to another one first") from None
            command(args)

    return run


@in_each_process
def run_fit(args: argparse.Namespace) -> None:
    """Train a model; publish it if that was asked for."""
    from .data import load_text
    from .loop import fit

    config = TrainConfig(**{spec.name: getattr(args, spec.name) for spec in dataclasses.fields(TrainConfig)})
    if args.push_to_hub is not None:
        from charlm.hub import check_can_push

        check_can_push(args.push_to_hub)  # a missing token should not come to light after hours of training
    report = JsonReport() if args.json_lines and is_main_process() else Report()
    # the ids of a large text go to the disk of --out: into that folder, or the nearest of its parents that exists
    workspace = next(folder for folder in (args.out, *args.out.absolute().parents) if os.path.isdir(folder))
    best = fit(load_text(args.text, workspace), args.out, config, report, resume=args.resume)["best"]
    report.say(f"done: {args.out} holds the model of epoch {best['epoch']}, validation loss {best['val_loss']:.4f}")
    if args.push_to_hub is not None and is_main_process():
        from charlm.hub import push_folder

        print(push_folder(args.out, args.push_to_hub))


@in_each_process
def run_evaluate(args: argparse.Namespace) -> None:
    """Measure a model on a text."""
    from charlm.lm import CharLM
    from charlm.model.history import bits_per_char

    from .data import load_text
    from .protocols import evaluate

    text = load_text(args.text)
    lm = CharLM.from_pretrained(args.model)
    trained_on = lm.history["run"].get("text_sha256") if lm.history else None
    if trained_on not in (None, text.encoded.sha256):
        print(f"note: the model was trained on another text than {text.name}", file=sys.stderr)
    losses, unknown_chars = evaluate(lm, text, args.protocol)
    if unknown_chars:
        print(f"note: {unknown_chars:,} characters that the model does not know were left out", file=sys.stderr)
    if args.json:
        print(json.dumps(losses))
        return
    for name, loss in losses.items():
        print(f"{name:18} {loss:.4f} nats per character, {bits_per_char(loss):.4f} bits")


@in_each_process
def run_push(args: argparse.Namespace) -> None:
    """Publish a model folder."""
    from charlm.hub import push_folder

    options = {name: getattr(args, name) for name in ("private", "license", "language", "space")}
    print(push_folder(args.folder, args.repo, **options))


@in_each_process
def run_deploy(args: argparse.Namespace) -> None:
    """Put the page on a Space."""
    from .deploy import deploy

    print(deploy(args.space, args.model, args.sdk, args.hardware))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = cli.Parser(prog="python -m train", description="Train, measure and publish character-level models.")
    parser.set_defaults(less_memory=cli.LESS_MEMORY)
    add_commands(parser.add_subparsers(required=True, metavar="COMMAND"))
    return parser.parse_args()


def add_commands(commands: "argparse._SubParsersAction[cli.Parser]") -> None:
    """Add the commands of this package to a parser."""
    command = commands.add_parser("fit", help="train a model on a text")
    command.add_argument("--text", required=True, metavar="NAME_OR_FILE", help="tinyshakespeare, or a UTF-8 file")
    command.add_argument("--out", required=True, type=cli.folder, metavar="FOLDER", help="where the model goes")
    for spec in dataclasses.fields(TrainConfig):
        add_setting(command, spec)
    command.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    command.add_argument("--push-to-hub", metavar="USER/REPO", help="publish the finished model there")
    command.add_argument("--json-lines", action="store_true", help="print the progress as JSON, an object a line")
    less_memory = "train with a lower --batch-size, --seq-length or --hidden-size"
    command.set_defaults(run=run_fit, less_memory=less_memory)

    command = commands.add_parser("evaluate", help="measure a model on a text")
    command.add_argument("model", metavar="FOLDER_OR_REPO", help="a model folder, or USER/NAME on the Hub")
    command.add_argument("--text", required=True, metavar="NAME_OR_FILE", help="tinyshakespeare, or a UTF-8 file")
    command.add_argument(
        "--protocol", choices=PROTOCOL_NAMES, default="holdout", help="how the text is split and measured"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    command.set_defaults(run=run_evaluate)

    command = commands.add_parser(
        "push",
        help="publish a model folder on the Hub",
        description="Publish a model folder on the Hub, in one commit. What the options change is changed in the card "
        "that is published; the folder stays as it is.",
    )
    command.add_argument("folder", type=cli.folder, metavar="FOLDER", help="the model folder")
    command.add_argument("repo", metavar="USER/REPO", help="the repository, created if it is not there")
    command.add_argument("--private", action="store_true", help="create the repository as private")
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

    command = commands.add_parser("deploy", help="put the page on a Space of the Hub")
    command.add_argument("space", metavar="USER/SPACE", help="the Space, created if it is not there")
    command.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="USER/REPO",
        help="a model to show; repeat the flag for more",
    )
    command.add_argument("--sdk", choices=("gradio", "static"), default="gradio", help="kind of Space (%(default)s)")
    command.add_argument(
        "--hardware", metavar="NAME", help="what it runs on, as the Hub names it; default what the account has free"
    )
    command.set_defaults(run=run_deploy)


def add_setting(command: argparse.ArgumentParser, spec: "dataclasses.Field[object]") -> None:
    """Add the flag of a field of TrainConfig, which checks its bounds."""
    default = "" if spec.default in (None, dataclasses.MISSING) else f" ({spec.default})"
    command.add_argument(
        "--" + spec.name.replace("_", "-"),
        type=value_type(spec),
        choices=spec.metadata["choices"],
        required=spec.default is dataclasses.MISSING,
        default=None if spec.default is dataclasses.MISSING else spec.default,
        help=spec.metadata["help"] + default,
    )


def main() -> NoReturn:
    """Run the command of the command line and exit with its status."""
    with mute_other_ranks():
        args = parse()
    sys.exit(cli.run(lambda: args.run(args), args.less_memory))


if __name__ == "__main__":
    main()
