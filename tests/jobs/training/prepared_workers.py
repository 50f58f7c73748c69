"""Training workers whose imports are done, which take longest: for runs of whose workers' ends nothing is asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.flows.conftest import prepared


@contextmanager
def prepared_workers() -> Iterator[None]:
    """Lets every run in the block have such workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(prepared()))
        yield
