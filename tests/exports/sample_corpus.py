"""Sample rollouts, as the corpus that exporters read."""

from pathlib import Path

import orjson
import polars as pl

from rollmill.corpus.record import decode_record
from rollmill.corpus.record_text import written_text
from rollmill.corpus.table import SCHEMA


class InMemoryCorpus:
    """Replaces `rollmill.corpus.corpus.Corpus`: records in memory, read in the order of rows only."""

    name = "made"

    def __init__(self, records, root=None):
        self.lines = [record if isinstance(record, bytes) else orjson.dumps(record) for record in records]
        self.sources = ["made.jsonl"]
        self.metadata = {"model_name": "org/model", "temperature": 1.0}
        self.quarantined = 2
        self.table = pl.DataFrame([_facts(row, line) for row, line in enumerate(self.lines)], schema=SCHEMA)
        self._root = root
        self.readings = 0

    def image_root(self, source):
        return self._root if self._root is None or isinstance(self._root, Path) else self._root[source]

    def tokens_root(self, source):
        return self._root if isinstance(self._root, Path) else None

    def records(self, table):
        assert table["row"].is_sorted()
        self.readings += 1
        for row in table["row"]:
            yield self.lines[row]


def _facts(row, line):
    record = decode_record(line)
    truncated, marked = record.is_cut_off(), record.is_marked()
    turns = record.conversation() or []
    text = written_text(decode_record(line)) if line.isascii() else ""
    error = orjson.loads(line)["error"] if line.isascii() and b'"error"' in line else None
    return {
        "row": row,
        "source": 0,
        "number": row + 1,
        "instance_id": record.instance_id,
        "sample_id": record.sample_id,
        "reward": None if error else record.reward,
        "success": None if error else record.success,
        "status": "failed" if error else "ok",
        "speedup": record.speedup,
        "exit_status": record.exit_status,
        "model_calls": record.model_calls,
        "truncated": truncated,
        "marked": marked,
        "messages": len(turns),
        "turns": sum(turn.role == "assistant" for turn in turns),
        "empty": not text.strip(),
        "completion_hash": hash(text) & 0xFFFFFFFF,
    }


def msg(role, content, **more):
    return {"role": role, "content": content, **more}


def rollout(problem="p0", sample=0, reward=1.0, *, success=..., answer="a", **more):
    """A rollout with a system turn, a question and an answer; its success follows the reward."""
    messages = [msg("system", "s"), msg("user", f"q of {problem}"), msg("assistant", answer)]
    return {
        "instance_id": problem,
        "sample_id": sample,
        "reward": reward,
        "success": (reward or 0) > 0.5 if success is ... else success,
        "messages": messages,
        **more,
    }


def lines_of(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def reasons_of(exported):
    return dict(exported.dropped.iter_rows())
