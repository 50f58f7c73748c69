from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from prefect import runtime

from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from tasks.run_date import fill_in_date

PARAMETERS = RejectSampling(
    model_path=["m"], model_name=["m"], output_dir="weekly/{date}", prompt_template="{date} {q}"
)


@pytest.mark.parametrize(
    ("begun", "day"),
    [
        (datetime(2026, 3, 1, 23, 30, tzinfo=UTC), "2026-03-01"),
        (datetime(2026, 3, 1, 23, 30, tzinfo=timezone(-timedelta(hours=5))), "2026-03-02"),
    ],
)
def test_folder_has_the_scheduled_date_of_the_run(monkeypatch, begun, day):
    monkeypatch.setattr(runtime.flow_run, "scheduled_start_time", begun, raising=False)
    assert fill_in_date(PARAMETERS) == PARAMETERS.model_copy(update={"output_dir": f"weekly/{day}"})


def test_folder_without_a_schedule_has_today_s_date(monkeypatch):
    monkeypatch.setattr(runtime.flow_run, "scheduled_start_time", None, raising=False)
    assert fill_in_date(PARAMETERS).output_dir.startswith("weekly/20")
    plain = PARAMETERS.model_copy(update={"output_dir": "weekly"})
    assert fill_in_date(plain) is plain
