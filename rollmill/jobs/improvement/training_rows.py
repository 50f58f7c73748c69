"""Writes the training rows of a round: right rollouts, with the prompts that the policy will get in evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import orjson
import polars as pl

from rollmill.corpus.corpus import Corpus, read_corpus
from rollmill.exports.export_result import count_reasons
from rollmill.exports.seed_format import make_metadata, make_summary, write_seed_format
from rollmill.exports.token_references import relocate, token_location
from rollmill.files.rows import dump_line
from rollmill.generation.row_digest import row_digest
from rollmill.generation.token_file import TokenFileError, TokenReader
from rollmill.jobs.curation.apply_filters import copy_images
from rollmill.jobs.curation.dropped import positions_path, write_positions
from rollmill.jobs.curation.export_job import ExportOutcome, export_corpus
from rollmill.jobs.curation.exporters import sft_exporter
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import Sft
from rollmill.jobs.curation.reading import reading
from rollmill.jobs.curation.rules import LEFT
from rollmill.jobs.curation.select_rollouts import filters_metadata
from rollmill.jobs.improvement.candidate_pool import CandidatePool
from rollmill.jobs.improvement.data_sources import PlannedSource
from rollmill.problems import build_messages
from rollmill.records import Rollout, TokenLocation

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class TrainingRows(NamedTuple):
    """Counts of the training rows of a round."""

    exported: ExportOutcome
    feeds: dict[str, int]
    """Rows by data source."""
    dropped: dict[str, int]
    """Rollouts of all data sources that are not trained on, by reason, most frequent first."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.exported.kept

    def line(self) -> str:
        """Return the counts in one line for the user."""
        feeds = ", ".join(f"{name} {rows:,}" for name, rows in self.feeds.items())
        dropped = ", ".join(f"{reason} {rows:,}" for reason, rows in self.dropped.items()) or "none"
        problems = sum(self.exported.exported.problems.values())
        return f"{self.rows:,} rows of {problems:,} problems ({feeds}); dropped: {dropped}"


def write_training_rows(
    feeds: Sequence[PlannedSource], folder: Path, *, accepted: Filters, at_most_k: int
) -> TrainingRows:
    """Write `<folder>/chosen.json`, the rollouts selected from all data sources, and `<folder>/sft.jsonl`, their rows.

    Where a source has `prompting`, prompts are built from the problems again, without the few-shot examples of the
    rollouts, so that the policy learns to answer without them. With several sources, ids begin with the source's name.
    `chosen.dropped.jsonl` has the location of every other rollout, and the reason why it was dropped. Raises
    `InputError` as `read_corpus` does.

    Args:
        feeds: The round's data sources.
        folder: Folder of the files.
        accepted: Filters for the rollouts that are trained on.
        at_most_k: Most rollouts of a problem.
    """
    path = folder / "chosen.json"
    with reading([input_path for feed in feeds for input_path in feed.inputs], path) as corpus:
        pool = CandidatePool(corpus, feeds)
        # Rollouts that are cut off or marked give no row: they must not count among the `at_most_k` of a problem.
        filters = accepted.model_copy(update={"drop_truncated": True, "drop_marked": True})
        judged, descriptions = pool.choose(filters, at_most_k)
        kept, dropped = judged.filter(LEFT).drop("drop_reason"), judged.filter(~LEFT)
        named = kept.with_columns(pl.Series("instance_id", _names(pool, kept), dtype=pl.String))
        metadata = {**make_metadata(corpus, named), **filters_metadata(corpus, descriptions)}
        write_seed_format(path, metadata, _with_training_prompts(pool, kept, folder), make_summary(kept))
        write_positions(positions_path(path), corpus, dropped)
        copy_images(corpus, folder)
    exporter, export_filters = sft_exporter(folder / "sft.jsonl", Sft(), Filters(), allow_empty=True)
    exported = export_corpus(read_corpus([str(path)]), export_filters, exporter)
    lost = set(exported.exported.dropped["row"])
    counts = Counter(pool.owners[source].name for index, source in enumerate(kept["source"]) if index not in lost)
    reasons = Counter(count_reasons(dropped)) + Counter(exported.reasons)
    return TrainingRows(exported, {feed.name: counts[feed.name] for feed in feeds}, dict(reasons.most_common()))


def _names(pool: CandidatePool, kept: pl.DataFrame) -> list[str]:
    return [pool.name(source, instance_id) for source, instance_id in kept.select("source", "instance_id").iter_rows()]


def _with_training_prompts(pool: CandidatePool, kept: pl.DataFrame, folder: Path) -> Iterator[bytes]:
    """Yield the selected records with new names and prompts, and with token locations relative to `folder`."""
    for part in kept.partition_by("source", maintain_order=True):
        source = part["source"][0]
        prompting = pool.owners[source].prompting
        ids = set(part["instance_id"]) if prompting else set()
        problems = {problem.instance_id: problem for problem in pool.problems(source) if problem.instance_id in ids}
        for name, record in zip(_names(pool, part), pool.corpus.records(part), strict=True):
            tokens = _tokens(pool.corpus, source, record, folder)
            if prompting is None:
                fields = {field: value for field, value in _fields.decode(record).items() if field != "tokens"}
                location = {"tokens": tokens.model_dump()} if tokens else {}
                yield msgspec.json.encode({**fields, "instance_id": name, **location})
                continue
            rollout = Rollout.model_validate_json(record)
            messages = build_messages(problems[rollout.instance_id], prompting)
            trained = rollout.model_copy(update={"instance_id": name, "messages": messages, "tokens": None})
            row = trained.model_dump(mode="json")
            if tokens is not None and messages != rollout.messages:
                # The recorded ids follow another prompt than the row's: training uses those of the answer only.
                changes = {"other_prompt": True, "digest": row_digest(orjson.loads(dump_line(row)))}
                tokens = tokens.model_copy(update=changes)
            yield dump_line(row | ({"tokens": tokens.model_dump(mode="json")} if tokens else {})).rstrip()


def _tokens(corpus: Corpus, source: int, record: bytes, folder: Path) -> TokenLocation | None:
    """Return the location of a record's tokens, relative to `folder`; None where there are none of its text.

    Args:
        corpus: The corpus.
        source: Number of the record's file in the corpus.
        record: The record, as JSON.
        folder: Folder of the file that will refer to the tokens.
    """
    if b'"tokens"' not in record:
        return None
    row = orjson.loads(record)
    location, root = token_location(row.get("tokens")), corpus.tokens_root(source)
    if location is None or root is None:
        return None
    reader = TokenReader(root)
    try:
        digest = location.digest or reader.digest(location, row["instance_id"], row["sample_id"])
    except TokenFileError:
        return None
    finally:
        reader.close()
    if digest != row_digest(row):  # the text was changed since
        return None
    if location.instance_id is None:
        # The record gets another name in `folder`: the location keeps the one in the file of tokens.
        identity = {"instance_id": row["instance_id"], "sample_id": row["sample_id"]}
        location = location.model_copy(update=identity)
    return relocate(location, root, folder)
