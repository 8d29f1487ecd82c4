"""How the hardware computes: in fp32 or bf16, and without denormal floats."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# On a CPU, bf16 is chosen only if it is that much faster than fp32 and the layers are no smaller than this.
MIN_BF16_GAIN = 1.3
MIN_BF16_HIDDEN_SIZE = 128
MEASURING_SECONDS = 0.5  # a product in bf16 that the CPU emulates takes 0.2 s: measuring ends after a few


def pick_precision(name: str, device: torch.device, hidden_size: int) -> str:
    """Return fp32 or bf16 for auto, fp32 or bf16; auto takes bf16 only where it is faster."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu" and hidden_size >= MIN_BF16_HIDDEN_SIZE and _bf16_gain() >= MIN_BF16_GAIN:
        return "bf16"
    return "fp32"


def computes_bf16() -> bool:
    """Tell whether this CPU has instructions for products in bfloat16.

    Without them torch emulates such products: one of two 2048 × 2048 matrices takes over a minute.
    """
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@cache
def _bf16_gain() -> float:
    """Measure how many times as fast as in fp32 this CPU multiplies matrices in bf16.

    Having the instructions is not enough: a Xeon without AMX has them, and is slower with them.
    """
    if not computes_bf16():
        return 0.0
    fastest = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    spent = 0.0
    for _ in range(20):  # in turns, and the fastest of each counts: other programs slow some of them down
        for dtype in fastest:
            hidden, weights = torch.ones(64, 512, dtype=dtype), torch.ones(512, 2048, dtype=dtype)
            hidden @ weights
            start = time.perf_counter()
            hidden @ weights
            seconds = time.perf_counter() - start
            fastest[dtype] = min(fastest[dtype], seconds)
            spent += seconds
        if spent > MEASURING_SECONDS:
            break
    return fastest[torch.float32] / fastest[torch.bfloat16]


def product_dtype(precision: str) -> torch.dtype:
    """Return the type of the operands of matrix products in fp32 or bf16."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Let the CPU treat denormal floats as 0: vanishing states and gradients are a hundred times slower to multiply."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
