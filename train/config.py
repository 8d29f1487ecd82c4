"""The settings of a training run, from which the command line is made."""

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from charlm.checks import check_number, check_whole
from charlm.device import DEVICES, pick_device
from charlm.errors import RequestError
from charlm.model.cells import CELLS
from charlm.model.history import MOST_EPOCHS
from train.protocols import PROTOCOLS, Protocol

PRECISIONS = ("auto", "fp32", "bf16")

# A text shorter than this many steps an epoch is read in fewer streams, or it would hardly be trained on.
FEWEST_STEPS = 32

# bf16 on a CPU must be that much faster than fp32 to be chosen, and the model no smaller.
WORTHWHILE_GAIN = 1.3
SMALLEST_FOR_BF16 = 128
LONGEST_MEASUREMENT = 0.5  # seconds of measuring: where bf16 is emulated all the same, a product takes 0.2 s


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
    epochs: int = setting(24, low=1, high=MOST_EPOCHS, help="passes over the training text")
    hidden_size: int = setting(512, low=1, high=16_384, help="units in a layer")
    num_layers: int = setting(2, low=1, high=64, help="recurrent layers")
    embedding_size: int = setting(512, low=1, high=16_384, help="numbers that stand for a symbol")
    dropout: float | None = setting(None, low=0, high=0.99, help="share of a layer's outputs dropped; default by cell")
    embedding_dropout: float | None = setting(
        None, low=0, high=0.99, help="share of the embedding dropped; default by cell"
    )
    batch_size: int | None = setting(
        None, low=1, high=65_536, help="streams read side by side; default 64, fewer for a short text"
    )
    seq_length: int | None = setting(
        None, low=1, high=65_536, help="characters that an update looks back; default 128, or a window's length"
    )
    lr: float | None = setting(None, low=1e-9, high=10, help="highest learning rate; default by cell")
    weight_decay: float | None = setting(None, low=0, high=10, help="decoupled weight decay of AdamW; default by cell")
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

    def resolve(self, protocol: Protocol) -> "TrainConfig":
        """Return the settings with every choice made, for a text split by a protocol.

        Raises RequestError if the text is too short for them, or the device is not here.
        """
        seq_length = protocol.seq_length(self.seq_length)
        most_streams = protocol.most_streams(seq_length)
        if self.batch_size is not None and self.batch_size > most_streams:
            raise RequestError(
                f"the text holds {most_streams:,} sequences of {seq_length}, fewer than --batch-size "
                f"{self.batch_size}; lower one of the two"
            )
        device = torch.device(pick_device(self.device))
        recipe = dataclasses.asdict(CELLS[self.cell].recipe)
        return dataclasses.replace(
            self,
            **{name: value for name, value in recipe.items() if getattr(self, name) is None},
            seq_length=seq_length,
            batch_size=self.batch_size or max(1, min(64, most_streams // FEWEST_STEPS)),
            device=device.type,
            precision=pick_precision(self.precision, device, self.hidden_size),
        )


def setting_type(spec: "dataclasses.Field[Any]") -> type[str] | type[int] | type[float]:
    """Return the type that a setting's value has where it is not None."""
    kinds: tuple[Any, ...] = getattr(spec.type, "__args__", (spec.type,))
    return next(kind for kind in (float, int, str) if kind in kinds)


def pick_precision(name: str, device: torch.device, hidden_size: int) -> str:
    """Return fp32 or bf16 for one of PRECISIONS; auto takes bf16 only where it is the faster."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu" and hidden_size >= SMALLEST_FOR_BF16 and _bf16_gain() >= WORTHWHILE_GAIN:
        return "bf16"
    return "fp32"


def computes_bf16() -> bool:
    """Tell whether this CPU has instructions for products in bfloat16.

    Without them torch emulates such products: two matrices of 2048 × 2048 take over a minute.
    """
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@cache
def _bf16_gain() -> float:
    """Measure how many times as fast as in fp32 this CPU multiplies matrices in bf16.

    That it has instructions for bf16 does not tell: a Xeon without AMX has them, and is slower with them.
    """
    if not computes_bf16():
        return 0.0
    fastest = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    spent = 0.0
    for _ in range(20):  # in turn, the best of each: other work on the machine disturbs some of them
        for dtype in fastest:
            hidden, weights = torch.ones(64, 512, dtype=dtype), torch.ones(512, 2048, dtype=dtype)
            hidden @ weights
            start = time.perf_counter()
            hidden @ weights
            seconds = time.perf_counter() - start
            fastest[dtype] = min(fastest[dtype], seconds)
            spent += seconds
        if spent > LONGEST_MEASUREMENT:
            break
    return fastest[torch.float32] / fastest[torch.bfloat16]
