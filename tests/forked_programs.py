"""Python programs, each in a fork of one process that has imported the large libraries: they start in half a second.

Program starts them. As a script this file is the process that is forked, whose first argument is a socket. Our own
modules are imported by each program itself, and what it reads from the environment is read again. What a library reads
there when it is imported is that of the tests: a program for which that matters needs a process of its own.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import cache

LIBRARIES = ["gradio.routes", "gradio.mcp", "uvicorn", "huggingface_hub"]
LIBRARIES += ["torch", "matplotlib.figure", "matplotlib.backends.backend_agg"]
SETTINGS = {"GRADIO_ANALYTICS_ENABLED": "False", "OPENBLAS_NUM_THREADS": "1"}  # see charlm.web.environment
LONGEST_MESSAGE = 200_000  # bytes

_asking = threading.Lock()  # two threads would each start the process that is forked


class Program:
    """`python ARGUMENT...` in a fork, with what the tests need of subprocess.Popen.

    stdin, stdout: a file, subprocess.PIPE for a pipe of texts, subprocess.DEVNULL, or None for what the tests have.
    stderr: a file, subprocess.STDOUT for errors among the output, or None.
    """

    def __init__(self, arguments, *, folder=None, environment=None, stdin=None, stdout=None, stderr=None):
        """arguments: FILE, `-m` MODULE or `-c` CODE, and those of the program."""
        self.stdin, theirs = self._pipe(stdin, 0)
        self.stdout, output = self._pipe(stdout, 1)
        _, errors = (None, os.dup(output)) if stderr == subprocess.STDOUT else self._pipe(stderr, 2)
        self._said, said = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), "rw", strict=True))
        message = json.dumps([list(map(str, arguments)), str(folder or os.getcwd()), environment or dict(os.environ)])
        with _asking:
            server = _server()
        socket.send_fds(server, [message.encode()], [theirs, output, errors, said.fileno()])
        for end in (theirs, output, errors):
            os.close(end)
        said.close()
        self.pid, self.returncode = int(self._said.readline()), None

    @staticmethod
    def _pipe(wanted, number):
        """Our end of a stream, if there is a pipe, and the program's."""
        if wanted == subprocess.DEVNULL:
            return None, os.open(os.devnull, os.O_RDWR)
        if wanted != subprocess.PIPE:
            return None, os.dup(number if wanted is None else wanted.fileno())
        reading, writing = os.pipe()
        if number == 0:
            return open(writing, "w", encoding="utf-8"), reading
        return open(reading, encoding="utf-8"), writing

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.communicate()

    def poll(self):
        """The exit status, None while it runs."""
        if self.returncode is None and select.select([self._said], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout=None):
        """The exit status, once it has ended."""
        if self.returncode is None:
            if not select.select([self._said], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            self.returncode = int(self._said.readline())
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self):
        """Close its input, wait for its end, and return the rest of its output; its errors go to a file."""
        if self.stdin is not None:
            self.stdin.close()
        rest = self.stdout and self.stdout.read()
        self.wait()
        for stream in filter(None, (self.stdout, self._said)):
            stream.close()
        return rest, None


def run_program(arguments, folder, environment, timeout=None):
    """Run a program to its end, or kill it after that time; return what subprocess.run does."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as output,
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
    ):
        program = Program(arguments, folder=folder, environment=environment, stdout=output, stderr=errors)
        try:
            program.wait(timeout)
        finally:
            program.kill()
            program.communicate()
        for file in (output, errors):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, program.returncode, output.read(), errors.read())


@cache
def _server():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, __file__, str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=os.environ | SETTINGS, start_new_session=True)
    theirs.close()

    @atexit.register
    def end():
        ours.close()
        process.wait()

    return ours


def serve(connection):
    """Start the programs that are asked for."""
    import_libraries()
    gc.freeze()  # what is frozen is not copied when a fork looks for garbage
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, files, _, _ = socket.recv_fds(connection, LONGEST_MESSAGE, 4)
        if not message:
            break
        if os.fork() == 0:
            connection.close()
            start(json.loads(message), files)
        for file in files:
            os.close(file)
    os.killpg(0, signal.SIGKILL)  # nothing outlives the tests


def import_libraries():
    """Import LIBRARIES as the app does, without stubs; each fork imports charlm itself."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    importlib.import_module("charlm.web.gradio_import").skip_stubs()
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "charlm"]:
        del sys.modules[name]
    del sys.path[0]


def start(program, files):
    """Run a program in another fork; tell its process id and its exit status."""
    *streams, said = files
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (child := os.fork()) == 0:
        os.close(said)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        run(*program)
    for number in range(3):  # nobody waits for the end of a pipe because of this process
        os.close(streams[number])
        os.close(number)
    os.write(said, f"{child}\n".encode())
    os.write(said, f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())
    os._exit(0)


def run(arguments, folder, environment):
    """Do what `python ARGUMENT...` does; end the process."""
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    os.environ.clear()
    os.environ.update(environment)
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        del sys.modules[name]  # it keeps what it has read from the environment
    os.chdir(folder)
    status = 0
    try:
        first, *rest = arguments
        sys.path[:1] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        if first == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        elif first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = arguments, os.path.dirname(os.path.abspath(first))
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)  # without taking all that was imported apart, which takes a second


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
