"""Damage done to sound model folders at random, with an eye to their structure."""

import copy
import hashlib
import json

import numpy as np
from models import pack_safetensors, unpack_safetensors

from charlm.model.config import CONFIG_FILE
from charlm.model.history import HISTORY_FILE
from charlm.model.weights import WEIGHTS_FILE

READ_FILES = (CONFIG_FILE, WEIGHTS_FILE, HISTORY_FILE)
WRONG = [None, True, False, "", "a", "\ud800", "lstm", "0" * 64, "1" * 4000, [], {}, [1], {"a": 1}]
NUMBERS = [0, -1, 1, 2, 7, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, 1e-320]
ODD_VALUES = WRONG + NUMBERS
DEEP = ["[" * 100_000, '{"a":' * 2000, "1" * 5000]
ODD_JSON = [*DEEP, "NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"', "{}", "null", ""]


def pick_place(value, dice):
    """Return a container inside a JSON value and a key of it, chosen at random."""
    places = []

    def walk(node):
        keys = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            places.append((node, key))
            walk(node[key])

    walk(value)
    return dice.choice(places)


def damage_json(text, dice):
    """Change a JSON text: a value, a key, its length, or the text itself."""
    kind = dice.randrange(8)
    if kind == 0:
        return dice.choice(ODD_JSON)
    if kind == 1:
        place = dice.randrange(len(text))
        return text[:place] + chr(dice.randrange(32, 0x2FFF)) + text[place + 1 :]
    value = json.loads(text)
    node, key = pick_place(value, dice)
    if kind == 2:
        del node[key]
    elif kind == 3 and isinstance(node, dict):
        node[dice.choice(["extra", "cell", "vocab", "best", ""])] = copy.deepcopy(node[key])
    elif kind == 4 and isinstance(node[key], str):
        letters = list(node[key])
        dice.shuffle(letters)
        node[key] = "".join(letters) + dice.choice(["", "a", "\ud800", "\x00", "😀"])
    elif kind == 5 and isinstance(node[key], int | float):
        node[key] = node[key] * dice.choice([-1, 2, 1000, 1e-3, 10**20])
    elif kind == 6:  # the same key twice
        return text.replace("{", '{"cell": "rnn", "epoch": 1,', dice.randint(1, 3))
    else:
        node[key] = dice.choice(ODD_VALUES)
    return json.dumps(value)


def damage_tensors(packed, dice):
    """Change model.safetensors tensor by tensor, so that its header still is one."""
    tensors = unpack_safetensors(packed)
    for _ in range(dice.randint(1, 3)):
        name = dice.choice(list(tensors))
        dtype, shape, raw = tensors[name]
        kind = dice.randrange(6)
        if kind == 0:
            tensors[dice.choice(["extra", "recurrent.weight_ih_l9", name.upper(), "😀"])] = tensors.pop(name)
        elif kind == 1 and len(tensors) > 1:
            del tensors[name]
        elif kind == 2:
            dtype = dice.choice(["F16", "I16", "U16", "BF16"])
            tensors[name] = dtype, shape, raw
        elif kind == 3:
            tensors[name] = dtype, dice.choice([shape[::-1], (*shape, 1), (int(np.prod(shape)),), (1, *shape)]), raw
        elif kind == 4:  # NaN, infinities, and very large numbers
            place = 2 * dice.randrange(len(raw) // 2)
            number = dice.choice([b"\x80\x7f", b"\x80\xff", b"\xc0\x7f", b"\x7f\x7f"])
            tensors[name] = dtype, shape, raw[:place] + number + raw[place + 2 :]
        else:
            tensors[name] = "F32", shape, np.zeros(shape, "<f4").tobytes() if dice.random() < 0.5 else raw
    return pack_safetensors(tensors)


def damage_bytes(packed, dice):
    """Change the bytes of a file without a thought for what they mean."""
    changed = bytearray(packed)
    kind = dice.randrange(4)
    if kind == 0:
        for _ in range(dice.randint(1, 8)):
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    elif kind == 1:
        del changed[dice.randrange(len(changed)) :]
    elif kind == 2:
        changed += dice.randbytes(dice.randint(1, 64))
    else:
        changed[:8] = dice.choice([0, 1, 2**20 + 1, 2**62, len(packed)]).to_bytes(8, "little")
    return bytes(changed)


def damage(files, dice):
    """Return the files of a folder with one to three changes, and in most cases a SHA-256 that fits the weights."""
    files = dict(files)
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        kind = dice.randrange(10)
        name = [CONFIG_FILE, CONFIG_FILE, CONFIG_FILE, HISTORY_FILE, HISTORY_FILE][kind] if kind < 5 else WEIGHTS_FILE
        try:
            if kind < 5:
                files[name] = damage_json(files[name].decode(), dice).encode("utf-8", "surrogatepass")
            elif kind < 9:
                files[name] = damage_tensors(files[name], dice)
            else:
                name = dice.choice(list(files))
                files[name] = damage_bytes(files[name], dice)
        except (ValueError, IndexError, UnicodeDecodeError, TypeError, KeyError, AttributeError, RecursionError):
            files[name] = damage_bytes(files[name] or b"\0", dice)  # it was no longer what it should be
    if dice.random() < 0.9:
        try:
            config = json.loads(files[CONFIG_FILE])
            config["weights_sha256"] = hashlib.sha256(files[WEIGHTS_FILE]).hexdigest()
            files[CONFIG_FILE] = json.dumps(config).encode()
        except (ValueError, TypeError, RecursionError):
            pass  # no longer a JSON object
    return files
