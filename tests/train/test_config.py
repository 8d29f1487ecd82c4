import dataclasses
import json

import numpy as np
import pytest
import torch

from charlm.cells import CELLS
from charlm.errors import RequestError
from train.config import TrainConfig, pick_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_left_open_is_chosen_by_cell(cell):
    chosen = TrainConfig(cell, device="cpu").resolve(1_000_000)
    assert (chosen.lr, chosen.dropout) == (CELLS[cell].learning_rate, CELLS[cell].dropout)


def test_what_is_said_is_kept():
    chosen = TrainConfig("rnn", lr=0.5, dropout=0, batch_size=3, precision="fp32", device="cpu").resolve(1_000_000)
    assert (chosen.lr, chosen.dropout, chosen.batch_size, chosen.precision) == (0.5, 0, 3, "fp32")


@pytest.mark.parametrize(
    ("train_chars", "streams"),
    [
        (1_000_000, 64),
        (128 * (64 * 32 + 1), 64),  # just enough for 64 streams of 32 sequences
        (128 * (64 * 32 + 1) - 1, 63),
        (128 * (32 + 1), 1),
        (256, 1),
    ],
)
def test_a_short_text_is_read_in_fewer_streams_so_that_an_epoch_has_steps_to_learn_in(train_chars, streams):
    assert TrainConfig("rnn", device="cpu").resolve(train_chars).batch_size == streams


def test_a_text_that_is_too_short_is_refused_with_what_would_do():
    with pytest.raises(RequestError, match="255 characters; sequences of 128 need 256: give a longer text or a lower"):
        TrainConfig("rnn", device="cpu").resolve(255)


def test_more_streams_than_the_text_holds_are_refused():
    assert TrainConfig("rnn", batch_size=9, seq_length=10, device="cpu").resolve(100).batch_size == 9
    with pytest.raises(RequestError, match="the text holds 9 sequences of 10, fewer than --batch-size 10"):
        TrainConfig("rnn", batch_size=10, seq_length=10, device="cpu").resolve(100)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "cell": ["LSTM", "", None, 3],
        "protocol": ["kfold", None],
        "epochs": [0, -1, 1.5, None, True, 10**9],
        "hidden_size": [0, "8", 16_385],
        "num_layers": [0, 65],
        "embedding_size": [0, 16_385],
        "dropout": [-0.1, 1, "0.5", float("nan")],
        "batch_size": [0, -1, 2.5],
        "seq_length": [0, None],
        "lr": [0, -1, 11, float("inf")],
        "weight_decay": [-1, None],
        "clip_norm": [-1, float("nan")],
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


def test_every_setting_explains_itself():
    assert all(spec.metadata["help"] for spec in dataclasses.fields(TrainConfig))


@pytest.mark.parametrize(
    ("reported", "precision"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_a_cpu_trains_in_bf16_only_where_it_says_that_it_multiplies_matrices_of_it(monkeypatch, reported, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: reported)
    assert pick_precision("auto", CPU) == precision


def test_a_precision_that_is_said_is_taken_whatever_the_cpu_reports(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert [pick_precision(name, CPU) for name in ("bf16", "fp32")] == ["bf16", "fp32"]
