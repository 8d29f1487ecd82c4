import hashlib
import json
import os
import shutil
import struct

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import (
    VOCAB,
    assert_refused,
    change_config,
    laws,
    make_config,
    make_model,
    make_weights,
    pack_safetensors,
    put_weights,
    read_config,
    save,
    unpack_safetensors,
)

from charlm.model.config import ModelConfig
from charlm.model.folder import Model, read_model
from charlm.model.weights import LARGEST_HEADER, pack_weights, round_to_bfloat16


def tensors_of(folder):
    return unpack_safetensors((folder / "model.safetensors").read_bytes())


def flip_a_bit(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_the_golden_layout():
    config = ModelConfig("rnn", "ab", embedding_size=1, hidden_size=1, num_layers=1, dropout=0.0)
    numbers = {
        "embedding.weight": [[1.0], [-2.0]],
        "recurrent.weight_ih_l0": [[0.5]],
        "recurrent.weight_hh_l0": [[-0.5]],
        "recurrent.bias_ih_l0": [0.0],
        "recurrent.bias_hh_l0": [1.5],
        "head.weight": [[3.0], [-1.0]],
        "head.bias": [0.25, 2.0**-133],
    }
    weights = {name: np.array(rows, np.float32) for name, rows in numbers.items()}
    assert {name: array.shape for name, array in weights.items()} == config.tensor_shapes
    # worked by hand from the format: sign, 8 bits of exponent and 7 of fraction, low byte first; 2⁻¹³³ is a denormal
    assert unpack_safetensors(pack_weights(weights)) == {
        "embedding.weight": ("BF16", (2, 1), bytes.fromhex("803f00c0")),
        "recurrent.weight_ih_l0": ("BF16", (1, 1), bytes.fromhex("003f")),
        "recurrent.weight_hh_l0": ("BF16", (1, 1), bytes.fromhex("00bf")),
        "recurrent.bias_ih_l0": ("BF16", (1,), bytes.fromhex("0000")),
        "recurrent.bias_hh_l0": ("BF16", (1,), bytes.fromhex("c03f")),
        "head.weight": ("BF16", (2, 1), bytes.fromhex("404080bf")),
        "head.bias": ("BF16", (2,), bytes.fromhex("803e0100")),
    }
    weights["head.bias"][0] = 0.1  # which bfloat16 can't hold: then all are float32
    stored = unpack_safetensors(pack_weights(weights))
    assert stored["head.bias"] == ("F32", (2,), struct.pack("<ff", 0.1, 2.0**-133))
    assert {dtype for dtype, _, _ in stored.values()} == {"F32"}


@laws
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_rounding_to_bfloat16_is_that_of_torch(numbers):
    array = np.array(numbers, np.float32)
    rounded = round_to_bfloat16({"weights": array})["weights"]
    assert rounded.tobytes() == torch.from_numpy(array).bfloat16().float().numpy().tobytes()


def test_a_nan_stays_one_in_bfloat16():
    assert np.isnan(round_to_bfloat16({"weights": np.array([np.nan, -np.nan], np.float32)})["weights"]).all()


def test_half_way_between_two_bfloat16_goes_to_the_even_one():
    halves = {"weights": np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)}
    assert round_to_bfloat16(halves)["weights"].tolist() == [1.0, 1 + 2**-6]


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 200, -1])
def test_weights_cut_short_are_noticed(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(folder, "model.safetensors is not the file that config.json describes (its SHA-256 differs)")
    put_weights(folder, path.read_bytes())
    assert_refused(folder, "model.safetensors cannot be read: ")


def test_trailing_bytes_are_noticed(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    assert_refused(folder, "(its SHA-256 differs): one of the two is damaged or from another model; get both again")
    put_weights(folder, path.read_bytes())
    assert_refused(folder, "model.safetensors cannot be read: ")


def test_a_single_flipped_bit_is_noticed_wherever_it_is(folder):
    path = folder / "model.safetensors"
    size = path.stat().st_size
    for place in (0, 8, size // 2, size - 1):
        flip_a_bit(path, place)
        assert_refused(folder, "its SHA-256 differs")
        flip_a_bit(path, place)
    read_model(folder)


def test_weights_of_another_model_are_noticed(folder, tmp_path):
    other = save(make_model("gru", seed=1), tmp_path / "other")
    shutil.copy(other / "model.safetensors", folder)
    assert_refused(folder, "its SHA-256 differs")


def test_a_checksum_in_capitals_is_the_same(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change_config(folder, weights_sha256=config["weights_sha256"].upper())
    read_model(folder)


def test_a_missing_tensor_is_noticed(folder):
    tensors = tensors_of(folder)
    del tensors["head.bias"]
    put_weights(folder, pack_safetensors(tensors))
    assert_refused(folder, "model.safetensors holds other tensors than config.json describes")


@pytest.mark.parametrize("name", ["recurrent.weight_ih_l2", "extra", "", "head.bias "])
def test_a_tensor_too_many_is_noticed(folder, name):
    put_weights(folder, pack_safetensors(tensors_of(folder) | {name: ("F32", (1,), bytes(4))}))
    assert_refused(folder, "model.safetensors holds other tensors than config.json describes")


def test_a_header_with_a_number_of_more_digits_than_python_prints_is_refused_like_any_other(folder):
    path = folder / "model.safetensors"
    header = json.dumps({"head.bias": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 10**4300 - 1]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert_refused(folder, "as after a download or a copy that did not finish; get it again")


def test_a_name_that_stands_twice_is_refused(folder):
    packed = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(packed[:8], "little")
    header, numbers = packed[8 : 8 + length].decode().rstrip(), packed[8 + length :]
    entry = header[header.index('"head.bias"') : header.index("}", header.index('"head.bias"')) + 1]
    twice = (header[:-1] + "," + entry + "}").encode()
    put_weights(folder, len(twice).to_bytes(8, "little") + twice + numbers)
    assert_refused(
        folder, "the header of model.safetensors is not valid JSON: the key 'head.bias' stands twice in one object"
    )


def change_header(folder, change):
    """Let a function change the header of the weights, as an object, and make config.json vouch for the result."""
    packed = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(packed[:8], "little")
    header = json.loads(packed[8:start])
    change(header)
    text = json.dumps(header).encode()
    put_weights(folder, len(text).to_bytes(8, "little") + text + packed[start:])
    return (folder / "model.safetensors").read_bytes()


def swap(header, one, other):
    header[one]["data_offsets"], header[other]["data_offsets"] = (
        header[other]["data_offsets"],
        header[one]["data_offsets"],
    )


def shift(header, name, begin, end):
    offsets = header[name]["data_offsets"]
    header[name]["data_offsets"] = [offsets[0] + begin, offsets[1] + end]


@pytest.mark.parametrize(
    "change",
    {
        "overlaps the one before": lambda header: shift(header, "head.weight", -2, 0),
        "leaves a hole": lambda header: shift(header, "head.weight", 2, 0),
        "is too long": lambda header: shift(header, "head.weight", 0, 2),
        "ends before it begins": lambda header: header["head.bias"]["data_offsets"].reverse(),
        "is where another is": lambda header: header["head.bias"].update(header["embedding.weight"], shape=[10]),
        "is as far away as can be": lambda header: shift(header, "head.bias", 2**63, 2**63),
        "begins before the file": lambda header: shift(header, "embedding.weight", -8, -8),
        "has places that are no whole numbers": lambda header: shift(header, "head.bias", 0.5, 0.5),
        "has one place": lambda header: header["head.bias"]["data_offsets"].pop(),
        "has three places": lambda header: header["head.bias"]["data_offsets"].append(0),
        "has a name as its place": lambda header: header["head.bias"].update(data_offsets="ab"),
        "has no place": lambda header: header["head.bias"].pop("data_offsets"),
        "has no type": lambda header: header["head.bias"].pop("dtype"),
        "has no shape": lambda header: header["head.bias"].pop("shape"),
        "is a number": lambda header: header.update({"head.bias": 1}),
        "has a list as its type": lambda header: header["head.bias"].update(dtype=["BF16"]),
        "has a shape that is no list": lambda header: header["head.bias"].update(shape=10),
        "has a shape of other numbers": lambda header: header["head.bias"].update(shape=[10.0]),
        "has a shape of strings": lambda header: header["head.bias"].update(shape=["10"]),
    }.items(),
    ids=lambda change: change[0],
)
def test_a_header_that_lies_about_a_tensor_is_refused_as_the_library_does(folder, change):
    packed = change_header(folder, change[1])
    assert_refused(folder, "model.safetensors")
    with pytest.raises(safetensors.SafetensorError):
        safetensors.deserialize(packed)


def test_true_is_not_the_number_1_in_a_shape(tmp_path):
    config = ModelConfig("rnn", "a", embedding_size=1, hidden_size=1, num_layers=1, dropout=0.0)
    folder = save(Model(config, make_weights(config), None), tmp_path)
    change_header(folder, lambda header: header["head.bias"].update(shape=[True]))
    assert_refused(folder, "head.bias has shape [True]; config.json demands [1]")


def test_tensors_may_lie_in_any_order_and_their_types_differ(tmp_path):
    config = make_config(vocab="abc", embedding_size=1, hidden_size=3)  # so that a float32 begins at an odd place
    weights = make_weights(config)
    folder = save(Model(config, weights, None), tmp_path)
    stored = tensors_of(folder)
    names = sorted(stored, key=lambda name: hashlib.sha256(name.encode()).digest())
    for name in names[1::2]:
        stored[name] = "F32", stored[name][1], (weights[name] * np.float32(1.1)).astype("<f4").tobytes()
    packed = pack_safetensors({name: stored[name] for name in names})
    header = json.loads(packed[8 : 8 + int.from_bytes(packed[:8], "little")])
    assert any(entry["dtype"] == "F32" and entry["data_offsets"][0] % 4 for entry in header.values())
    in_another_order = dict(sorted(header.items()))
    text = json.dumps(in_another_order, indent=1).encode()
    put_weights(folder, len(text).to_bytes(8, "little") + text + packed[8 + int.from_bytes(packed[:8], "little") :])
    read = read_model(folder).weights
    for place, name in enumerate(names):
        assert np.array_equal(read[name], weights[name] * np.float32(1.1) if place % 2 else weights[name])


@pytest.mark.parametrize("stored", ["F32", "BF16"])
@pytest.mark.parametrize("place", [0, 32_767, 32_768, 65_535, 65_536, -1])
def test_a_large_tensor_is_read_and_checked_to_its_last_number(tmp_path, stored, place):
    config = ModelConfig("rnn", "ab", embedding_size=257, hidden_size=257, num_layers=1, dropout=0.0)
    weights = make_weights(config)  # with matrices of 66,049 numbers: more than are read at once
    if stored == "F32":
        weights = {name: array * np.float32(1.1) for name, array in weights.items()}
    folder = save(Model(config, weights, None), tmp_path)
    assert all(np.array_equal(read_model(folder).weights[name], array) for name, array in weights.items())
    weights["recurrent.weight_hh_l0"].reshape(-1)[place] = np.inf
    save(Model(config, weights, None), tmp_path)
    assert_refused(folder, "model.safetensors: recurrent.weight_hh_l0 holds a NaN or an infinity")


def test_arrays_are_the_readers_own(folder):
    for array in read_model(folder).weights.values():
        assert array.flags.writeable and array.flags.aligned and array.flags.c_contiguous and array.dtype == np.float32


@pytest.mark.parametrize("value", ["0000807f", "000080ff", "0000c07f", "0100807f"], ids=["inf", "-inf", "nan", "snan"])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_a_number_that_is_not_finite_is_refused(folder, dtype, value):
    raw = bytes.fromhex(value) if dtype == "F32" else bytes.fromhex(value)[2:]
    count = len(VOCAB)
    zeros = bytes(len(raw) * (count - 1))
    if (dtype, value) == ("BF16", "0100807f"):
        raw = bytes.fromhex("817f")
    put_weights(folder, pack_safetensors(tensors_of(folder) | {"head.bias": (dtype, (count,), zeros + raw)}))
    assert_refused(folder, "model.safetensors: head.bias holds a NaN or an infinity")


@pytest.mark.parametrize(("dtype", "size"), {"F16": 2, "F64": 8, "I32": 4, "U8": 1, "BOOL": 1, "I64": 8}.items())
def test_a_tensor_of_another_type_is_refused(folder, dtype, size):
    tensors = tensors_of(folder) | {"head.bias": (dtype, (len(VOCAB),), bytes(size * len(VOCAB)))}
    put_weights(folder, pack_safetensors(tensors))
    assert_refused(folder, f"model.safetensors: head.bias is of type {dtype}; charlm reads F32 and BF16")


@pytest.mark.parametrize("shape", [(8, 10), (80,), (10, 8, 1), (10, 7), (11, 8)])
def test_a_tensor_of_another_shape_is_refused(folder, shape):
    tensors = tensors_of(folder) | {"head.weight": ("BF16", shape, bytes(2 * int(np.prod(shape))))}
    put_weights(folder, pack_safetensors(tensors))
    assert_refused(folder, f"head.weight has shape {list(shape)}; config.json demands [10, 8]")


def test_an_empty_tensor_of_unlimited_width_is_refused_without_being_allocated(folder):
    put_weights(folder, pack_safetensors(tensors_of(folder) | {"head.weight": ("BF16", (0, 2**62), b"")}))
    assert_refused(folder, f"head.weight has shape [0, {2**62}]; config.json demands [10, 8]")


@pytest.mark.parametrize("length", [LARGEST_HEADER + 1, 2**40, 2**64 - 1])
def test_a_header_that_claims_to_be_huge_is_refused_before_it_is_read(folder, length):
    put_weights(folder, length.to_bytes(8, "little") + b"{}")
    assert_refused(folder, "model.safetensors has a header of over 1,048,576 bytes: not a charlm model")


@pytest.mark.parametrize("header", [b"", b"[]", b"{", b"\xff\xfe", b"null", b"[" * 1000, b'{"a": 1}'])
def test_a_header_that_describes_no_tensors_is_refused(folder, header):
    put_weights(folder, len(header).to_bytes(8, "little") + header)
    assert_refused(folder, "model.safetensors ")


def test_a_pickle_under_the_name_of_the_weights_is_refused(folder):
    put_weights(folder, b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.")
    assert_refused(folder, "model.safetensors has a header of over 1,048,576 bytes")


def test_a_file_larger_than_its_model_needs_is_not_read(folder):
    with open(folder / "model.safetensors", "wb") as file:
        file.truncate(10**12)  # a hole, no bytes on disk
    parameters = read_config(folder).parameters
    assert_refused(
        folder, f"model.safetensors is larger than the {4 * parameters + LARGEST_HEADER:,} bytes that it can need"
    )


def test_a_model_that_does_not_fit_into_memory_is_refused(folder, monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr("charlm.model.weights._read_tensor", refuse)
    assert_refused(folder, f"the model takes {4 * read_config(folder).parameters:,} bytes of memory, more than is free")


@pytest.mark.parametrize("by", [-1, -300, 1, 300])
def test_a_file_that_changes_its_length_while_it_is_read_is_refused_or_what_it_was(folder, monkeypatch, by):
    path, really, before = folder / "model.safetensors", hashlib.sha256, read_model(folder).weights

    def resize_first(*content):
        os.truncate(path, os.path.getsize(path) + by)  # the size was looked at just before
        return really(*content)

    monkeypatch.setattr(hashlib, "sha256", resize_first)
    if by < 0:
        assert_refused(folder, "its SHA-256 differs")
    else:
        assert all(np.array_equal(array, before[name]) for name, array in read_model(folder).weights.items())


def test_a_read_model_does_not_change_with_its_file(folder):
    weights = read_model(folder).weights
    before = {name: array.copy() for name, array in weights.items()}
    with open(folder / "model.safetensors", "r+b") as file:
        file.write(bytes(os.path.getsize(folder / "model.safetensors")))
    assert all(np.array_equal(array, before[name]) for name, array in weights.items())
