from __future__ import annotations

import pytest

from tasks.watching import artifact_key


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Qwen/Qwen3-8B", "reject-sampling-qwen-qwen3-8b"),
        ("step_18", "reject-sampling-step-18"),
        ("模型", "reject-sampling-run"),
    ],
)
def test_artifact_keys_are_what_prefect_takes(name, key):
    assert artifact_key(name) == key
