from __future__ import annotations

import signal

import pytest
from prefect.utilities.engine import capture_sigterm, is_prefect_sigterm_handler_installed

from rollmill.terminal.interruption import note
from tasks.interruption import interruptible_flow, signals_noted


def test_prefect_installs_our_handler_and_takes_it_for_its_own():
    before = signal.getsignal(signal.SIGTERM)
    with signals_noted(), capture_sigterm():
        assert signal.getsignal(signal.SIGTERM) is note
        assert is_prefect_sigterm_handler_installed()
    assert signal.getsignal(signal.SIGTERM) is before


def test_nothing_changes_outside_of_a_flow():
    with interruptible_flow(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
