import math
from dataclasses import FrozenInstanceError
from itertools import repeat

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from models import laws, make_sampler
from reference import chi_square_p_value, limit_by_sorting, sampling_distribution

from charlm.errors import ModelFileError, RequestError
from charlm.inference import sampling
from charlm.inference.sampling import BatchSampler, SamplingSettings, log_softmax, random_number, surprisals_of

LOGITS = np.array([1.0, -0.5, 2.5, 0.25, 2.25, -2.0, 0.75, 1.5], np.float32)
DRAWS = 50_000

SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"temperature": 1.0, "top_k": 3},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.0, "top_p": 0.3},
    {"temperature": 1.0, "top_k": 4, "top_p": 0.99},
    {"temperature": 2.0, "top_k": 5, "top_p": 0.7},
    {"temperature": 0.7, "top_k": 7, "top_p": 0.95},
]

logit_lists = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=12)
temperatures = st.floats(0.01, 100)


def draw_counts(sampler, logits=LOGITS, draws=50):
    drawn = [sampler.draw(logits) for _ in range(draws)]
    return np.bincount(drawn, minlength=len(logits))


# What is drawn


@pytest.fixture(scope="module")
def many_drawn():
    """What samplers of all SETTINGS draw in one batch, DRAWS of each."""
    each, steps = 200, DRAWS // 200
    settings = [one for one in SETTINGS for _ in range(each)]
    samplers = BatchSampler([make_sampler(**one, seed=seed) for seed, one in enumerate(settings)])
    logits = np.tile(LOGITS, (len(settings), 1))
    return np.array([samplers.draw(logits) for _ in range(steps)]).reshape(steps, len(SETTINGS), each)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SETTINGS)), ids=lambda number: str(SETTINGS[number]))
def test_draws_follow_the_filtered_softmax(many_drawn, number):
    expected = sampling_distribution(LOGITS.tolist(), **SETTINGS[number])
    counts = np.bincount(many_drawn[:, number].ravel(), minlength=len(LOGITS))
    assert counts.sum() == DRAWS and counts[np.array(expected) == 0].sum() == 0
    assert chi_square_p_value(counts.tolist(), expected) > 0.001


def test_draws_of_one_sampler_follow_its_settings_one_after_another():
    sampler, settings = make_sampler(0.7, 7, 0.95, seed=1), SETTINGS[-1]
    counts = draw_counts(sampler, draws=5000)
    assert chi_square_p_value(counts.tolist(), sampling_distribution(LOGITS.tolist(), **settings)) > 0.001


@pytest.mark.parametrize("seed", range(20))
def test_probabilities_equal_those_of_the_naive_filter(seed):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, size=50).astype(np.float32)
    settings = {"temperature": random.uniform(0.2, 3), "top_k": int(random.integers(51)), "top_p": random.uniform()}
    expected = sampling_distribution(logits.tolist(), **settings)
    np.testing.assert_allclose(make_sampler(**settings, seed=0).probabilities(logits), expected, rtol=1e-9)


@laws
@given(logit_lists, temperatures, st.integers(1, 15))
def test_top_k_keeps_exactly_the_k_likeliest_in_proportion(logits, temperature, top_k):
    logits = np.array(logits, np.float32)
    everything = make_sampler(temperature, seed=0).probabilities(logits)
    kept = make_sampler(temperature, top_k, seed=0).probabilities(logits)
    support = kept > 0
    assert support.sum() <= top_k
    assert everything[support].min() >= everything[~support].max(initial=0)
    np.testing.assert_allclose(kept, np.where(support, everything, 0) / everything[support].sum(), rtol=1e-9)


@laws
@given(logit_lists, temperatures, st.floats(0, 1))
def test_top_p_keeps_the_smallest_likeliest_set_that_reaches_p(logits, temperature, top_p):
    logits = np.array(logits, np.float32)
    everything = make_sampler(temperature, seed=0).probabilities(logits)
    support = make_sampler(temperature, 0, top_p, seed=0).probabilities(logits) > 0
    assert everything[support].min() >= everything[~support].max(initial=0)
    assert everything[support].sum() >= top_p - 1e-9
    if support.sum() > 1:
        assert everything[support].sum() - everything[support].min() < top_p + 1e-9


def test_top_p_worked_by_hand():
    logits = np.log([0.15, 0.5, 0.1, 0.25]).astype(np.float32)
    kept = {p: make_sampler(1.0, 0, p, seed=0).probabilities(logits) for p in (0.4, 0.7, 0.8)}
    assert kept[0.4] == pytest.approx([0, 1, 0, 0])
    assert kept[0.7] == pytest.approx([0, 2 / 3, 0, 1 / 3])
    assert kept[0.8] == pytest.approx([0.15 / 0.9, 0.5 / 0.9, 0, 0.25 / 0.9])


@laws
@given(logit_lists, temperatures, st.integers(0, 15), st.floats(0, 1), st.integers(0, 2**64))
def test_a_draw_is_where_the_seeds_next_number_falls_in_the_distribution(logits, temperature, top_k, top_p, seed):
    logits = np.array(logits, np.float32)
    sampler = make_sampler(temperature, top_k, top_p, seed)
    random, ends = np.random.Generator(np.random.PCG64(seed)), np.cumsum(sampler.probabilities(logits))
    for _ in range(20):
        drawn, number = sampler.draw(logits), random.random()
        # where a border is as close as rounding goes, either side will do
        assert (ends[drawn - 1] if drawn else 0) - 1e-12 <= number <= ends[drawn] + 1e-12


# A large vocabulary, which is not sorted


limits = st.tuples(
    st.sampled_from([0, 1, 2, 5, 127, 128, 129, 400, 10_000]) | st.integers(0, 3_000),
    st.sampled_from([0, 0.3, 0.9, 0.999, 1 - 1e-12, 1.0]) | st.floats(0, 1),
)


@laws
@given(
    st.lists(limits, min_size=1, max_size=4),
    st.sampled_from([1, 65, 512, 513, 700, 3_000]),
    st.sampled_from([0, 1e-3, 1, 3, 30]),  # how far the logits lie apart
    st.sampled_from([1, 2, 10, 10_000]),  # how many different ones there are
    st.integers(0, 100),
)
def test_what_the_limits_leave_is_what_sorting_everything_leaves_to_the_last_bit(texts, symbols, far, different, seed):
    random = np.random.default_rng(seed)
    values = random.normal(0, far, different)
    logits = random.choice(values, (len(texts), symbols)).astype(np.float32)
    weights = BatchSampler([make_sampler(1.0, seed=0) for _ in texts]).weights(logits)
    expected = [limit_by_sorting(row, *limit) for row, limit in zip(weights, texts, strict=True)]
    samplers = BatchSampler([make_sampler(1.0, *limit, seed=0) for limit in texts])
    assert np.array_equal(samplers.weights(logits), expected)


@pytest.mark.parametrize("symbols", [600, 1_000, 3_000])
def test_where_rounding_decides_what_top_p_leaves_it_is_what_sorting_everything_leaves(symbols):
    random = np.random.default_rng(symbols)
    for logits in (np.zeros(symbols), np.repeat(random.normal(0, 1e-3, symbols // 20), 20)):
        row = logits.astype(np.float32)[None]
        (weights,) = BatchSampler([make_sampler(1.0, seed=0)]).weights(row)
        sums = np.cumsum(np.sort(weights)[::-1])
        for count in random.integers(1, symbols, 30):  # so many reach it exactly, as far as numbers go
            for top_p in np.nextafter(sums[count] / sums[-1], [0, 0.5, 1]):
                (limited,) = BatchSampler([make_sampler(1.0, top_p=float(top_p), seed=0)]).weights(row)
                assert np.array_equal(limited, limit_by_sorting(weights, top_p=top_p))


@pytest.mark.parametrize("most", [1, 700, 1_500, 10_000])
def test_a_batch_that_is_drawn_in_parts_draws_the_same(most, monkeypatch):
    settings = [{"temperature": 0.5 + number, "top_k": 40 * number, "seed": number} for number in range(7)]
    whole, parts = (BatchSampler([make_sampler(**one) for one in settings]) for _ in range(2))
    logits = np.random.default_rng(0).normal(0, 3, (20, 7, 700)).astype(np.float32)
    expected = [whole.draw(rows) for rows in logits]
    monkeypatch.setattr(sampling, "MOST_LOGITS", most)
    assert [parts.draw(rows) for rows in logits] == expected


# In a batch


one_text = st.tuples(
    st.sampled_from([0, 1e-300, 0.5, 1.0, 2.5, 1e6]),  # temperature
    st.sampled_from([0, 1, 2, 5, 100]),  # top_k
    st.sampled_from([0, 0.3, 0.9, 1.0]),  # top_p
    st.integers(0, 100),  # seed
    st.sampled_from([1, 1e-30, 100, 1e4, 1e30]),  # how far its logits lie apart
    st.sampled_from([0, -1e5, 500, 1e30]),  # and where
)


@pytest.mark.slow
@laws
@given(st.lists(one_text, min_size=1, max_size=20), st.sampled_from([1, 2, 7, 65]), st.integers(0, 100))
def test_samplers_draw_for_each_text_what_its_sampler_draws_alone(texts, symbols, logits_seed):
    alone = [make_sampler(*text[:4]) for text in texts]
    samplers = BatchSampler([make_sampler(*text[:4]) for text in texts])
    random = np.random.default_rng(logits_seed)
    for _ in range(5):
        drawn = random.integers(-4, 4, (len(texts), symbols)) + random.random((len(texts), 1))  # some are equal
        logits = np.array([row * far + place for row, (*_, far, place) in zip(drawn, texts, strict=True)], np.float32)
        expected = [sampler.draw(row) for sampler, row in zip(alone, logits, strict=True)]
        # to the last bit: an outlying text beside another must not even change how that one is rounded
        weights = [
            BatchSampler([make_sampler(*text[:4])]).weights(row[None])[0]
            for row, text in zip(logits, texts, strict=True)
        ]
        assert np.array_equal(samplers.weights(logits), weights)
        assert samplers.draw(logits) == expected


def test_a_sampler_goes_on_with_its_next_random_number_when_its_batch_changes():
    alone, one, other = make_sampler(1.0, seed=3), make_sampler(1.0, seed=3), make_sampler(0.5, 3, seed=4)
    expected = [alone.draw(LOGITS) for _ in range(60)]
    both = np.stack([LOGITS, LOGITS])
    drawn = [BatchSampler([one]).draw(LOGITS[None])[0] for _ in range(20)]
    drawn += [BatchSampler([other, one]).draw(both)[1] for _ in range(20)]
    drawn += [one.draw(LOGITS) for _ in range(20)]
    assert drawn == expected


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_the_least_and_the_greatest_random_number_draw_no_excluded_symbol(number):
    random = np.random.default_rng(0)
    samplers = [make_sampler(1.0, 5, seed=0), make_sampler(0.7, 9, 0.9, seed=0)]
    for sampler in samplers:
        sampler.randoms = repeat(number)
    for _ in range(200):
        logits = random.normal(0, 3, 30).astype(np.float32)
        logits[[0, -1]] = -20  # both ends are excluded
        possible = [np.flatnonzero(sampler.probabilities(logits)) for sampler in samplers]
        expected = [ids[-1 if number else 0] for ids in possible]
        assert [sampler.draw(logits) for sampler in samplers] == expected
        assert BatchSampler(samplers).draw(np.stack([logits, logits])) == expected


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 1.0}, {"top_k": 1}, {"top_p": 0}], ids=str)
def test_every_draw_uses_one_random_number(settings):
    sampler, random = make_sampler(**settings, seed=5), np.random.Generator(np.random.PCG64(5))
    draw_counts(sampler, draws=10)
    random.random(10)
    assert next(sampler.randoms) == random.random()


def test_drawing_leaves_the_logits_as_they_are():
    logits = np.stack([LOGITS, 1e30 * LOGITS, LOGITS])
    before = logits.copy()
    samplers = BatchSampler(
        [make_sampler(0, seed=0), make_sampler(0.5, 3, seed=0), make_sampler(1.0, top_p=0.5, seed=0)]
    )
    samplers.draw(logits)
    samplers.weights(logits)
    log_softmax(logits)
    assert np.array_equal(logits, before)


# Extremes


def test_temperature_zero_takes_the_likeliest_and_of_equals_the_first():
    assert draw_counts(make_sampler(0, seed=1)).tolist() == [0, 0, 50, 0, 0, 0, 0, 0]
    assert make_sampler(0, seed=1).draw(np.array([1.0, 3.0, 3.0], np.float32)) == 1
    assert make_sampler(0, 2, 0.5, seed=1).draw(np.array([1.0, 3.0, 3.0], np.float32)) == 1
    assert make_sampler(0, seed=1).draw(np.zeros(9, np.float32)) == 0


@laws
@given(logit_lists, st.integers(0, 15), st.floats(0, 1), st.sampled_from([1, 1e30, -1e30]))
def test_temperature_zero_takes_the_first_of_the_likeliest_whatever_the_filters(logits, top_k, top_p, factor):
    logits = np.array(logits, np.float32) * np.float32(factor)
    assert make_sampler(0, top_k, top_p, seed=2).draw(logits) == logits.tolist().index(max(logits.tolist()))


def test_a_tiny_temperature_always_takes_the_likeliest():
    for temperature in (1e-6, 1e-300, 5e-324):
        for logits in (LOGITS, 1e30 * LOGITS, LOGITS - np.float32(1e5)):
            assert draw_counts(make_sampler(temperature, seed=1), logits)[2] == 50


def test_a_tiny_temperature_draws_among_equals():
    counts = draw_counts(make_sampler(1e-300, seed=1), np.array([1.0, 3.0, 3.0], np.float32), draws=100)
    assert counts[0] == 0 and counts.min(initial=100, where=[False, True, True]) > 20


def test_a_huge_temperature_makes_all_symbols_equally_likely():
    for temperature in (1e6, 1e300):
        assert make_sampler(temperature, seed=1).probabilities(LOGITS) == pytest.approx(np.full(8, 1 / 8), rel=1e-5)


def test_top_p_zero_takes_the_likeliest():
    assert make_sampler(1.0, top_p=0, seed=1).probabilities(LOGITS).tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert make_sampler(1.0, top_p=0, seed=1).probabilities(np.zeros(3, np.float32)).tolist() == [1, 0, 0]


@pytest.mark.parametrize("top_k", [8, 9, 10**6, 10**400])
def test_top_k_of_the_vocabulary_or_more_is_off(top_k):
    off = make_sampler(1.0, top_k=0, seed=1).probabilities(LOGITS)
    assert make_sampler(1.0, top_k=top_k, seed=1).probabilities(LOGITS).tolist() == off.tolist()


def test_of_equals_top_k_and_top_p_keep_the_first():
    logits = np.array([0, 1, 1, 1], np.float32)
    assert make_sampler(1.0, top_k=2, seed=1).probabilities(logits).tolist() == [0, 0.5, 0.5, 0]
    assert make_sampler(1.0, top_p=0.5, seed=1).probabilities(logits).tolist() == [0, 0.5, 0.5, 0]


def test_of_very_many_equals_top_k_keeps_the_first():
    logits = np.tile(np.array([0, 1], np.float32), 500)  # too many for a sort to keep their order by luck
    kept = np.flatnonzero(make_sampler(1.0, top_k=100, seed=1).probabilities(logits))
    assert kept.tolist() == list(range(1, 200, 2))


def test_top_p_one_keeps_even_what_is_lost_in_the_sum():
    probabilities = make_sampler(1.0, top_k=2, top_p=1.0, seed=1).probabilities(np.array([-50, 0, -60], np.float32))
    assert probabilities == pytest.approx([math.exp(-50), 1, 0], rel=1e-9, abs=0)


def test_a_vocabulary_of_one_symbol_leaves_no_choice():
    assert draw_counts(make_sampler(1.0, 1, 0.5, seed=1), np.zeros(1, np.float32), draws=10).tolist() == [10]


def test_logits_far_apart_do_not_overflow():
    assert draw_counts(make_sampler(1.0, seed=1), np.array([-3e38, 3e38], np.float32), draws=10).tolist() == [0, 10]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("shift", [-1e5, -500, -390, 390, 500, 1e5])
def test_logits_that_are_all_low_or_high_give_the_same_distribution(settings, shift):
    shifted = LOGITS + np.float32(shift)  # exactly, as these numbers are
    expected = sampling_distribution(LOGITS.tolist(), **settings)
    np.testing.assert_allclose(make_sampler(**settings, seed=0).probabilities(shifted), expected, rtol=1e-9)
    # beside an ordinary text, too
    weights = BatchSampler([make_sampler(**settings, seed=0), make_sampler(**settings, seed=0)]).weights(
        np.stack([LOGITS, shifted])
    )
    np.testing.assert_allclose(weights[1] / weights[1].sum(), expected, rtol=1e-9)


@pytest.mark.parametrize("temperature", [0, 1e-300, 1.0, 1e6])
@pytest.mark.parametrize("bad", [[0, math.nan, 1], [math.nan] * 3, [0, math.inf, 1], [-math.inf] * 3], ids=str)
def test_logits_that_are_no_finite_numbers_are_refused_in_any_place(temperature, bad):
    good, bad = np.zeros(3, np.float32), np.array(bad, np.float32)
    for place in range(3):
        logits = np.stack([bad if number == place else good for number in range(3)])
        samplers = BatchSampler([make_sampler(temperature, top_k, seed=0) for top_k in (0, 2, 0)])
        with pytest.raises(ModelFileError, match="outputs are not finite numbers.*use another model"):
            samplers.draw(logits)
        with pytest.raises(ModelFileError, match="outputs are not finite numbers.*use another model"):
            log_softmax(logits)


@laws
@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6), st.sampled_from([1, 100, 1e5, 1e30]))
def test_log_softmax_is_its_definition_row_by_row(logits, factor):
    logits = (np.array(logits) * factor).astype(np.float32)
    for shape in ((6,), (2, 3), (3, 1, 2)):
        rows = logits.reshape(shape)
        np.testing.assert_allclose(log_softmax(rows), reference.log_softmax(rows.astype(np.float64)), rtol=1e-12)


@laws
@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6), st.sampled_from([1, 10, 100, 1e5, 1e30]))
def test_surprisals_are_those_of_the_log_softmax_to_the_precision_of_float32(logits, factor):
    logits = (np.array(logits) * factor).astype(np.float32)
    for shape in ((1, 6), (2, 3), (3, 1, 2)):
        rows = logits.reshape(shape)
        expected = -reference.log_softmax(rows.astype(np.float64))
        for id in range(shape[-1]):
            found = surprisals_of(np.full(shape[:-1], id), rows)
            np.testing.assert_allclose(found, expected[..., id], rtol=1e-6, atol=1e-6)


def test_log_softmax_worked_by_hand():
    logits = np.log(np.array([[0.1, 0.2, 0.7], [3, 3, 6]])).astype(np.float32)
    expected = np.log([[0.1, 0.2, 0.7], [0.25, 0.25, 0.5]])
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-6)


# Seeds and settings


@pytest.mark.parametrize("place", [0, 1, 63, 64, 20_000])
def test_the_random_number_of_a_place_is_the_one_that_numpys_generator_gives_there(place):
    for seed in (0, 7, 10**39):
        assert random_number(seed, place) == np.random.default_rng(seed).random(place + 1)[-1]


@pytest.mark.parametrize("seed", [0, 7, 2**63, 10**30])
def test_the_same_seed_gives_the_same_draws(seed):
    one, other = make_sampler(1.0, seed=seed), make_sampler(1.0, seed=seed)
    assert [one.draw(LOGITS) for _ in range(100)] == [other.draw(LOGITS) for _ in range(100)]


def test_different_seeds_give_different_draws():
    drawn = {tuple(make_sampler(1.0, seed=seed).draw(LOGITS) for _ in range(1)) for seed in range(50)}
    assert len(drawn) > 1


def test_a_drawn_seed_can_be_used_again():
    unseeded = make_sampler(1.0)
    again = make_sampler(1.0, seed=unseeded.settings.seed)
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
        SamplingSettings(**{argument: value})


def test_the_message_tells_the_bounds():
    with pytest.raises(RequestError, match="^temperature is -1.0; it must be a finite number from 0$"):
        SamplingSettings(-1)
    with pytest.raises(RequestError, match="^top_p is 1.5; it must be from 0 to 1$"):
        SamplingSettings(top_p=1.5)


def test_whole_numbers_may_come_as_floats_or_from_numpy():
    assert SamplingSettings(1.0, top_k=3.0, seed=7.0).top_k == 3
    assert SamplingSettings(np.float32(0.5), np.int64(3), np.float64(0.9), np.int32(7)).seed == 7


def test_settings_cannot_be_changed_and_are_equal_by_their_values():
    settings = SamplingSettings(0.5, seed=3)
    with pytest.raises(FrozenInstanceError):
        settings.temperature = 2
    assert settings == SamplingSettings(0.5, 0, 1, 3) and hash(settings) == hash(SamplingSettings(0.5, 0, 1, 3))
    assert [SamplingSettings(1, k, p).is_limited for k, p in ((0, 1), (1, 1), (0, 0.9), (2, 0.9))] == [False] + 3 * [
        True
    ]
