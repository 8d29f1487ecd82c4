import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import laws
from reference import chi_square_p_value, sampling_distribution

from charlm.errors import RequestError
from charlm.sampling import Sampler

LOGITS = np.array([1.0, -0.5, 2.5, 0.25, 2.25, -2.0, 0.75, 1.5], np.float32)
DRAWS = 20_000

logit_lists = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=12)
temperatures = st.floats(0.01, 100)


def draw_counts(sampler, logits=LOGITS, draws=DRAWS):
    drawn = [sampler.draw(logits) for _ in range(draws)]
    return np.bincount(drawn, minlength=len(logits))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"temperature": 1.0, "top_k": 3},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 1.0, "top_p": 0.3},
        {"temperature": 2.0, "top_k": 5, "top_p": 0.7},
        {"temperature": 0.7, "top_k": 7, "top_p": 0.95},
    ],
    ids=str,
)
def test_draws_follow_the_filtered_softmax(settings):
    expected = sampling_distribution(LOGITS.tolist(), **settings)
    counts = draw_counts(Sampler(**settings, seed=1))
    assert counts[np.array(expected) == 0].sum() == 0
    assert chi_square_p_value(counts, expected) > 0.001


@pytest.mark.parametrize("seed", range(20))
def test_probabilities_equal_those_of_the_naive_filter(seed):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, size=50).astype(np.float32)
    settings = {"temperature": random.uniform(0.2, 3), "top_k": int(random.integers(51)), "top_p": random.uniform()}
    expected = sampling_distribution(logits.tolist(), **settings)
    np.testing.assert_allclose(Sampler(**settings, seed=0).probabilities(logits), expected, rtol=1e-9)


@laws
@given(logit_lists, temperatures, st.integers(1, 15))
def test_top_k_keeps_exactly_the_k_likeliest_in_proportion(logits, temperature, top_k):
    logits = np.array(logits, np.float32)
    everything = Sampler(temperature, seed=0).probabilities(logits)
    kept = Sampler(temperature, top_k, seed=0).probabilities(logits)
    support = kept > 0
    assert support.sum() <= top_k
    assert everything[support].min() >= everything[~support].max(initial=0)
    np.testing.assert_allclose(kept, np.where(support, everything, 0) / everything[support].sum(), rtol=1e-9)


@laws
@given(logit_lists, temperatures, st.floats(0, 1))
def test_top_p_keeps_the_smallest_likeliest_set_that_reaches_p(logits, temperature, top_p):
    logits = np.array(logits, np.float32)
    everything = Sampler(temperature, seed=0).probabilities(logits)
    support = Sampler(temperature, 0, top_p, seed=0).probabilities(logits) > 0
    assert everything[support].min() >= everything[~support].max(initial=0)
    assert everything[support].sum() >= top_p - 1e-9
    if support.sum() > 1:
        assert everything[support].sum() - everything[support].min() < top_p + 1e-9


def test_top_p_worked_by_hand():
    logits = np.log([0.15, 0.5, 0.1, 0.25]).astype(np.float32)
    kept = {p: Sampler(1.0, 0, p, seed=0).probabilities(logits) for p in (0.4, 0.7, 0.8)}
    assert kept[0.4] == pytest.approx([0, 1, 0, 0])
    assert kept[0.7] == pytest.approx([0, 2 / 3, 0, 1 / 3])
    assert kept[0.8] == pytest.approx([0.15 / 0.9, 0.5 / 0.9, 0, 0.25 / 0.9])


def test_temperature_zero_takes_the_likeliest_and_of_equals_the_first():
    assert draw_counts(Sampler(0, seed=1), draws=50).tolist() == [0, 0, 50, 0, 0, 0, 0, 0]
    assert Sampler(0, seed=1).draw(np.array([1.0, 3.0, 3.0], np.float32)) == 1


def test_a_tiny_temperature_always_takes_the_likeliest():
    for temperature in (1e-6, 1e-300):
        assert draw_counts(Sampler(temperature, seed=1), draws=50)[2] == 50


def test_a_huge_temperature_makes_all_symbols_equally_likely():
    for temperature in (1e6, 1e300):
        assert Sampler(temperature, seed=1).probabilities(LOGITS) == pytest.approx(np.full(8, 1 / 8), rel=1e-5)


def test_top_p_zero_takes_the_likeliest():
    assert Sampler(1.0, top_p=0, seed=1).probabilities(LOGITS).tolist() == [0, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("top_k", [8, 9, 10**6, 10**400])
def test_top_k_of_the_vocabulary_or_more_is_off(top_k):
    off = Sampler(1.0, top_k=0, seed=1).probabilities(LOGITS)
    assert Sampler(1.0, top_k=top_k, seed=1).probabilities(LOGITS).tolist() == off.tolist()


def test_a_vocabulary_of_one_symbol_leaves_no_choice():
    assert draw_counts(Sampler(1.0, 1, 0.5, seed=1), np.zeros(1, np.float32), draws=10).tolist() == [10]


def test_logits_far_apart_do_not_overflow():
    assert draw_counts(Sampler(1.0, seed=1), np.array([-3e38, 3e38], np.float32), draws=10).tolist() == [0, 10]


@pytest.mark.parametrize("seed", [0, 7, 2**63, 10**30])
def test_the_same_seed_gives_the_same_draws(seed):
    one, other = Sampler(1.0, seed=seed), Sampler(1.0, seed=seed)
    assert [one.draw(LOGITS) for _ in range(100)] == [other.draw(LOGITS) for _ in range(100)]


def test_different_seeds_give_different_draws():
    drawn = {tuple(Sampler(1.0, seed=seed).draw(LOGITS) for _ in range(1)) for seed in range(50)}
    assert len(drawn) > 1


def test_a_drawn_seed_can_be_used_again():
    unseeded = Sampler(1.0)
    again = Sampler(1.0, seed=unseeded.seed)
    assert [unseeded.draw(LOGITS) for _ in range(50)] == [again.draw(LOGITS) for _ in range(50)]


NOT_NUMBERS = [None, "1", True, [1.0], math.nan, math.inf, -math.inf, np.float32("nan")]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *[("temperature", value) for value in [*NOT_NUMBERS, -0.1, -1, 10**400, -(10**5000)]],
        *[("top_p", value) for value in [*NOT_NUMBERS, -0.1, 1.1, 10**400, -(10**5000)]],
        *[("top_k", value) for value in [*NOT_NUMBERS, -1, 2.5, -(10**400), -(10**5000)]],
        *[("seed", value) for value in [*NOT_NUMBERS[1:], -1, 2.5, -(10**400), -(10**5000)]],
    ],
    ids=lambda value: repr(value)[:12] if not isinstance(value, int) or abs(value) < 9 else "huge int",
)
def test_a_value_out_of_bounds_is_refused_by_name(argument, value):
    with pytest.raises(RequestError, match=rf"^{argument} is "):
        Sampler(**{argument: value})


def test_the_message_tells_the_bounds():
    with pytest.raises(RequestError, match="^temperature is -1.0; it must be a finite number from 0$"):
        Sampler(-1)
    with pytest.raises(RequestError, match="^top_p is 1.5; it must be from 0 to 1$"):
        Sampler(top_p=1.5)


def test_whole_numbers_may_come_as_floats_or_from_numpy():
    assert Sampler(1.0, top_k=3.0, seed=7.0).top_k == 3
    assert Sampler(np.float32(0.5), np.int64(3), np.float64(0.9), np.int32(7)).seed == 7
