import ctypes
import os
import subprocess
import sys

import pytest
import torch
from browser import ROOT

from charlm import device
from charlm.device import DEVICES, count_cores, has_cuda, pick_device
from charlm.errors import RequestError


@pytest.fixture
def machine(monkeypatch):
    """A function that makes this a machine with the devices named; without cuda, it lacks the driver too."""

    def make(*there):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
        put_driver("cuda" in there)

    def put_driver(is_there):
        def load(name):
            loaded.append(name)
            if not is_there:
                raise OSError(f"{name}: cannot open shared object file: No such file or directory")

        monkeypatch.setattr(ctypes, "CDLL", load)

    loaded = []
    make.loaded, make.put_driver = loaded, put_driver
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    return make


def run(code):
    """Run Python without a CUDA driver; return what it prints."""
    no_driver = "import ctypes\ndef refuse(name): raise OSError\nctypes.CDLL = refuse\n"
    return subprocess.check_output([sys.executable, "-c", no_driver + code], cwd=ROOT, text=True).split()


# Which device


def test_auto_picks_a_device_that_works():
    assert torch.zeros(1, device=pick_device("auto")).item() == 0


@pytest.mark.parametrize(
    ("there", "picked"), [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")], ids=str
)
def test_auto_is_cuda_if_there_else_mps_else_the_cpu(machine, there, picked):
    machine(*there)
    assert pick_device("auto") == picked


@pytest.mark.parametrize("name", ["cpu", "cuda", "mps"])
def test_a_device_that_is_there_is_picked_by_its_name(machine, name):
    machine("cuda", "mps")
    assert pick_device(name) == name


@pytest.mark.parametrize("name", ["tpu", "", "CPU", "cuda:0"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(RequestError, match=f"device is '{name}'; choose one of auto, cpu, cuda, mps"):
        pick_device(name)


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_missing_device_is_refused(machine, name):
    machine()
    with pytest.raises(RequestError, match=f"device {name} is not available here; choose auto or cpu"):
        pick_device(name)


def test_the_devices_that_can_be_asked_for_are_those_that_are_told():
    assert DEVICES == ("auto", "cpu", "cuda", "mps")


# Whether there is CUDA


def test_cuda_is_there_if_its_driver_is_and_torch_finds_a_device(machine):
    machine("cuda")
    assert has_cuda()
    machine("cuda", "mps")
    assert has_cuda()
    machine("mps")
    assert not has_cuda()


def test_a_driver_that_torch_finds_no_device_with_is_not_enough(machine):
    for there in ((), ("mps",)):
        machine(*there)
        machine.put_driver(True)
        assert not has_cuda()


def test_the_driver_is_looked_for_under_the_name_that_the_system_gives_it(machine, monkeypatch):
    machine()
    for system in ("linux", "win32"):
        monkeypatch.setattr(device.sys, "platform", system)
        has_cuda()
    assert machine.loaded == ["libcuda.so.1", "nvcuda.dll"]


def test_the_gpu_that_a_space_shares_does_not_count(machine, monkeypatch):
    machine("cuda")
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert not has_cuda() and machine.loaded == []


def test_to_find_out_that_there_is_no_cuda_or_to_pick_the_cpu_loads_no_torch():
    code = (
        "import sys\n"
        "from charlm.device import count_cores, has_cuda, pick_device\n"
        "print(has_cuda(), pick_device('cpu'), count_cores() > 0, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    assert run(code) == ["False", "cpu", "True", "False", "False"]


# How many cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_only_the_cores_that_the_process_may_use_are_counted():
    code = (
        "import os\n"
        "from charlm.device import count_cores\n"
        "print(count_cores())\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(count_cores())"
    )
    assert run(code) == [str(len(os.sched_getaffinity(0))), "1"]


def test_where_processes_are_not_bound_to_cores_all_are_counted_and_one_if_nobody_knows(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for told, cores in ((12, 12), (1, 1), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda told=told: told)
        assert count_cores() == cores
