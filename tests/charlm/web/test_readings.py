import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from models import make_lm

from charlm.web.readings import Readings


class CountingModel:
    """Counts how often it inspects."""

    def __init__(self):
        self._lm, self.asked = make_lm(), []

    def inspect(self, text):
        self.asked.append(text)
        return self._lm.inspect(text)


def test_a_text_is_read_once_however_many_ask_at_the_same_time():
    readings, lm = Readings(), CountingModel()
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda _: readings.read(lm, "abc"), range(20)))
    assert lm.asked == ["abc"]
    assert all(one is seen[0] for one in seen)
    np.testing.assert_array_equal(seen[0].hidden, make_lm().inspect("abc").hidden)


def test_what_was_asked_for_longest_ago_is_read_again_when_there_is_no_more_room():
    lm, size = CountingModel(), Readings()
    size.read(lm, "abc")
    readings = Readings(most_bytes=2 * size.bytes)
    lm.asked.clear()
    for text in ("abc", "bca", "abc", "cab", "abc", "bca"):
        readings.read(lm, text)
        assert readings.bytes == min(len(lm.asked), 2) * size.bytes
    assert lm.asked == ["abc", "bca", "cab", "bca"]


def test_a_reading_that_is_too_large_to_be_kept_is_returned():
    readings = Readings(most_bytes=10)
    assert readings.read(make_lm(), "abc").text == "abc"
    assert readings.bytes == 0


def test_the_readings_of_a_model_that_is_gone_are_gone():
    readings, lm = Readings(), make_lm()
    readings.read(lm, "abc")
    del lm
    gc.collect()
    alone, other = Readings(), make_lm("rnn")
    for each in (alone, readings):
        each.read(other, "ab")
    assert readings.bytes == alone.bytes


def test_each_model_reads_a_text_itself():
    readings, one, other = Readings(), make_lm(), make_lm("rnn")
    readings.read(one, "abc")
    np.testing.assert_array_equal(readings.read(other, "abc").hidden, other.inspect("abc").hidden)


def test_of_a_text_that_could_not_be_read_nothing_is_kept_and_it_is_read_anew():
    class FailingOnce(CountingModel):
        def inspect(self, text):
            seen = super().inspect(text)
            if len(self.asked) == 1:
                raise MemoryError
            return seen

    readings, lm = Readings(), FailingOnce()
    with pytest.raises(MemoryError):
        readings.read(lm, "abc")
    assert readings.bytes == 0
    assert readings.read(lm, "abc").text == "abc"
    assert lm.asked == ["abc", "abc"]
