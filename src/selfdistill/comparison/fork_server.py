"""Server process that has imported everything once, and forks for each run of a study.

The imports of a run (torch, Fabric, timm) take longer than a short training. The server never
computes: a process that has used torch's threads or a GPU cannot be forked.
"""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from .child_process import run_program, terminate_with

_Connection: TypeAlias = "Connection[Any, Any]"
_POLL_SECONDS = 0.02
_NO_PROCESS = -1  # the server had been killed


class _Request(NamedTuple):
    program: str
    arguments: list[str]
    env: dict[str, str]
    log: Path
    directory: Path


@contextlib.contextmanager
def fork_server(modules: Sequence[str], **env: str) -> Iterator["ForkServer"]:
    """Server in a process of its own.

    However this process ends, the server and all programs get SIGTERM.

    Args:
        modules: names of what is imported once; what cannot be imported is left to the programs.
        env: environment variables that are read at import, as the number of threads is.
    """
    connection, server_end = Pipe()
    number = server_end.fileno()
    with server_end:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(number), *modules],
            stdin=subprocess.DEVNULL,
            pass_fds=[number],
            env={**os.environ, **env},
        )
    with process, connection:
        yield ForkServer(connection)


class ForkServer:
    """Starts programs in processes that have some modules imported.

    Args:
        connection: to a process in `serve`.
    """

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._codes: dict[int, int] = {}

    def start(
        self, program: str, arguments: Sequence[str], log: Path, **env: str
    ) -> "ForkedProcess":
        """Start a program, in this process's working directory.

        Args:
            program: a module that is run as by `python -m`, or a file.
            arguments: those of its command line.
            log: file to which its output is appended.
            env: environment variables of it alone.
        """
        request = _Request(program, list(arguments), env, log.absolute(), Path.cwd())
        with contextlib.suppress(OSError):  # a server that is gone is seen below
            self._connection.send(request)
        message = self._receive()
        while isinstance(message, tuple):
            message = self._receive()
        if message is None:
            return ForkedProcess(self, _NO_PROCESS)
        self._codes.pop(message, None)  # of an earlier process of this number
        return ForkedProcess(self, message)

    def exit_code(self, pid: int) -> int | None:
        """Exit code of a process as `subprocess` gives it, None while it runs."""
        if pid == _NO_PROCESS:
            return -signal.SIGKILL
        while pid not in self._codes and self._connection.poll():
            if self._receive() is None:
                self._codes[pid] = -signal.SIGKILL
        return self._codes.get(pid)

    def _receive(self) -> int | tuple[int, int] | None:
        """Next message: the number of a started process, or (process, exit code), which is kept."""
        try:
            message: int | tuple[int, int] = self._connection.recv()
        except (EOFError, OSError):
            return None
        if isinstance(message, tuple):
            self._codes[message[0]] = message[1]
        return message


class ForkedProcess:
    """Process of a server, with the methods of `subprocess.Popen` that a job needs."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server, self.pid = server, pid

    def poll(self) -> int | None:
        """Exit code, None while it runs."""
        return self._server.exit_code(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(_POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def serve(connection: _Connection) -> None:
    """Fork for each request, and run its program there, until the other end closes."""
    # A signal to the whole group is for the programs, whose exit codes are waited for.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    children: set[int] = set()
    end_of_server, held = os.pipe()
    while True:
        if connection.poll(_POLL_SECONDS):
            try:
                request: _Request = connection.recv()
            except EOFError:
                break
            pid = os.fork()
            if pid == 0:
                os.close(held)
                connection.close()
                _run(request, end_of_server)
                sys.exit()
            children.add(pid)
            connection.send(pid)
        for pid in list(children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                children.remove(pid)
                with contextlib.suppress(OSError):
                    connection.send((pid, os.waitstatus_to_exitcode(status)))
    for pid in children:
        os.kill(pid, signal.SIGTERM)


def _run(request: _Request, end_of_server: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(request.directory)
    os.environ.update(request.env)
    with request.log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    terminate_with(end_of_server)
    run_program(request.program, request.arguments)


def _main(number: int, modules: Sequence[str]) -> None:
    for module in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    serve(Connection(number))


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
