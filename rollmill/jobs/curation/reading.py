"""Reading of inputs for a command: the corpus, a quarantine file for bad rows, and the analysis."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import polars as pl

from rollmill.corpus.corpus import Corpus, read_corpus
from rollmill.corpus.inputs import Source, find_sources
from rollmill.corpus.row_reader import NO_NAMES, FieldNames
from rollmill.errors import InputError
from rollmill.exports.output_files import parse_output_name
from rollmill.exports.splitting import VALIDATION
from rollmill.files.atomic import atomic_write
from rollmill.files.remote import is_remote
from rollmill.files.rows import BadRow, dump_line
from rollmill.jobs.curation.analysis import analyse
from rollmill.jobs.curation.analysis_result import Analysis
from rollmill.reports.plots.labels import counted
from rollmill.terminal.escapes import visible_line, write_lines

_SHOWN = 5
"""Bad rows that are printed."""


class Quarantine:
    """Collects bad rows in a file. Made by `open_quarantine`."""

    def __init__(self, path: Path | None, stack: ExitStack) -> None:
        self.path = path
        self.count = 0
        self.first: list[str] = []
        self._notes: list[str] = []
        self._stack = stack
        self._file: BinaryIO | None = None

    def __call__(self, source: Source, row: BadRow) -> None:
        """Add one row."""
        self.count += 1
        if len(self.first) < _SHOWN:
            field = f"{row.field}: " if row.field else ""
            self.first.append(visible_line(f"{source.path}: row {row.number}: {field}{row.reason}"))
        if self.path and not self._file:
            self._file = self._stack.enter_context(atomic_write(self.path))
        if self._file:
            self._file.write(dump_line({"source": source.path, **row.to_json()}))

    def note(self, line: str) -> None:
        """Add a line for the user."""
        self._notes.append(line)

    def lines(self) -> list[str]:
        """Return the lines for the user; none without bad rows and notes."""
        if not self.count:
            return self._notes
        where = f"; they are in {self.path}" if self.path else ""
        more = [f"  ... and {self.count - len(self.first):,} more"] if self.count > len(self.first) else []
        summary = [
            f"{counted(self.count, 'row')} could not be used{where}",
            *(f"  {line}" for line in self.first),
            *more,
        ]
        return [*summary, *self._notes]


@contextmanager
def open_quarantine(path: Path | None = None) -> Iterator[Quarantine]:
    """Open a quarantine, whose file is written atomically at the end if it has any row."""
    with ExitStack() as stack:
        quarantine = Quarantine(path, stack)
        yield quarantine
    if path and not quarantine.count:
        path.unlink(missing_ok=True)  # of an earlier call


@contextmanager
def reading(
    inputs: Sequence[str],
    output: Path | None = None,
    *,
    hashed: bool = True,
    max_bad_share: float = 1.0,
    fields: FieldNames = NO_NAMES,
) -> Iterator[Corpus]:
    """Read the corpus of some inputs; bad rows go to a file beside the output, and a summary to stderr at the end.

    Raises `InputError` where the inputs cannot be read, where more than `max_bad_share` of the rows are bad or none is
    usable, and where `output` or a file beside it would overwrite an input.

    Args:
        inputs: files, folders, patterns, run directories, URLs.
        output: the file that the command writes, if any.
        hashed: see `read_corpus`: reading takes less time without hashes.
        max_bad_share: largest share of bad rows, from 0 to 1.
        fields: names of fields that the user gave.
    """
    if output:
        _refuse_to_overwrite(inputs, output)
    quarantine_path = output.with_name(f"{parse_output_name(output).stem}.quarantine.jsonl") if output else None
    with open_quarantine(quarantine_path) as quarantine:
        corpus = read_corpus(inputs, quarantine, hashed=hashed, fields=fields)
        _check_share(corpus, quarantine, max_bad_share)
        yield corpus
    if corpus.repaired:
        quarantine.note(
            f"{corpus.repaired:,} records held NaN or Infinity, read as null, or lone surrogates, read as ?: "
            "neither is JSON in UTF-8"
        )
    write_lines(sys.stderr, quarantine.lines())


def _check_share(corpus: Corpus, quarantine: Quarantine, most: float) -> None:
    usable, bad = corpus.table.height, corpus.quarantined
    if usable and bad <= most * (usable + bad):
        return
    if not usable and not bad:
        raise InputError(f"{corpus.name} holds no rows: nothing is done")
    limit = f"more than the share of {most:g} allowed (--max_bad_share)" if usable else "so none is left"
    shown = "\n".join(f"  {line}" for line in quarantine.first)
    raise InputError(f"{bad:,} of {usable + bad:,} rows of {corpus.name} cannot be used, {limit}:\n{shown}")


def _refuse_to_overwrite(inputs: Sequence[str], output: Path) -> None:
    """Raise `InputError` if the output, or a file beside it, would overwrite an input.

    The parameters cannot check inputs that a folder or a pattern stands for.
    """
    kind = parse_output_name(output)
    stem, ending = f"{output.resolve().parent}/{kind.stem}", f"{kind.layout}{kind.compression}"
    written = {str(output.resolve()), f"{stem}{ending}", f"{stem}.dropped{ending}"}
    written |= {f"{stem}.{part}.jsonl" for part in ("dropped", "quarantine", VALIDATION)}
    for source in find_sources([name for name in inputs if name.startswith("file:") or not is_remote(name)]):
        if str(Path(source.path).resolve()) in written:
            raise InputError(f"{source.path} is an input, and would be overwritten: give another name than {output}")


def analyse_corpus(corpus: Corpus, tokenizer: str | None = None) -> Analysis:
    """Analyse a corpus, with tokens counted by a tokenizer if one is named.

    Raises `InputError` where the tokenizer cannot be loaded.
    """
    table = corpus.table
    if tokenizer:
        from rollmill.exports.token_counter import TokenCounter
        from rollmill.jobs.curation.text_features import with_text_features

        everything = pl.Series([True] * table.height, dtype=pl.Boolean)
        table = with_text_features(
            corpus, table, everything, signatures=False, benchmarks=None, counter=TokenCounter(tokenizer)
        )
    return analyse(table, quarantined=corpus.quarantined)
