"""Distribution of test files over processes: one for every core, and one more for tests that mostly wait.

Some tests wait for most of their time: for a schedule, for a worker to be missed, for a process that hangs to
be ended. In a process of every core they would leave it idle; a process more for any file would disturb those that
measure speed.
"""

from __future__ import annotations

import os

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

WAITING = (
    "tests/deployments/",
    "tests/flows/test_files_in_the_way.py",
    "tests/flows/test_interruptions.py",
    "tests/flows/test_many_machines.py",
    "tests/flows/test_stalls.py",
    "tests/sandboxes/",
    "tests/services/",
    "tests/terminal/",
)
"""Beginnings of the names of files whose tests wait."""

_MOST_CORES = 4


class WaitingApart(LoadFileScheduling):
    """Gives one process the files that wait, as long as there are any, and the others the rest."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        waits = len(self.nodes) > 1 and node is self.nodes[-1]
        files = list(self.workqueue)
        selected = [file for file in files if file.startswith(WAITING) == waits]
        # The last files are the quickest: whoever has none left takes these, to disturb and to delay the end least.
        self.workqueue.move_to_end(selected[0] if selected else files[-1], last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(tryfirst=True)  # the first answer counts, and xdist's own plugin is asked before this one
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes `--numprocesses logical` is."""
    return min(len(os.sched_getaffinity(0)), _MOST_CORES) + 1


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> WaitingApart:
    """Return the scheduler."""
    return WaitingApart(config, log)
