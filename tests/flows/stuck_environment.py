"""An environment in which one process, the first that finds a file, hangs forever."""

import ctypes
import gc
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.jobs.episodes.toy import ToyEnvironment


class StuckEnvironment(ToyEnvironment):
    """A toy environment that hangs as the file says that `ROLLMILL_TEST_STUCK` names."""

    name = "stuck_env"

    @classmethod
    def make(cls, problem, seed, settings, tools):
        trap = Path(os.environ["ROLLMILL_TEST_STUCK"])
        with suppress(FileNotFoundError):
            trap.rename(trap.with_suffix(".taken"))  # one process alone succeeds
            hang_forever(trap.with_suffix(".taken").read_text())
        return super().make(problem, seed, settings, tools)


def hang_forever(how):
    if how == "endless call":
        while True:
            pass
    elif how == "interpreter lock held":  # what every thread sees of a deadlock of the interpreter
        ctypes.PyDLL(None).pause()
    elif how == "deadlock":
        deadlock()


def deadlock():
    """Trigger CPython's gh-106883 within seconds, or, where that is fixed, make an endless call."""
    gc.callbacks.append(lambda phase, info: time.sleep(0))  # lets other threads run in the middle of a collection
    gc.set_threshold(1, 1, 1)
    for _ in range(2):
        threading.Thread(target=start_threads, daemon=True).start()
    while True:
        sys._current_frames()  # collects while it holds the lock that a thread needs to start


def start_threads():
    while True:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
