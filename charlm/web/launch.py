"""Serving the page: the options of `python app.py` and `charlm serve`, which models are shown, and the start."""

import argparse
import gc
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from charlm.browser.lesson import chosen_lesson
from charlm.device import DEVICES
from charlm.errors import RequestError
from charlm.installation import bundled_models, optional_packages
from charlm.web import environment
from charlm.web.gradio_import import skip_stubs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the page. Their defaults come from the environment, which is how a Space is set up."""
    parser.add_argument(
        "--model",
        action="append",
        metavar="FOLDER_OR_REPO",
        help="a model to serve, again for each further one (CHARLM_MODELS, comma-separated, or all of weights/)",
    )
    # a variable that is empty means none
    host, at, path = (os.environ.get(f"GRADIO_{name}") for name in ("SERVER_NAME", "SERVER_PORT", "ROOT_PATH"))
    parser.add_argument("--host", default=host or "127.0.0.1", help="(%(default)s)")
    parser.add_argument("--port", type=port, default=at or "7860", help="(%(default)s)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="auto takes CUDA where it writes faster")
    parser.add_argument(
        "--root-path",
        default=path or "",
        metavar="PATH",
        help="where a proxy offers the page: a path such as /demo, or the whole address",
    )
    parser.add_argument("--share", action="store_true", help="open a public link through Gradio's tunnel, too")


def port(text: str) -> int:
    """Return the number of a port. Raises argparse.ArgumentTypeError if it is none."""
    if not text.strip().isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 1 to 65535")
    return int(text)


def read_root_path(text: str) -> str:
    """Return a root path in the form `/demo`, or an address in the form `https://host/demo`; "" if it is only slashes.

    Raises RequestError if it is neither a path nor an address.
    """
    root_path = text.strip().rstrip("/")
    if root_path and not re.fullmatch(r"(https?://[^/?#\s]+)?(/[\w.~%-]+)*", root_path, re.ASCII):
        root_path = f"/{root_path}"
        if not re.fullmatch(r"(/[\w.~%-]+)+", root_path, re.ASCII):
            raise RequestError(f"the root path is {text!r}; give a path such as /demo, or the page's whole address")
    return root_path


def models_to_show(args: argparse.Namespace) -> list[str]:
    """Return the models of --model, else of the variable CHARLM_MODELS. None of either stands for the bundled ones."""
    return args.model or [name.strip() for name in os.environ.get("CHARLM_MODELS", "").split(",") if name.strip()]


def launch(models: Sequence[str], args: argparse.Namespace) -> None:
    """Load the models and serve the page until the process is ended.

    Raises MissingPackageError without the packages of the extra `app`, RequestError for a lesson that cannot be read
    and for a wrong root path.
    """
    lesson, root_path = chosen_lesson(), read_root_path(args.root_path)  # before a model is downloaded
    gc.disable()  # until the page is built, see below
    environment.prepare()
    skip_stubs()
    from charlm.web.models import load_registry, retry_hub

    with ThreadPoolExecutor(1) as thread:  # models are read while Gradio is imported, which takes two seconds
        # errors about --model are read in the terminal; on a Space, which sets CHARLM_MODELS, nobody reads them
        required = bool(args.model)
        loading = thread.submit(load_registry, models, bundled_models(), args.device, required=required)
        with optional_packages():
            from charlm.web import server
            from charlm.web.page import build_page
            from charlm.web.theme import make_theme

        registry = loading.result()
    for problem in registry.problems:
        print(f"warning: {problem}", file=sys.stderr)
    for model in registry:
        print(f"{model.name}: {model}", file=sys.stderr)
    retry_hub(registry, args.device)
    page = build_page(registry, args.device, lesson)
    # what is loaded by now is kept until the end; searching it for garbage took a fifth of the time of the start
    gc.freeze()
    gc.enable()
    server.serve(page, registry, make_theme(), args.host, args.port, root_path=root_path, share=args.share)
