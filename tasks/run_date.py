"""Fills the date of a run into parameters that are the same for all scheduled runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

from prefect import runtime
from pydantic import BaseModel

DATE = "{date}"

ParametersT = TypeVar("ParametersT", bound=BaseModel)


def fill_in_date(parameters: ParametersT) -> ParametersT:
    """Replace `{date}` in the parameters' `output_dir` by the run's scheduled start date, in UTC.

    A retry on a later day keeps the date, and so the folder.
    """
    folder: Any = getattr(parameters, "output_dir", None)
    if not isinstance(folder, str) or DATE not in folder:
        return parameters
    begun: datetime = runtime.flow_run.scheduled_start_time or datetime.now(UTC)
    return parameters.model_copy(update={"output_dir": folder.replace(DATE, begun.astimezone(UTC).date().isoformat())})
