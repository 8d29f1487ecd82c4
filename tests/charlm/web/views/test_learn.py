"""The slider of the epochs."""

import gradio as gr
import pytest

from charlm.errors import RequestError
from charlm.web.views.learn import _limit_epoch


def test_an_epoch_that_there_is_is_not_sent_back():
    assert _limit_epoch(3, 5) == _limit_epoch(5, 5) == gr.update(maximum=5)
    assert _limit_epoch(6, 5) == gr.update(maximum=5, value=5)
    assert _limit_epoch(2, 1) == gr.update(maximum=2, value=1)  # a slider needs two ends
    assert _limit_epoch(3, 0) == gr.update(maximum=2, value=1)  # of no model
    with pytest.raises(RequestError):
        _limit_epoch("3", 5)
