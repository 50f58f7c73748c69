"""What is counted of a sandbox's processes from outside, while they run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from rollmill.sandboxes.open_files import read_open_files
from rollmill.sandboxes.processes import Process, ProcessTable

CARRIED_FILE = 8 << 20
"""Bytes that a file on its way in a socket counts at least: it may be an inotify instance with a full queue."""


@pytest.fixture
def look(start) -> Callable[[str], tuple[ProcessTable, list[Process], int]]:
    """Run Python code up to its line `print("ready")` and a pause; return its processes, and the work tree's device."""
    cleanups = []

    def run(code: str) -> tuple[ProcessTable, list[Process], int]:
        sandbox = start()
        program = f"{code}\nopen('ready', 'w').close()\nimport time\ntime.sleep(60)"
        (sandbox._folder / "work" / "program.py").write_text(program)
        thread = threading.Thread(target=lambda: sandbox.execute("python3 program.py; true"))
        thread.start()
        deadline = time.monotonic() + 20
        while not (sandbox._folder / "work" / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        table = ProcessTable(sandbox._running.pid)
        cleanups.append((table, sandbox, thread))
        return table, table.read(), (sandbox._folder / "work").stat().st_dev

    yield run
    for table, sandbox, thread in cleanups:
        table.close()
        sandbox.close()
        thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the sandbox is closed under it
@pytest.mark.parametrize(
    "make",
    [
        "file = open('deleted', 'w'); file.write('x' * 9000); file.flush(); os.remove('deleted')",
        "os.mkdir('deleted'); file = os.open('deleted', os.O_RDONLY); os.rmdir('deleted')",
        "os.symlink('x' * 200, 'deleted'); file = os.open('deleted', os.O_PATH | os.O_NOFOLLOW); os.remove('deleted')",
    ],
    ids=["file", "folder", "link"],
)
def test_what_is_deleted_and_open_counts(look, make):
    table, processes, device = look(f"import os\n{make}")
    [size] = read_open_files(table, processes, frozenset([device])).deleted.values()
    assert size >= 1024


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_files_on_their_way_in_a_socket_count_as_the_largest_kind(look):
    table, processes, _ = look(
        "import os, socket\none, other = socket.socketpair()\n"
        "socket.send_fds(one, [b'x'], [os.open('/dev/null', os.O_RDONLY)] * 3)"
    )
    assert read_open_files(table, processes, frozenset()).kernel >= 3 * CARRIED_FILE


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_process_runs_where_only_its_second_thread_does(look):
    code = "import threading\ndef burn():\n    while True:\n        pass\nthreading.Thread(target=burn).start()"
    table, processes, _ = look(code)
    [busy] = [process for process in processes if process.threads > 1]
    # Both threads take turns at holding the interpreter: look until the first one sleeps.
    for _ in range(200):
        [process] = [each for each in table.read() if each.pid == busy.pid]
        if process.state == "S":
            break
    assert process.state == "S"
    assert table.runs(process)
