"""Distribution of test files over the processes of a test run."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import pytest
from xdist.remote import Producer

from tests.scheduling import WaitingApart

FILES = ["tests/flows/test_vllm.py", "tests/flows/test_stalls.py", "tests/problems/test_gym.py", "tests/test_errors.py"]


class Node:
    """A process as the scheduler sees it."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)

    def send_runtest_some(self, indices: list[int]) -> None:
        pass


@pytest.fixture
def scheduler():
    config = SimpleNamespace(getvalue={"tx": ["2*popen"]}.get)
    scheduler = WaitingApart(config, log=Producer("scheduler", enabled=False))
    scheduler.workqueue = OrderedDict((file, {f"{file}::test": False}) for file in FILES)
    for name in ("computing", "waiting"):
        node = Node(name)
        scheduler.assigned_work[node] = OrderedDict()
        scheduler.registered_collections[node] = [f"{file}::test" for file in FILES]
    return scheduler


def taken(scheduler, node):
    before = set(scheduler.workqueue)
    scheduler._assign_work_unit(scheduler.nodes[node])
    return (before - set(scheduler.workqueue)).pop()


def test_a_process_takes_what_computes_and_the_last_one_what_waits(scheduler):
    assert taken(scheduler, 0) == "tests/flows/test_vllm.py"
    assert taken(scheduler, 1) == "tests/flows/test_stalls.py"
    assert taken(scheduler, 0) == "tests/problems/test_gym.py"


def test_one_that_has_nothing_left_takes_the_quickest_of_the_others(scheduler):
    assert taken(scheduler, 1) == "tests/flows/test_stalls.py"
    assert taken(scheduler, 1) == "tests/test_errors.py"


def test_waiting_files_are_left_to_nobody(scheduler):
    for _ in FILES[1:]:
        taken(scheduler, 0)
    assert taken(scheduler, 0) == "tests/flows/test_stalls.py"
