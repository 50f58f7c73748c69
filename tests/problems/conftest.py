"""Data files, images and offline libraries for the tests of problems."""

import os
import tempfile

# Read when the libraries are first imported; nothing here may reach a network or the user's caches.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_CACHE", tempfile.mkdtemp(prefix="rollmill-datasets-"))

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from rollmill.problems import LoadedProblems, ProblemSource, load_problems, read_problems
from rollmill.records import Problem


def make_png(shade: int) -> bytes:
    """Return a real grey PNG of 1 x 1 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes([0, shade]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


class Loaded:
    """Files of a load, read back."""

    def __init__(self, report: LoadedProblems) -> None:
        self.report = report
        self.problems: list[Problem] = list(read_problems(report.path))
        lines = report.quarantine_path.read_bytes().splitlines() if report.quarantine_path else []
        self.quarantine: list[dict[str, Any]] = [orjson.loads(line) for line in lines]


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., str]:
    """Write rows (dicts, or raw bytes) as JSON Lines and return the path."""

    def write(*rows: dict[str, Any] | bytes, name: str = "data.jsonl") -> str:
        path = tmp_path / name
        path.write_bytes(b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in rows) + b"\n")
        return str(path)

    return write


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Loaded]:
    """Load a source into a new folder; by default, all rows but one may be unusable."""

    def run(dataset: str, *, into: str = "run", problem_fault: Any = None, **settings: Any) -> Loaded:
        source = ProblemSource(dataset=dataset, **{"max_bad_share": 1.0, **settings})
        return Loaded(load_problems(source, tmp_path / into, problem_fault=problem_fault))

    return run
