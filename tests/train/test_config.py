import dataclasses
import json
from itertools import accumulate, chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from charlm.errors import RequestError
from charlm.model.cells import CELLS
from train import config
from train.config import TrainConfig, pick_precision
from train.data import make_text
from train.encode import encode_text
from train.protocols import Holdout, OverlappingWindows

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def holdout(train_chars):
    """A text of which so many characters train."""
    length = -(-train_chars * 10 // 9)
    protocol = Holdout(make_text("a text", encode_text("ab" * (length // 2) + "a" * (length % 2))))
    assert protocol.split["train_chars"] == train_chars
    return protocol


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_left_open_is_chosen_by_cell(cell):
    chosen, recipe = TrainConfig(cell, device="cpu").resolve(holdout(1000)), CELLS[cell].recipe
    assert (chosen.lr, chosen.weight_decay) == (recipe.lr, recipe.weight_decay)
    assert (chosen.dropout, chosen.embedding_dropout) == (recipe.dropout, recipe.embedding_dropout)


def test_nothing_stays_open():
    for protocol in holdout(1000), OverlappingWindows(make_text("a text", encode_text("ab" * 500))):
        assert None not in dataclasses.astuple(TrainConfig("lstm", device="cpu").resolve(protocol))


def test_what_is_said_is_kept():
    said = {"lr": 0.5, "weight_decay": 0.0, "dropout": 0.0, "embedding_dropout": 0.0, "batch_size": 3}
    said |= {"seq_length": 10, "precision": "fp32", "device": "cpu", "epochs": 7, "hidden_size": 9}
    chosen = TrainConfig("lstm", **said).resolve(holdout(1000))
    assert dataclasses.asdict(chosen) == dataclasses.asdict(TrainConfig("lstm", **said))


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
    chosen = TrainConfig("rnn", device="cpu").resolve(holdout(train_chars))
    assert (chosen.batch_size, chosen.seq_length) == (streams, 128)


def test_a_text_that_is_too_short_is_refused_with_what_would_do():
    with pytest.raises(RequestError, match="255 characters; sequences of 128 need 256: give a longer text or a lower"):
        TrainConfig("rnn", device="cpu").resolve(holdout(255))


def test_more_streams_than_the_text_holds_are_refused():
    assert TrainConfig("rnn", batch_size=9, seq_length=10, device="cpu").resolve(holdout(100)).batch_size == 9
    with pytest.raises(RequestError, match="the text holds 9 sequences of 10, fewer than --batch-size 10"):
        TrainConfig("rnn", batch_size=10, seq_length=10, device="cpu").resolve(holdout(100))


def test_windows_say_how_long_they_are():
    protocol = OverlappingWindows(make_text("a text", encode_text("ab" * 1500)))
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


def test_every_setting_explains_itself():
    assert all(spec.metadata["help"] for spec in dataclasses.fields(TrainConfig))


# Precision


def measure_gain(monkeypatch, gain):
    """Let measuring find that bf16 is so many times as fast; return a list of the measurements made."""
    measured = []
    monkeypatch.setattr(config, "_bf16_gain", lambda: measured.append(gain) or gain)
    return measured


@pytest.mark.parametrize(("gain", "precision"), [(0.0, "fp32"), (1.29, "fp32"), (1.3, "bf16"), (8.0, "bf16")])
def test_a_cpu_trains_in_bf16_where_that_is_a_third_faster(monkeypatch, gain, precision):
    measured = measure_gain(monkeypatch, gain)
    assert pick_precision("auto", CPU, 512) == precision
    assert TrainConfig("rnn", device="cpu").resolve(holdout(1000)).precision == precision
    assert len(measured) == 2


def test_a_small_model_trains_in_fp32_and_nothing_is_measured(monkeypatch):
    measured = measure_gain(monkeypatch, 8.0)
    assert pick_precision("auto", CPU, 127) == "fp32"
    assert measured == []
    assert pick_precision("auto", CPU, 128) == "bf16"


@pytest.mark.parametrize("name", ["bf16", "fp32"])
@pytest.mark.parametrize("device", [CPU, CUDA, torch.device("mps")], ids=str)
def test_a_precision_that_is_said_is_taken_and_nothing_is_measured(monkeypatch, name, device):
    measured = measure_gain(monkeypatch, 2.0)
    assert pick_precision(name, device, 512) == name
    assert measured == []


@pytest.mark.parametrize(("supported", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_trains_in_bf16_where_it_has_it(monkeypatch, supported, precision):
    def is_bf16_supported(including_emulation):
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert pick_precision("auto", CUDA, 8) == precision


def test_mps_trains_in_fp32(monkeypatch):
    measured = measure_gain(monkeypatch, 8.0)
    assert pick_precision("auto", torch.device("mps"), 512) == "fp32"
    assert measured == []


def replace_clock(monkeypatch, *seconds):
    """Let measurements take so long, one after another."""
    readings = iter([reading for start in accumulate(seconds, initial=0) for reading in (start, start)][1:])
    monkeypatch.setattr(config, "time", SimpleNamespace(perf_counter=lambda: next(readings)))


@pytest.fixture
def gain_measured_anew():
    config._bf16_gain.cache_clear()
    yield config._bf16_gain
    config._bf16_gain.cache_clear()


@pytest.mark.parametrize("reported", [{}, {"avx512_bf16": False, "amx_bf16": False}, {"avx512_vnni": True}])
def test_a_cpu_without_instructions_for_bf16_is_not_measured(monkeypatch, gain_measured_anew, reported):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: reported)
    replace_clock(monkeypatch)  # to read it would be an error
    assert gain_measured_anew() == 0
    assert pick_precision("auto", CPU, 512) == "fp32"


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16"])
def test_the_gain_is_the_ratio_of_the_shortest_times_and_measured_once(monkeypatch, gain_measured_anew, instructions):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True})
    fp32, bf16 = [9, 6, 7, 6, 8], [40, 5, 3, 4, 5]
    turns = chain(*zip(fp32, bf16, strict=True))
    milliseconds = [*turns, *[10] * 30]  # the rest of the turns are slow
    replace_clock(monkeypatch, *(each / 1024 for each in milliseconds))  # which floats add up exactly
    assert [gain_measured_anew(), gain_measured_anew()] == [2, 2]


def test_bf16_that_is_emulated_all_the_same_is_measured_once_only(monkeypatch, gain_measured_anew):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    replace_clock(monkeypatch, 0.25, 64.0)  # to read it once more would be an error
    assert gain_measured_anew() == 0.25 / 64
