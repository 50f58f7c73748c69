from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rollmill.environments.python_runs import SandboxedPython, bubblewrap_python
from rollmill.sandboxes.sandbox import Execution, Limits, SandboxError, SandboxSpec

pytestmark = pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")


@pytest.fixture(scope="module")
def python() -> Iterator[SandboxedPython]:
    with bubblewrap_python(limits=Limits(memory_mb=256, processes=48, output_bytes=10_000), timeout_s=20) as runner:
        yield runner


def test_a_program_runs_to_its_end(python: SandboxedPython) -> None:
    done = python.run("print('ä', 6 * 7)\nraise SystemExit(3)")
    assert (done.output, done.returncode, done.timed_out) == ("ä 42\n", 3, False)


def test_standard_input_is_complete_and_in_no_file(python: SandboxedPython) -> None:
    text = "'\"$x\n\0ä" * 40_000  # more than one command holds
    program = (
        "import os, sys\nleft = os.path.exists('/tmp/stdin')\n"
        "told = sum(open(f'/proc/{p}/cmdline').read().count('secret') for p in os.listdir('/proc') if p.isdigit())\n"
        "text = sys.stdin.read()\nprint(len(text), text.count('ä'), left, told)"
    )
    assert python.run(program, stdin=text).output == f"{len(text)} 40000 False 0\n"
    assert python.run(program, stdin="secret").output == "6 0 False 0\n"


def test_a_long_program_runs(python: SandboxedPython) -> None:
    assert python.run(f"text = {'x' * 300_000!r}\nprint(len(text))").output == "300000\n"


def test_an_empty_program_runs(python: SandboxedPython) -> None:
    assert python.run("").returncode == 0


def test_runs_are_isolated_and_order_sets_alike(python: SandboxedPython) -> None:
    program = (
        "import os\nprint(list(set('abcdefgh')), sorted(os.listdir('/tmp')), os.listdir('/workspace'))\n"
        "open('/tmp/left', 'w').close()"
    )
    first, second = python.run(program).output, python.run(program).output
    assert first == second
    assert "left" not in first


def test_faulty_programs_end_with_their_own_errors(python: SandboxedPython) -> None:
    endless = python.run("while True: pass", timeout_s=1)
    assert endless.timed_out
    loud = python.run("while True: print('x' * 1000)", timeout_s=1)
    assert loud.timed_out
    assert loud.truncated
    assert len(loud.output) < 11_000
    assert "Error" in python.run("import socket\nsocket.create_connection(('1.1.1.1', 80), timeout=2)").output
    assert python.run("x = bytearray(10 << 30)").returncode == 1
    assert python.run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)").returncode == 137


def test_fork_bomb_ends_at_its_time_limit(python: SandboxedPython) -> None:
    done = python.run("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", timeout_s=1)
    assert done.timed_out
    assert python.run("print(1)").output == "1\n"


def test_concurrent_runs_are_limited() -> None:
    class Host:
        running = most = 0
        lock = threading.Lock()

        def start(self, spec: SandboxSpec) -> Host:
            return self

        def execute(self, command: str, **_: object) -> Execution:
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            time.sleep(0.05)
            with self.lock:
                self.running -= 1
            return Execution(output="", returncode=0)

        def close(self) -> None:
            pass

    host = Host()
    python = SandboxedPython(host, spec=SandboxSpec(image="x"), at_once=2)  # type: ignore[arg-type]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(python.run, ["pass"] * 10))
    assert host.most == 2


def test_sandbox_refusing_files_is_reported(python: SandboxedPython) -> None:
    with (
        bubblewrap_python(limits=Limits(disk_mb=1, memory_mb=64)) as small,
        pytest.raises(SandboxError, match="cannot be written"),
    ):
        small.run("pass", stdin="x" * 3_000_000)
