"""Fixtures of the tests of training."""

import pytest
from commands import end_by_exception


@pytest.fixture(autouse=True)
def _no_rank_ends_pytest(monkeypatch):
    end_by_exception(monkeypatch)


@pytest.fixture
def no_pictures(monkeypatch):
    """Draw no curves: that takes longer than a tiny epoch, and is tested elsewhere."""
    monkeypatch.setattr("charlm.model.card.draw_curves", lambda history, title: b"picture")
