"""Where the compiled kernels come from, and what happens where there are none."""

import contextlib
import ctypes
import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from browser import ROOT
from numpy._core import _multiarray_umath

from charlm.errors import RequestError
from charlm.inference import compiled
from charlm.inference.compiled import compile_for_all_processors, describe_engine, load_kernels

COMPILER = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler here")

CPU_FEATURES = {name for name, there in _multiarray_umath.__cpu_features__.items() if there}  # that numpy knows
NUMPY_INSTEAD = "; numpy is used, which is slower; set CC to another compiler, or CHARLM_KERNELS=numpy to hide this"
EACH_START = r"^the kernels are compiled at each start, because they cannot be kept and loaded \({}\); set XDG_CACHE"


def forget():
    """Let this process look for kernels again, as one that has just begun."""
    compiled._find_once.cache_clear()
    compiled._processor.cache_clear()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of the cache, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CHARLM_KERNELS", raising=False)
    forget()
    yield tmp_path / "cache" / "charlm"
    forget()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The content of a library as a wheel has it."""
    return compile_for_all_processors()


@pytest.fixture
def compiler(tmp_path, monkeypatch, library):
    """Writes a program that takes the place of the compiler; with no script, it gives `library` at once.

    It adds a letter to the file `runs` each time that it runs.
    """
    (tmp_path / "library").write_bytes(library)
    give = f'while [ "$1" != -o ]; do shift; done; cp {tmp_path}/library "$2"'

    def write(script=give):
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\nprintf x >> {tmp_path}/runs\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("CC", str(path))
        forget()
        return path

    return write


@pytest.fixture
def count_runs(tmp_path):
    """Tells how often the compiler ran."""
    return lambda: len((tmp_path / "runs").read_text()) if (tmp_path / "runs").exists() else 0


# compiled once, then loaded


@pytest.mark.slow
def test_the_kernels_are_compiled_by_the_compiler_that_is_here(folder):
    kernels = load_kernels()
    assert kernels is not None and kernels.lanes in (4, 8, 16)
    assert kernels.description == describe_engine()
    (kept,) = folder.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o700 and folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_a_product_has_the_bits_of_sums_in_the_order_of_their_terms(compiler, monkeypatch):
    compiler()
    rng = np.random.default_rng(0)
    matrix, x = rng.normal(size=(3, 40, 16)).astype(np.float32), rng.normal(size=(5, 40)).astype(np.float32)
    expected = np.zeros((5, 3, 16), np.float32)
    for k in range(40):
        expected += x[:, None, k, None] * matrix[:, k]  # numpy rounds the product, then the sum
    for word in ("plain", "avx2", "avx512"):
        monkeypatch.setenv("CHARLM_KERNELS", word)
        try:
            kernels = load_kernels()
        except RequestError:  # this processor does not have it
            continue
        out = np.zeros_like(expected)
        sizes = map(ctypes.c_int64, (3, 40, 5))
        addresses = (ctypes.c_void_p(array.ctypes.data) for array in (x, out))
        assert kernels.function("add_product")(ctypes.c_void_p(matrix.ctypes.data), 0, *sizes, *addresses) == 0
        assert out.tobytes() == expected.tobytes()


def test_the_second_process_loads_what_the_first_compiled_and_starts_nothing(compiler, count_runs, monkeypatch):
    compiler()
    load_kernels()
    forget()
    monkeypatch.setattr(subprocess, "Popen", None)
    assert load_kernels() is not None
    assert count_runs() == 1


def test_threads_that_begin_together_compile_once_and_share_the_kernels(compiler, count_runs):
    compiler()
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_kernels())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and set(found) == {load_kernels()} and count_runs() == 1


@pytest.mark.slow
def test_processes_that_begin_together_with_an_empty_cache_all_have_the_kernels(folder, compiler):
    compiler()
    code = "from charlm.inference.compiled import load_kernels; print(load_kernels().lanes)"
    command = [sys.executable, "-W", "error", "-c", code]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    said = {process.communicate()[0] for process in processes}
    assert said == {f"{load_kernels().lanes}\n"} and all(process.returncode == 0 for process in processes)
    assert len(list(folder.iterdir())) == 1  # they made the same, and left nothing else


def test_another_source_compiler_flag_or_processor_is_compiled_for_anew(compiler, count_runs, monkeypatch, tmp_path):
    program = compiler()
    load_kernels()

    def compiles_again():
        before = count_runs()
        forget()
        load_kernels()
        return count_runs() == before + 1

    assert not compiles_again()
    os.utime(program, (0, 0))  # as an upgrade changes it
    assert compiles_again()
    monkeypatch.setenv("CC", f"{program} -O1")
    assert compiles_again()
    monkeypatch.setattr(compiled, "SOURCE_CODE", b"")
    assert compiles_again()
    if os.uname().machine == "x86_64":
        (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu sse2\n\nprocessor : 1\n")
        monkeypatch.setattr(compiled, "CPUINFO", tmp_path / "cpuinfo")
        assert compiles_again()
    assert not compiles_again()


def test_the_source_that_belongs_to_this_process_is_compiled_though_the_file_has_changed(
    compiler, monkeypatch, tmp_path
):
    monkeypatch.setattr(compiled, "SOURCE_CODE", b"/* of this version */")
    program = compiler()
    give = program.read_text().splitlines()[-1]
    compiler(f'for each; do case "$each" in */kernels.c) cp "$each" {tmp_path}/compiled;; esac; done; {give}')
    assert load_kernels() is not None
    assert (tmp_path / "compiled").read_text() == "/* of this version */"


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_what_was_kept_is_loaded_whatever_the_umask(compiler, count_runs, umask):
    compiler()
    before = os.umask(umask)
    try:
        load_kernels()
    finally:
        os.umask(before)
    forget()
    load_kernels()
    assert count_runs() == 1


# what the cache may hold


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign", "changed"])
def test_a_damaged_library_is_not_loaded_but_compiled_anew(compiler, count_runs, folder, damage):
    compiler()
    load_kernels()
    (kept,) = folder.iterdir()
    sound = kept.read_bytes()
    content = {"cut": sound[: len(sound) // 2], "empty": b"", "foreign": b"a bad cab", "changed": sound[:-1] + b"x"}
    kept.unlink()  # it is loaded here: to cut it would end this process
    kept.write_bytes(content[damage])
    forget()
    assert load_kernels() is not None
    assert count_runs() == 2 and kept.read_bytes() == sound


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_a_library_that_others_can_write_to_is_not_loaded(compiler, count_runs, folder, mode):
    compiler()
    load_kernels()
    (kept,) = folder.iterdir()
    kept.chmod(mode)
    forget()
    assert load_kernels() is not None
    assert count_runs() == 2 and kept.stat().st_mode & 0o777 == 0o700


def test_a_link_in_the_cache_is_not_followed(compiler, count_runs, folder, tmp_path):
    compiler()
    load_kernels()
    (kept,) = folder.iterdir()
    kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    forget()
    assert load_kernels() is not None
    assert count_runs() == 2 and not kept.is_symlink()


@pytest.mark.parametrize("place", ["folder", "above"])
def test_a_cache_that_others_can_write_to_is_not_used(compiler, count_runs, folder, place):
    compiler()
    load_kernels()
    others = {"folder": folder, "above": folder.parent}[place]
    others.chmod(0o777)
    forget()
    with pytest.warns(UserWarning, match=EACH_START.format(f"others can write to {others}")):
        assert load_kernels() is not None
    assert count_runs() == 2


def test_a_cache_above_which_others_can_only_add_is_used(compiler, count_runs, folder):
    compiler()
    load_kernels()
    folder.parent.chmod(0o1777)  # as /tmp
    forget()
    load_kernels()
    assert count_runs() == 1


def test_a_cache_is_checked_and_used_under_its_name_without_links(folder, monkeypatch, tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "private")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "link"))
    assert compiled._cache_folder() == tmp_path / "private" / "charlm"


@pytest.fixture
def give_away(monkeypatch):
    """Returns a function that lets a file or folder seem to belong to another user."""
    stat, fstat, theirs = os.stat, os.fstat, set()

    def disguise(status):
        owner = os.geteuid() + 1 if status.st_ino in theirs else status.st_uid
        return os.stat_result((*status[:4], owner, *status[5:]))

    monkeypatch.setattr(os, "stat", lambda *args, **options: disguise(stat(*args, **options)))
    monkeypatch.setattr(os, "fstat", lambda number: disguise(fstat(number)))
    return lambda path: theirs.add(stat(path).st_ino)


def test_nothing_is_made_in_the_folder_of_another_user(compiler, folder, give_away):
    compiler()
    give_away(folder.parent.parent)
    with pytest.warns(UserWarning, match=EACH_START.format(f"others can write to {folder.parent.parent}")):
        assert load_kernels() is not None
    assert not folder.parent.exists()


@pytest.mark.parametrize("who", ["folder", "file"])
def test_what_belongs_to_another_user_is_not_loaded(compiler, count_runs, folder, give_away, who):
    compiler()
    load_kernels()
    (kept,) = folder.iterdir()
    give_away(folder if who == "folder" else kept)
    forget()
    with pytest.warns(UserWarning, match="others can write to") if who == "folder" else contextlib.nullcontext():
        assert load_kernels() is not None
    assert count_runs() == 2


# where the cache is of no use


def test_without_a_cache_that_can_be_written_the_kernels_are_compiled_at_each_start(compiler, count_runs, folder):
    compiler()
    folder.parent.write_text("")  # a file, where the folder should be: root, too, cannot write there
    for start in (1, 2):
        with pytest.warns(UserWarning, match=EACH_START.format(r"\[Errno \d+\] .*")) as told:
            assert load_kernels() is not None
        assert len(told) == 1 and count_runs() == start
        forget()


def test_where_the_cache_has_no_room_a_temporary_folder_is_used(compiler, folder, monkeypatch):
    compiler()
    write = Path.write_bytes

    def fill(path, content):
        if folder in path.parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.warns(UserWarning, match=EACH_START.format(r"\[Errno \d+\] No space left on device")):
        assert load_kernels() is not None


def test_without_a_home_folder_the_kernels_are_compiled_at_each_start(compiler, monkeypatch):
    compiler()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # HOME is not set, and the system knows no such user
    with pytest.warns(UserWarning, match=EACH_START.format("this user has no home folder")):
        assert load_kernels() is not None


def test_a_relative_name_of_the_cache_is_not_used_as_its_standard_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiled._cache_folder() == tmp_path / ".cache" / "charlm"


def refuse_to_load(monkeypatch, refused):
    load = ctypes.CDLL

    def refuse(path):
        if refused(path):
            raise OSError("failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", refuse)


def test_where_nothing_in_the_cache_may_be_executed_a_temporary_folder_is_used(compiler, folder, monkeypatch):
    compiler()
    refuse_to_load(monkeypatch, lambda path: path.startswith(str(folder)))
    with pytest.warns(UserWarning, match=EACH_START.format("failed to map .*")):
        assert load_kernels() is not None
    assert list(folder.iterdir()) == []


def test_where_nothing_may_be_executed_numpy_is_used_after_one_line(compiler, monkeypatch):
    compiler()
    refuse_to_load(monkeypatch, lambda path: True)
    with pytest.warns(UserWarning, match=r"^the kernels cannot be compiled and loaded \(.*\)" + NUMPY_INSTEAD) as told:
        assert load_kernels() is None
    assert len(told) == 1 and describe_engine() == "numpy (the C compiler fails)"


NOEXEC = """
mount -t tmpfs -o noexec,size=4m none "$XDG_CACHE_HOME" && export TMPDIR="$XDG_CACHE_HOME" && exec "$@"
"""


@pytest.mark.slow
def test_on_a_file_system_that_forbids_to_execute_numpy_is_used_after_one_line(compiler, tmp_path):
    compiler()
    (tmp_path / "cache").mkdir()
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", NOEXEC, "sh"]
    try:
        subprocess.run([*inside, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this system lets nobody mount a file system without being root ({error})")
    command = [*inside, sys.executable, "-m", "charlm", "--version"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.endswith(", numpy (the C compiler fails)\n")
    assert said.stderr.startswith("warning: the kernels cannot be compiled and loaded (/")
    assert said.stderr.count("\n") == 1 and "failed to map segment" in said.stderr


# compilers


@pytest.mark.parametrize("script", ["exit 1", "echo 'kernels.c:1: error: no such file' >&2; exit 1", "exit 0"])
def test_a_compiler_that_fails_means_numpy_after_one_line(compiler, folder, script):
    program = compiler(script)
    says = "kernels.c:1: error: no such file" if "echo" in script else f"status {script[-1]}"
    with pytest.warns(UserWarning, match="^the C compiler") as told:
        assert load_kernels() is None
    assert [str(each.message) for each in told] == [f"the C compiler {program} fails ({says}){NUMPY_INSTEAD}"]
    assert describe_engine() == "numpy (the C compiler fails)"
    assert list(folder.iterdir()) == []


def test_kernels_that_were_asked_for_and_cannot_be_compiled_are_refused(compiler, monkeypatch):
    program = compiler("exit 1")
    monkeypatch.setenv("CHARLM_KERNELS", "plain")
    with pytest.raises(RequestError) as refused:
        load_kernels()
    assert str(refused.value) == (
        f"CHARLM_KERNELS is plain: the C compiler {program} fails (status 1); set CC to another compiler, or leave "
        "CHARLM_KERNELS out"
    )


def test_a_compiler_that_hangs_is_killed_with_what_it_started(compiler, monkeypatch, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    compiler(f"exec 3> {tmp_path}/pipe; sleep 600 & echo started >&3; wait")
    monkeypatch.setattr(compiled, "COMPILE_SECONDS", 0.3)
    with pytest.warns(UserWarning, match=f"did not end within 0.3 seconds{NUMPY_INSTEAD}$"):
        assert load_kernels() is None
    os.set_blocking(pipe, True)
    with open(pipe, "rb") as written:
        assert written.read() == b"started\n"  # ends when nobody holds the pipe open any more


def test_a_library_that_cannot_be_loaded_means_numpy_after_one_line(compiler):
    compiler('while [ "$1" != -o ]; do shift; done; echo a bad cab > "$2"')
    with pytest.warns(UserWarning, match=r"^the kernels cannot be compiled and loaded \(.*\)" + NUMPY_INSTEAD):
        assert load_kernels() is None


@pytest.mark.slow
def test_kernels_of_a_compiler_that_rounds_otherwise_are_not_used(monkeypatch, folder):
    if "FMA3" not in CPU_FEATURES:
        pytest.skip("this processor has no fused multiply-add")
    monkeypatch.setattr(compiled, "FLAGS", [*compiled.FLAGS, "-ffp-contract=fast"])  # once for product and sum
    with pytest.warns(UserWarning, match="makes of kernels.c gives wrong results; numpy is used"):
        assert load_kernels() is None
    assert list(folder.iterdir()) == []


def test_without_a_compiler_numpy_is_used_and_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load_kernels() is None and describe_engine() == "numpy (no C compiler found)"


def test_without_a_compiler_kernels_that_were_asked_for_are_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CHARLM_KERNELS", "plain")
    with pytest.raises(RequestError, match="CHARLM_KERNELS is plain: no C compiler found; install a C compiler, or"):
        load_kernels()


def test_where_there_are_no_kernels_for_the_system_numpy_is_used_and_nothing_is_said(monkeypatch):
    monkeypatch.setattr(compiled, "MAY_COMPILE", False)
    assert load_kernels() is None and describe_engine() == "numpy (there are no compiled kernels for this system)"


# CHARLM_KERNELS and the library of a wheel


def test_the_library_of_a_wheel_is_loaded_before_any_other(library, monkeypatch, tmp_path):
    (tmp_path / "_kernels.so").write_bytes(library)
    monkeypatch.setattr(compiled, "SHIPPED", tmp_path / "_kernels.so")
    monkeypatch.setenv("PATH", str(tmp_path))
    kernels = load_kernels()
    assert kernels.lanes == ctypes.CDLL(str(tmp_path / "_kernels.so")).widest_lanes()


def test_a_library_of_a_wheel_that_cannot_be_loaded_is_passed_over(compiler, monkeypatch, tmp_path):
    compiler()
    (tmp_path / "_kernels.so").write_text("a bad cab")
    monkeypatch.setattr(compiled, "SHIPPED", tmp_path / "_kernels.so")
    assert load_kernels() is not None


@pytest.mark.parametrize(("word", "lanes"), [("plain", 4), ("avx2", 8), ("avx512", 16)])
def test_the_kernels_are_held_to_an_instruction_set_or_it_is_refused_in_one_line(compiler, monkeypatch, word, lanes):
    compiler()
    monkeypatch.setenv("CHARLM_KERNELS", word)
    if {"plain": "plain", "avx2": "AVX2", "avx512": "AVX512_SKX"}[word] not in {"plain", *CPU_FEATURES}:
        with pytest.raises(RequestError, match=f"^CHARLM_KERNELS is {word}, which this processor does not have; "):
            load_kernels()
    else:
        assert load_kernels().lanes == lanes


def test_an_instruction_set_that_the_processor_lacks_is_refused_in_one_line(monkeypatch):
    class Narrow:
        def widest_lanes(self):
            return 4

    for word in ("avx2", "avx512"):
        with pytest.raises(RequestError) as error:
            compiled._choose(Narrow(), word)
        assert str(error.value) == (
            f"CHARLM_KERNELS is {word}, which this processor does not have; it must be auto, plain or numpy"
        )


def test_numpy_is_used_where_the_kernels_are_turned_off(monkeypatch):
    monkeypatch.setenv("CHARLM_KERNELS", "numpy")
    assert load_kernels() is None and describe_engine() == "numpy (CHARLM_KERNELS=numpy)"


@pytest.mark.parametrize("word", ["fast", "AVX2", " "])
def test_another_word_is_refused_in_one_line(monkeypatch, word):
    monkeypatch.setenv("CHARLM_KERNELS", word)
    with pytest.raises(RequestError) as error:
        load_kernels()
    assert str(error.value) == f"CHARLM_KERNELS is {word!r}; it must be auto, avx512, avx2, plain or numpy"
