"""Training rows of a round: right rollouts, with their problems asked as the policy will be asked."""

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
from rollmill.exports.seed_format import generated_metadata, summary, write_seed_format
from rollmill.exports.token_references import relocate, token_location
from rollmill.files.rows import dump_line
from rollmill.generation.row_digest import row_digest
from rollmill.generation.token_file import TokenFileError, TokenReader
from rollmill.jobs.curation.apply_filters import carry_images
from rollmill.jobs.curation.dropped import positions_path, write_positions
from rollmill.jobs.curation.export_job import ExportOutcome, export_corpus
from rollmill.jobs.curation.exporters import sft_exporter
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import Sft
from rollmill.jobs.curation.reading import reading
from rollmill.jobs.curation.rules import LEFT
from rollmill.jobs.curation.select_rollouts import filters_metadata
from rollmill.jobs.improvement.candidate_pool import Union
from rollmill.jobs.improvement.data_sources import PlannedSource
from rollmill.problems import build_messages
from rollmill.records import Rollout, TokenLocation

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class TrainingRows(NamedTuple):
    """What a round trains on."""

    exported: ExportOutcome
    feeds: dict[str, int]
    """Rows by feed."""
    dropped: dict[str, int]
    """Rollouts of all feeds that are not trained on, by reason, most frequent first."""

    @property
    def rows(self) -> int:
        """Return how many rows there are."""
        return self.exported.kept

    def line(self) -> str:
        """Return the line that a user should read."""
        feeds = ", ".join(f"{name} {rows:,}" for name, rows in self.feeds.items())
        dropped = ", ".join(f"{reason} {rows:,}" for reason, rows in self.dropped.items()) or "none"
        problems = sum(self.exported.exported.problems.values())
        return f"{self.rows:,} rows of {problems:,} problems ({feeds}); dropped: {dropped}"


def write_training_rows(
    feeds: Sequence[PlannedSource], folder: Path, *, accepted: Filters, at_most_k: int
) -> TrainingRows:
    """Write `<folder>/chosen.json`, the rollouts chosen from all feeds, and `<folder>/sft.jsonl`, rows to train on.

    In both, the prompt of a feed whose problems are asked anew is the problem's own: examples that helped a rollout are
    left out, so that training teaches to do without them. Where there are several feeds, ids begin with the feed's
    name. `chosen.dropped.jsonl` says of every other rollout where it stands and why it was dropped. Raises `InputError`
    as `read_corpus` does.

    Args:
        feeds: The round's data sources.
        folder: Where the files are written.
        accepted: Which rollouts are trained on.
        at_most_k: Rollouts of a problem, at most.
    """
    path = folder / "chosen.json"
    with reading([input_path for feed in feeds for input_path in feed.inputs], path) as corpus:
        union = Union(corpus, feeds)
        # What is cut off or marked is no row: it must not take another's place among the best of a problem.
        asked = accepted.model_copy(update={"drop_truncated": True, "drop_marked": True})
        judged, words = union.choose(asked, at_most_k)
        kept, dropped = judged.filter(LEFT).drop("drop_reason"), judged.filter(~LEFT)
        named = kept.with_columns(pl.Series("instance_id", _names(union, kept), dtype=pl.String))
        metadata = {**generated_metadata(corpus, named), **filters_metadata(corpus, words)}
        write_seed_format(path, metadata, _with_training_prompts(union, kept, folder), summary(kept))
        write_positions(positions_path(path), corpus, dropped)
        carry_images(corpus, folder)
    exporter, filters = sft_exporter(folder / "sft.jsonl", Sft(), Filters(), allow_empty=True)
    exported = export_corpus(read_corpus([str(path)]), filters, exporter)
    lost = set(exported.exported.dropped["row"])
    counts = Counter(union.owners[source].name for index, source in enumerate(kept["source"]) if index not in lost)
    reasons = Counter(count_reasons(dropped)) + Counter(exported.reasons)
    return TrainingRows(exported, {feed.name: counts[feed.name] for feed in feeds}, dict(reasons.most_common()))


def _names(union: Union, kept: pl.DataFrame) -> list[str]:
    return [union.name(source, instance_id) for source, instance_id in kept.select("source", "instance_id").iter_rows()]


def _with_training_prompts(union: Union, kept: pl.DataFrame, folder: Path) -> Iterator[bytes]:
    """Yield the chosen records with their new names and prompts, and with where a file of `folder` has their tokens."""
    for part in kept.partition_by("source", maintain_order=True):
        source = part["source"][0]
        prompting = union.owners[source].prompting
        wanted = set(part["instance_id"]) if prompting else set()
        problems = {problem.instance_id: problem for problem in union.problems(source) if problem.instance_id in wanted}
        for name, record in zip(_names(union, part), union.corpus.records(part), strict=True):
            tokens = _tokens(union.corpus, source, record, folder)
            if prompting is None:
                fields = {field: value for field, value in _fields.decode(record).items() if field != "tokens"}
                found = {"tokens": tokens.model_dump()} if tokens else {}
                yield msgspec.json.encode({**fields, "instance_id": name, **found})
                continue
            rollout = Rollout.model_validate_json(record)
            messages = build_messages(problems[rollout.instance_id], prompting)
            trained = rollout.model_copy(update={"instance_id": name, "messages": messages, "tokens": None})
            row = trained.model_dump(mode="json")
            if tokens is not None and messages != rollout.messages:
                asked = {"other_prompt": True, "digest": row_digest(orjson.loads(dump_line(row)))}
                tokens = tokens.model_copy(update=asked)
            yield dump_line(row | ({"tokens": tokens.model_dump(mode="json")} if tokens else {})).rstrip()


def _tokens(corpus: Corpus, source: int, record: bytes, folder: Path) -> TokenLocation | None:
    """Return where a file of `folder` has a record's tokens, whatever the record is named there; None for none."""
    if b'"tokens"' not in record:
        return None
    row = orjson.loads(record)
    location, root = token_location(row.get("tokens")), corpus.tokens_root(source)
    if location is None or root is None:
        return None
    reader = TokenReader(root)
    try:
        recorded = location.digest or reader.digest(location, row["instance_id"], row["sample_id"])
    except TokenFileError:
        return None
    finally:
        reader.close()
    if recorded != row_digest(row):
        return None
    if location.instance_id is None:
        named = {"instance_id": row["instance_id"], "sample_id": row["sample_id"]}
        location = location.model_copy(update=named)
    return relocate(location, root, folder)
