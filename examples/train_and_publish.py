# /// script
# requires-python = ">=3.11"
# dependencies = ["charlm-rnn[train]"]
#
# [tool.uv.sources]
# charlm-rnn = { path = "..", editable = true }
# ///
"""Train a model on a text of the Hub, publish it, pull it again and let it write.

export HF_TOKEN=...  # a token with write permission, or log in once with `hf auth login`
uv run examples/train_and_publish.py hf://datasets/ada/poems/poems.txt ada/poems-lstm --hidden-size 256

uv installs what the lines above name. charlm-rnn is not on the Python Package Index yet, so it comes from the clone in
which this file lies; where there is no clone, put { git = "https://..." } there, the address of a repository that holds
charlm, such as a Space made with `deploy`.
"""

import argparse
import sys
from pathlib import Path

from charlm import CharLM
from charlm.__main__ import main as charlm

BEGUN = ("checkpoint.safetensors", "history.json")  # what an unfinished and a finished training leave in --out

parser = argparse.ArgumentParser(
    usage="%(prog)s [-h] [--out FOLDER] TEXT USER/REPO [OPTION OF charlm fit]...",
    description="Train a model on a text of the Hub, publish it, pull it again and let it write.",
    epilog="Every further option is one of `charlm fit`, such as --cell gru, --hidden-size 256 or --init-from MODEL. "
    "Where --out holds the same training already, unfinished or not yet published, it goes on.",
)
parser.add_argument(
    "text", metavar="TEXT", help="hf://datasets/USER/NAME/FILE, or anything else that --text of `charlm fit` takes"
)
parser.add_argument("repo", metavar="USER/REPO", help="where the model goes on the Hub; needs HF_TOKEN or a login")
parser.add_argument("--out", type=Path, metavar="FOLDER", help="the folder of the training (default runs/REPO)")
args, options = parser.parse_known_args()

out = args.out or Path("runs", args.repo.rpartition("/")[2])
if any((out / name).exists() for name in BEGUN):
    options.append("--resume")
sys.argv = ["charlm", "fit", "--text", args.text, "--out", str(out), "--push-to-hub", args.repo, *options]
try:
    charlm()  # in this process, so that a signal that ends the job reaches the training, which saves a checkpoint
except SystemExit as end:
    if end.code:
        raise

print(CharLM.from_pretrained(args.repo).generate(length=300, temperature=0.8, seed=7))
