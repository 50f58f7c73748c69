from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from rollmill.errors import InputError, RunStoppedError
from rollmill.files import store as module
from rollmill.files.store import Store, StoreConfig, copy_results, result_files, store_url
from rollmill.inference.ports import PortReservation
from tests.files.s3 import S3Server


@pytest.fixture(scope="module")
def s3():
    with S3Server() as server:
        yield server


@pytest.fixture
def run(tmp_path):
    """A run's directory, and a file of it that is elsewhere."""
    folder = tmp_path / "out"
    (folder / "rollouts").mkdir(parents=True)
    (folder / "rollouts" / "0001.jsonl").write_text('{"a": 1}\n' * 3)
    (folder / "rollouts" / ".0001.jsonl.7.part").write_text("half")
    (folder / "statistics.txt").write_text("all well\n")
    (folder / "secret.txt").write_text("of nobody's business")
    write_manifest(folder, 1)
    (tmp_path / "out.json").write_text("{}")
    return folder


def write_manifest(folder, generation, **more):
    content = {"job": "j", "identity": {"generation": {"seed": generation}}, **more}
    (folder / "manifest.json").write_text(json.dumps(content))


def files_of(folder):
    return [folder.with_suffix(".json"), folder / "statistics.txt", folder / "rollouts", folder / "nothing"]


NAMES = ["out.json", "statistics.txt", "rollouts/0001.jsonl", "manifest.json"]


def one_line(raised):
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_copied_and_the_manifest_last(run):
    assert list(result_files(run, files_of(run))) == NAMES


def test_a_folder_takes_results(run, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    config = StoreConfig(url=f"{shared}/")
    assert Store(config).check() == f"{shared}: a file was written, read and deleted"
    assert list(shared.iterdir()) == []
    copied = copy_results(config, run, files_of(run))
    assert copied.url == f"{shared}/out"
    assert [file.url for file in copied.files] == [f"{shared}/out/{name}" for name in NAMES]
    assert copied.line() == f"4 files ({sum(file.bytes for file in copied.files)} bytes) copied to {shared}/out"
    assert (shared / "out/rollouts/0001.jsonl").read_bytes() == (run / "rollouts/0001.jsonl").read_bytes()
    assert sorted(path.name for path in shared.rglob("*") if path.is_file()) == sorted(n.split("/")[-1] for n in NAMES)
    assert Store(StoreConfig(url=f"file://{shared}")).read("out/statistics.txt") == b"all well\n"


def test_a_folder_that_is_not_mounted_is_not_made(tmp_path):
    with pytest.raises(InputError, match="there is no such folder: make or mount it"):
        Store(StoreConfig(url=str(tmp_path / "share"))).check()
    assert not (tmp_path / "share").exists()


def test_store_without_atomic_writes_ends_with_whole_files_only(run):
    copied = copy_results(StoreConfig(url="memory://somewhere"), run, files_of(run))
    assert len(copied.files) == 4
    import fsspec

    names = fsspec.filesystem("memory").find("/somewhere")
    assert names == sorted(f"/somewhere/out/{name}" for name in NAMES)


def test_a_run_below_the_working_directory_keeps_its_path(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    below = Path("weekly/2026-03-01/base")
    below.parent.mkdir(parents=True)
    run.rename(below)
    shared = tmp_path / "shared"
    shared.mkdir()
    assert copy_results(StoreConfig(url=str(shared)), below, files_of(below)).url == f"{shared}/{below}"
    assert (shared / below / "statistics.txt").is_file()


def test_s3_takes_results(s3, run):
    config = s3.config()
    assert Store(config).check() == "s3://results/runs: a file was written, read and deleted"
    assert s3.objects() == {}
    assert copy_results(config, run, files_of(run)).url == "s3://results/runs/out"
    assert s3.objects() == {
        f"runs/out/{name}": path.read_bytes() for name, path in result_files(run, files_of(run)).items()
    }
    assert Store(config).read("out/nothing") is None


def test_temporary_s3_error_is_retried(s3, run):
    s3.faults[:] = [503, 500]
    copied = copy_results(s3.config("s3://results/again"), run, files_of(run))
    assert s3.faults == []
    assert len(copied.files) == 4


def test_another_run_is_not_overwritten_and_the_same_is(s3, run):
    config = s3.config("s3://results/mine")
    copy_results(config, run, files_of(run))
    write_manifest(run, 1, ended_at="later")
    (run / "statistics.txt").write_text("more\n")
    copy_results(config, run, files_of(run))
    assert s3.objects()["mine/out/statistics.txt"] == b"more\n"
    write_manifest(run, 2)
    with pytest.raises(InputError, match="s3://results/mine/out has another run: the results are in") as raised:
        copy_results(config, run, files_of(run))
    one_line(raised)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secret": SecretStr("other-canary")}, "may not be written .* correct the key"),
        ({"key": SecretStr("other-canary")}, "may not be written .* correct the key"),
        ({"url": "s3://nowhere/x"}, "does not exist"),
    ],
)
def test_wrong_key_and_wrong_bucket_are_reported(s3, changes, message):
    with pytest.raises(InputError, match=message) as raised:
        Store(s3.config(**changes)).check()
    assert "canary" not in one_line(raised)


def test_a_store_that_is_away_loses_nothing(run, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    port = PortReservation(None)
    port.release()
    config = StoreConfig(
        url="s3://results", endpoint_url=f"http://127.0.0.1:{port.port}", key=SecretStr("k"), secret=SecretStr("s")
    )
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunStoppedError, match="s3://results cannot be written") as raised:
        Store(config).check()
    one_line(raised)
    with pytest.raises(RunStoppedError, match="but could not be copied to s3://results/out") as raised:
        copy_results(config, run, files_of(run))
    message = one_line(raised)
    assert f"the results are in {run}" in message
    assert message.endswith("run the same command again to copy them")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_other_bytes_than_were_read_are_no_copy(run, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr(module.shutil, "copyfileobj", lambda source, target: target.write(source.read()[:-1]))
    with pytest.raises(RunStoppedError, match=r"has 1 bytes, .* has 2"):
        copy_results(StoreConfig(url=str(shared)), run, files_of(run))


@pytest.mark.parametrize("url", ["", "results", "./results", "s3:", "s3://", "/", "s3:bucket", "file:///"])
def test_invalid_store_url_is_refused(url):
    with pytest.raises(InputError, match="is not a store"):
        store_url(url)


def test_a_key_in_a_url_is_not_repeated():
    with pytest.raises(InputError, match="a key must not be in a url") as raised:
        Store(StoreConfig(url="s3://me:canary@bucket/x"))
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (StoreConfig(url="s3://b", key=SecretStr("k")), "key and secret go together"),
        (StoreConfig(url="/shared", key=SecretStr("k")), "are for s3:// urls"),
        (StoreConfig(url="nosuch://b"), "cannot be used: Protocol not known: nosuch"),
    ],
)
def test_contradicting_store_options_are_refused(config, message):
    with pytest.raises(InputError, match=message):
        Store(config)


def test_s3_is_imported_only_where_it_is_used():
    script = "import sys, rollmill.files.store; print(sorted({'s3fs', 'botocore', 'aiohttp'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_links_in_a_folder_of_results_are_not_copied(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "run" / "images").mkdir(parents=True)
    (tmp_path / "run" / "images" / "a.png").write_bytes(b"a")
    (tmp_path / "run" / "images" / "link.png").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "run" / "images" / "folder").symlink_to(tmp_path)
    assert list(result_files(tmp_path / "run", [tmp_path / "run" / "images"])) == ["images/a.png"]
