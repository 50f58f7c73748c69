"""Filtering of a corpus into two files: the kept rollouts, and the dropped ones with their reasons."""

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
from rollmill.exports.seed_format import make_metadata, make_summary, write_seed_format
from rollmill.exports.token_references import with_moved_tokens
from rollmill.exports.training_file import nothing_usable
from rollmill.files.atomic import atomic_write_bytes
from rollmill.files.confined import ConfinedFileError, read_confined
from rollmill.generation.run import IMAGES
from rollmill.jobs.curation.dropped import (
    dropped_line,
    dropped_path,
    positions_path,
    write_dropped_records,
    write_positions,
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
    """The result of filtering: the files, and the counts, where `kept` + all `reasons` = `read`."""

    read: int
    kept: int
    problems: int
    """Number of problems with at least one kept rollout."""
    reasons: dict[str, int]
    path: Path
    dropped_path: Path
    notes: list[str]

    def lines(self) -> list[str]:
        """Return the lines for the user."""
        return [
            f"kept {self.kept:,} of {self.read:,} rollouts, of {counted(self.problems, 'problem')}: {self.path}",
            dropped_line(self.read - self.kept, self.reasons, self.dropped_path),
            *self.notes,
        ]


def filter_corpus(corpus: Corpus, filters: Filters, path: Path, what_of_dropped: Dropped = "records") -> Filtered:
    """Write the records that meet the filters to `path`, and the dropped ones beside it.

    Records are copied unchanged. Either both files appear, or neither. Raises `InputError` as `select` and
    `parse_output_name` does and where nothing is kept, and `OSError`.

    Args:
        corpus: the rollouts that were read.
        filters: the conditions.
        path: the file, whose name determines its format: see `write_seed_format`.
        what_of_dropped: whether whole records of dropped rollouts are written, or only their positions.
    """
    dropped_file = dropped_path(path) if what_of_dropped == "records" else positions_path(path)
    selected = select(corpus, filters)
    kept, dropped = selected.kept, selected.dropped
    if not kept.height:
        raise nothing_usable(path, dropped["drop_reason"].to_list())
    write_dropped = write_dropped_records if what_of_dropped == "records" else write_positions
    written: list[Path] = []
    try:
        # Both files are written at the same time: reading and writing wait for I/O.
        with ThreadPoolExecutor(1) as executor:
            writing = executor.submit(write_dropped, dropped_file, corpus, dropped)
            writing.add_done_callback(lambda done: None if done.exception() else written.append(dropped_file))
            metadata = {**make_metadata(corpus, kept), **filters_metadata(corpus, selected.descriptions)}
            write_seed_format(path, metadata, _records(corpus, kept, path.parent), make_summary(kept))
            written.append(path)
            result_of(writing)
        copy_images(corpus, path.parent)
    except BaseException:
        for file in written:  # but no file of an earlier call, which this call has not replaced
            file.unlink(missing_ok=True)
        raise
    return Filtered(
        read=selected.judged.height,
        kept=kept.height,
        problems=kept["instance_id"].n_unique(),
        reasons=count_reasons(dropped),
        path=path,
        dropped_path=dropped_file,
        notes=[*empty_notes(kept), *selected.notes],
    )


def _records(corpus: Corpus, kept: pl.DataFrame, folder: Path) -> Iterator[bytes]:
    """Yield the records of a table, unchanged except for the location of their tokens."""
    folders = [corpus.tokens_root(source) for source in range(len(corpus.sources))]
    for source, record in zip(kept["source"], corpus.records(kept), strict=True):
        yield with_moved_tokens(record, folders[source], folder)


def copy_images(corpus: Corpus, folder: Path) -> None:
    """Copy the images of runs to the folder of records that leave these runs, as their paths are relative.

    Images are named by the hashes of their contents. They are hard-linked where the file system can, else copied. Only
    regular files in the run's own folder are: following a link could copy other files of this machine.
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
