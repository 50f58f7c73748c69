"""Filtering a corpus into two files: what is kept, and what is not, each record with its reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import orjson
import polars as pl

from rollmill.corpus.corpus import Corpus
from rollmill.curation.filters import Filters, count_reasons, select
from rollmill.exports.packing import output_kind
from rollmill.exports.seed_format import generated_metadata, summary, write_seed_format
from rollmill.rollouts.run import IMAGES


class Filtered(NamedTuple):
    """Where the records went, and how many: `kept` + all `reasons` = `read`."""

    read: int
    kept: int
    problems: int
    """With at least one kept rollout."""
    reasons: dict[str, int]
    path: Path
    dropped_path: Path
    notes: list[str]

    def lines(self) -> list[str]:
        """What a user should read."""
        dropped = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.items()) or "none"
        return [
            f"kept {self.kept:,} of {self.read:,} rollouts, of {self.problems:,} problems: {self.path}",
            f"dropped {self.read - self.kept:,} ({dropped}): {self.dropped_path}",
            *self.notes,
        ]


def dropped_path(path: Path) -> Path:
    """Where the dropped rows of an output go: `rows.json.gz` -> `rows.dropped.json.gz`."""
    stem = output_kind(path).stem
    return path.with_name(f"{stem}.dropped{path.name.removeprefix(stem)}")


def filter_corpus(corpus: Corpus, filters: Filters, path: Path) -> Filtered:
    """Writes the records that meet the filters to `path`, the others beside it with `drop_reason`; both whole.

    Records are copied, not rewritten. The kind of file follows from the name: see `write_seed_format`.
    Raises `InputError` as `select` and `output_kind` do.
    """
    aside = dropped_path(path)
    selected = select(corpus, filters)
    kept, dropped = selected.kept, selected.dropped
    write_seed_format(aside, generated_metadata(corpus, dropped), _with_reasons(corpus, dropped), summary(dropped))
    write_seed_format(path, generated_metadata(corpus, kept), corpus.records(kept), summary(kept))
    carry_images(corpus, path.parent)
    return Filtered(
        read=selected.judged.height,
        kept=kept.height,
        problems=kept["instance_id"].n_unique(),
        reasons=count_reasons(dropped),
        path=path,
        dropped_path=aside,
        notes=selected.notes,
    )


def _with_reasons(corpus: Corpus, dropped: pl.DataFrame) -> Iterator[bytes]:
    for reason, record in zip(dropped["drop_reason"], corpus.records(dropped), strict=True):
        if b'"drop_reason"' in record:  # filtered before
            yield orjson.dumps({**orjson.loads(record), "drop_reason": reason})
        else:
            yield b'%s,"drop_reason":%s}' % (record[:-1].rstrip(), orjson.dumps(reason))


def carry_images(corpus: Corpus, folder: Path) -> None:
    """Puts the images of runs beside records that leave these runs, whose paths to them are relative.

    Their names are their contents' hashes. They are linked where the file system can, else copied.
    """
    for source in corpus.files:
        images = source.run / IMAGES if source.run else None
        if images is None or not images.is_dir() or images.resolve() == (folder / IMAGES).resolve():
            continue
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        for image in images.iterdir():
            target = folder / IMAGES / image.name
            if target.exists():
                continue
            try:
                os.link(image, target)
            except OSError:
                shutil.copyfile(image, target)
