from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from charlm.web.load_once import LoadOnce


def test_a_value_that_many_ask_for_at_the_same_time_is_made_once():
    cache, calls, has_begun = LoadOnce(2), [], Barrier(4)

    def make():
        calls.append(1)
        return object()

    def ask(_):
        has_begun.wait(60)
        return cache.get("one", make)

    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(ask, range(4)))
    assert len(calls) == 1 and all(value is got[0] for value in got)


def test_after_a_value_could_not_be_made_the_next_who_asks_tries_again():
    cache = LoadOnce(2)

    def fail():
        raise OSError("the disk cannot be read")

    with pytest.raises(OSError, match="the disk"):
        cache.get("one", fail)
    assert cache.size == 0
    assert cache.get("one", lambda: "value") == "value"
    assert cache.get("one", fail) == "value"


def test_who_waits_while_a_value_cannot_be_made_makes_it_and_it_is_kept():
    cache, has_begun, waits = LoadOnce(2), Event(), Event()

    class Key(str):
        """Tells when a second thread looks for it."""

        def __eq__(self, other):
            waits.set()
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    def fail():
        has_begun.set()
        assert waits.wait(60)
        raise OSError

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, Key("one"), fail)
        assert has_begun.wait(60)
        second = pool.submit(cache.get, Key("one"), lambda: "value")
        assert isinstance(first.exception(60), OSError) and second.result(60) == "value"
    assert cache.get("one", lambda: "other") == "value" and cache.size == 1


def test_values_that_were_asked_for_last_are_kept():
    cache, calls = LoadOnce(2), []
    for name in ("one", "two", "one", "three", "one", "two"):
        cache.get(name, lambda name=name: calls.append(name) or name)
    assert calls == ["one", "two", "three", "two"]


def test_values_are_kept_until_their_sizes_add_up_to_more_than_allowed():
    cache, calls = LoadOnce(5, len), []
    for name in ("aa", "bbb", "aa", "cc", "aa", "bbb", "dddddd", "aa"):
        cache.get(name, lambda name=name: calls.append(name) or name)
        assert cache.size <= 5
    assert calls == ["aa", "bbb", "cc", "bbb", "dddddd", "aa"]


def test_a_value_that_is_being_made_is_not_dropped_to_make_room():
    """Or who asks for it next would make it a second time."""
    cache, has_begun, may_end, calls = LoadOnce(1), Event(), Event(), []

    def make():
        calls.append(1)
        has_begun.set()
        assert may_end.wait(60)
        return "slow"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "slow", make)
        assert has_begun.wait(60)
        for name in ("one", "two"):
            cache.get(name, lambda: "fast")
        second = pool.submit(cache.get, "slow", make)
        may_end.set()
        assert first.result(60) == second.result(60) == "slow"
    assert len(calls) == 1


def test_the_values_of_keys_that_are_over_are_dropped():
    cache = LoadOnce(10)
    for number in range(4):
        cache.get(number, lambda: "first")
    cache.drop(lambda number: number % 2 == 0)
    assert [cache.get(number, lambda: "second") for number in range(4)] == ["second", "first", "second", "first"]
    assert cache.size == 4
