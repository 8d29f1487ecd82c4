"""Commands run in this process, which costs no start of Python and torch."""

import sys

import pytest

from train.__main__ import main


def run_train(monkeypatch, *arguments):
    """Run `python -m train` with these arguments; it must end with status 0."""
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
