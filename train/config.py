"""The settings of a training run, from which the command line is made."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from charlm.cells import CELLS
from charlm.errors import RequestError
from charlm.network import DEVICES, pick_device
from charlm.sampling import check_number, check_whole

PROTOCOLS = ("holdout",)
PRECISIONS = ("auto", "fp32", "bf16")

# A text shorter than this many steps an epoch is read in fewer streams, or it would hardly be trained on.
FEWEST_STEPS = 32


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[str] | None = None,
) -> Any:
    """Declare a field of TrainConfig with its bounds and the help that its flag shows."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a run. None stands for a choice that depends on the cell or the text.

    Raises RequestError when built with a value out of bounds.
    """

    cell: str = setting(help="kind of recurrent cell", choices=CELLS)
    protocol: str = setting("holdout", help="how the text is split and measured", choices=PROTOCOLS)
    epochs: int = setting(20, low=1, high=100_000, help="passes over the training text")
    hidden_size: int = setting(512, low=1, high=16_384, help="units in a layer")
    num_layers: int = setting(2, low=1, high=64, help="recurrent layers")
    embedding_size: int = setting(512, low=1, high=16_384, help="numbers that stand for a symbol")
    dropout: float | None = setting(None, low=0, high=0.99, help="share of activations dropped; default by cell")
    batch_size: int | None = setting(
        None, low=1, high=65_536, help="streams read side by side; default 64, fewer for a short text"
    )
    seq_length: int = setting(128, low=1, high=65_536, help="characters between two updates of the weights")
    lr: float | None = setting(None, low=1e-9, high=10, help="highest learning rate; default by cell")
    weight_decay: float = setting(0.2, low=0, high=10, help="decoupled weight decay of AdamW")
    clip_norm: float = setting(1.0, low=0, high=1e9, help="longest gradient allowed; 0 allows any")
    seed: int = setting(0, low=0, high=2**63 - 1, help="seed of every random number of the run")
    device: str = setting("auto", help="auto takes CUDA if there, else MPS, else the CPU", choices=DEVICES)
    precision: str = setting("auto", help="auto takes bf16 where the hardware computes it", choices=PRECISIONS)

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            value, rules = getattr(self, spec.name), spec.metadata
            if rules["choices"] is not None:
                if value not in rules["choices"]:
                    raise RequestError(f"{spec.name} is {value!r}; choose one of {', '.join(rules['choices'])}")
            elif value is None and spec.default is None:
                continue
            else:
                check = check_number if setting_type(spec) is float else check_whole
                # the checked value is a plain float or int, whatever came: the record is written as JSON
                object.__setattr__(self, spec.name, check(spec.name, value, rules["low"], rules["high"]))

    def resolve(self, train_chars: int) -> "TrainConfig":
        """Return the settings with every choice made, for a training text of that many characters.

        Raises RequestError if the text is too short for `seq_length`, or the device is not here.
        """
        if train_chars < 2 * self.seq_length:  # an epoch may start as much as a sequence into the text
            raise RequestError(
                f"the part of the text that trains has {train_chars:,} characters; sequences of {self.seq_length} "
                f"need {2 * self.seq_length:,}: give a longer text or a lower --seq-length"
            )
        most_streams = (train_chars - self.seq_length) // self.seq_length
        if self.batch_size is not None and self.batch_size > most_streams:
            raise RequestError(
                f"the text holds {most_streams:,} sequences of {self.seq_length}, fewer than --batch-size "
                f"{self.batch_size}; lower one of the two"
            )
        device = pick_device(self.device)
        kind = CELLS[self.cell]
        return dataclasses.replace(
            self,
            dropout=kind.dropout if self.dropout is None else self.dropout,
            lr=kind.learning_rate if self.lr is None else self.lr,
            batch_size=self.batch_size or max(1, min(64, most_streams // FEWEST_STEPS)),
            device=device.type,
            precision=pick_precision(self.precision, device),
        )


def setting_type(spec: "dataclasses.Field[Any]") -> type[str] | type[int] | type[float]:
    """Return the type that a setting's value has where it is not None."""
    kinds: tuple[Any, ...] = getattr(spec.type, "__args__", (spec.type,))
    return next(kind for kind in (float, int, str) if kind in kinds)


def pick_precision(name: str, device: torch.device) -> str:
    """Return fp32 or bf16 for one of PRECISIONS; auto takes bf16 only where the hardware says that it is the faster."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        # AVX-512's bf16 instructions are not enough: without AMX, an LSTM trained in bf16 ran at 0.7 of fp32's speed
        return "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "fp32"
    return "fp32"
