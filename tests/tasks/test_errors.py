from __future__ import annotations

import errno
import signal

import pytest

from rollmill.errors import InputError
from rollmill.terminal.interruption import interruptions_noted
from tasks.errors import report_failure


@report_failure
def fail(error):
    raise error


@report_failure
def interrupted_in_a_library():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise InputError("cannot be written") from None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("no such file"), "no such file"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/journal"), "No space left on device: /data/journal; "),
    ],
)
def test_input_error_is_a_failed_state_with_one_line(error, message):
    state = fail(error)
    assert state.is_failed()
    assert state.message.startswith(message)


def test_unexpected_error_keeps_its_traceback():
    for bug in (ZeroDivisionError(), OSError(errno.EBADF, "Bad file descriptor")):
        with pytest.raises(type(bug)):
            fail(bug)


def test_ctrl_c_wrapped_by_a_library_failure_still_interrupts():
    with interruptions_noted(), pytest.raises(KeyboardInterrupt):
        interrupted_in_a_library()
    assert fail(InputError("later")).is_failed()
