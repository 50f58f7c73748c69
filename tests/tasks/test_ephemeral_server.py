"""The ephemeral Prefect server of one command, and errors of flow runs on it."""

from __future__ import annotations

import pytest
from prefect.exceptions import FailedRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from rollmill.errors import RunStoppedError
from tasks.ephemeral_server import desk_server


def test_lost_error_of_a_failure_is_reported_by_its_message():
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(RunStoppedError, match=r"^the disk is full$"),
        desk_server(),
    ):
        raise FailedRun("the disk is full")
