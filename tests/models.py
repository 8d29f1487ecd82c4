"""Tiny models, records and files for the tests, and what goes wrong with files."""

import errno
import hashlib
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from charlm.errors import ModelFileError
from charlm.inference import DEFAULT_LENGTH
from charlm.inference.batching import BatchScheduler, EngineBackend
from charlm.inference.sampling import BatchSampler, Sampler, SamplingSettings
from charlm.lm import CharLM
from charlm.model.card import card_picture, model_card
from charlm.model.config import ModelConfig
from charlm.model.folder import Model, read_model, write_model
from charlm.model.history import make_history, runs_until_best
from charlm.model.weights import pack_weights, round_to_bfloat16

VOCAB = "\n abcdeé한😀"

# the same examples at every run, no time limit on a busy machine, nothing remembered on disk
laws = settings(max_examples=40, deadline=None, derandomize=True, database=None)

# any text that UTF-8 can hold, as of st.text(), which first tries to encode each symbol that there is
any_text = partial(st.text, st.characters(exclude_categories=["Cs"]))


def make_config(cell="lstm", vocab=VOCAB, embedding_size=5, hidden_size=8, num_layers=2, dropout=0.5):
    return ModelConfig(cell, vocab, embedding_size, hidden_size, num_layers, dropout)


def make_weights(config, seed=0, scale=0.6):
    """Random weights that bfloat16 holds exactly; large enough for every gate and symbol to matter."""
    random = np.random.default_rng(seed)
    drawn = {
        name: (scale * random.standard_normal(shape)).astype(np.float32) for name, shape in config.tensor_shapes.items()
    }
    return round_to_bfloat16(drawn)


def make_record(val_losses=(2.0, 1.5, 1.75), sample="a cab\nbade", **run):
    """A training record with an epoch for each validation loss."""
    epochs = [
        {
            "epoch": number,
            "train_loss": 0.9 * loss,
            "val_loss": loss,
            "unseen_loss": None,
            "learning_rate": 0.003 / number,
            "seconds": 12.5,
            "chars_per_second": 80_000.0,
            "sample": sample,
        }
        for number, loss in enumerate(val_losses, 1)
    ]
    known = {"cell": "lstm", "text": "tinyshakespeare", "split": {"train_chars": 900, "val_chars": 100}, "seed": 0}
    return make_history(known | run, epochs)


def make_joined_record(*runs, **settings):
    """The record of a run that went on from others. runs: the validation losses of each, the earliest first."""
    record = make_record(runs[0], **settings)
    for place, losses in enumerate(runs[1:]):
        record = make_record(losses, **settings) | {"earlier_runs": runs_until_best(record, f"run-{place}")}
    return record


def make_model(cell="lstm", history=True, seed=0, **sizes):
    config = make_config(cell, **sizes)
    return Model(config, make_weights(config, seed), make_record(cell=cell) if history else None)


class LoneSampler(Sampler):
    """A sampler that draws for its stream alone, as a batch of one does."""

    def draw(self, logits):
        """An id drawn from logits (V,)."""
        return BatchSampler([self]).draw(logits[None])[0]

    def probabilities(self, logits):
        """The distribution (V,) that `draw` follows for logits (V,) at a temperature above 0."""
        weights = BatchSampler([self]).weights(logits[None])[0]
        return weights / weights.sum()


def make_sampler(*settings, **named_settings):
    return LoneSampler(SamplingSettings(*settings, **named_settings))


def read_next(reader, ids):
    """Read a symbol of each text, ids (S,); the logits (S, V) that follow."""
    reader.advance(ids)
    return reader.logits()


def make_lm(cell="lstm", seed=0, **sizes):
    model = make_model(cell, seed=seed, **sizes)
    return CharLM(model.config, model.weights, model.history, device="cpu")


def count_symbols(network):
    """A list that comes to hold how many symbols each call of the network reads."""
    counts = []
    network.register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].numel()))
    return counts


def stream_shared(lm, prompt="", length=DEFAULT_LENGTH, *sampling, stop=None, after="", **named_sampling):
    """The text of `CharLM.stream_scored` in pieces, without the surprisals. sampling: as in `SamplingSettings`."""
    settings = SamplingSettings(*sampling, **named_sampling)
    return (text for text, _ in lm.stream_scored(prompt, length, settings, stop=stop, after=after))


def make_scheduler(lm, workers):
    """A scheduler that writes on so many threads."""
    backend = EngineBackend(lm.engine)
    backend.most_workers = lambda: workers
    return BatchScheduler(backend)


def uniform_lm(vocab):
    """A model to which every symbol is as likely as any other, always."""
    config = make_config("rnn", vocab)
    weights = {name: np.zeros(shape, np.float32) for name, shape in config.tensor_shapes.items()}
    return CharLM(config, weights, device="cpu")


def save(model, folder):
    card, picture = model_card(model.config, model.history), card_picture(model.config, model.history)
    write_model(folder, model, card, picture)
    return folder


def keep_epochs(folder, *epochs):
    """Let a saved model keep the weights of some epochs; return them."""
    config, path = read_config(folder), folder / "history.json"
    history, kept = json.loads(path.read_text("utf-8")), {}
    (folder / "epochs").mkdir(exist_ok=True)
    for epoch in epochs:
        kept[epoch] = make_weights(config, seed=100 + epoch)
        packed = pack_weights(kept[epoch])
        (folder / "epochs" / f"{epoch:04d}.safetensors").write_bytes(packed)
        history["epochs"][epoch - 1]["weights_sha256"] = hashlib.sha256(packed).hexdigest()
    path.write_text(json.dumps(history), "utf-8")
    return kept


def assert_refused(folder, message):
    """`read_model` refuses the folder, with a message that names it and contains this one."""
    with pytest.raises(ModelFileError) as caught:
        read_model(folder)
    assert str(caught.value).startswith(f"{folder}: ") and message in str(caught.value)


def read_config(folder):
    return ModelConfig.from_json((folder / "config.json").read_text(encoding="utf-8"))[0]


def raise_full_disk(*_, **__):
    """In place of any function that writes."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def contents(folder):
    """Every file below a folder with its bytes."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def pack_safetensors(tensors):
    """The bytes of a safetensors file, laid out by hand: header length, JSON header, numbers.

    tensors: name → (dtype, shape, bytes).
    """
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def unpack_safetensors(packed):
    """What `pack_safetensors` makes, taken apart by hand again."""
    start = 8 + int.from_bytes(packed[:8], "little")
    header = json.loads(packed[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        tensors[name] = entry["dtype"], tuple(entry["shape"]), packed[start + first : start + end]
    return tensors


def change_config(folder, **changes):
    path = Path(folder, "config.json")
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def put_weights(folder, packed):
    """Replace model.safetensors and make config.json vouch for it, as an attacker would."""
    Path(folder, "model.safetensors").write_bytes(packed)
    change_config(folder, weights_sha256=hashlib.sha256(packed).hexdigest())
