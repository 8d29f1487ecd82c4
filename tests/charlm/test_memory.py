import numpy as np
import pytest
import torch
from models import VOCAB, make_config, make_lm, make_weights

from charlm.cells import CELLS
from charlm.errors import RequestError, VocabError
from charlm.lm import CharLM
from charlm.memory import WARM_UP, horizon, measure_memory

TEXT = "".join(np.random.default_rng(0).choice(list(VOCAB), 400))


def log_probabilities(lm, ids):
    """What plain torch predicts after the last of ids, in double precision, (V,)."""
    network = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(len(lm.vocab), lm.config.embedding_size),
            "recurrent": getattr(torch.nn, lm.config.kind.torch_class)(
                lm.config.embedding_size, lm.config.hidden_size, lm.config.num_layers
            ),
            "head": torch.nn.Linear(lm.config.hidden_size, len(lm.vocab)),
        }
    )
    network.load_state_dict({name: torch.from_numpy(array) for name, array in lm._weights.items()})
    network.double()
    with torch.no_grad():
        hidden, _ = network["recurrent"](network["embedding"](torch.from_numpy(ids[:, None])))
        return network["head"](hidden[-1, 0]).log_softmax(-1).numpy()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
def test_memory_is_what_reading_everything_again_with_one_symbol_changed_shows(cell, layers, small_steps):
    lm = make_lm(cell, num_layers=layers)
    ids = lm.vocab.encode(TEXT[:90])
    curve = measure_memory(lm.engine, ids, longest=12, places=4, seed=5)

    # the same draws as the measurement makes
    places = np.linspace(WARM_UP, len(ids) - 12, 4).astype(int)
    symbols = np.unique(ids)
    drawn = symbols[np.random.default_rng(5).integers(len(symbols) - 1, size=4)]
    expected = np.zeros(12)
    for place, other in zip(places, drawn, strict=True):
        changed = ids.copy()
        changed[place] = symbols[-1] if other == ids[place] else other
        for distance in range(12):
            true = log_probabilities(lm, ids[: place + distance + 1])
            altered = log_probabilities(lm, changed[: place + distance + 1])
            expected[distance] += (np.exp(altered) * (altered - true)).sum() / 4
    assert curve == pytest.approx(expected, abs=1e-7, rel=1e-3)
    assert curve[0] > 1e-4


def without_memory(cell="rnn"):
    """A model of one layer that forgets everything but the symbol before."""
    config = make_config(cell, num_layers=1)
    weights = make_weights(config)
    weights["recurrent.weight_hh_l0"][:] = 0
    return CharLM(config, weights, device="cpu")


def test_a_model_that_looks_at_one_symbol_forgets_a_change_at_once():
    curve = without_memory().memory(TEXT, longest=20)
    assert curve[0] > 0.01
    assert curve[1:].max() == 0
    assert horizon(curve) == 1


def test_a_model_that_counts_never_forgets():
    """h' = tanh(h + …) with a weight large enough to keep its sign: a memory of the first symbol."""
    config = make_config("rnn", vocab="ab", embedding_size=1, hidden_size=1, num_layers=1)
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    weights["embedding.weight"][:] = [[1], [-1]]
    weights["recurrent.weight_ih_l0"][:] = 9
    weights["recurrent.weight_hh_l0"][:] = 3
    weights["head.weight"][:] = [[2], [-2]]
    curve = CharLM(config, weights, device="cpu").memory("ab" * 200, longest=30)
    assert curve[0] > 1


@pytest.mark.parametrize(
    ("curve", "reach"),
    [([0.5, 0.02, 0.001], 2), ([0.5, 0.001, 0.02, 0.0], 3), ([0.0, 0.0], 0), ([1.0, 1.0], 2), ([0.01, 0.01], 0)],
)
def test_the_horizon_is_the_last_distance_above_the_threshold(curve, reach):
    assert horizon(np.array(curve)) == reach


def test_the_same_seed_measures_the_same_and_places_do_not_touch_each_other():
    engine, ids = make_lm("gru").engine, make_lm("gru").vocab.encode(TEXT)
    assert (measure_memory(engine, ids, 20, 8, seed=1) == measure_memory(engine, ids, 20, 8, seed=1)).all()
    assert (measure_memory(engine, ids, 20, 8, seed=1) != measure_memory(engine, ids, 20, 8, seed=2)).any()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("abc", RequestError, "the text has 3 characters that the model knows; to look 256 back takes at least 384"),
        ("a" * 1000, RequestError, "only one kind of character"),
        ("ab☃" * 200, VocabError, "☃"),
        (None, RequestError, "text"),
    ],
)
def test_a_text_that_memory_cannot_be_measured_on_is_refused(text, error, message):
    with pytest.raises(error, match=message):
        make_lm().memory(text)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_influence_is_the_length_of_the_gradient_that_small_changes_show(cell, layers, small_steps):
    lm = make_lm(cell, num_layers=layers)
    ids = lm.vocab.encode("bad cab")
    size, step = lm.config.embedding_size, 1e-5

    def log_probability(nudged, direction):
        """Of the last symbol, where the embedding of one place is moved a little along one direction."""
        network = lm.network
        double = type(network).from_weights(lm.config, network.export_weights()).double()
        inputs = double.embedding(torch.from_numpy(ids[:-1, None])).clone()
        inputs[nudged, 0, direction] += step * sign
        with torch.no_grad():
            hidden, _ = double.recurrent(inputs)
            return double.head(hidden[-1, 0]).log_softmax(-1)[int(ids[-1])].item()

    slopes = np.zeros((len(ids) - 1, size))
    for place in range(len(ids) - 1):
        for direction in range(size):
            for sign in (1, -1):
                slopes[place, direction] += sign * log_probability(place, direction) / (2 * step)
    assert lm.influence("bad cab") == pytest.approx(np.linalg.norm(slopes, axis=1), rel=1e-5)


def test_what_was_forgotten_has_no_influence():
    norms = without_memory("gru").influence("abcde")
    # a GRU without recurrent weights still keeps a part of its state, an RNN nothing
    assert norms[-1] > 0
    norms = without_memory("rnn").influence("abcde")
    assert (norms[:-1] == 0).all()
    assert norms[-1] > 0


@pytest.mark.parametrize("text", ["", "a"])
def test_nothing_moves_the_prediction_of_a_first_character(text):
    with pytest.raises(RequestError, match="first character"):
        make_lm().influence(text)
