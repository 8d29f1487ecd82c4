"""Commands run in this process, which costs no start of Python and torch."""

import sys

import pytest

from train.__main__ import main


def end_by_exception(monkeypatch):
    """Let `fit` end by SystemExit also where WORLD_SIZE says that it is one of several processes.

    There it ends its process at once, by os._exit, and that would be the process of all tests.
    """
    monkeypatch.setattr("train.__main__.exit_rank", sys.exit)


def run_train(monkeypatch, *arguments):
    """Run `python -m train` with these arguments; it must end with status 0."""
    end_by_exception(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
