"""Where the compiled kernels come from, and what happens where there are none."""

import subprocess
import sys

import pytest
from browser import ROOT

from charlm.inference import compiled
from charlm.inference.compiled import compile_for_all_processors, describe_engine, load_kernels

needs_compiler = pytest.mark.skipif(compiled._find_compiler() is None, reason="there is no C compiler here")


def forget():
    compiled._find_once.cache_clear()
    compiled._processor.cache_clear()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of the cache, not there yet; what this process has found before is forgotten."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    forget()
    yield tmp_path / "cache" / "charlm"
    forget()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library as a wheel has it."""
    path = tmp_path_factory.mktemp("library") / "_kernels.so"
    content = compile_for_all_processors()
    assert content is not None
    path.write_bytes(content)
    return path


def write_compiler(path, script):
    """Write a program that takes the place of the compiler."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@needs_compiler
@pytest.mark.slow
def test_the_second_process_loads_what_the_first_compiled(folder):
    kernels = load_kernels()
    assert kernels is load_kernels() and kernels.description == describe_engine()
    (kept,) = folder.iterdir()
    before = kept.stat()
    code = """
import sys
sys.modules["subprocess"] = None  # nothing can be started
from charlm.inference.compiled import load_kernels
print(load_kernels().lanes)
"""
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == f"{kernels.lanes}\n"
    assert kept.stat().st_mtime_ns == before.st_mtime_ns and list(folder.iterdir()) == [kept]
