"""Filtering a corpus into two files: what is kept, and what is not, each record with its reason."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import polars as pl

from rollmill.corpus.corpus import Corpus
from rollmill.exports.export_result import count_reasons, empty_notes
from rollmill.exports.seed_format import generated_metadata, summary, write_seed_format
from rollmill.exports.token_references import with_moved_tokens
from rollmill.exports.training_file import nothing_usable
from rollmill.files.atomic import atomic_write_bytes
from rollmill.files.confined import ConfinedFileError, read_confined
from rollmill.generation.run import IMAGES
from rollmill.jobs.curation.dropped import (
    dropped_line,
    dropped_path,
    places_path,
    write_dropped_records,
    write_places,
)
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import Dropped
from rollmill.jobs.curation.select_rollouts import filters_metadata, select
from rollmill.problems.images import LARGEST_IMAGE
from rollmill.reports.plots.labels import counted
from rollmill.terminal.escapes import visible
from rollmill.terminal.interruption import result_of

log = logging.getLogger(__name__)


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
        """Return what a user should read."""
        return [
            f"kept {self.kept:,} of {self.read:,} rollouts, of {counted(self.problems, 'problem')}: {self.path}",
            dropped_line(self.read - self.kept, self.reasons, self.dropped_path),
            *self.notes,
        ]


def filter_corpus(corpus: Corpus, filters: Filters, path: Path, what_of_dropped: Dropped = "records") -> Filtered:
    """Write the records that meet the filters to `path`; of the others, beside it, whole records or places.

    Records are copied, not rewritten. The kind of file follows from the name: see `write_seed_format`. Both files
    appear, or neither. Raises `InputError` as `select` and `output_kind` do and where nothing is kept,
    `OSError` as the file system does.
    """
    aside = dropped_path(path) if what_of_dropped == "records" else places_path(path)
    selected = select(corpus, filters)
    kept, dropped = selected.kept, selected.dropped
    if not kept.height:
        raise nothing_usable(path, dropped["drop_reason"].to_list())
    write_dropped = write_dropped_records if what_of_dropped == "records" else write_places
    written: list[Path] = []
    try:
        with ThreadPoolExecutor(1) as beside:  # reading and writing wait for the kernel, so both files grow at once
            writing = beside.submit(write_dropped, aside, corpus, dropped)
            writing.add_done_callback(lambda done: None if done.exception() else written.append(aside))
            metadata = {**generated_metadata(corpus, kept), **filters_metadata(corpus, selected.words)}
            write_seed_format(path, metadata, _records(corpus, kept, path.parent), summary(kept))
            written.append(path)
            result_of(writing)
        carry_images(corpus, path.parent)
    except BaseException:
        for file in written:  # and no file of an earlier call, which this one has not replaced
            file.unlink(missing_ok=True)
        raise
    return Filtered(
        read=selected.judged.height,
        kept=kept.height,
        problems=kept["instance_id"].n_unique(),
        reasons=count_reasons(dropped),
        path=path,
        dropped_path=aside,
        notes=[*empty_notes(kept), *selected.notes],
    )


def _records(corpus: Corpus, kept: pl.DataFrame, folder: Path) -> Iterator[bytes]:
    """Yield the records of a table as they stand, but for where they find their tokens from another folder."""
    folders = [corpus.tokens_root(source) for source in range(len(corpus.sources))]
    for source, record in zip(kept["source"], corpus.records(kept), strict=True):
        yield with_moved_tokens(record, folders[source], folder)


def carry_images(corpus: Corpus, folder: Path) -> None:
    """Put the images of runs beside records that leave these runs, whose paths to them are relative.

    Their names are their contents' hashes. They are linked where the file system can, else copied. Only regular files
    in the run's own folder are: a link to elsewhere would carry files of this machine along.
    """
    for source in corpus.files:
        images = source.run / IMAGES if source.run else None
        if images is None or not images.is_dir() or images.resolve() == (folder / IMAGES).resolve():
            continue
        if images.is_symlink():
            log.warning("%s is a link: its images are not copied", visible(str(images)))
            continue
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        for image in images.iterdir():
            _copy_image(image, folder / IMAGES / image.name)


def _copy_image(image: Path, target: Path) -> None:
    if image.is_symlink() or not image.is_file() or target.exists():
        return
    try:
        os.link(image, target)
    except OSError:
        try:
            content = read_confined(image.name, [image.parent], limit=LARGEST_IMAGE)
        except ConfinedFileError as error:
            log.warning("an image is not copied: %s", visible(str(error)))
            return
        atomic_write_bytes(target, content)
