from __future__ import annotations

import signal

import pytest
from prefect.utilities.engine import capture_sigterm, is_prefect_sigterm_handler_installed

from rollmill.terminal.interruption import note
from tasks.interruption import interruptible_flow, note_signals


def test_prefect_uses_our_handler_for_sigterm():
    before = signal.getsignal(signal.SIGTERM)
    with note_signals(), capture_sigterm():
        assert signal.getsignal(signal.SIGTERM) is note
        assert is_prefect_sigterm_handler_installed()
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigint_outside_a_flow_raises_keyboard_interrupt():
    with interruptible_flow(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
