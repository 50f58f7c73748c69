from pathlib import Path

import pytest

from rollmill.jobs.rejection_sampling.outcome import RunOutcome


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Qwen/Qwen3-8B", "reject-sampling-qwen-qwen3-8b"),
        ("step_18", "reject-sampling-step-18"),
        ("模型", "reject-sampling-run"),
    ],
)
def test_artifact_keys_are_what_prefect_takes(name, key):
    outcome = RunOutcome.model_construct(name=name, directory=Path())
    assert outcome.artifact_keys() == (f"{key}-summary", f"{key}-statistics", f"{key}-errors", f"{key}-files")
