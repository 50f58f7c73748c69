"""Detection of calls that have finished before."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from rollmill.config.parameter import Parameters as JobParameters
from rollmill.config.parameter import parameter
from rollmill.errors import InputError
from rollmill.files.names import MANIFEST
from rollmill.generation.finished import has_finished
from rollmill.generation.manifest import Manifest
from tests.generation.run_factory import identity


class Parameters(BaseModel):
    num_rollout: int = 4
    store_block: str | None = None
    reverify: bool = False
    log_file: str | None = None


def write(folder, parameters=Parameters(), *, ended_at="2026-01-01T00:00:00+00:00"):  # noqa: B008  # it does not change
    Manifest(
        job="j", identity_key=identity().key, identity=identity(), parameters=parameters.model_dump(), seed=0,
        journal="rollouts/0001.jsonl", problems={}, versions={}, git_commit=None, host="", started_at="",
        ended_at=ended_at,
    ).write(folder)  # fmt: skip


def test_a_call_that_ended_and_had_the_same_parameters(tmp_path):
    write(tmp_path)
    assert has_finished(tmp_path, Parameters())
    assert not has_finished(tmp_path, Parameters(num_rollout=8))


def test_a_call_of_a_version_with_other_names_of_parameters(tmp_path):
    class Earlier(BaseModel):
        samples_per_task: int = 4

    class Today(JobParameters):
        num_rollout: int = parameter(4, "Group", "Count", "How many.", aliases=("samples_per_task",))

    write(tmp_path, Earlier())
    assert has_finished(tmp_path, Today())
    assert not has_finished(tmp_path, Today(num_rollout=5))


def test_a_call_with_parameters_that_there_are_no_more(tmp_path):
    class Earlier(BaseModel):
        forgotten: int = 4

    class Today(JobParameters, extra="forbid"):
        num_rollout: int = 4

    write(tmp_path, Earlier())
    assert not has_finished(tmp_path, Today())


@pytest.mark.parametrize("more", [{"store_block": "team"}, {"reverify": True}, {"log_file": "log.txt"}])
def test_call_that_uploads_reverifies_or_logs_is_never_finished(tmp_path, more):
    write(tmp_path, Parameters(**more))
    assert not has_finished(tmp_path, Parameters(**more))


def test_a_call_that_was_interrupted_or_never_made(tmp_path):
    assert not has_finished(tmp_path, Parameters())
    write(tmp_path, ended_at=None)
    assert not has_finished(tmp_path, Parameters())


def test_invalid_manifest_is_reported(tmp_path):
    (tmp_path / MANIFEST).write_text("[]")
    with pytest.raises(InputError, match="is not a manifest"):
        has_finished(tmp_path, Parameters())
