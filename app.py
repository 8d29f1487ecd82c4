"""The web demo. At home: `python app.py`; on a Hugging Face Space it is started the same way."""

import argparse
import contextlib
import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from charlm import cli
from charlm.device import DEVICES
from charlm.web import environment

BUNDLED = Path(__file__).parent / "weights"


def parse() -> argparse.Namespace:
    """Read the command line. Its defaults come from the environment, which is how a Space is set up."""
    parser = cli.Parser(prog="python app.py", description="Show what character-level language models write.")
    parser.add_argument(
        "--model",
        action="append",
        metavar="FOLDER_OR_REPO",
        help="a model to serve, again for each further one (CHARLM_MODELS, comma-separated, or all of weights/)",
    )
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="(%(default)s)")
    parser.add_argument("--port", type=port, default=os.environ.get("GRADIO_SERVER_PORT", "7860"), help="(%(default)s)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="auto takes CUDA where it writes faster")
    parser.add_argument(
        "--root-path",
        default=os.environ.get("GRADIO_ROOT_PATH", ""),
        metavar="PATH",
        help="where a proxy offers the page: a path such as /demo, or the whole address",
    )
    parser.add_argument("--share", action="store_true", help="open a public link through Gradio's tunnel, too")
    return parser.parse_args()


def port(text: str) -> int:
    """Return the number of a port. Raises argparse.ArgumentTypeError if it is none."""
    if not text.strip().isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 1 to 65535")
    return int(text)


def serve(args: argparse.Namespace) -> None:
    """Load the models and serve the page."""
    from charlm.web.models import load_registry, retry_hub

    names = args.model or [name.strip() for name in os.environ.get("CHARLM_MODELS", "").split(",") if name.strip()]
    with ThreadPoolExecutor(1) as thread:  # models are read while Gradio is imported, which takes two seconds
        loading = thread.submit(load_registry, names, BUNDLED, args.device)
        from charlm.web import server
        from charlm.web.guard import read_root_path
        from charlm.web.page import THEME, build_page

        root_path = read_root_path(args.root_path)
        registry = loading.result()
    for problem in registry.problems:
        print(f"warning: {problem}", file=sys.stderr)
    for model in registry:
        print(f"{model.name}: {model}", file=sys.stderr)
    retry_hub(registry, args.device)
    page = build_page(registry, args.device)
    # what is there by now stays: looking for garbage in it again and again took a fifth of the start
    gc.freeze()
    gc.enable()
    server.serve(page, THEME, args.host, args.port, root_path=root_path, share=args.share)


def main() -> None:
    """Do what the command line asks for."""
    gc.disable()  # see `serve`
    environment.prepare()
    with contextlib.suppress(ImportError):
        # a Space on ZeroGPU refuses an app that marks no function; the models run on the CPU there, too
        import spaces

        spaces.GPU(lambda: None)
    serve(parse())


if __name__ == "__main__":
    sys.exit(cli.run(main))
