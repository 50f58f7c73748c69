import re

import pytest

from rollmill.errors import InputError
from rollmill.files.names import MANIFEST
from rollmill.generation.manifest import check_unaltered, git_commit, now, read_manifest, versions
from tests.generation.run_factory import identity, opened


def test_manifest_of_a_finished_run(tmp_path):
    with opened(tmp_path, rows=3, num_rollout=2) as run:
        run.finish({"rollouts": 6})
    manifest = read_manifest(tmp_path)
    assert manifest.identity_key == manifest.identity.key == identity().key
    assert manifest.parameters == {"a": 1}
    assert manifest.journal == "rollouts/0001.jsonl"
    assert (manifest.problems["count"], manifest.problems["quarantined"]) == (3, 0)
    assert re.fullmatch("[0-9a-f]{64}", manifest.problems["sha256"])
    assert manifest.versions["python"].startswith("3.")
    assert manifest.started_at <= manifest.ended_at <= now()
    assert manifest.totals == {"rollouts": 6}
    assert manifest.host


def test_no_run_no_manifest(tmp_path):
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"{", b"[]", b'{"schema_version": 2}', b'{"job": 1}'])
def test_garbage_is_refused_in_one_line(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(InputError, match="is not a manifest that this version reads") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_manifest_that_may_not_be_read(tmp_path):
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(InputError, match=r"manifest\.json is a folder, not a file: move it away"):
        read_manifest(tmp_path)


def test_an_edited_manifest(tmp_path):
    first, other = identity(), identity(model="other")
    check_unaltered(tmp_path / MANIFEST, first, first.key)
    with pytest.raises(InputError, match=f"was edited: its identity has the key {first.row_key}.*is {other.row_key}"):
        check_unaltered(tmp_path / MANIFEST, first, other.key)


def test_versions_and_commit():
    assert {"aiohttp", "python", "rollmill"} <= set(versions())
    assert git_commit() is None or re.fullmatch("[0-9a-f]{40}", git_commit())
