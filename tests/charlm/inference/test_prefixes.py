import numpy as np
import pytest
from models import make_lm

from charlm.inference.engine import Reader
from charlm.inference.prefixes import BLOCK, PrefixCache
from charlm.model.cells import CELLS


def ids_of(lm, length, seed=0):
    return np.random.default_rng(seed).integers(0, len(lm.vocab), length)


def same(reader, lm, ids):
    """Whether a reader stands where one that has read the ids one after another does, to the last bit."""
    plain = Reader(lm.engine)
    for id in ids:
        plain.advance([id])
    return all((here == there).all() for here, there in zip(reader.state.parts, plain.state.parts, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_read_does_not_depend_on_what_was_read_before(cell):
    lm = make_lm(cell)
    cache = PrefixCache(lm.engine)
    ids = ids_of(lm, 300)
    for length in (0, 1, BLOCK - 1, BLOCK, 200, 300, 129, 300, 10):
        assert same(cache.read(ids[:length]), lm, ids[:length])
    other = np.concatenate([ids[:150], ids_of(lm, 100, seed=1)])
    assert same(cache.read(other), lm, other)


def test_a_text_that_begins_like_an_earlier_one_is_read_from_where_they_part(monkeypatch):
    lm = make_lm()
    cache, read, prefill = PrefixCache(lm.engine), [], Reader.prefill
    monkeypatch.setattr(Reader, "prefill", lambda self, ids: read.append(len(ids)) or prefill(self, ids))
    ids = ids_of(lm, 500)
    cache.read(ids)
    assert sum(read) == 500
    for length in (500, 499, 129):
        read.clear()
        cache.read(ids[:length])
        assert sum(read) == length % BLOCK
    read.clear()
    cache.read(np.concatenate([ids[:200], ids[201:]]))
    assert sum(read) == 499 - 200 // BLOCK * BLOCK


def test_a_reader_that_reads_on_changes_nothing_that_is_kept():
    lm = make_lm()
    cache, ids = PrefixCache(lm.engine), ids_of(lm, 2 * BLOCK)
    cache.read(ids).prefill(ids[:, None])
    assert same(cache.read(ids), lm, ids)


def test_no_more_states_are_kept_than_have_room_and_the_least_recently_used_go_first(monkeypatch):
    lm = make_lm()
    size = sum(part.nbytes for part in lm.engine.zero_state(1).parts)
    cache = PrefixCache(lm.engine, most_bytes=3 * size)
    one, other = ids_of(lm, 2 * BLOCK), ids_of(lm, BLOCK, seed=1)
    cache.read(one)
    cache.read(other)
    cache.read(one)
    cache.read(ids_of(lm, BLOCK, seed=2))
    assert len(cache) == 3
    read, prefill = [], Reader.prefill
    monkeypatch.setattr(Reader, "prefill", lambda self, ids: read.append(len(ids)) or prefill(self, ids))
    cache.read(one)
    assert read == []
