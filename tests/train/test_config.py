import dataclasses
import json

import numpy as np
import pytest

from charlm.errors import RequestError
from charlm.model.cells import CELLS
from charlm.model.history import MOST_RECORDED_EPOCHS
from charlm.vocab import Vocab
from train.config import MOST_EPOCHS, PROTOCOL_NAMES, TrainConfig
from train.data import make_text
from train.encode import encode_pieces
from train.protocols import PROTOCOLS, Holdout, OverlappingWindows
from train.split import parse_split


def holdout(train_chars):
    """A text of which so many characters train."""
    length = -(-train_chars * 10 // 9)
    protocol = Holdout(make_text("a text", encode_pieces(["ab" * (length // 2) + "a" * (length % 2)], "a text")))
    assert protocol.split["train_chars"] == train_chars
    return protocol


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_left_open_is_chosen_by_cell(cell):
    chosen, recipe = TrainConfig(cell, device="cpu").resolve(holdout(1_000_000)), CELLS[cell].recipe
    assert (chosen.lr, chosen.weight_decay) == (recipe.lr, recipe.weight_decay)
    assert (chosen.dropout, chosen.embedding_dropout) == (recipe.dropout, recipe.embedding_dropout)


@pytest.mark.parametrize("cell", CELLS)
def test_a_short_text_has_a_higher_rate_and_less_decay_and_one_for_few_epochs_less_dropout(cell):
    def chosen(chars, **settings):
        return TrainConfig(cell, device="cpu", **settings).resolve(holdout(chars))

    short, long = chosen(18_000), chosen(1_000_000)
    assert short.lr > long.lr and short.weight_decay < long.weight_decay and short.dropout == long.dropout
    assert chosen(18_000, epochs=2).dropout < short.dropout
    # a smaller model is trained less by as many epochs
    small = chosen(1_000_000, num_layers=1, hidden_size=128, embedding_size=64)
    assert small.lr > long.lr and small.dropout < long.dropout


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_an_lstm_of_the_same_size_has_so_many_parameters(cell, layers):
    sizes = {"num_layers": layers, "hidden_size": 12, "embedding_size": 5}
    vocab = holdout(1000).vocab
    assert TrainConfig(cell, **sizes).lstm_parameters(vocab) == TrainConfig("lstm", **sizes).model(vocab).parameters


def test_too_large_a_model_is_refused_with_the_flags_that_make_it_smaller():
    layer = 4 * 16_384 * (16_384 + 16_384) + 2 * 4 * 16_384  # weights for input and state, and two biases
    parameters = 8 * layer + 2 * 16_384 + (2 * 16_384 + 2)  # and the embedding and the head of two symbols
    config = TrainConfig("lstm", hidden_size=16_384, num_layers=8, embedding_size=16_384, device="cpu")
    with pytest.raises(RequestError) as refused:
        config.resolve(holdout(1000))
    assert str(refused.value) == (
        f"the model would be too large: this describes {parameters:,} parameters; charlm stops at 1,000,000,000; "
        "lower --hidden-size, --num-layers or --embedding-size"
    )


def test_more_symbols_than_a_model_can_have_are_refused_with_the_flag_that_leaves_rare_ones_out():
    symbols = "".join(map(chr, range(0x10000, 0x10000 + 200_001)))
    with pytest.raises(RequestError, match="vocab has 200,001 symbols; charlm stops at 200,000; give a higher --min-c"):
        TrainConfig("rnn", hidden_size=1, embedding_size=1).model(Vocab(symbols))


def test_what_teachers_write_counts_as_text():
    without, with_written = (
        TrainConfig("lstm", device="cpu").resolve(holdout(18_000), written_chars=chars) for chars in (0, 1_000_000)
    )
    assert without.lr > with_written.lr == CELLS["lstm"].recipe.lr


@pytest.mark.parametrize(("train_chars", "written_chars", "batch_size"), [(9_000, 0, 4), (9_000, 100_000, 32)])
def test_what_teachers_write_is_read_in_as_many_streams_as_a_text_of_that_length(
    train_chars, written_chars, batch_size
):
    chosen = TrainConfig("lstm", device="cpu").resolve(holdout(train_chars), written_chars=written_chars)
    assert chosen.batch_size == batch_size
    whole = TrainConfig("lstm", device="cpu").resolve(holdout(train_chars + written_chars))
    assert (whole.batch_size, whole.seq_length) == (chosen.batch_size, chosen.seq_length)


def test_a_text_too_short_for_one_sequence_is_enough_if_teachers_write_the_rest():
    asked, text = TrainConfig("lstm", device="cpu"), holdout(90)
    with pytest.raises(RequestError, match="that trains has 90 characters; sequences of 64 need 128"):
        asked.resolve(text)
    with pytest.raises(RequestError, match="that trains has 127 characters with what teachers write; sequences of 64"):
        asked.resolve(text, written_chars=37)
    assert asked.resolve(text, written_chars=38).batch_size == 1


def test_few_passes_over_a_short_text_have_little_dropout():
    assert TrainConfig("lstm", epochs=3, device="cpu").resolve(holdout(18_000)).dropout < 0.1


def test_a_text_of_which_nothing_trains_is_refused():
    text = make_text("a text", encode_pieces(["ab" * 25], "a text"))
    with pytest.raises(RequestError, match="has 0 characters; sequences of"):
        TrainConfig("lstm", device="cpu").resolve(Holdout(text, shares=parse_split("0.01,0.99")))


def test_nothing_stays_open():
    for protocol in holdout(1000), OverlappingWindows(make_text("a text", encode_pieces(["ab" * 500], "a text"))):
        assert None not in dataclasses.astuple(TrainConfig("lstm", device="cpu").resolve(protocol))


def test_what_is_said_is_kept():
    said = {"lr": 0.5, "weight_decay": 0.0, "dropout": 0.0, "embedding_dropout": 0.0, "batch_size": 3}
    said |= {"seq_length": 10, "precision": "fp32", "device": "cpu", "epochs": 7, "hidden_size": 9}
    chosen = TrainConfig("lstm", **said).resolve(holdout(1000))
    assert dataclasses.asdict(chosen) == dataclasses.asdict(TrainConfig("lstm", **said))


@pytest.mark.parametrize(
    ("train_chars", "streams"),
    [
        (1_000_000, 32),
        (64 * (32 * 32 + 1), 32),  # just enough for 32 streams of 32 sequences
        (64 * (32 * 32 + 1) - 1, 31),
        (64 * (32 + 1), 1),
        (128, 1),
    ],
)
def test_a_short_text_is_read_in_fewer_streams_so_that_an_epoch_has_steps_to_learn_in(train_chars, streams):
    chosen = TrainConfig("rnn", device="cpu", epochs=5_000).resolve(holdout(train_chars))
    assert (chosen.batch_size, chosen.seq_length) == (streams, 64)


@pytest.mark.parametrize(
    ("train_chars", "processes", "streams"),
    [
        (64 * (21 * 32 + 1), 2, 20),  # one process would read 21
        (64 * (29 * 32 + 1), 2, 28),
        (1_000_000, 3, 30),
        (1_000_000, 96, 96),
        (64 * (32 + 1), 2, 2),  # not 1: each process needs a stream
    ],
)
def test_the_streams_chosen_can_be_divided_evenly_among_the_processes(train_chars, processes, streams):
    chosen = TrainConfig("rnn", device="cpu", epochs=5_000).resolve(holdout(train_chars), processes)
    assert chosen.batch_size == streams


def test_more_processes_than_the_text_has_streams_are_refused():
    with pytest.raises(RequestError, match=r"the text holds 1 sequence of 64, fewer than there are processes \(2\)"):
        TrainConfig("rnn", device="cpu").resolve(holdout(128), 2)


def test_a_text_that_is_too_short_is_refused_with_what_would_do():
    with pytest.raises(RequestError, match="127 characters; sequences of 64 need 128: give a longer text or a lower"):
        TrainConfig("rnn", device="cpu").resolve(holdout(127))


def test_more_streams_than_the_text_holds_are_refused():
    assert TrainConfig("rnn", batch_size=9, seq_length=10, device="cpu").resolve(holdout(100)).batch_size == 9
    with pytest.raises(RequestError, match="the text holds 9 sequences of 10, fewer than --batch-size 10"):
        TrainConfig("rnn", batch_size=10, seq_length=10, device="cpu").resolve(holdout(100))


def test_windows_say_how_long_they_are():
    protocol = OverlappingWindows(make_text("a text", encode_pieces(["ab" * 1500], "a text")))
    chosen = TrainConfig("rnn", "windows", device="cpu").resolve(protocol)
    assert (chosen.seq_length, chosen.batch_size) == (30, 64)
    with pytest.raises(RequestError, match="30 characters at a time"):
        TrainConfig("rnn", "windows", seq_length=128, device="cpu").resolve(protocol)
    with pytest.raises(RequestError, match="the text holds 2,376 sequences of 30, fewer than --batch-size 2377"):
        TrainConfig("rnn", "windows", batch_size=2377, device="cpu").resolve(protocol)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "cell": ["LSTM", "", None, 3],
        "protocol": ["kfold", None],
        "split": [0.9, None, "0.9", "0.8,0.1"],
        "epochs": [0, -1, 1.5, None, True, 5_001],
        "hidden_size": [0, "8", 16_385],
        "num_layers": [0, 65],
        "embedding_size": [0, 16_385],
        "dropout": [-0.1, 1, "0.5", float("nan")],
        "embedding_dropout": [-0.1, 1, "0.5", float("nan")],
        "batch_size": [0, -1, 2.5],
        "seq_length": [0, 2.5],
        "lr": [0, -1, 11, float("inf")],
        "weight_decay": [-1, "0"],
        "clip_norm": [-1, float("nan"), None],
        "seed": [-1, 2**63, 0.5],
        "device": ["tpu", None],
        "precision": ["fp16", None],
    }.items(),
)
def test_a_setting_out_of_bounds_is_refused_by_name(name, values):
    for value in values:
        with pytest.raises(RequestError, match=rf"^{name} is "):
            TrainConfig(**{"cell": "rnn", name: value})


def test_whole_numbers_may_come_as_floats_or_from_numpy_and_are_recorded_as_json_knows_them():
    config = TrainConfig("rnn", epochs=2.0, batch_size=np.int64(4), lr=1, dropout=np.float32(0.5), seed=np.int32(7))
    plain = TrainConfig("rnn", epochs=2, batch_size=4, lr=1.0, dropout=0.5, seed=7)
    assert json.dumps(dataclasses.asdict(config)) == json.dumps(dataclasses.asdict(plain))


def test_equal_splits_make_equal_settings():
    assert TrainConfig(split="0.80, .1,1e-1") == TrainConfig(split="0.8,0.1,0.1")
    assert TrainConfig(split="0.90,0.10") == TrainConfig()


def test_the_protocols_of_the_command_line_are_those_that_there_are():
    assert tuple(PROTOCOLS) == PROTOCOL_NAMES


def test_a_run_may_have_as_many_epochs_as_its_record():
    assert MOST_EPOCHS == MOST_RECORDED_EPOCHS


def test_every_setting_explains_itself():
    assert all(spec.metadata["help"] for spec in dataclasses.fields(TrainConfig))
