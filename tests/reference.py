"""Slow, plain twins of what charlm does, to compare it with. Nothing here imports charlm.

Shapes: T time, V symbols, E embedding, H hidden. Everything is computed in float64.
"""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

TORCH_CLASSES = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


class PlainModel(torch.nn.Module):
    """An embedding, a recurrent cell and a head of torch.nn, as CONTRACT.md describes a model folder."""

    def __init__(self, config):
        super().__init__()
        size = config["embedding_size"], config["hidden_size"], config["num_layers"]
        self.embedding = torch.nn.Embedding(len(config["vocab"]), config["embedding_size"])
        self.recurrent = TORCH_CLASSES[config["cell"]](*size)
        self.head = torch.nn.Linear(config["hidden_size"], len(config["vocab"]))

    def forward(self, ids, state=None):
        """Read ids (T,); return the logits (T, V) and the state after the last."""
        hidden, state = self.recurrent(self.embedding(ids), state)
        return self.head(hidden), state


def load_plain(folder):
    """Load a model folder without charlm; return the model and its vocabulary."""
    config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    model = PlainModel(config)
    model.load_state_dict(load_file(Path(folder, "model.safetensors")))
    return model.double().eval().requires_grad_(False), config["vocab"]


def plain_logits(model, ids):
    """Return the logits (T, V) of a PlainModel that reads ids (T,) from the zero state."""
    return model(torch.as_tensor(ids))[0].numpy()


def mean_loss(model, ids, reset_every=None):
    """Return the mean cross-entropy (nats) of each symbol after the first, read one at a time by a PlainModel.

    reset_every: after how many symbols read the state is zero again; None carries it through.
    """
    total, state = 0.0, None
    for place, (read, target) in enumerate(pairwise(ids)):
        if reset_every and place % reset_every == 0:
            state = None
        logits, state = model(torch.tensor([int(read)]), state)
        total -= log_softmax(logits[0].numpy())[target]
    return total / (len(ids) - 1)


def log_softmax(logits):
    """Return the logarithms of softmax over the last axis, straight from the definition."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def forward_by_hand(cell, weights, ids):
    """Return the logits (T, V) for ids (T,), gate by gate from the equations, with no torch at all.

    weights: arrays named and laid out as in model.safetensors.
    """
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    layers = sum(name.startswith("recurrent.weight_ih_l") for name in weights)
    hidden_size = weights["head.weight"].shape[1]
    states = [(np.zeros(hidden_size), np.zeros(hidden_size)) for _ in range(layers)]  # h, c
    logits = []
    for symbol in ids:
        x = weights["embedding.weight"][symbol]
        for layer in range(layers):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            parts = [weights[f"recurrent.{name}_l{layer}"] for name in names]
            states[layer] = STEPS[cell](x, *states[layer], *parts)
            x = states[layer][0]
        logits.append(weights["head.weight"] @ x + weights["head.bias"])
    return np.array(logits)


def rnn_step(x, h, c, w_ih, w_hh, b_ih, b_hh):
    """h' = tanh(W x + b + U h + d)  (Elman, 1990)."""
    return np.tanh(w_ih @ x + b_ih + w_hh @ h + b_hh), c


def lstm_step(x, h, c, w_ih, w_hh, b_ih, b_hh):
    """The gates stand in the order input, forget, cell, output  (Hochreiter and Schmidhuber, 1997; Gers, 1999)."""
    size = len(h)

    def gate(number):
        rows = slice(number * size, (number + 1) * size)
        return w_ih[rows] @ x + b_ih[rows] + w_hh[rows] @ h + b_hh[rows]

    i, f, g, o = sigmoid(gate(0)), sigmoid(gate(1)), np.tanh(gate(2)), sigmoid(gate(3))
    c = f * c + i * g
    return o * np.tanh(c), c


def gru_step(x, h, c, w_ih, w_hh, b_ih, b_hh):
    """The gates stand in the order reset, update, new; the reset gate is applied after U h + d  (Cho, 2014)."""
    size = len(h)
    rows = [slice(number * size, (number + 1) * size) for number in range(3)]
    from_x = [w_ih[part] @ x + b_ih[part] for part in rows]
    from_h = [w_hh[part] @ h + b_hh[part] for part in rows]
    r, z = sigmoid(from_x[0] + from_h[0]), sigmoid(from_x[1] + from_h[1])
    n = np.tanh(from_x[2] + r * from_h[2])
    return (1 - z) * n + z * h, c


STEPS = {"rnn": rnn_step, "lstm": lstm_step, "gru": gru_step}


def sigmoid(x):
    """1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


def sampling_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    """Return the probabilities (a list of V) that sampling with these settings follows, one symbol at a time."""
    top = max(logits)
    weights = [math.exp((logit - top) / temperature) for logit in logits]
    ranking = sorted(range(len(weights)), key=lambda symbol: -weights[symbol])
    kept = ranking[:top_k] if top_k else ranking
    total = sum(weights[symbol] for symbol in kept)
    nucleus, reached = [], 0.0
    for symbol in kept:
        nucleus.append(symbol)
        reached += weights[symbol] / total
        if reached >= top_p:
            break
    total = sum(weights[symbol] for symbol in nucleus)
    return [weights[symbol] / total if symbol in nucleus else 0.0 for symbol in range(len(weights))]


def chi_square_p_value(counts, probabilities):
    """Return how likely counts at least this uneven are, if draws follow `probabilities` (those that are not 0)."""
    draws = sum(counts)
    cells = [(count, draws * p) for count, p in zip(counts, probabilities, strict=True) if p > 0]
    if len(cells) == 1:
        return 1.0  # one outcome is possible and `draws` is its count: nothing to be uneven
    statistic = sum((count - expected) ** 2 / expected for count, expected in cells)
    half = torch.tensor([(len(cells) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def limit_by_sorting(weights, top_k=0, top_p=1.0):
    """Return weights (V,) with 0 for what top-k and top-p exclude: all are sorted, the first of equals first."""
    order = np.argsort(-weights, kind="stable")
    ranked = weights[order]
    if top_k:
        ranked[top_k:] = 0
    if top_p < 1:
        total = np.cumsum(np.where(np.isin(np.arange(len(weights)), order[: top_k or None]), weights, 0))[-1]
        ranked[1:][np.cumsum(ranked)[:-1] >= top_p * total] = 0
    limited = np.empty_like(weights)
    limited[order] = ranked
    return limited
