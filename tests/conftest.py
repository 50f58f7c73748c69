from __future__ import annotations

import signal
from collections import Counter

import pytest
from hypothesis import settings

# Started in the background, a shell's child ignores Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long one example takes says how busy the machine is.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first: at the end, one would keep one process busy and the others idle.

    A file's tests run in one process, and those of vLLM all in the same: two that start take more than twice as long.
    """
    weights: Counter[object] = Counter()
    for item in items:
        weights[item.path] += 100 * bool(item.get_closest_marker("vllm")) + 10 * bool(item.get_closest_marker("slow"))
    items.sort(key=lambda item: -weights[item.path])
    for item in items:
        item.add_marker(pytest.mark.xdist_group("vllm" if item.get_closest_marker("vllm") else str(item.path)))
