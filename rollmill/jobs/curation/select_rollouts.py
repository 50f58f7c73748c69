"""Selection of the rollouts of a corpus by filters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

import polars as pl

from rollmill.corpus.corpus import Corpus
from rollmill.jobs.curation import rules
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.rules import LEFT, Rule


class Selected(NamedTuple):
    """The table with a column `drop_reason`, null for kept rows."""

    judged: pl.DataFrame
    descriptions: list[str]
    """The conditions, one line per rule."""
    notes: list[str]
    """Remarks for the user about the selection."""

    @property
    def kept(self) -> pl.DataFrame:
        """Return the rows that met all conditions, without the column."""
        return self.judged.filter(LEFT).drop("drop_reason")

    @property
    def dropped(self) -> pl.DataFrame:
        """Return the other rows."""
        return self.judged.filter(~LEFT)


def all_filters(corpus: Corpus, descriptions: Sequence[str]) -> list[str]:
    """Return the descriptions of conditions, after those of earlier filters in the inputs' metadata."""
    earlier = corpus.metadata.get("filters")
    lines = earlier if isinstance(earlier, list) and all(isinstance(line, str) for line in earlier) else []
    return [*lines, *(line for line in descriptions if line not in lines)]


def filters_metadata(corpus: Corpus, descriptions: Sequence[str]) -> dict[str, list[str]]:
    """Return the same as a field of a document's metadata; empty without any condition."""
    lines = all_filters(corpus, descriptions)
    return {"filters": lines} if lines else {}


def select(corpus: Corpus, filters: Filters) -> Selected:
    """Select rollouts by filters. Texts are read only where a rule needs them, and only of rows kept until then.

    Raises `InputError` for benchmark files and tokenizers that cannot be read, and as `rules.apply` does.
    """
    if filters.drop_duplicates and not corpus.hashed:
        raise RuntimeError("a corpus without hashes has no duplicates to drop, a bug in rollmill")
    filter_rules = rules_of(filters)
    table, notes = corpus.table, list[str]()
    if any(rule.needs_text for rule in filter_rules):
        before = list(takewhile(lambda rule: not rule.needs_text, filter_rules))
        table, notes = _with_text_columns(corpus, filters, rules.apply(table, before))
    judged = rules.apply(table, filter_rules)
    if not judged["row"].equals(corpus.table["row"]):
        raise RuntimeError(f"rows lost in a filter, a bug in rollmill: {filters!r}")
    return Selected(judged, list(_descriptions(filter_rules)), notes)


def _with_text_columns(corpus: Corpus, filters: Filters, judged: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    from rollmill.exports.token_counter import TokenCounter
    from rollmill.jobs.curation.contamination import COMMON_ITEMS, Benchmarks
    from rollmill.jobs.curation.text_features import with_text_features

    counter = TokenCounter(filters.tokenizer) if filters.tokenizer and counts_tokens(filters) else None
    benchmarks = Benchmarks.read(filters.benchmark, ngram=filters.benchmark_ngram) if filters.benchmark else None
    signatures = filters.near_duplicates is not None
    alive = judged.select(LEFT).to_series()
    table = with_text_features(
        corpus, judged.drop("drop_reason"), alive, signatures=signatures, benchmarks=benchmarks, counter=counter
    )
    notes = []
    if benchmarks and benchmarks.too_short:
        notes.append(f"{benchmarks.too_short:,} of {benchmarks.items:,} benchmark items are too short to search for")
    if benchmarks and benchmarks.too_common:
        notes.append(f"{benchmarks.too_common:,} n-grams of words that more than {COMMON_ITEMS} items have are ignored")
    if counter and counter.without_template:
        notes.append(f"the chat template refused {counter.without_template:,} rollouts: their tokens are the contents'")
    return table, notes


def _descriptions(filter_rules: Sequence[Rule]) -> Iterator[str]:
    yield from (rule.description for rule in filter_rules if not rule.reason.startswith("no_"))


def rules_of(filters: Filters) -> list[Rule]:
    """Return the rules of filters in the order of application: cheap ones that drop many rows come first.

    Rules that compare the rollouts of a problem come last, so that a rollout dropped by another rule does not count.
    """
    return [*_of_a_rollout(filters), *_within_a_problem(filters)]


def counts_tokens(filters: Filters) -> bool:
    """Return whether a condition is about tokens, and a tokenizer counts them."""
    bounded = filters.min_tokens is not None or filters.max_tokens is not None
    return filters.tokenizer is not None and (
        bounded or (filters.where is not None and "tokens" in rules.where(filters.where).drops.meta.root_names())
    )


def _of_a_rollout(filters: Filters) -> Iterator[Rule]:
    if filters.drop_errors:
        yield rules.failed() if "any" in filters.drop_errors else rules.error_kinds(filters.drop_errors)
    if filters.drop_unparseable:
        yield rules.unparseable()
    if filters.drop_marked:
        yield rules.marked()
    if filters.drop_truncated:
        yield rules.truncated()
    if filters.successful_only:
        yield rules.not_successful()
    if filters.unsuccessful_only:
        yield rules.successful()
    yield from _bounds(filters, "reward", "speedup", "messages")
    if filters.exit_status:
        yield rules.exit_status(filters.exit_status)
    if filters.where is not None:
        rule = rules.where(filters.where)
        yield rule._replace(needs_text=counts_tokens(filters) and "tokens" in rule.drops.meta.root_names())
    if filters.drop_empty:
        yield rules.empty()
    yield from (rule._replace(needs_text=counts_tokens(filters)) for rule in _bounds(filters, "tokens"))
    if filters.benchmark:
        yield rules.contaminated(filters.benchmark, filters.benchmark_ngram)


def _within_a_problem(filters: Filters) -> Iterator[Rule]:
    if filters.drop_duplicates:
        yield rules.duplicate()
    if filters.near_duplicates is not None:
        yield rules.near_duplicate(filters.near_duplicates)
    if filters.best_k is not None:
        yield rules.beyond_best(filters.best_k)
    if filters.at_most_k is not None:
        yield rules.beyond_first(filters.at_most_k)


def _bounds(filters: Filters, *columns: str) -> Iterator[Rule]:
    for column in columns:
        least, most = getattr(filters, f"min_{column}", None), getattr(filters, f"max_{column}", None)
        if least is not None:
            yield from rules.at_least(column, least)
        if most is not None:
            yield from rules.at_most(column, most)[least is not None :]
