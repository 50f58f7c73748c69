"""Filters: what a user may ask of rollouts, and the rules that this comes to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple, Self

import polars as pl
from pydantic import BaseModel, model_validator

from rollmill.corpus.corpus import Corpus
from rollmill.corpus.table import SQL_COLUMNS
from rollmill.curation import rules
from rollmill.curation.rules import LEFT, Rule
from rollmill.errors import InputError
from rollmill.parameter import parameter

_GROUP = "Which rollouts"


class Filters(BaseModel):
    """Conditions on rollouts; all of them hold for what is kept. Without any, everything is kept."""

    min_reward: float | None = parameter(
        None, _GROUP, "Least reward", "Keep rewards of at least this.", allow_inf_nan=False
    )
    max_reward: float | None = parameter(
        None, _GROUP, "Greatest reward", "Keep rewards of at most this.", allow_inf_nan=False
    )
    successful_only: bool = parameter(False, _GROUP, "Successful only", "Keep only rollouts that succeeded.")
    unsuccessful_only: bool = parameter(False, _GROUP, "Unsuccessful only", "Keep only rollouts that did not succeed.")
    min_speedup: float | None = parameter(
        None, _GROUP, "Least speedup", "Keep speedups of at least this.", allow_inf_nan=False
    )
    min_messages: int | None = parameter(
        None, _GROUP, "Fewest messages", "Keep trajectories of at least so many messages.", ge=0
    )
    max_messages: int | None = parameter(
        None, _GROUP, "Most messages", "Keep trajectories of at most so many messages.", ge=0
    )
    min_tokens: int | None = parameter(
        None, _GROUP, "Fewest tokens", "Keep trajectories of at least so many tokens.", ge=0
    )
    max_tokens: int | None = parameter(
        None, _GROUP, "Most tokens", "Keep trajectories of at most so many tokens.", ge=1
    )
    tokenizer: str | None = parameter(
        None, _GROUP, "Tokenizer", "Directory or hub id of the tokenizer that counts; else what the records say.",
        metavar="PATH",
    )  # fmt: skip
    exit_status: list[str] = parameter([], _GROUP, "Exit statuses", "Keep only these exit statuses.", metavar="STATUS")
    drop_errors: list[str] = parameter(
        [],
        _GROUP,
        "Errors to drop",
        "Drop failures of these kinds; 'any' for all rollouts with an error.",
        metavar="KIND",
    )
    drop_unparseable: bool = parameter(
        False, _GROUP, "Drop the unparseable", "Drop rollouts in which no answer was found."
    )
    where: str | None = parameter(
        None, _GROUP, "Condition", metavar="SQL",
        description=f"SQL expression, such as 'reward > 0.5 AND turns < 30', over {', '.join(SQL_COLUMNS)}.",
    )  # fmt: skip
    drop_empty: bool = parameter(False, _GROUP, "Drop the empty", "Drop rollouts in which the model wrote nothing.")
    drop_duplicates: bool = parameter(
        False, _GROUP, "Drop duplicates", "Of equal completions to one problem, keep the first."
    )
    near_duplicates: float | None = parameter(
        None, _GROUP, "Near-duplicates", "Of completions to a problem this similar (Jaccard, say 0.8), keep the first.",
        gt=0, le=1,
    )  # fmt: skip
    benchmark: list[str] = parameter(
        [], _GROUP, "Benchmarks", "Drop what shares a run of words with these files (JSON, JSON Lines, Parquet, text).",
        metavar="FILE",
    )  # fmt: skip
    benchmark_ngram: int = parameter(13, _GROUP, "Words in common", "Length of that run, in words.", ge=5)
    best_k: int | None = parameter(
        None, _GROUP, "Best of a problem", "Keep the k best of every problem.", metavar="K", ge=1
    )
    at_most_k: int | None = parameter(
        None, _GROUP, "Most of a problem", "Keep the first k of every problem.", metavar="K", ge=1
    )

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.successful_only and self.unsuccessful_only:
            raise ValueError("--successful_only and --unsuccessful_only together keep nothing: give one of them")
        for name in ("reward", "messages", "tokens"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if least is not None and most is not None and least > most:
                raise ValueError(
                    f"--min_{name} {least:.12g} is more than --max_{name} {most:.12g}: together they keep nothing"
                )
        if self.where is not None:
            try:
                rules.where(self.where)
            except InputError as error:
                raise ValueError(str(error)) from error
        return self

    @property
    def counts_tokens(self) -> bool:
        """Whether a condition speaks of tokens, and a tokenizer is to count them."""
        bounded = self.min_tokens is not None or self.max_tokens is not None
        return self.tokenizer is not None and (
            bounded or (self.where is not None and "tokens" in rules.where(self.where).drops.meta.root_names())
        )

    def rules(self) -> list[Rule]:
        """The rules, in the order in which they are applied: what costs little and says most comes first.

        Those that compare the rollouts of a problem come last: so what another rule drops takes no other's place.
        """
        return [*self._of_a_rollout(), *self._within_a_problem()]

    def _of_a_rollout(self) -> Iterator[Rule]:
        if self.drop_errors:
            yield rules.failed() if "any" in self.drop_errors else rules.error_kinds(self.drop_errors)
        if self.drop_unparseable:
            yield rules.unparseable()
        if self.successful_only:
            yield rules.not_successful()
        if self.unsuccessful_only:
            yield rules.successful()
        yield from self._bounds("reward", "speedup", "messages")
        if self.exit_status:
            yield rules.exit_status(self.exit_status)
        if self.where is not None:
            rule = rules.where(self.where)
            yield rule._replace(needs_text=self.counts_tokens and "tokens" in rule.drops.meta.root_names())
        if self.drop_empty:
            yield rules.empty()
        yield from (rule._replace(needs_text=self.counts_tokens) for rule in self._bounds("tokens"))
        if self.benchmark:
            yield rules.contaminated(self.benchmark, self.benchmark_ngram)

    def _within_a_problem(self) -> Iterator[Rule]:
        if self.drop_duplicates:
            yield rules.duplicate()
        if self.near_duplicates is not None:
            yield rules.near_duplicate(self.near_duplicates)
        if self.best_k is not None:
            yield rules.beyond_best(self.best_k)
        if self.at_most_k is not None:
            yield rules.beyond_first(self.at_most_k)

    def _bounds(self, *columns: str) -> Iterator[Rule]:
        for column in columns:
            least, most = getattr(self, f"min_{column}", None), getattr(self, f"max_{column}", None)
            if least is not None:
                yield from rules.at_least(column, least)
            if most is not None:
                yield from rules.at_most(column, most)[least is not None :]


class Selected(NamedTuple):
    """A table with a column `drop_reason`, null for what is kept."""

    judged: pl.DataFrame
    words: list[str]
    """What was asked for, a line per rule."""
    notes: list[str]
    """What a user should know of how it was judged."""

    @property
    def kept(self) -> pl.DataFrame:
        """The rows that met all conditions, without the column."""
        return self.judged.filter(LEFT).drop("drop_reason")

    @property
    def dropped(self) -> pl.DataFrame:
        """The others."""
        return self.judged.filter(~LEFT)


def all_filters(corpus: Corpus, words: Sequence[str]) -> list[str]:
    """What was asked for, after what an earlier filter has left in the inputs' metadata."""
    earlier = corpus.metadata.get("filters")
    lines = earlier if isinstance(earlier, list) and all(isinstance(line, str) for line in earlier) else []
    return [*lines, *(line for line in words if line not in lines)]


def said_filters(corpus: Corpus, words: Sequence[str]) -> dict[str, list[str]]:
    """The same as an item of a document's metadata; none where nothing was asked for."""
    lines = all_filters(corpus, words)
    return {"filters": lines} if lines else {}


def select(corpus: Corpus, filters: Filters) -> Selected:
    """Divides a corpus by filters. Texts are read only where a rule needs them, and only of rows left until then.

    Raises `InputError` for benchmark files and tokenizers that cannot be read, and as `rules.apply` does.
    """
    if filters.drop_duplicates and not corpus.hashed:
        raise RuntimeError("a corpus without hashes has no duplicates to drop, a bug in rollmill")
    asked = filters.rules()
    table, notes = corpus.table, list[str]()
    if any(rule.needs_text for rule in asked):
        before = list(takewhile(lambda rule: not rule.needs_text, asked))
        table, notes = _with_text_columns(corpus, filters, rules.apply(table, before))
    judged = rules.apply(table, asked)
    if not judged["row"].equals(corpus.table["row"]):
        raise RuntimeError(f"rows lost in a filter, a bug in rollmill: {filters!r}")
    return Selected(judged, list(_words(asked)), notes)


def _with_text_columns(corpus: Corpus, filters: Filters, judged: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    from rollmill.curation.contamination import COMMON_ITEMS, Benchmarks
    from rollmill.curation.text_features import with_text_features
    from rollmill.curation.tokens import TokenCounter

    counter = TokenCounter(filters.tokenizer) if filters.tokenizer and filters.counts_tokens else None
    benchmarks = Benchmarks.read(filters.benchmark, ngram=filters.benchmark_ngram) if filters.benchmark else None
    signatures = filters.near_duplicates is not None
    left = judged.select(LEFT).to_series()
    table = with_text_features(
        corpus, judged.drop("drop_reason"), left, signatures=signatures, benchmarks=benchmarks, counter=counter
    )
    notes = []
    if benchmarks and benchmarks.too_short:
        notes.append(f"{benchmarks.too_short:,} of {benchmarks.items:,} benchmark items are too short to be looked for")
    if benchmarks and benchmarks.too_common:
        notes.append(f"{benchmarks.too_common:,} runs of words that more than {COMMON_ITEMS} items have are no sign")
    if counter and counter.without_template:
        notes.append(f"the chat template refused {counter.without_template:,} rollouts: their tokens are the contents'")
    return table, notes


def _words(asked: Sequence[Rule]) -> Iterator[str]:
    yield from (rule.words for rule in asked if not rule.reason.startswith("no_"))
