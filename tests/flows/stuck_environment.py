"""An environment in which one process, the first that finds a file, stands still for ever."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from tests.episodes.toy import ToyEnvironment


class StuckEnvironment(ToyEnvironment):
    """The toy, and the trap: `ROLLMILL_TEST_STUCK` names a file that says how to stand still."""

    name = "stuck_env"

    @classmethod
    def make(cls, problem, seed, settings, tools):
        trap = Path(os.environ["ROLLMILL_TEST_STUCK"])
        with suppress(FileNotFoundError):
            trap.rename(trap.with_suffix(".taken"))  # one process alone succeeds
            stand_still(trap.with_suffix(".taken").read_text())
        return super().make(problem, seed, settings, tools)


def stand_still(how):
    if how == "endless call":
        while True:
            pass
    elif how == "interpreter lock held":  # what every thread sees of a deadlock of the interpreter
        ctypes.PyDLL(None).pause()
