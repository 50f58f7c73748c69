"""What the feeds of a round hold, as one corpus: whose each row is, of which problem, and whether it is verified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import orjson
import polars as pl

from rollmill.corpus.corpus import Corpus
from rollmill.corpus.inputs import find_sources
from rollmill.corpus.record import UNREADABLE, Record, decode_record
from rollmill.generation.run import PROBLEMS
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.select_rollouts import select
from rollmill.jobs.improvement.data_sources import PlannedSource
from rollmill.jobs.improvement.diversity import at_most_different
from rollmill.jobs.improvement.held_out import prompt_key, question_key
from rollmill.problems import read_problems
from rollmill.records import Problem

UNVERIFIED = "unverified"


class SelectedRows(NamedTuple):
    """All rows with a column `drop_reason`, null for those to train on; and what was asked for, a line per rule."""

    judged: pl.DataFrame
    words: list[str]


class Union:
    """The feeds' rollouts, read together. `corpus` is what `read_corpus` makes of all their inputs, in their order."""

    def __init__(self, corpus: Corpus, feeds: Sequence[PlannedSource]) -> None:
        self.corpus = corpus
        self.owners = [feed for feed in feeds for _ in find_sources(feed.inputs)]
        """By source."""
        self.several = len(feeds) > 1

    def name(self, source: int, instance_id: str) -> str:
        """Return a problem's name, which no problem of another feed has."""
        return f"{self.owners[source].name}:{instance_id}" if self.several else instance_id

    def problems(self, source: int) -> Iterator[Problem]:
        """Yield the problems of a run; none where they are not recorded."""
        run = self.corpus.files[source].run
        return read_problems(run / PROBLEMS) if run else iter(())

    def choose(self, accepted: Filters, at_most_k: int) -> SelectedRows:
        """Drop what has not succeeded, or is `unverified`, then by `accepted`, then beyond `at_most_k` of a problem.

        Raises `InputError` as `select` does.
        """
        corpus, table = self.corpus, self.corpus.table
        looked = table.join(self._look(), on="row", how="left", maintain_order="left")
        unverified = looked.filter(~pl.col("verified")).with_columns(pl.lit(UNVERIFIED).alias("drop_reason"))
        problem = pl.coalesce("problem", "instance_id").alias("instance_id")
        others = looked.filter(pl.col("verified").fill_null(True)).with_columns(problem).drop("problem", "verified")
        corpus.table = others
        try:
            selected = select(corpus, accepted)
            judged = at_most_different(corpus, selected.judged, at_most_k)
        finally:
            corpus.table = table
        reasons = pl.concat([part.select("row", "drop_reason") for part in (unverified, judged)])
        words = [*selected.words, "verified", f"at most {at_most_k} of a problem, those that differ most"]
        return SelectedRows(table.join(reasons, on="row", how="left", maintain_order="left", validate="1:1"), words)

    def _look(self) -> pl.DataFrame:
        """Return `row`, `problem` and `verified` of each row that succeeded.

        A problem is told by its question where that is recorded beside a run, or a conversation begins with just that
        question; so it is one problem whichever feeds have it. Any other is told by feed and id.
        """
        keys: list[dict[str, str]] = []
        first: dict[str, str] = {}
        for source in range(len(self.owners)):
            keys.append({problem.instance_id: question_key(problem) for problem in self.problems(source)})
            for instance_id, key in keys[-1].items():
                first.setdefault(key, self.name(source, instance_id))
        rows = self.corpus.table.filter(pl.col("success"))
        identified = []
        facts = rows.select("row", "source", "instance_id").iter_rows()
        for (row, source, instance_id), text in zip(facts, self.corpus.records(rows), strict=True):
            record = decode_record(text)
            question = keys[source].get(instance_id) or record_key(record)
            identified.append((row, first.get(question or "") or self.name(source, instance_id), is_verified(record)))
        schema = {"row": pl.UInt32(), "problem": pl.String(), "verified": pl.Boolean()}
        return pl.DataFrame(identified, schema=schema, orient="row")


def is_verified(record: Record) -> bool:
    """Tell whether a record's verdict says that it succeeded or, without one, its evaluation does in some part.

    What the record claims without either, nobody has checked. (What its evaluation denies is no success in the table.)
    """
    verdict, evaluation = (_loaded(bytes(raw)) for raw in (record.verdict, record.evaluation_info))
    if "success" in verdict:
        return verdict["success"] is True
    response = _object(evaluation.get("response"))
    parts = (evaluation, _object(evaluation.get("meta")), _object(response.get("json")))
    return any(part.get("success") is True for part in parts)


def record_key(record: Record) -> str | None:
    """Return what tells a record's problem by its question; None where that cannot be read, so that no row is made."""
    try:
        return prompt_key(list(takewhile(lambda turn: turn.role != "assistant", record.conversation() or [])))
    except UNREADABLE:
        return None


def _loaded(text: bytes) -> dict[str, Any]:
    return _object(orjson.loads(text)) if text else {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
