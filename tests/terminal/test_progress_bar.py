import io
import sys
import threading
import time
from dataclasses import dataclass

import pytest

from rollmill.terminal import progress_bar as progress_bar_module
from rollmill.terminal.progress_bar import progress_bar


@dataclass
class Counted:
    """The least that can be watched; it is its own snapshot."""

    total: int | None
    done: int = 0

    def snapshot(self):
        return self

    def describe(self):
        return f"{self.done} of {self.total}"


def test_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress_bar_module, "_LINE_INTERVAL_S", 0.05)
    progress = Counted(4)
    with progress_bar(progress, "run m"):
        time.sleep(0.18)
        progress.done += 1
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5
    assert lines[0].startswith("run m: 0 of 4")
    assert lines[-1].startswith("run m: 1 of 4")


def test_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    progress = Counted(4)
    with progress_bar(progress, "run m"):
        progress.done += 1
    shown = sys.stderr.getvalue()
    assert "run m" in shown
    assert "1 of 4" in shown


def test_the_bar_ends_with_the_block():
    with pytest.raises(KeyError), progress_bar(Counted(1), "m"):
        raise KeyError
    assert "progress-bar" not in {thread.name for thread in threading.enumerate()}
