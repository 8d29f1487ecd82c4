"""Which device a model runs on. Nothing here imports torch before a GPU makes that worth its second."""

import ctypes
import os
import sys

from charlm.errors import RequestError

DEVICES = ("auto", "cpu", "cuda", "mps")


def pick_device(name: str) -> str:
    """Return cpu, cuda or mps for one of DEVICES; auto is CUDA if there, else MPS, else the CPU.

    Raises RequestError for another name, or one that this machine lacks.
    """
    if name not in DEVICES:
        raise RequestError(f"device is {name!r}; choose one of {', '.join(DEVICES)}")
    if name == "cpu":
        return name
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, there in available.items() if there)
    if not available[name]:
        raise RequestError(f"device {name} is not available here; choose auto or cpu")
    return name


def has_cuda() -> bool:
    """Tell whether torch could find a CUDA device; where there is no driver, without importing it."""
    if os.environ.get("SPACES_ZERO_GPU"):  # a Space's shared GPU is there within marked functions only
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return pick_device("auto") == "cuda"


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
