"""The records that every room knows."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from rollmill.records import Verdict

JUDGED = {"verifier": "v@1", "status": "ok", "reward": 1.0, "success": True}


class Row(BaseModel):
    verdict: Verdict | None


@pytest.mark.parametrize("key", ["distance", "error"])
def test_a_verdict_takes_its_distance_by_both_names(key):
    verdict = Verdict.model_validate({**JUDGED, key: 0.5})
    assert verdict.distance == verdict.error == 0.5


def test_files_keep_the_key_error():
    verdict = Verdict(**JUDGED, distance=0.5)
    assert verdict.model_dump()["error"] == 0.5
    assert b'"error":0.5' in Row(verdict=verdict).model_dump_json().encode()
    assert "distance" not in Row(verdict=verdict).model_dump(mode="json")["verdict"]
