"""Health check of rollouts as data: faults in their texts, verdicts and problems that training would inherit."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import polars as pl
from pydantic import BaseModel, ConfigDict

from rollmill.corpus.corpus import Corpus
from rollmill.corpus.message import Message
from rollmill.corpus.record import decode_record
from rollmill.reports.plots.labels import counted, one_line
from rollmill.reports.problem_check import ProblemCheck, check_run_problems

_EXAMPLES = 5
_MOST_READ = 50_000
"""Most rollouts whose text is read; of more, evenly spread ones."""
_TAIL, _LONGEST_PERIOD = 600, 100
"""Characters at the end of a text that are searched for repetition, and of the longest unit that may repeat."""
_COMPRESSED, _COMPRESSED_SHARE = 4_000, 0.05
"""Characters at the end that are compressed, and the share of their size below which they are a repetition."""
_ABSURD = 1e6
"""Rewards beyond this are reported."""


class _TurnFaults(NamedTuple):
    """The faults found in the turns of a rollout."""

    hollow: bool = False
    runaway: bool = False
    repeated_ids: bool = False


class _Change(msgspec.Struct):
    git_diff: Any = None


_changes = msgspec.json.Decoder(_Change)


class Finding(BaseModel):
    """One kind of fault: how often it occurs, examples, and a remedy."""

    model_config = ConfigDict(frozen=True)

    name: str
    """A word to count by, such as `hollow_turns`."""
    count: int
    of: int
    what: str
    """The counted thing, as in "3 of 10 rollouts have a turn without text"."""
    examples: list[str]
    """`instance_id/sample_id` of a rollout, or `instance_id` of a problem."""
    remedy: str

    def line(self) -> str:
        """Return the finding as one line."""
        where = ", ".join(map(one_line, self.examples))
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.name}: {self.count:,} of {self.of:,} {self.what} ({where}{more}): {self.remedy}"


class HealthReport(BaseModel):
    """The result of a health check: the numbers of rollouts and problems checked, and the findings."""

    model_config = ConfigDict(frozen=True)

    rollouts: int
    read: int
    """Rollouts whose text was read."""
    problems_checked: int
    """Problems whose ground truth, and an empty answer, were given to the verifier."""
    findings: list[Finding]

    def lines(self) -> list[str]:
        """Return a summary, and a line for each finding."""
        checked = counted(self.rollouts, "rollout")
        if self.read < self.rollouts:
            checked += f" (the text of {self.read:,})"
        if self.problems_checked:
            checked += f" and {counted(self.problems_checked, 'ground truth')}"
        result = "nothing wrong" if not self.findings else counted(len(self.findings), "finding")
        return [f"health: {result} in {checked}", *(f"  {finding.line()}" for finding in self.findings)]


def check_health(corpus: Corpus) -> HealthReport:
    """Check all rollouts of a corpus, and its problems if it is one run.

    Deterministic. Texts are read in one pass, with one rollout in memory at a time.
    """
    table = corpus.table
    run = corpus.files[0].run if len(corpus.files) == 1 else None
    problems = check_run_problems(run) if run else ProblemCheck()
    read = table if table.height <= _MOST_READ else table.gather_every(-(-table.height // _MOST_READ))
    findings = [*_of_turns(corpus, read), *_of_table(table), *_of_problems(problems)]
    return HealthReport(rollouts=table.height, read=read.height, problems_checked=problems.checked, findings=findings)


def _of_table(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield the findings from the scalars of the rollouts."""
    numbered = table.with_columns(
        pl.col("reward").filter(~pl.col("success")).max().over("source", "instance_id").alias("best_wrong")
    )
    judged = pl.col("success").is_not_null()
    absurd = pl.col("reward").abs() > _ABSURD
    checks = [
        (
            "repeated_ids",
            pl.struct("source", "instance_id", "sample_id").is_duplicated(),
            "rollouts share instance_id and sample_id with another",
            "give each its own, or they count as one rollout in a journal and as several in rates",
        ),
        (
            "answers_cut",
            pl.col("truncated"),
            "rollouts were cut off at the limit on tokens",
            "raise --max_tokens; exports leave them out unless --keep_truncated",
        ),
        (
            "success_of_nothing",
            judged & pl.col("success") & pl.col("empty") & (pl.col("turns") <= 1),
            "rollouts are right although the model wrote nothing",
            "the verifier accepts an empty answer: fix it, then --reverify",
        ),
        (
            "success_unparseable",
            judged & pl.col("success") & (pl.col("status") == "unparseable"),
            "rollouts are right although no answer could be read",
            "the verifier contradicts itself: fix it, then --reverify",
        ),
        (
            "reward_missing",
            judged & pl.col("reward").is_null(),
            "judged rollouts have no reward, or NaN or Infinity",
            "rules about rewards drop them: fix the computation of rewards",
        ),
        (
            "reward_absurd",
            judged & absurd,
            f"rewards are beyond {_ABSURD:,.0f}",
            "look for a division by a small number, or a time that was not measured",
        ),
        (
            "reward_against_success",
            judged & pl.col("success") & (pl.col("reward") < pl.col("best_wrong")),
            "right rollouts have less reward than a wrong one of their problem",
            "a policy trained on the reward learns the wrong ones: rank by success first",
        ),
        (
            "success_denied",
            pl.col("claimed_success") & ~pl.col("success"),
            "rollouts call themselves right, and their evaluation denies it",
            "they count as not right; see what sets `success`",
        ),
    ]
    for name, condition, what, remedy in checks:
        matches = numbered.filter(condition.fill_null(value=False))
        if matches.height:
            yield _finding(name, matches.height, table.height, what, _names(matches), remedy)


def _of_turns(corpus: Corpus, table: pl.DataFrame) -> Iterator[Finding]:
    """Yield the findings from the texts of the rollouts."""
    hollow: list[int] = []
    runaway: list[int] = []
    repeated: list[int] = []
    unchanged: list[int] = []
    for index, (record, success) in enumerate(zip(corpus.records(table), table["success"], strict=True)):
        if success and b'"git_diff"' in record and _changed_nothing(record):
            unchanged.append(index)
        faults = _check_turns(record)
        for indexes, is_faulty in (
            (hollow, faults.hollow), (runaway, faults.runaway), (repeated, faults.repeated_ids)
        ):  # fmt: skip
            if is_faulty:
                indexes.append(index)
    checks = [
        (
            "hollow_turns",
            hollow,
            "rollouts have a turn of the model without text and calls",
            "see the server's chat template, --stop and --max_tokens; thoughts alone hint at a limit on tokens",
        ),
        (
            "runaway_turns",
            runaway,
            "rollouts have a turn that repeats itself to its end",
            "lower --temperature or set --repetition_penalty, and leave them out of training",
        ),
        (
            "repeated_call_ids",
            repeated,
            "rollouts use an id for several tool calls",
            "results may stand at the wrong call: see what the server's tool parser sends",
        ),
        (
            "success_without_change",
            unchanged,
            "rollouts are right without a change to the code",
            "the tests pass as the code is: the problem requires nothing, fix its tests or leave it out",
        ),
    ]
    for name, indexes, what, remedy in checks:
        if indexes:
            yield _finding(name, len(indexes), table.height, what, _names(table[indexes[:_EXAMPLES]]), remedy)


def _of_problems(problems: ProblemCheck) -> Iterator[Finding]:
    """Yield the findings from the check of the problems."""
    if problems.truth_fails:
        yield _finding(
            "truth_fails",
            len(problems.truth_fails),
            problems.checked,
            "problems' own ground truth is not right for the verifier",
            problems.truth_fails,
            "no answer can be right there: see --verifier and --answer_field, or fix the data",
        )
    if problems.nothing_passes:
        yield _finding(
            "nothing_passes",
            len(problems.nothing_passes),
            problems.checked,
            "problems take an empty answer for a right one",
            problems.nothing_passes,
            "every rollout can be right there: fix the data or the verifier",
        )


def _finding(name: str, count: int, of: int, what: str, examples: Sequence[str], remedy: str) -> Finding:
    """Return a finding.

    Args:
        name: a word to count by.
        count: how often it occurs.
        of: number of rollouts or problems checked.
        what: the counted thing, as in "3 of 10 rollouts have a turn without text".
        examples: ids, of which the first are kept.
        remedy: what the user can do.
    """
    return Finding(name=name, count=count, of=of, what=what, examples=list(examples[:_EXAMPLES]), remedy=remedy)


def _names(table: pl.DataFrame) -> list[str]:
    rows = table.head(_EXAMPLES).select("instance_id", "sample_id").iter_rows()
    return [f"{instance_id}/{sample_id}" for instance_id, sample_id in rows]


def _changed_nothing(record: bytes) -> bool:
    try:
        change = _changes.decode(record).git_diff
    except (msgspec.MsgspecError, RecursionError):
        return False
    return isinstance(change, str) and not change.strip()


def _check_turns(record: bytes) -> _TurnFaults:
    """Return the faults in the model's turns of a rollout."""
    try:
        turns = _turns(record)
        runaway = any(_is_runaway(text) for turn in turns for text in _texts(turn))
        return _TurnFaults(any(map(_is_hollow, turns)), runaway, _repeats_call_ids(turns))
    except (msgspec.MsgspecError, ValueError, RecursionError):  # the export reports records that cannot be read
        return _TurnFaults()


def _turns(record: bytes) -> list[Message]:
    """Return the model's turns; none where only the prompt is recorded, or the rollout failed."""
    decoded = decode_record(record)
    if decoded.error is not None:
        return []
    return [message for message in decoded.conversation() or [] if message.role == "assistant"]


def _is_hollow(turn: Message) -> bool:
    return not any(text.strip() for text in _content(turn)) and bytes(turn.tool_calls) in (b"", b"null", b"[]")


def _texts(turn: Message) -> Iterator[str]:
    yield from _content(turn)
    thoughts = _decode(turn.reasoning_content)
    if isinstance(thoughts, str):
        yield thoughts


def _content(turn: Message) -> Iterator[str]:
    """Yield the texts of a turn's content, for parts such as images their values."""
    content = _decode(turn.content)
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            yield from (value for key, value in part.items() if key != "type" and isinstance(value, str))


def _decode(value: msgspec.Raw) -> Any:
    return msgspec.json.decode(value) if bytes(value) else None


def _is_runaway(text: str) -> bool:
    """Return whether a text ends in at least six equal pieces, or in 4,000 characters with little variation."""
    tail = text[-_TAIL:]
    if len(tail) < _TAIL:
        return False
    # A text equals itself, shifted by a period, exactly where it repeats with that period.
    if any(tail.startswith(tail[period:]) for period in range(1, _LONGEST_PERIOD + 1)):
        return True
    last = text[-_COMPRESSED:].encode(errors="replace")
    return len(text) >= _COMPRESSED and len(zlib.compress(last, 1)) < _COMPRESSED_SHARE * len(last)


def _repeats_call_ids(turns: Iterable[Message]) -> bool:
    ids = [
        call["id"]
        for turn in turns
        for call in _decode(turn.tool_calls) or ()
        if isinstance(call, dict) and isinstance(call.get("id"), str)
    ]
    return len(set(ids)) < len(ids)
