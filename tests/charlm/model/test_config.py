import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import VOCAB, any_text, laws, make_config
from reference import TORCH_CLASSES

from charlm.errors import ModelFileError
from charlm.model.cells import CELLS
from charlm.model.config import ModelConfig

SHA256 = "ab" * 32
SOUND = {
    "model_type": "charlm",
    "format_version": 1,
    "cell": "gru",
    "vocab": VOCAB,
    "embedding_size": 5,
    "hidden_size": 8,
    "num_layers": 2,
    "dropout": 0.25,
    "weights_sha256": SHA256,
}


def read(values):
    return ModelConfig.from_json(json.dumps(values))


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_the_tensors_are_those_of_torch_nn(cell, num_layers):
    config = make_config(cell, embedding_size=5, hidden_size=7, num_layers=num_layers)
    modules = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(len(VOCAB), 5),
            "recurrent": TORCH_CLASSES[cell](5, 7, num_layers),
            "head": torch.nn.Linear(7, len(VOCAB)),
        }
    )
    assert config.tensor_shapes == {name: tuple(tensor.shape) for name, tensor in modules.state_dict().items()}
    assert config.parameters == sum(tensor.numel() for tensor in modules.parameters())


def test_config_json_says_what_the_contract_names():
    config, sha256 = read(SOUND)
    assert sha256 == SHA256
    assert json.loads(config.to_json(SHA256)) == SOUND


@laws
@given(any_text(min_size=1), st.sampled_from(list(CELLS)), st.integers(1, 64), st.floats(0, 0.99))
def test_reading_undoes_writing(text, cell, num_layers, dropout):
    config = make_config(cell, "".join(dict.fromkeys(text)), num_layers=num_layers, dropout=dropout)
    assert ModelConfig.from_json(config.to_json(SHA256)) == (config, SHA256)


def test_fields_of_a_later_time_are_ignored():
    assert read(SOUND | {"tied": False}) == read(SOUND)


@pytest.mark.parametrize("field", SOUND)
def test_every_field_is_needed(field):
    with pytest.raises(ModelFileError, match=field):
        read({name: value for name, value in SOUND.items() if name != field})


@pytest.mark.parametrize(
    ("field", "values"),
    {
        "model_type": ["gpt2", None, 1],
        "format_version": [0, -1, "1", 1.5, None, True],
        "cell": ["LSTM", "transformer", "", None, 3, ["lstm"], {}],
        "vocab": ["", "aba", None, 5, ["a", "b"], "ab\ud800"],
        "embedding_size": [0, -1, 1.5, "5", None, True, 16_385, 10**30],
        "hidden_size": [0, -8, 8.5, "8", None, True, 16_385, 10**30],
        "num_layers": [0, -2, 2.5, "2", None, True, 65, 10**30],
        "dropout": [1, -0.1, "0.5", None, True, [0.5]],
        "weights_sha256": [None, 5, ["ab"]],
    }.items(),
)
def test_a_field_that_cannot_be_is_named(field, values):
    for value in values:
        with pytest.raises(ModelFileError, match=field):
            read(SOUND | {field: value})


def test_a_newer_format_asks_for_a_newer_charlm():
    with pytest.raises(ModelFileError, match="format_version 2, written by a newer charlm.*update charlm"):
        read(SOUND | {"format_version": 2})


def test_more_parameters_than_memory_are_refused_before_they_are_allocated():
    with pytest.raises(ModelFileError, match="parameters; charlm stops at 1,000,000,000"):
        read(SOUND | {"hidden_size": 16_384, "num_layers": 64})


def symbols(count):
    return "".join(map(chr, range(0x10000, 0x10000 + count)))


def test_a_vocabulary_may_have_more_symbols_than_unicode_has_assigned_and_not_many_more():
    config = make_config("rnn", symbols(200_000), embedding_size=1, hidden_size=1, num_layers=1)
    assert ModelConfig.from_json(config.to_json(SHA256)) == (config, SHA256)
    for vocab in (symbols(200_001), "a" * 4_000_000):
        with pytest.raises(ModelFileError, match=r"vocab has [24],...,... symbols|vocab has 200,001 symbols"):
            read(SOUND | {"vocab": vocab})


@pytest.mark.slow
def test_more_bytes_or_values_than_a_configuration_needs_are_refused_before_they_are_made():
    with pytest.raises(ModelFileError, match=r"config\.json is larger than the 4,194,304 bytes"):
        read(SOUND | {"added": "a" * 4_200_000})
    for values in ([[]] * 60_001, [{}] * 60_001, ["a"] * 60_001, dict.fromkeys(map(str, range(60_001)))):
        with pytest.raises(ModelFileError, match=r"config\.json holds more than 60,000 values"):
            read(SOUND | {"added": values})


@pytest.mark.parametrize("field", ["model_type", "format_version", "cell", "hidden_size", "dropout"])
def test_of_a_wrong_value_of_any_length_a_message_shows_the_ends(field):
    for value in ("\x7f" * 600_000, [["a"] * 20_000] * 2, 10**4_000):
        with pytest.raises(ModelFileError, match=field) as caught:
            read(SOUND | {field: value})
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["", "{", "[]", '"charlm"', "null", "1", '{"dropout": NaN}', '{"a": 1' + "0" * 5000])
def test_a_file_that_is_no_json_object_is_refused(text):
    with pytest.raises(ModelFileError, match=r"config\.json (is not valid JSON|must hold a JSON object)"):
        ModelConfig.from_json(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_dropout_that_is_no_finite_number_is_refused(number):
    with pytest.raises(ModelFileError, match=r"config\.json"):
        ModelConfig.from_json(json.dumps(SOUND).replace("0.25", number))


@pytest.mark.parametrize("nested", ["[" * 60_000, '{"a":' * 60_000])
def test_deeply_nested_json_is_refused_without_exhausting_the_stack(nested):
    with pytest.raises(ModelFileError, match="not valid JSON"):
        ModelConfig.from_json(nested)
