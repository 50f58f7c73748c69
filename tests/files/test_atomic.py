import os
import subprocess

import orjson
import pytest

from rollmill.files.atomic import atomic_write, atomic_write_bytes, atomic_write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "down" / "file.json"
    with atomic_write(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert names(path.parent) == ["file.json"]


def write_half(path):
    with atomic_write(path) as file:
        file.write(b"half")
        raise KeyError


def test_nothing_appears_when_the_block_raises(tmp_path):
    with pytest.raises(KeyError):
        write_half(tmp_path / "file")
    assert names(tmp_path) == []


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    atomic_write_bytes(path, b"a long old content")
    with pytest.raises(KeyError):
        write_half(path)
    assert path.read_bytes() == b"a long old content"
    atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_it_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path = tmp_path / "file"
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_size, path.exists())))
    atomic_write_bytes(path, b"12345")
    assert synced[0] == (5, False)
    assert synced[1][1]  # then the folder


def test_json(tmp_path):
    atomic_write_json(tmp_path / "file.json", {"a": float("nan"), "b": [1]})
    content = (tmp_path / "file.json").read_bytes()
    assert orjson.loads(content) == {"a": None, "b": [1]}
    assert content.endswith(b"}\n")
    with pytest.raises(TypeError):
        atomic_write_json(tmp_path / "other.json", {"a": object()})
    assert names(tmp_path) == ["file.json"]


def test_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        atomic_write_bytes(disk / "file", b"old")
        with pytest.raises(OSError, match="No space left"):
            atomic_write_bytes(disk / "file", bytes(1_000_000))
        assert (disk / "file").read_bytes() == b"old"
        assert names(disk) == ["file"]
        atomic_write_bytes(disk / "file", bytes(100_000))
        assert names(disk) == ["file"]
    finally:
        subprocess.run(["umount", disk], check=True)
