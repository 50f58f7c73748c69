"""The commands: each reads, does one thing, and says what it did. None needs a server."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from pydantic import BaseModel

from rollmill.corpus.corpus import Corpus
from rollmill.errors import InputError
from rollmill.files.atomic import atomic_write_bytes
from rollmill.jobs.curation.apply_filters import filter_corpus
from rollmill.jobs.curation.export_job import Exporter, export_corpus
from rollmill.jobs.curation.exporters import preference_exporter, sft_exporter, trajectory_exporter
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import (
    Analyze,
    Compare,
    ExportPreferences,
    ExportSft,
    ExportTrajectory,
    FilterData,
    Overview,
    QualityReport,
    ShowExample,
    Writing,
)
from rollmill.jobs.curation.reading import analyse_corpus, reading
from rollmill.jobs.curation.select_rollouts import select
from rollmill.terminal.escapes import write_lines
from rollmill.terminal.text_table import aligned


def analyze(parameters: Analyze) -> None:
    """Prints the analysis, as text or JSON."""
    from rollmill.jobs.curation.analysis_text import analysis_text

    with reading(parameters.input) as corpus:
        analysis = analyse_corpus(corpus, parameters.tokenizer)
        if parameters.json_:
            _say([orjson.dumps(analysis.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode()])
        else:
            _say([analysis_text(analysis, corpus.name)])


def filter_data(parameters: FilterData) -> None:
    """Writes what meets the conditions, and what does not."""
    path = Path(parameters.output)
    with reading(parameters.input, path, hashed=parameters.drop_duplicates) as corpus:
        _say(filter_corpus(corpus, parameters, path, parameters.dropped).lines())


def export_sft(parameters: ExportSft) -> None:
    """Writes conversations."""
    exporter, filters = sft_exporter(Path(parameters.output), parameters, parameters)
    _export(parameters, filters, exporter)


def export_trajectory(parameters: ExportTrajectory) -> None:
    """Writes whole trajectories."""
    _export(parameters, parameters, trajectory_exporter(Path(parameters.output)))


def export_preferences(parameters: ExportPreferences) -> None:
    """Writes pairs."""
    _export(parameters, parameters, preference_exporter(Path(parameters.output), parameters, parameters))


def _export(parameters: Writing, filters: Filters, exporter: Exporter) -> None:
    hashed = parameters.drop_duplicates or isinstance(parameters, ExportPreferences)
    with reading(parameters.input, Path(parameters.output), hashed=hashed) as corpus:
        _say(export_corpus(corpus, filters, exporter).lines())


def show_example(parameters: ShowExample) -> None:
    """Shows one trajectory, or writes the page of many."""
    with reading(parameters.input, hashed=parameters.drop_duplicates) as corpus:
        chosen = select(corpus, parameters).kept
        if parameters.instance_id is not None:
            chosen = chosen.filter(pl.col("instance_id") == parameters.instance_id)
        if not chosen.height:
            unread = f", and {corpus.quarantined:,} rows could not be used" if corpus.quarantined else ""
            raise InputError(
                f"none of the {corpus.table.height:,} rollouts of {corpus.name} meets the conditions{unread}"
            )
        if parameters.html:
            _write_page(corpus, chosen, Path(parameters.html), parameters.most)
        else:
            _show(corpus, chosen, parameters.index, whole=parameters.whole)


def _show(corpus: Corpus, chosen: pl.DataFrame, index: int, *, whole: bool) -> None:
    from rich.console import Console

    from rollmill.reports.viewing.terminal import show_example as show

    if not -chosen.height <= index < chosen.height:
        raise InputError(f"--index {index}: there are {chosen.height:,} rollouts, 0 to {chosen.height - 1:,}")
    one = chosen[[index % chosen.height]]
    show(Console(), one.row(0, named=True), next(corpus.records(one)), whole=whole)


def _write_page(corpus: Corpus, chosen: pl.DataFrame, path: Path, most: int) -> None:
    from rollmill.reports.viewing.pages import write_pages

    shown = chosen.head(most)
    rows = zip(shown.iter_rows(named=True), corpus.records(shown), strict=True)
    write_pages(path, corpus.name, rows, left_out=chosen.height - shown.height)
    _say([f"{shown.height:,} of {chosen.height:,} trajectories: {path}"])


def overview(parameters: Overview) -> None:
    """Draws the overview."""
    from rollmill.jobs.curation.overview_plot import draw_overview

    with reading(parameters.input) as corpus:
        path = Path(parameters.output) if parameters.output else _beside(corpus, "overview.png")
        atomic_write_bytes(path, draw_overview(corpus.table, corpus.name))
        _say([f"overview: {path}"])


def compare(parameters: Compare) -> None:
    """Prints and draws the comparison."""
    from rollmill.jobs.curation.comparison_plot import compare_rows, draw_compared

    tables = []
    for one in parameters.input:
        with reading([one]) as corpus:
            tables.append((corpus.name, corpus.table))
    if len({name for name, _ in tables}) < len(tables):
        tables = [(one, table) for one, (_, table) in zip(parameters.input, tables, strict=True)]
    path = Path(parameters.output)
    atomic_write_bytes(path, draw_compared(tables))
    rows = compare_rows(tables)
    _say([*aligned(list(rows[0]), rows), f"comparison: {path}"])


def quality_report(parameters: QualityReport) -> None:
    """Writes the report."""
    from rollmill.jobs.curation.quality_report import quality_report as make_report

    with reading(parameters.input) as corpus:
        path = Path(parameters.output) if parameters.output else _beside(corpus, "quality_report.html")
        atomic_write_bytes(path, make_report(corpus.name, corpus.table, analyse_corpus(corpus), corpus.sources))
        _say([f"quality report: {path}"])


_THE_DISK_SAYS_NO = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
}

_COMMANDS: dict[type[BaseModel], Callable[[Any], None]] = {
    Analyze: analyze,
    FilterData: filter_data,
    ExportSft: export_sft,
    ExportTrajectory: export_trajectory,
    ExportPreferences: export_preferences,
    ShowExample: show_example,
    Overview: overview,
    Compare: compare,
    QualityReport: quality_report,
}


def run_command(parameters: BaseModel) -> None:
    """Does what the command of these parameters does.

    Raises `InputError` as its parts do, and where the file system refuses what is to be written.
    """
    try:
        _COMMANDS[type(parameters)](parameters)
    except OSError as error:
        if error.errno not in _THE_DISK_SAYS_NO:
            raise
        raise InputError(f"{error.filename or 'output'}: {error.strerror}: mend that, or write elsewhere") from error


def _beside(corpus: Corpus, name: str) -> Path:
    """A file in the run's directory, or beside the first input and named after it; here, where that is remote."""
    source = corpus.files[0]
    if source.run:
        return source.run / name
    stem = corpus.sources[0].rsplit("/", 1)[-1].split(".", 1)[0]
    return (source.folder or Path.cwd()) / f"{stem}_{name}"


def _say(lines: Sequence[str]) -> None:
    write_lines(sys.stdout, lines)
