"""Programs forked from a server: what they are given, how they end, and that they end with it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from selfdistill.comparison.fork_server import fork_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")

PROGRAM = """
import os, sys, time
print(*sys.argv[1:], os.environ.get("COLOR"), os.getcwd(), "decimal" in sys.modules, flush=True)
if sys.argv[1] == "fail":
    raise ValueError("no")
if sys.argv[1] == "exit":
    sys.exit(int(sys.argv[2]))
if sys.argv[1] == "sleep":
    time.sleep(60)
"""


@pytest.fixture
def program(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    return str(tmp_path / "program.py")


@pytest.fixture
def server():
    with fork_server(["decimal", "no.such.module"]) as server:
        yield server


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_arguments_environment_directory_and_imports(server, program, tmp_path):
    process = server.start(program, ["a", "b c"], tmp_path / "log", COLOR="red")
    assert process.wait() == 0
    assert (tmp_path / "log").read_text() == f"a b c red {tmp_path} True\n"
    assert server.start(program, ["again"], tmp_path / "log").wait() == 0
    assert (tmp_path / "log").read_text().endswith(f"\nagain None {tmp_path} True\n")


def test_a_module_runs_as_a_program(server, tmp_path):
    assert server.start("calendar", ["2026", "11"], tmp_path / "log").wait() == 0
    assert "November 2026" in (tmp_path / "log").read_text()


def test_exit_codes(server, program, tmp_path):
    arguments = {0: ["fine"], 1: ["fail"], 5: ["exit", "5"], -signal.SIGTERM: ["sleep"]}
    processes = {
        code: server.start(program, words, tmp_path / f"log{code}")
        for code, words in arguments.items()
    }
    wait_for((tmp_path / f"log{-signal.SIGTERM}").exists)
    processes[-signal.SIGTERM].terminate()
    assert {code: process.wait() for code, process in processes.items()} == {
        code: code for code in arguments
    }
    assert "ValueError: no" in (tmp_path / "log1").read_text()


def test_wait_with_a_limit(server, program, tmp_path):
    process = server.start(program, ["sleep"], tmp_path / "log")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.1)
    assert process.poll() is None
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.terminate()  # of what has ended: nothing


def server_of(process) -> int:
    """Number of the process that forked another."""
    return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_programs_end_with_the_client(program, tmp_path):
    with fork_server([]) as server:
        process = server.start(program, ["sleep"], tmp_path / "log")
    wait_for(lambda: not is_alive(process.pid))


def test_programs_end_with_the_server(program, tmp_path):
    with fork_server([]) as server:
        process = server.start(program, ["sleep"], tmp_path / "log")
        os.kill(server_of(process), signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert server.start(program, ["fine"], tmp_path / "log").wait() == -signal.SIGKILL
        wait_for(lambda: not is_alive(process.pid))


def test_the_server_outlives_a_signal_to_all(server, program, tmp_path):
    """Else the exit codes of runs that save and stop would be lost."""
    process = server.start(program, ["sleep"], tmp_path / "log")
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(server_of(process), number)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_the_command_is_a_program(server, tmp_path):
    assert server.start("selfdistill", ["--version"], tmp_path / "log").wait() == 0
    assert (tmp_path / "log").read_text().startswith("selfdistill ")
