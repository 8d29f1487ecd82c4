import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import laws

from train.batches import STEPS_BETWEEN_RELEASES, Streams, Windows

counts = st.integers(1, 7)


def make_streams(length=1000, batch_size=4, seq_length=8, seed=0, **options):
    return Streams(np.arange(length, dtype=np.uint16), batch_size, seq_length, seed, **options)


def make_windows(length=100, windows=50, batch_size=4, window=5, seed=0):
    starts = np.random.default_rng(1).permutation(length - window)[:windows]
    return Windows(np.arange(length, dtype=np.uint8), starts, batch_size, window, seed), starts


def epoch_of(batches, epoch):
    return [batches.batch(epoch, step) for step in range(batches.steps_per_epoch)]


# Streams: the symbols are their own places in the text


@laws
@given(counts, st.integers(1, 9), st.integers(0, 200), st.integers(0, 5), st.integers(1, 20))
def test_streams_go_on_where_they_stopped_and_no_character_is_read_twice(batch_size, seq_length, more, seed, epoch):
    length = (batch_size + 1) * seq_length + more
    streams = make_streams(length, batch_size, seq_length, seed)
    batches = epoch_of(streams, epoch)
    read = torch.cat([inputs for inputs, _ in batches])
    assert (read.diff(dim=0) == 1).all()
    assert len(read.unique()) == read.numel()
    assert read.shape == (len(batches) * seq_length, batch_size)
    assert read.numel() == streams.chars_per_step * streams.steps_per_epoch
    assert all((targets == inputs + 1).all() for inputs, targets in batches)
    assert max(targets.max() for _, targets in batches) < length
    # less than a sequence for the offset, and one for what does not fill all streams, is left out
    assert read.numel() > length - seq_length * (batch_size + 1)


def test_the_offset_differs_between_epochs_and_seeds():
    offsets = {
        (seed, epoch): int(make_streams(seed=seed).batch(epoch, 0)[0][0, 0]) for seed in (0, 1) for epoch in range(30)
    }
    assert set(offsets.values()) == set(range(8))
    assert [offsets[0, epoch] for epoch in range(30)] != [offsets[1, epoch] for epoch in range(30)]


@laws
@given(st.integers(0, 2**63 - 1), st.integers(1, 100_000), st.integers(0, 27))
def test_what_streams_read_follows_from_seed_epoch_and_step_whatever_was_read_before(seed, epoch, step):
    fresh, used = make_streams(seed=seed), make_streams(seed=seed)
    used.batch(epoch + 1, 3)
    assert all(map(torch.equal, fresh.batch(epoch, step), used.batch(epoch, step)))


def test_the_memory_of_the_text_is_given_back_again_and_again_but_not_at_every_step():
    releases = []
    streams = make_streams(10_000, release=lambda: releases.append(steps[-1]))
    steps = []
    for step in range(streams.steps_per_epoch):
        steps.append(step)
        streams.batch(1, step)
    assert releases == list(range(0, streams.steps_per_epoch, STEPS_BETWEEN_RELEASES))
    assert len(releases) == 5


# Windows


def starts_read(windows, epoch):
    return [int(start) for inputs, _ in epoch_of(windows, epoch) for start in inputs[0]]


@laws
@given(counts, st.integers(1, 9), st.integers(0, 40), st.integers(0, 5), st.integers(1, 20))
def test_windows_are_read_whole_each_once_an_epoch_but_the_last_few(batch_size, window, more, seed, epoch):
    windows, starts = make_windows(100, batch_size + more, batch_size, window, seed)
    batches = epoch_of(windows, epoch)
    for inputs, targets in batches:
        assert inputs.shape == targets.shape == (window, batch_size)
        assert (inputs == inputs[0] + torch.arange(window)[:, None]).all()
        assert (targets == inputs + 1).all()
    read = starts_read(windows, epoch)
    assert len(set(read)) == len(read)
    assert set(read) <= set(starts.tolist())
    assert 0 <= len(starts) - len(read) < batch_size
    assert windows.chars_per_step == batch_size * window


def test_windows_come_in_another_order_each_epoch_and_with_each_seed():
    windows, starts = make_windows(windows=50, batch_size=4)
    orders = [starts_read(windows, epoch) for epoch in range(1, 11)]
    orders.append(starts_read(make_windows(windows=50, batch_size=4, seed=1)[0], 1))
    assert len(set(map(tuple, orders))) == 11
    assert starts.tolist()[:48] not in orders
    # two of fifty are left out, and not always the same
    assert set().union(*orders) == set(starts.tolist())
    assert len({frozenset(order) for order in orders}) > 5


@laws
@given(st.integers(0, 2**63 - 1), st.integers(1, 100_000), st.integers(0, 11))
def test_what_windows_read_follows_from_seed_epoch_and_step_whatever_was_read_before(seed, epoch, step):
    (fresh, _), (used, _) = make_windows(seed=seed), make_windows(seed=seed)
    used.batch(epoch + 1, 3)
    assert all(map(torch.equal, fresh.batch(epoch, step), used.batch(epoch, step)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_symbols_of_every_size_come_as_torchs_indices(dtype):
    ids = np.arange(100, dtype=dtype)
    for batches in Streams(ids, 2, 4, 0), Windows(ids, np.arange(50), 2, 4, 0):
        inputs, targets = batches.batch(1, 0)
        assert inputs.dtype == targets.dtype == torch.int64


def test_streams_carry_their_state_and_windows_do_not():
    assert (Streams.carries_state, Windows.carries_state) == (True, False)
