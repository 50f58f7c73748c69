"""Judged rollouts as the attempts of sampling curves (pass@k, majority vote): success, answer, mean logprob."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from rollmill.corpus.corpus import Corpus
from rollmill.generation.token_file import TokenFileError, TokenReader
from rollmill.records import Rollout, TokenLocation
from rollmill.statistics.sampling_curves import Attempt, CurveTally, SamplingCurve

_TRUTH = ""
"""The vote of all rollouts whose answer equals the ground truth, however it is written."""
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


class _Facts(msgspec.Struct):
    verdict: Any = None
    tokens: Any = None


_facts = msgspec.json.Decoder(_Facts)


class LogprobReader:
    """Reads mean logprobs from the token files beside a journal; a context manager that closes them."""

    def __init__(self, folder: Path) -> None:
        self._reader = TokenReader(folder)

    def __enter__(self) -> LogprobReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def mean(self, location: TokenLocation | None, instance_id: str, sample_id: int) -> float | None:
        """Return the mean logprob of a rollout's tokens, in nats per token; None where not all are recorded."""
        if location is None:
            return None
        try:
            calls = self._reader.read(location, instance_id, sample_id).calls
        except TokenFileError:
            return None
        count = sum(len(call.ids) for call in calls)
        if not count or any(call.logprobs is None for call in calls):
            return None
        mean = math.fsum(math.fsum(call.logprobs or ()) for call in calls) / count
        return mean if math.isfinite(mean) else None


def attempts_of(rollouts: Iterable[Rollout | None], logprobs: LogprobReader | None = None) -> list[Attempt]:
    """Return a problem's judged rollouts as attempts; failed and missing rollouts are left out."""
    return [
        Attempt(
            right=rollout.success is True,
            answer=vote(rollout.verdict.answer, rollout.verdict.distance, right=rollout.success is True),
            reward=rollout.reward,
            logprob=logprobs.mean(rollout.tokens, rollout.instance_id, rollout.sample_id) if logprobs else None,
        )
        for rollout in rollouts
        if rollout and rollout.verdict
    ]


def vote(answer: object, distance: object, *, right: bool) -> str | None:
    """Return the key under which equal answers are counted in a majority vote; None where there is no answer.

    Answers at distance 0 from the ground truth are equal, however they are written. Other answers are equal where their
    texts are, numbers where their values are: two spellings of one wrong formula count as two answers.

    Args:
        answer: the answer that the verifier extracted.
        distance: its distance to the ground truth.
        right: whether it was accepted.
    """
    if not isinstance(answer, str) or not answer.strip():
        return None
    if right and not distance:
        return _TRUTH
    text = " ".join(answer.split()).strip("$*` .").casefold()
    return f"{float(text.replace(',', '')):g}" if len(text) < 300 and _NUMBER.fullmatch(text) else text or None


def corpus_curves(corpus: Corpus) -> list[SamplingCurve]:
    """Return the sampling curves of rollouts with verdicts, from any source."""
    judged = corpus.table.filter(pl.col("success").is_not_null())
    sizes = judged.group_by("source", "instance_id").len()["len"].to_list()
    tally = CurveTally(max(sizes, default=1))
    for attempts in _by_problem(corpus, judged):
        tally.add(attempts)
    return tally.curves()


def _by_problem(corpus: Corpus, judged: pl.DataFrame) -> Iterator[list[Attempt]]:
    """Yield the attempts of each problem of each source."""
    groups: dict[tuple[int, str], list[Attempt]] = {}
    readers: dict[int, LogprobReader] = {}
    columns = judged.select("source", "instance_id", "sample_id", "success", "reward", "answer_error").iter_rows()
    for facts, record in zip(columns, corpus.records(judged), strict=True):
        source, instance_id, sample_id, success, reward, distance = facts
        row = _decode(record)
        location = _location(row.tokens)
        root = corpus.tokens_root(source)
        if location is not None and root is not None and source not in readers:
            readers[source] = LogprobReader(root)
        reader = readers.get(source)
        answer = row.verdict.get("answer") if isinstance(row.verdict, dict) else None
        attempt = Attempt(
            right=success,
            answer=vote(answer, distance, right=success),
            reward=reward,
            logprob=reader.mean(location, instance_id, sample_id) if reader else None,
        )
        groups.setdefault((source, instance_id), []).append(attempt)
    for reader in readers.values():
        with reader:  # entered only to be closed
            pass
    yield from groups.values()


def _decode(record: bytes) -> _Facts:
    try:
        return _facts.decode(record)
    except (msgspec.MsgspecError, RecursionError):  # nested too deeply: treated as a record without these fields
        return _Facts()


def _location(value: Any) -> TokenLocation | None:
    if not isinstance(value, dict) or not isinstance(value.get("file"), str):
        return None
    offset = value.get("offset")
    return TokenLocation(file=value["file"], offset=offset if type(offset) is int else None)
