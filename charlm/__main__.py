"""The command `charlm`, which is also `python -m charlm`: what a model does, and all that trains, publishes and shows.

The commands of the training package come from its own `__main__`, the options of the page from `charlm.web.launch`.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

from charlm import __version__, cli
from charlm.device import DEVICES
from charlm.errors import RequestError
from charlm.inference import DEFAULT_LENGTH, DEFAULT_TEMPERATURE
from charlm.inference.compiled import describe_engine
from charlm.installation import import_training
from charlm.web.launch import add_arguments, launch, models_to_show

if TYPE_CHECKING:
    from charlm.vocab import Ids

EXAMPLES = (
    ("train a model on a text of yours; it goes to runs/my-text-lstm", "fit --text my-text.txt"),
    ("let it write", "generate ./runs/my-text-lstm --prompt Once"),
    ("show it on a web page", "serve --model ./runs/my-text-lstm"),
)
GENERATE_EXAMPLES = (
    ("a model that was trained here", "./runs/my-text-lstm --prompt Once --length 300"),
    ("a model on the Hub", "USER/my-text --temperature 0.5 --seed 7"),
    ("three texts, each ended before its first full stop", "./runs/my-text-lstm --num-samples 3 --stop ."),
)
TEXT_OPTIONS = ("--prompt", "--stop")  # whose values may begin with a dash
EXPORT_EXAMPLES = (
    ("one model in a file to send, or to put on a web server", "./runs/my-text-lstm --html page.html"),
    ("two to compare, one of them from the Hub", "./runs/my-text-lstm USER/my-text --html page.html"),
)
READ_EXAMPLES = (("a model and a text", "./runs/my-text-lstm another-text.txt"),)


def generate(args: argparse.Namespace) -> None:
    """Write a text to standard output as it is generated, or several once they are complete.

    On a terminal each follows its prompt, and control characters are escaped: a model that somebody else made could
    write those that change the terminal or what stands in it.
    """
    from charlm.checks import check_whole  # here, because --help and a wrong command line need no numpy
    from charlm.inference.sampling import SamplingSettings
    from charlm.inference.streams import check_stop
    from charlm.lm import CharLM
    from charlm.messages import escape_controls
    from charlm.text import read_text

    # before a model is downloaded
    prompt = args.prompt or "" if args.prompt_file is None else read_text(args.prompt_file)
    check_whole("length", args.length, 0)
    check_whole("num_samples", args.num_samples, 1)
    SamplingSettings(args.temperature, args.top_k, args.top_p, args.seed)
    check_stop(args.stop)
    lm = CharLM.from_pretrained(args.model, epoch=args.epoch, device=args.device)
    settings = args.length, args.temperature, args.top_k, args.top_p, args.seed
    if args.json:
        for sample in lm.generate_many(prompt, args.num_samples, *settings, stop=args.stop):
            print(json.dumps(asdict(sample)))
        return
    shown, escape = (escape_controls(prompt), escape_controls) if sys.stdout.isatty() else ("", str)
    if args.num_samples != 1:
        samples = lm.generate_many(prompt, args.num_samples, *settings, stop=args.stop)
        for number, sample in enumerate(samples, 1):
            bits = "" if sample.bits_per_char is None else f", {sample.bits_per_char:.3f} bits per character"
            print(f"--- sample {number} of {len(samples)}, seed {sample.seed}{bits} ---\n{shown}{escape(sample.text)}")
        return
    pieces = lm.stream(prompt, *settings, stop=args.stop)
    print(shown, end="", flush=True)
    for piece in pieces:
        print(escape(piece), end="", flush=True)
    print()


def score(args: argparse.Namespace) -> None:
    """Print how well the model predicts a text."""
    from charlm.lm import CharLM
    from charlm.messages import counted
    from charlm.model.history import bits_per_char, perplexity
    from charlm.text import stream_text

    pieces = stream_text(args.file)
    first = next(pieces, "")  # before a model is downloaded: the file may not be there, or be no text
    lm = CharLM.from_pretrained(args.model, epoch=args.epoch)
    known, skipped, total = 0, 0, 0.0

    def read() -> Iterator["Ids"]:
        nonlocal known, skipped
        for piece in chain([first], pieces):
            ids, unknown = lm.vocab.encode_known(piece)
            known, skipped = known + len(ids), skipped + len(unknown)
            yield ids

    for surprisals in lm.score_ids(read()):
        total += float(surprisals.sum())
    if known < 2:
        few = counted(known, "character")
        raise RequestError(f"{args.file} has {few} that the model knows; scoring needs at least 2")
    chars = known - 1  # nothing predicts the first
    nats = total / chars
    figures = {
        "chars": chars,
        "nats_per_char": nats,
        "bits_per_char": bits_per_char(nats),
        "perplexity": perplexity(nats),
        "skipped": skipped,
    }
    if args.json:
        print(json.dumps(figures))
        return
    print(f"{nats:.4f} nats per character, {figures['bits_per_char']:.4f} bits, perplexity {figures['perplexity']:.3f}")
    print(f"{counted(chars, 'character')} scored, {skipped:,} skipped that the model does not know")


def units(args: argparse.Namespace) -> None:
    """Print which units of the model track visible features of a text."""
    from charlm.analysis.units import check_length
    from charlm.checks import check_whole
    from charlm.lm import CharLM
    from charlm.text import read_text

    # before a model is downloaded
    text = read_text(args.file)
    check_length(len(text))
    check_whole("best", args.best, 1)
    lm = CharLM.from_pretrained(args.model, epoch=args.epoch, device="cpu")  # on which units are always found
    known, _ = lm.vocab.keep_known(text)
    found = lm.find_units(known, args.best)
    if args.json:
        print(json.dumps({feature: [asdict(unit) for unit in tracking] for feature, tracking in found.items()}))
        return
    for feature, tracking in found.items():
        described = (f"{unit.state} {unit.layer}:{unit.unit} {unit.score:.3f}" for unit in tracking)
        print(f"{feature:<28}" + "   ".join(f"{each:<20}" for each in described).rstrip())


def export(args: argparse.Namespace) -> None:
    """Write one page with models in it, and print what it holds."""
    from charlm.browser.export import export as export_page

    models = export_page(args.models, args.html)
    size = args.html.stat().st_size
    print(f"{args.html}: {size / 1e6:,.1f} MB with {', '.join(model.name for model in models)}")
    print("It opens in any browser, from the disk or from a web server, and needs nothing else.")


def show_page(args: argparse.Namespace) -> None:
    """Serve the page."""
    launch(models_to_show(args), args)


class ShowVersion(argparse.Action):
    """Prints the version and what does the arithmetic here. The first time, the kernels are compiled for it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:  # noqa: D102
        parser.exit(cli.run(lambda: print(f"charlm {__version__}, {describe_engine()}")))


def parse(prog: str) -> argparse.Namespace:
    """Read the command line. prog: how the command was called."""
    description = "Train, measure, publish and show character-level language models."
    parser = cli.Parser(prog=prog, description=description, examples=EXAMPLES)
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version and what computes here")
    parser.set_defaults(less_memory=cli.LESS_MEMORY, exit=sys.exit)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    import_training("__main__").add_commands(commands)
    add_commands(commands)
    args = parser.parse_args(_attach_texts(sys.argv[1:]))
    # argparse before Python 3.13 reads the text "--" as []
    if getattr(args, "prompt", "") == []:
        args.prompt = "--"
    if getattr(args, "stop", None):
        args.stop = ["--" if stop == [] else stop for stop in args.stop]
    return args


def add_commands(commands: "argparse._SubParsersAction[cli.Parser]") -> None:
    """Add the commands of this package to a parser."""
    command = commands.add_parser("generate", help="write text", examples=GENERATE_EXAMPLES)
    cli.add_model(command)
    prompt = command.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", help="text to continue")  # None if it is left out: "" may be given, too
    prompt.add_argument(
        "--prompt-file", type=cli.file, metavar="FILE", help="a UTF-8 file with that text, its last line break included"
    )
    command.add_argument("--length", type=int, default=DEFAULT_LENGTH, help="new characters (%(default)s)")
    command.add_argument(
        "--temperature",
        type=float,
        default=DEFAULT_TEMPERATURE,
        help="0 always takes the likeliest symbol (default %(default)s)",
    )
    command.add_argument("--top-k", type=int, default=0, help="draw from the k likeliest symbols; 0 is off")
    command.add_argument("--top-p", type=float, default=1.0, help="draw from the likeliest that reach p; 1 is off")
    command.add_argument("--seed", type=int, help="the same seed gives the same text")
    command.add_argument(
        "--num-samples", type=int, default=1, metavar="N", help="texts, with the seeds SEED, SEED + 1, … (%(default)s)"
    )
    command.add_argument(
        "--stop", action="append", metavar="STRING", help="end before this string; again for each further one"
    )
    command.add_argument("--device", choices=DEVICES, default="auto", help="auto takes CUDA where it writes faster")
    command.add_argument(
        "--json", action="store_true", help="print for each text one JSON object: text, seed, bits_per_char"
    )
    command.set_defaults(run=generate)

    command = commands.add_parser("score", help="tell how well a model predicts a text", examples=READ_EXAMPLES)
    cli.add_model(command)
    command.add_argument("file", type=cli.file, metavar="FILE", help="a UTF-8 text file")
    cli.add_json(command)
    command.set_defaults(run=score)

    units_help = "find the units that track quotes, lines, names and so on"
    command = commands.add_parser("units", help=units_help, examples=READ_EXAMPLES)
    cli.add_model(command)
    command.add_argument(
        "file", type=cli.file, metavar="FILE", help="a UTF-8 text file that the model was not trained on"
    )
    command.add_argument("--best", type=int, default=3, help="how many units of each (%(default)s)")
    cli.add_json(command)
    command.set_defaults(run=units)

    export_help = "put models into one web page that needs no server"
    command = commands.add_parser("export", help=export_help, examples=EXPORT_EXAMPLES)
    command.add_argument(
        "models",
        nargs="+",
        metavar="FOLDER_OR_REPO",
        help="model folders, or USER/NAME on the Hub; the first two are shown",
    )
    command.add_argument("--html", required=True, type=cli.file, metavar="FILE", help="the page to write")
    command.set_defaults(run=export)

    command = commands.add_parser("serve", help="serve the page that shows models")
    add_arguments(command)
    command.set_defaults(run=show_page)


def _attach_texts(arguments: list[str]) -> list[str]:
    """Write `--prompt TEXT` as `--prompt=TEXT`: else argparse takes a text that begins with a dash for an option."""
    attached = list[str]()
    for argument in arguments:
        if attached and attached[-1] in TEXT_OPTIONS and "--" not in attached:
            attached[-1] += f"={argument}"
        else:
            attached.append(argument)
    return attached


def main(prog: str = "charlm") -> None:
    """Run the command of the command line and exit with its status. prog: how it was called."""
    args = parse(prog)
    args.exit(cli.run(lambda: args.run(args), args.less_memory))


if __name__ == "__main__":
    main("python -m charlm")
