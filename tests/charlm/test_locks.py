import multiprocessing
import os
import sys
from contextlib import ExitStack
from threading import Event, Thread

import pytest
from models import make_lm

from charlm.inference import compiled
from charlm.inference.prefixes import PrefixCache
from charlm.lm import made_once
from charlm.locks import RenewedLock

WAIT = 60  # seconds until a test gives up


def test_one_thread_holds_a_lock_at_a_time_as_often_as_it_likes():
    lock, got = RenewedLock(), []

    def ask():
        other = Thread(target=lambda: got.append(lock._lock.acquire(blocking=False)))
        other.start()
        other.join(WAIT)

    with lock, lock:
        ask()
    ask()
    assert got == [False, True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_thread_that_forks_while_it_holds_a_lock_releases_it_in_both_processes():
    lock, child = RenewedLock(), None
    try:
        with lock:
            child = os.fork()
        with lock:
            pass
    finally:
        if child == 0:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_can_take_each_lock_that_another_thread_held():
    lm = make_lm()
    scheduler, prefixes = lm._scheduler, PrefixCache(lm.engine)
    locks = [scheduler._lock, *(worker._lock for worker in scheduler._workers)]
    locks += [prefixes._lock, compiled._lock, made_once._lock]
    held, may_end = Event(), Event()

    def hold():
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            held.set()
            may_end.wait(WAIT)

    def take():
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)

    holder = Thread(target=hold)
    holder.start()
    assert held.wait(WAIT)
    child = multiprocessing.get_context("fork").Process(target=take)
    child.start()
    child.join(WAIT)
    child.kill()
    child.join()
    may_end.set()
    holder.join(WAIT)
    assert child.exitcode == 0
