"""Which calls have come to their end before."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from rollmill.errors import InputError
from rollmill.files.names import MANIFEST
from rollmill.generation.finished import has_finished
from rollmill.generation.manifest import Manifest
from tests.generation.made import identity


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


@pytest.mark.parametrize("more", [{"store_block": "team"}, {"reverify": True}, {"log_file": "log.txt"}])
def test_the_same_call_has_more_to_do_where_it_copies_judges_or_logs(tmp_path, more):
    write(tmp_path, Parameters(**more))
    assert not has_finished(tmp_path, Parameters(**more))


def test_a_call_that_was_interrupted_or_never_made(tmp_path):
    assert not has_finished(tmp_path, Parameters())
    write(tmp_path, ended_at=None)
    assert not has_finished(tmp_path, Parameters())


def test_a_manifest_that_is_none_is_said(tmp_path):
    (tmp_path / MANIFEST).write_text("[]")
    with pytest.raises(InputError, match="is not a manifest"):
        has_finished(tmp_path, Parameters())
