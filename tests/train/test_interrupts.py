import signal

import pytest

from train.interrupts import SIGNALS, Interrupts


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupt_is_noted_and_raised_where_an_immediate_block_begins(number, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)  # nohup may have started these tests
    done = []

    def work(interrupts):
        signal.raise_signal(number)
        assert interrupts.received == number
        done.append("what must stay whole")
        with interrupts.immediate():
            done.append("what need not")

    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        work(interrupts)
    assert done == ["what must stay whole"]


def test_an_interrupt_outside_immediate_blocks_is_raised_at_the_end():
    done = []

    def work():
        with Interrupts() as interrupts:
            with interrupts.immediate():
                pass
            signal.raise_signal(signal.SIGINT)
            done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done


def test_an_interrupt_inside_an_immediate_block_is_raised_at_once():
    done = []

    def work():
        with Interrupts() as interrupts, interrupts.immediate():
            signal.raise_signal(signal.SIGTERM)
            done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not done


def test_the_handlers_from_before_are_back_afterwards():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_training_under_nohup_does_not_end_with_the_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert interrupts.received is None
    finally:
        signal.signal(signal.SIGHUP, before)
