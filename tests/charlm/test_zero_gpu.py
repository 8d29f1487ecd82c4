import sys
import threading
from contextvars import ContextVar
from types import SimpleNamespace

import pytest

from charlm.errors import RequestError
from charlm.zero_gpu import Call, mark, on_zero_gpu

VISITOR = ContextVar("VISITOR", default="nobody")


class GradioError(Exception):
    """As gr.Error: str of it is not its message."""

    title, message = "ZeroGPU queue timeout", "No GPU was available\nafter 60s."


def finished(call):
    call._thread.join(60)
    assert not call.is_running()
    return call


@pytest.mark.parametrize(
    ("value", "is_there"), [("true", True), ("1", True), ("T", True), ("false", False), ("0", False), ("", False)]
)
def test_the_variable_is_read_as_the_package_spaces_reads_it(monkeypatch, value, is_there):
    monkeypatch.setenv("SPACES_ZERO_GPU", value)
    assert on_zero_gpu() == is_there


def test_a_function_is_marked_with_the_duration_of_each_call(monkeypatch):
    marked = []
    spaces = SimpleNamespace(GPU=lambda function, duration: marked.append((function, duration)) or function)
    monkeypatch.setitem(sys.modules, "spaces", spaces)

    def count(n):
        yield from range(n)

    def seconds(n):
        return 3 * n

    assert list(mark(count, seconds)(3)) == [0, 1, 2]
    assert marked == [(count, seconds)]


def test_a_space_without_the_package_is_told_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "spaces", None)
    with pytest.raises(RequestError, match="ZeroGPU needs the package spaces: add spaces>=0.51 to requirements.txt"):
        mark(iter, len)


def test_a_thread_takes_the_values_with_the_variables_of_the_visitor():
    taken = []
    token = VISITOR.set("ada")
    call = Call(lambda: (value for value in [VISITOR.get(), threading.get_ident()]), taken.append)
    VISITOR.reset(token)
    assert finished(call).problem == ""
    assert taken[0] == "ada" and taken[1] != threading.get_ident()


def test_a_refusal_is_one_line_with_its_title(capsys):
    def refuse():
        raise GradioError
        yield

    assert finished(Call(refuse, print)).problem == "ZeroGPU queue timeout: No GPU was available after 60s"
    assert capsys.readouterr().err == ""


def test_what_the_package_does_not_foresee_goes_to_the_log(capsys):
    def fail():
        yield 1
        raise ConnectionError("no route to the device API")

    assert finished(Call(fail, lambda value: None)).problem == "ZeroGPU gave no GPU (ConnectionError)"
    assert "ConnectionError: no route to the device API" in capsys.readouterr().err


def test_stop_closes_the_call_at_its_next_value():
    closed, proceed = threading.Event(), threading.Event()

    def count():
        try:
            while True:
                proceed.wait(60)
                yield 1
        finally:
            closed.set()

    call = Call(count, lambda value: None)
    call.stop(0)  # which does not wait for the value
    assert call.is_running() and not closed.is_set()
    proceed.set()
    assert finished(call).problem == ""
    assert closed.is_set()
