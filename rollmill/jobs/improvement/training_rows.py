"""Training rows of a round: right rollouts, with their problems asked as the policy will be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from rollmill.corpus.corpus import read_corpus
from rollmill.exports.export_result import count_reasons
from rollmill.exports.seed_format import generated_metadata, summary, write_seed_format
from rollmill.files.rows import dump_line
from rollmill.jobs.curation.apply_filters import carry_images
from rollmill.jobs.curation.dropped import places_path, write_places
from rollmill.jobs.curation.export_job import ExportOutcome, export_corpus
from rollmill.jobs.curation.exporters import sft_exporter
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import Sft
from rollmill.jobs.curation.reading import reading
from rollmill.jobs.curation.rules import LEFT
from rollmill.jobs.curation.select_rollouts import said_filters
from rollmill.jobs.improvement.candidate_pool import Union
from rollmill.jobs.improvement.data_sources import PlannedSource
from rollmill.problems import build_messages
from rollmill.records import Rollout

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
        """How many they are."""
        return self.exported.kept

    def line(self) -> str:
        """What a user should read."""
        feeds = ", ".join(f"{name} {rows:,}" for name, rows in self.feeds.items())
        dropped = ", ".join(f"{reason} {rows:,}" for reason, rows in self.dropped.items()) or "none"
        problems = sum(self.exported.exported.problems.values())
        return f"{self.rows:,} rows of {problems:,} problems ({feeds}); dropped: {dropped}"


def write_training_rows(
    feeds: Sequence[PlannedSource], folder: Path, *, accepted: Filters, at_most_k: int
) -> TrainingRows:
    """Writes `<folder>/chosen.json`, the rollouts chosen from all feeds, and `<folder>/sft.jsonl`, rows to train on.

    In both, the prompt of a feed whose problems are asked anew is the problem's own: examples that helped a rollout are
    left out, so that training teaches to do without them. Where there are several feeds, ids begin with the feed's
    name. `chosen.dropped.jsonl` says of every other rollout where it stands and why it was dropped. Raises `InputError`
    as `read_corpus` does.
    """
    path = folder / "chosen.json"
    with reading([one for feed in feeds for one in feed.inputs], path) as corpus:
        union = Union(corpus, feeds)
        judged, words = union.choose(accepted, at_most_k)
        kept, dropped = judged.filter(LEFT).drop("drop_reason"), judged.filter(~LEFT)
        named = kept.with_columns(pl.Series("instance_id", _names(union, kept), dtype=pl.String))
        metadata = {**generated_metadata(corpus, named), **said_filters(corpus, words)}
        write_seed_format(path, metadata, _asked_anew(union, kept), summary(kept))
        write_places(places_path(path), corpus, dropped)
        carry_images(corpus, folder)
    exporter, filters = sft_exporter(folder / "sft.jsonl", Sft(), Filters())
    exported = export_corpus(read_corpus([str(path)]), filters, exporter)
    lost = set(exported.exported.dropped["row"])
    counts = Counter(union.owners[source].name for place, source in enumerate(kept["source"]) if place not in lost)
    reasons = Counter(count_reasons(dropped)) + Counter(exported.reasons)
    return TrainingRows(exported, {feed.name: counts[feed.name] for feed in feeds}, dict(reasons.most_common()))


def _names(union: Union, kept: pl.DataFrame) -> list[str]:
    return [union.name(source, own) for source, own in kept.select("source", "instance_id").iter_rows()]


def _asked_anew(union: Union, kept: pl.DataFrame) -> Iterator[bytes]:
    for part in kept.partition_by("source", maintain_order=True):
        source = part["source"][0]
        prompting = union.owners[source].prompting
        wanted = set(part["instance_id"]) if prompting else set()
        problems = {one.instance_id: one for one in union.problems(source) if one.instance_id in wanted}
        for name, record in zip(_names(union, part), union.corpus.records(part), strict=True):
            if prompting is None:
                yield msgspec.json.encode({**_fields.decode(record), "instance_id": name})
                continue
            rollout = Rollout.model_validate_json(record)
            messages = build_messages(problems[rollout.instance_id], prompting)
            asked = rollout.model_copy(update={"instance_id": name, "messages": messages})
            yield dump_line(asked.model_dump(mode="json")).rstrip()
