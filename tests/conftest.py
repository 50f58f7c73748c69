from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from collections.abc import Generator
from itertools import chain, zip_longest
from pathlib import Path

import pytest
from hypothesis import settings

# Started in the background, a shell's child ignores Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Threads of PyTorch and NumPy wait for one another by spinning, which beside other tests takes most of the time. They
# read this when they are imported, and so do the processes that tests start. With one, sums are the same everywhere.
os.environ["OMP_NUM_THREADS"] = "1"

# How long one example takes says how busy the machine is.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collects tests without looking for garbage, and never again in what was imported: a fifth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first: at the end, one would keep one process busy and the others idle.

    Every other one starts vLLM: two that start at the same time take more than twice as long.
    """
    weights: Counter[Path] = Counter()
    for item in items:
        weights[item.path] += bool(item.get_closest_marker("slow"))
    files = [path for path, _ in weights.most_common()]
    of_vllm = {item.path for item in items if item.get_closest_marker("vllm")}
    others = [path for path in files if path not in of_vllm]
    pairs = zip_longest((path for path in files if path in of_vllm), others)
    order = {path: index for index, path in enumerate(chain.from_iterable(pairs)) if path is not None}
    items.sort(key=lambda item: order[item.path])
