"""What holds for every test of training."""

import pytest
from commands import end_by_exception


@pytest.fixture(autouse=True)
def _no_rank_ends_pytest(monkeypatch):
    end_by_exception(monkeypatch)
