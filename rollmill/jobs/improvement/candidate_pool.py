"""The rollouts of all data sources of a round as one corpus, with each row's source, problem and verification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import orjson
import polars as pl

from rollmill.corpus.corpus import Corpus
from rollmill.corpus.inputs import find_sources
from rollmill.corpus.record import UNREADABLE_ERRORS, Record, decode_record
from rollmill.generation.run import PROBLEMS
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.select_rollouts import select
from rollmill.jobs.improvement.data_sources import PlannedSource
from rollmill.jobs.improvement.diversity import limit_per_problem
from rollmill.jobs.improvement.held_out import prompt_key, question_key
from rollmill.problems import read_problems
from rollmill.records import Problem

UNVERIFIED = "unverified"


class SelectedRows(NamedTuple):
    """The rows of a pool after selection."""

    judged: pl.DataFrame
    """All rows, with a column `drop_reason`: null for those to train on."""
    descriptions: list[str]
    """The conditions of the selection, a line each."""


class CandidatePool:
    """The rollouts of several data sources.

    `corpus` is `read_corpus` of all inputs of `feeds`, in their order.
    """

    def __init__(self, corpus: Corpus, feeds: Sequence[PlannedSource]) -> None:
        self.corpus = corpus
        self.owners = [feed for feed in feeds for _ in find_sources(feed.inputs)]
        """The data source of each file of the corpus, by the number of the file (column `source`)."""
        self.several = len(feeds) > 1

    def name(self, source: int, instance_id: str) -> str:
        """Return a problem's name, which is unique among all data sources."""
        return f"{self.owners[source].name}:{instance_id}" if self.several else instance_id

    def problems(self, source: int) -> Iterator[Problem]:
        """Yield the problems of a file's run; none where the file belongs to no run."""
        run = self.corpus.files[source].run
        return read_problems(run / PROBLEMS) if run else iter(())

    def choose(self, accepted: Filters, at_most_k: int) -> SelectedRows:
        """Select the rows to train on: verified, kept by `accepted`, and at most `at_most_k` of a problem.

        Raises `InputError` as `select` does.
        """
        corpus, table = self.corpus, self.corpus.table
        identified = table.join(self._identify(), on="row", how="left", maintain_order="left")
        unverified = identified.filter(~pl.col("verified")).with_columns(pl.lit(UNVERIFIED).alias("drop_reason"))
        # Rules that count rollouts of a problem see one problem, whichever sources it has come from.
        problem = pl.coalesce("problem", "instance_id").alias("instance_id")
        others = identified.filter(pl.col("verified").fill_null(True)).with_columns(problem).drop("problem", "verified")
        # `select` works on the corpus' table: it is replaced for the time of the call.
        corpus.table = others
        try:
            selected = select(corpus, accepted)
            judged = limit_per_problem(corpus, selected.judged, at_most_k)
        finally:
            corpus.table = table
        reasons = pl.concat([part.select("row", "drop_reason") for part in (unverified, judged)])
        descriptions = [*selected.descriptions, "verified", f"at most {at_most_k} of a problem, those that differ most"]
        return SelectedRows(
            table.join(reasons, on="row", how="left", maintain_order="left", validate="1:1"), descriptions
        )

    def _identify(self) -> pl.DataFrame:
        """Return `row`, `problem` and `verified` of each row that succeeded.

        A problem is identified by its question, where that is recorded beside a run or is the first message of the
        conversation: so the same question is one problem, whichever sources have it. Others are identified by source
        and id.
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
    """Return whether a record's verdict is a success or, without a verdict, some part of its evaluation is.

    A success that the record claims without either has not been verified. (A success that the evaluation denies is none
    in the corpus' table.)
    """
    verdict, evaluation = (_loaded(bytes(raw)) for raw in (record.verdict, record.evaluation_info))
    if "success" in verdict:
        return verdict["success"] is True
    response = _object(evaluation.get("response"))
    parts = (evaluation, _object(evaluation.get("meta")), _object(response.get("json")))
    return any(part.get("success") is True for part in parts)


def record_key(record: Record) -> str | None:
    """Return the key of a record's question, see `prompt_key`; None where it cannot be read: it is no row then."""
    try:
        return prompt_key(list(takewhile(lambda turn: turn.role != "assistant", record.conversation() or [])))
    except UNREADABLE_ERRORS:
        return None


def _loaded(text: bytes) -> dict[str, Any]:
    return _object(orjson.loads(text)) if text else {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
