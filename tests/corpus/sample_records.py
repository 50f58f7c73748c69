"""Sample records and files."""

import bz2
import gzip
import lzma

import orjson
import pyarrow as pa

from rollmill.corpus.scan import Scan
from rollmill.corpus.table import SCHEMA
from rollmill.generation.manifest import Manifest
from tests.generation.run_factory import identity

PACKERS = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


def record(problem="p", sample=0, *, answer="a", **fields):
    """A rollout of one turn that earned 1."""
    messages = [{"role": "user", "content": f"q of {problem}"}, {"role": "assistant", "content": answer}]
    defaults = {"instance_id": problem, "sample_id": sample, "reward": 1.0, "success": True, "messages": messages}
    return {key: value for key, value in (defaults | fields).items() if value is not ...}


def lines(records):
    return b"".join((item if isinstance(item, bytes) else orjson.dumps(item)) + b"\n" for item in records)


def scanned(*records):
    """The table's rows, as dicts; every record must be one."""
    scan = Scan()
    for number, item in enumerate(records, start=1):
        assert scan.add(number, item if isinstance(item, bytes) else orjson.dumps(item), None) is None
    return scan.table().to_dicts()


def fault(item):
    """The bad row that it is."""
    scan = Scan()
    bad = scan.add(7, item if isinstance(item, bytes) else orjson.dumps(item), 0)
    assert scan.table().height == 0
    assert not scan.repaired
    assert bad.number == 7
    return bad


def without_places(table):
    """Return the rows of a table without the columns that depend on the files."""
    return table.select(name for name in SCHEMA if name not in {"source", "number", "offset", "length"})


def make_run(folder, records, *, problems=("b", "a"), journal="rollouts/0001.jsonl"):
    """A run directory: manifest, problems, and a journal, whose path is returned."""
    (folder / "rollouts").mkdir(parents=True)
    Manifest(
        job="test",
        identity_key="k" * 8,
        identity=identity(),
        parameters={},
        seed=0,
        journal=journal,
        problems={"path": "problems.jsonl", "sha256": "", "count": len(problems), "quarantined": 0},
        versions={},
        git_commit=None,
        host="h",
        started_at="2026-01-01T00:00:00+00:00",
    ).write(folder)
    (folder / "problems.jsonl").write_bytes(lines({"instance_id": item, "prompt": "q"} for item in problems))
    path = folder / journal
    path.write_bytes(records if isinstance(records, bytes) else lines(records))
    return path
