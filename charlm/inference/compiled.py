"""The compiled kernels, the machine code of kernels.c: shipped in a wheel, kept in the user's cache, or compiled now.

They are looked for in this order:

1. A library in the package, which a wheel brings. It has the functions for all instruction sets of its processors.
2. The cache, $XDG_CACHE_HOME/charlm or ~/.cache/charlm. The name of a library there has a hash of what it was made
   from (kernels.c, the flags, the compiler and, with -march=native, the processor) and one of its content, so that
   neither an outdated nor a cut file is loaded. Looking starts no process.
3. A C compiler: $CC, else cc, gcc or clang. What it makes is tried on a product that is also made in Python, then kept.

Loading a library executes it. So the folder of the cache and the library must belong to this user, and nobody else may
be able to write to them or to the folders above. Where the cache cannot be used, the library is compiled and loaded in
a private temporary folder at each start: half a second, for kernels that write several times as fast as numpy.

CHARLM_KERNELS holds the kernels to an instruction set: to the widest (auto), avx512, avx2, or plain, which every
processor has; numpy turns them off. The results have the same bits with each of these, except with numpy.
"""

import contextlib
import ctypes
import hashlib
import itertools
import os
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from charlm.errors import RequestError
from charlm.locks import RenewedLock

VARIABLE = "CHARLM_KERNELS"
SOURCE = Path(__file__).with_name("kernels.c")
# Read now: the file may be replaced by that of another version, while this process keeps the Python of this one.
SOURCE_CODE = SOURCE.read_bytes()
SHIPPED = Path(__file__).with_name("_kernels.so")  # on macOS, too
LANES = {"auto": 0, "avx512": 16, "avx2": 8, "plain": 4}  # by the words of VARIABLE; 0: as many as there are
# On Windows, gcc does not align the vectors of AVX, and Microsoft's C has none. Pairs of bfloat16 numbers are read as
# little-endian words.
MAY_COMPILE = os.name == "posix" and sys.byteorder == "little"
COMPILERS = ("cc", "gcc", "clang")
# -ffast-math, which $CC may ask for, and fused multiply-add would change results: a product is rounded before it is
# added. That the C library sets no errno, and that nobody asks for floating-point exceptions, changes none.
ARITHMETIC = ("-fno-fast-math", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
FLAGS = ("-std=c11", "-O3", *ARITHMETIC, "-Wno-psabi", "-shared", "-fPIC")
FOR_THIS_PROCESSOR = ("-DONE_PROCESSOR", "-march=native")  # takes less than half the time
COMPILE_SECONDS = 60.0  # more means that the compiler hangs
ROOM = 1 << 20  # bytes, more than a library and what the compiler says take
LONGEST_REASON = 200  # characters of what a compiler says, in a message
CPUINFO = Path("/proc/cpuinfo")
PROCESSOR_LINES = (b"vendor_id", b"cpu family", b"model", b"flags")  # what -march=native depends on
OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH
WAY_OUT = f"numpy is used, which is slower; set CC to another compiler, or {VARIABLE}=numpy to hide this"

_lock = RenewedLock()


class Kernels:
    """The functions of kernels.c for one instruction set.

    lanes: float32 numbers in its vectors.
    description: for people, with the name of the instruction set.
    """

    def __init__(self, library: ctypes.CDLL, lanes: int) -> None:
        self._library, self.lanes = library, lanes
        self.description = f"compiled kernels ({_instruction_set(lanes)})"

    def function(self, name: str) -> Any:
        """Return a function, without the lanes in its name. Its argtypes and restype are its caller's to set."""
        return self._library[f"{name}_{self.lanes}"]


class _UnusableError(Exception):
    """What was compiled cannot be used, or nothing was; the message says why."""


def load_kernels() -> Kernels | None:
    """Return the compiled kernels, or None if numpy does the work; the same for all callers in a process.

    The first call takes half a second where they must be compiled. A failure causes one warning; a missing compiler
    causes none. Raises RequestError if CHARLM_KERNELS has a wrong value, or names kernels that this processor cannot
    run or that nothing here can compile.
    """
    return _find()[0]


def describe_engine() -> str:
    """Return what does the arithmetic here, as `charlm --version` prints it."""
    kernels, reason = _find()
    return kernels.description if kernels else f"numpy ({reason})"


def compile_for_all_processors() -> bytes | None:
    """Return a library for a wheel, or None where no compiler makes a working one."""
    compiler = _find_compiler() if MAY_COMPILE else None
    if compiler is None:
        return None
    try:
        with _compiled(compiler, FLAGS, None) as (made, _):
            return made.read_bytes()
    except (_UnusableError, OSError) as problem:
        warnings.warn(f"{problem}; the wheel has no compiled kernels", stacklevel=2)
        return None


def _find() -> tuple[Kernels | None, str]:
    """Return the kernels, or None and the reason why numpy does the work."""
    word = os.environ.get(VARIABLE) or "auto"
    if word not in (*LANES, "numpy"):
        raise RequestError(f"{VARIABLE} is {word!r}; it must be auto, avx512, avx2, plain or numpy")
    with _lock:  # two threads would compile twice
        return _find_once(word)


@cache
def _find_once(word: str) -> tuple[Kernels | None, str]:
    if word == "numpy":
        return None, f"{VARIABLE}=numpy"
    if not MAY_COMPILE:
        return _do_without(word, "there are no compiled kernels for this system")
    library = _open(SHIPPED)
    if library is not None:
        return _choose(library, word), ""
    compiler = _find_compiler()
    if compiler is None:
        return _do_without(word, "no C compiler found")
    flags = [*FLAGS, *(FOR_THIS_PROCESSOR if word == "auto" and _processor() else ())]
    try:
        library = _open_cached(compiler, flags) or _compile_and_keep(compiler, flags)
    except _UnusableError as problem:
        if word != "auto":
            raise _refusal(word, f"{problem}; set CC to another compiler") from None
        warnings.warn(f"{problem}; {WAY_OUT}", stacklevel=4)
        return None, "the C compiler fails"
    return _choose(library, word), ""


def _do_without(word: str, reason: str) -> tuple[None, str]:
    """Return what `_find` does where numpy does the work, unless CHARLM_KERNELS names kernels."""
    if word != "auto":
        raise _refusal(word, f"{reason}; install a C compiler")
    return None, reason


def _refusal(word: str, problem: str) -> RequestError:
    return RequestError(f"{VARIABLE} is {word}: {problem}, or leave {VARIABLE} out")


def _choose(library: ctypes.CDLL, word: str) -> Kernels:
    """Return the kernels of a library that CHARLM_KERNELS asks for."""
    widest = library.widest_lanes()
    if LANES[word] > widest:
        words = ", ".join(name for name, lanes in LANES.items() if lanes <= widest)
        raise RequestError(f"{VARIABLE} is {word}, which this processor does not have; it must be {words} or numpy")
    return Kernels(library, LANES[word] or widest)


def _instruction_set(lanes: int) -> str:
    machine = os.uname().machine
    narrowest = {"x86_64": "SSE2", "aarch64": "NEON", "arm64": "NEON"}.get(machine, machine)
    return {16: "AVX-512", 8: "AVX2"}.get(lanes, narrowest)


# --- the compiler ---


def _find_compiler() -> list[str] | None:
    """Return the command of the first compiler that is there."""
    for command in (os.environ.get("CC", ""), *COMPILERS):
        words = command.split()
        if words and (program := shutil.which(words[0])):
            return [program, *words[1:]]
    return None


@contextlib.contextmanager
def _compiled(compiler: Sequence[str], flags: Sequence[str], parent: Path | None) -> Iterator[tuple[Path, ctypes.CDLL]]:
    """Compile a library in a new folder of `parent`, None for the system's temporary folder; load it and try it.

    Raises _UnusableError if the compiler fails or hangs, or if what it made gives wrong results, and OSError if the
    folder cannot be written or nothing in it may be executed.
    """
    with tempfile.TemporaryDirectory(prefix="charlm-", dir=parent) as folder:  # no other user has access
        source, made, said = (Path(folder, name) for name in (SOURCE.name, "kernels.so", "messages"))
        made.write_bytes(bytes(ROOM))  # where there is no room, this is an OSError, and not a failure of the compiler
        made.unlink()
        source.write_bytes(SOURCE_CODE)
        with said.open("wb") as messages:
            status = _run([*compiler, *flags, str(source), "-o", str(made), "-lm"], messages.fileno())
        if status != 0 or not made.is_file():
            lines = said.read_text(errors="replace").strip().splitlines() or [f"status {status}"]
            problem = next((line for line in lines if "error" in line), lines[0])[:LONGEST_REASON]
            raise _UnusableError(f"the C compiler {compiler[0]} fails ({problem})")
        library = ctypes.CDLL(str(made))
        if not _computes_exactly(library):
            raise _UnusableError(f"what the C compiler {compiler[0]} makes of {SOURCE.name} gives wrong results")
        yield made, library


def _run(command: Sequence[str], messages: int) -> int:
    """Run a command and return its exit status; kill it, and what it started, if it hangs or if we are interrupted."""
    import signal
    import subprocess

    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages, start_new_session=True
    ) as process:
        try:
            return process.wait(COMPILE_SECONDS)
        except subprocess.TimeoutExpired:
            raise _UnusableError(
                f"the C compiler {command[0]} did not end within {COMPILE_SECONDS:g} seconds"
            ) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(OSError):  # it has just ended
                    os.killpg(process.pid, signal.SIGKILL)


def _computes_exactly(library: ctypes.CDLL) -> bool:
    """Tell whether a product has, in every instruction set, the bits that its order of sums gives in Python."""
    terms, rows, outputs = 8, 15, 16
    weights = (ctypes.c_float * (terms * outputs))(*((37 * i % 101 - 50) / 97 for i in range(terms * outputs)))
    x = (ctypes.c_float * (rows * terms))(*((53 * i % 89 - 44) / 83 for i in range(rows * terms)))
    sums = (ctypes.c_float * (rows * outputs))()
    for row, k, j in itertools.product(range(rows), range(terms), range(outputs)):
        # a double holds the product exactly, and c_float rounds it
        sums[row * outputs + j] += ctypes.c_float(weights[k * outputs + j] * x[row * terms + k]).value
    if not hasattr(library, "widest_lanes"):  # it is not ours
        return False
    for lanes in (4, 8, 16):
        if lanes <= library.widest_lanes() and hasattr(library, f"add_product_{lanes}"):
            out = (ctypes.c_float * (rows * outputs))()
            sizes = map(ctypes.c_int64, (1, terms, rows))
            if library[f"add_product_{lanes}"](weights, 0, *sizes, x, out) != 0 or bytes(out) != bytes(sums):
                return False
    return True


# --- the cache ---


def _cache_folder() -> Path:
    """Return where compiled libraries are kept. Raises OSError if this user has no such place."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = given if given.is_absolute() else Path(os.path.expanduser("~"), ".cache")
    if not folder.is_absolute():
        raise FileNotFoundError("this user has no home folder")
    return Path(os.path.realpath(folder / "charlm"))  # without links, which could be changed after it was checked


def _key(compiler: Sequence[str], flags: Sequence[str]) -> str:
    """Return the beginning of the names of libraries that are made from the same."""
    program = os.stat(compiler[0])
    made_from = [*compiler, os.path.realpath(compiler[0]), program.st_size, program.st_mtime_ns, *flags]
    if "-march=native" in flags:
        made_from.append(_processor())
    hashed = hashlib.sha256(repr(made_from).encode() + SOURCE_CODE)
    return f"kernels-{hashed.hexdigest()[:16]}-"


@cache
def _processor() -> bytes:
    """Return what Linux tells of the first x86 processor; empty elsewhere, where -march=native is not used."""
    if os.uname().machine != "x86_64":
        return b""
    try:
        with CPUINFO.open("rb", buffering=0) as file:
            lines = file.read(8192).split(b"\n\n")[0].splitlines()
    except OSError:
        return b""
    return b"\n".join(line for line in lines if line.startswith(PROCESSOR_LINES))


def _open_cached(compiler: Sequence[str], flags: Sequence[str]) -> ctypes.CDLL | None:
    """Load a library from the cache, or return None if there is none, or none that may and can be loaded."""
    try:
        folder, key = _cache_folder(), _key(compiler, flags)
        _check_private(folder)
        for name in sorted(os.listdir(folder)):
            if name.startswith(key) and name.endswith(".so"):
                content = _read_private(folder / name)
                if name == _name(key, content) and (library := _open(folder / name)) is not None:
                    return library
    except OSError:
        pass
    return None


def _compile_and_keep(compiler: Sequence[str], flags: Sequence[str]) -> ctypes.CDLL:
    """Compile a library in the cache; in a temporary folder, with a warning, if it cannot be kept or loaded there.

    Raises _UnusableError if that fails, too.
    """
    try:
        folder = _cache_folder()
        _check_above(folder)  # first: what is made in the folder of another user is in their way
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        _check_private(folder)
        with _compiled(compiler, flags, folder) as (made, library):
            made.chmod(0o700)  # the umask may let the user's group write
            os.replace(made, folder / _name(_key(compiler, flags), made.read_bytes()))  # others may load it at any time
            return library
    except OSError as error:
        problem = error
    try:
        with _compiled(compiler, flags, None) as (_, library):
            warnings.warn(
                f"the kernels are compiled at each start, because they cannot be kept and loaded ({problem}); "
                "set XDG_CACHE_HOME to a folder where that is possible",
                stacklevel=5,
            )
            return library
    except OSError as error:
        raise _UnusableError(f"the kernels cannot be compiled and loaded ({problem}; {error})") from None


def _name(key: str, content: bytes) -> str:
    return f"{key}{hashlib.sha256(content).hexdigest()[:16]}.so"


def _check_private(folder: Path) -> None:
    """Raise OSError unless only this user can change what is in a folder, whose path has no symbolic links."""
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & OTHERS_CAN_WRITE:
        raise PermissionError(f"others can write to {folder}")
    _check_above(folder)


def _check_above(folder: Path) -> None:
    """Raise OSError if other users can replace a folder, or one above it. Those that do not exist are passed over."""
    owners = {os.geteuid(), 0, os.stat("/").st_uid}
    for place in filter(os.path.exists, folder.parents):
        status = place.stat()
        is_shared = status.st_mode & OTHERS_CAN_WRITE and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in owners or is_shared:
            raise PermissionError(f"others can write to {place}")


def _read_private(path: Path) -> bytes:
    """Return the content of a file. Raises OSError if it is a link, or not this user's alone to change."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & OTHERS_CAN_WRITE:
            raise PermissionError(f"others can write to {path}")
        return file.read()


def _open(path: Path) -> ctypes.CDLL | None:
    """Load a library, or return None if that fails."""
    try:
        return ctypes.CDLL(str(path)) if path.is_file() else None
    except OSError:
        return None
