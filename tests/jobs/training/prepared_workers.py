"""Training workers forked from a process with all imports done, which take longest: for tests that do not kill them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.flows.conftest import prepared


@contextmanager
def prepared_workers() -> Iterator[None]:
    """Use such workers for every run in the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(prepared()))
        yield
