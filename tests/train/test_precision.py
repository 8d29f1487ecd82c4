from itertools import accumulate, chain
from types import SimpleNamespace

import pytest
import torch

from train import precision
from train.config import TrainConfig
from train.data import make_text
from train.encode import encode_pieces
from train.precision import pick_precision
from train.protocols import Holdout

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def measure_gain(monkeypatch, gain):
    """Replace the measurement by a given gain; return the list of the calls."""
    measured = []
    monkeypatch.setattr(precision, "_bf16_gain", lambda: measured.append(gain) or gain)
    return measured


@pytest.mark.parametrize(("gain", "chosen"), [(0.0, "fp32"), (1.29, "fp32"), (1.3, "bf16"), (8.0, "bf16")])
def test_a_cpu_trains_in_bf16_where_that_is_a_third_faster(monkeypatch, gain, chosen):
    measured = measure_gain(monkeypatch, gain)
    assert pick_precision("auto", CPU, 512) == chosen
    protocol = Holdout(make_text("a text", encode_pieces(["ab" * 600], "a text")))
    assert TrainConfig("rnn", device="cpu").resolve(protocol).precision == chosen
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


@pytest.mark.parametrize(("supported", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_trains_in_bf16_where_it_has_it(monkeypatch, supported, chosen):
    def is_bf16_supported(including_emulation):
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert pick_precision("auto", CUDA, 8) == chosen


def test_mps_trains_in_fp32(monkeypatch):
    measured = measure_gain(monkeypatch, 8.0)
    assert pick_precision("auto", torch.device("mps"), 512) == "fp32"
    assert measured == []


def replace_clock(monkeypatch, *seconds):
    """Let each measurement in turn take that many seconds."""
    readings = iter([reading for start in accumulate(seconds, initial=0) for reading in (start, start)][1:])
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=lambda: next(readings)))


@pytest.fixture
def gain_measured_anew():
    precision._bf16_gain.cache_clear()
    yield precision._bf16_gain
    precision._bf16_gain.cache_clear()


@pytest.mark.parametrize("reported", [{}, {"avx512_bf16": False, "amx_bf16": False}, {"avx512_vnni": True}])
def test_a_cpu_without_instructions_for_bf16_is_not_measured(monkeypatch, gain_measured_anew, reported):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: reported)
    replace_clock(monkeypatch)  # reading the clock fails
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
    replace_clock(monkeypatch, 0.25, 64.0)  # reading the clock once more fails
    assert gain_measured_anew() == 0.25 / 64
