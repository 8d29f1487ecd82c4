"""Which device a model runs on. torch is imported only where a GPU may be, because that takes a second."""

import ctypes
import os
import sys

from charlm.errors import MissingPackageError, RequestError
from charlm.installation import optional_packages
from charlm.messages import show
from charlm.zero_gpu import on_zero_gpu

DEVICES = ("auto", "cpu", "cuda", "mps")


def pick_device(name: str) -> str:
    """Return cpu, cuda or mps for one of DEVICES; auto is CUDA if available, else MPS, else the CPU.

    Raises RequestError for another name, or a device that this machine lacks; MissingPackageError without torch, unless
    the name is cpu.
    """
    if name not in DEVICES:
        raise RequestError(f"device is {show(name)}; choose one of {', '.join(DEVICES)}")
    if name == "cpu":
        return name
    with optional_packages():
        import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, is_available in available.items() if is_available)
    if not available[name]:
        raise RequestError(f"device {name} is not available here; choose auto or cpu")
    return name


def check_device(name: str) -> None:
    """Raise what `pick_device` does for a wrong name or a missing device. For auto, torch is not imported."""
    if name != "auto":
        pick_device(name)


def has_cuda() -> bool:
    """Tell whether torch finds a CUDA device. Without a CUDA driver, torch is not imported to find out."""
    if on_zero_gpu():
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    try:
        return pick_device("auto") == "cuda"
    except MissingPackageError:
        return False


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
