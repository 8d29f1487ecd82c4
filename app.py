"""The web demo. At home: `python app.py`; on a Hugging Face Space it is started the same way."""

import argparse
import contextlib
import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

gc.disable()  # what is imported is here to stay: to look for garbage in it again and again takes a fifth of the start
# with analytics on, a silent network keeps the process from exiting
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# writing is one character after another: more threads for each only stand in the way of the other visitors
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from charlm import cli
from charlm.device import DEVICES
from charlm.errors import RequestError
from charlm.web.models import load_registry, retry_hub

with contextlib.suppress(ImportError):
    # a Space on ZeroGPU refuses an app that marks no function; there too the models run on the CPU
    import spaces

    spaces.GPU(lambda: None)

BUNDLED = Path(__file__).parent / "weights"


def parse() -> argparse.Namespace:
    """Read the command line; what it leaves open comes from the environment, which is how a Space is set up."""
    parser = cli.Parser(prog="python app.py", description="Show what character-level language models write.")
    parser.add_argument(
        "--model",
        action="append",
        metavar="FOLDER_OR_REPO",
        help="a model to serve, again for each further one (CHARLM_MODELS, comma-separated, or all of weights/)",
    )
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="(%(default)s)")
    parser.add_argument("--port", type=int, default=os.environ.get("GRADIO_SERVER_PORT", "7860"), help="(%(default)s)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="auto takes CUDA where it writes faster")
    return parser.parse_args()


def serve(args: argparse.Namespace) -> None:
    """Load the models and serve the page."""
    named = [name.strip() for name in os.environ.get("CHARLM_MODELS", "").split(",")]
    with ThreadPoolExecutor(1) as thread:  # reading models and importing Gradio, which takes two seconds
        loading = thread.submit(load_registry, args.model or [name for name in named if name], BUNDLED, args.device)
        from charlm.web import server
        from charlm.web.page import THEME, build_page

        registry = loading.result()
    for problem in registry.problems:
        print(f"warning: {problem}", file=sys.stderr)
    for model in registry:
        print(f"{model.name}: {model}", file=sys.stderr)
    retry_hub(registry, args.device)
    page = build_page(registry, args.device)
    gc.freeze()
    gc.enable()
    try:
        server.serve(page, THEME, args.host, args.port)
    except OSError as error:
        raise RequestError(f"cannot serve on {args.host}:{args.port} ({error}); choose another --port") from None


if __name__ == "__main__":
    arguments = parse()
    sys.exit(cli.run(lambda: serve(arguments)))
