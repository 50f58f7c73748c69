"""The commands of curation: each reads its input, does one thing, and reports it. None needs a Prefect server."""

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
from rollmill.files.rows import dump_line
from rollmill.jobs.curation.apply_filters import filter_corpus
from rollmill.jobs.curation.export_job import Exporter, export_corpus
from rollmill.jobs.curation.exporters import preference_exporter, sft_exporter, trajectory_exporter
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.parameters import (
    Analyze,
    Compare,
    Curves,
    ExportPreferences,
    ExportSft,
    ExportTrajectory,
    FilterData,
    Health,
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
    """Print the analysis, as text or JSON."""
    from rollmill.jobs.curation.analysis_text import analysis_text

    with reading(parameters.input, max_bad_share=parameters.max_bad_share, fields=parameters.fields) as corpus:
        analysis = analyse_corpus(corpus, parameters.tokenizer)
        if parameters.json_:
            _print_lines([orjson.dumps(analysis.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode()])
        else:
            _print_lines([analysis_text(analysis, corpus.name)])


def filter_data(parameters: FilterData) -> None:
    """Write the rollouts that meet the conditions, and the dropped ones."""
    path = Path(parameters.output)
    with reading(
        parameters.input,
        path,
        hashed=parameters.needs_costly_columns,
        max_bad_share=parameters.max_bad_share,
        fields=parameters.fields,
    ) as corpus:
        _print_lines(filter_corpus(corpus, parameters, path, parameters.dropped).lines())


def export_sft(parameters: ExportSft) -> None:
    """Write conversations for supervised fine-tuning."""
    exporter, filters = sft_exporter(Path(parameters.output), parameters, parameters)
    _export(parameters, filters, exporter)


def export_trajectory(parameters: ExportTrajectory) -> None:
    """Write whole trajectories."""
    _export(parameters, parameters, trajectory_exporter(Path(parameters.output), parameters.format))


def export_preferences(parameters: ExportPreferences) -> None:
    """Write preference pairs."""
    _export(parameters, parameters, preference_exporter(Path(parameters.output), parameters, parameters))


def _export(parameters: Writing, filters: Filters, exporter: Exporter) -> None:
    hashed = parameters.needs_costly_columns or isinstance(parameters, ExportPreferences)
    output, share = Path(parameters.output), parameters.max_bad_share
    with reading(parameters.input, output, hashed=hashed, max_bad_share=share, fields=parameters.fields) as corpus:
        _print_lines(export_corpus(corpus, filters, exporter).lines())


def show_example(parameters: ShowExample) -> None:
    """Show one trajectory, or write a page of many."""
    with reading(
        parameters.input,
        hashed=parameters.needs_costly_columns,
        max_bad_share=parameters.max_bad_share,
        fields=parameters.fields,
    ) as corpus:
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
            _show(corpus, chosen, parameters.index, full=parameters.whole)


def _show(corpus: Corpus, chosen: pl.DataFrame, index: int, *, full: bool) -> None:
    """Print one trajectory. Raises `InputError` for an index without a rollout.

    Args:
        corpus: the rollouts that were read.
        chosen: the rows to choose from.
        index: of the row, from 0; negative from the end.
        full: print all of long texts.
    """
    from rich.console import Console

    from rollmill.reports.viewing.terminal import show_example as show

    if not -chosen.height <= index < chosen.height:
        raise InputError(f"--index {index}: there are {chosen.height:,} rollouts, 0 to {chosen.height - 1:,}")
    rollout = chosen[[index % chosen.height]]
    show(Console(), rollout.row(0, named=True), next(corpus.records(rollout)), full=full)


def _write_page(corpus: Corpus, chosen: pl.DataFrame, path: Path, most: int) -> None:
    """Write the page of trajectories.

    Args:
        corpus: the rollouts that were read.
        chosen: the rows to show.
        path: the HTML file.
        most: most trajectories on the page.
    """
    from rollmill.reports.viewing.pages import write_pages

    shown = chosen.head(most)
    rows = zip(shown.iter_rows(named=True), corpus.records(shown), strict=True)
    write_pages(path, corpus.name, rows, left_out=chosen.height - shown.height)
    _print_lines([f"{shown.height:,} of {chosen.height:,} trajectories: {path}"])


def overview(parameters: Overview) -> None:
    """Draw the overview."""
    from rollmill.jobs.curation.overview_plot import draw_overview

    with reading(parameters.input, max_bad_share=parameters.max_bad_share, fields=parameters.fields) as corpus:
        path = Path(parameters.output) if parameters.output else _default_output(corpus, "overview.png")
        atomic_write_bytes(path, draw_overview(corpus.table, corpus.name))
        _print_lines([f"overview: {path}"])


def compare(parameters: Compare) -> None:
    """Print and draw the comparison."""
    from rollmill.jobs.curation.comparison_plot import compare_rows, draw_compared
    from rollmill.reports.paired_comparison import compare_with_first

    tables = []
    for source in parameters.input:
        with reading([source], max_bad_share=parameters.max_bad_share, fields=parameters.fields) as corpus:
            tables.append((corpus.name, corpus.table))
    if len({name for name, _ in tables}) < len(tables):
        tables = [(source, table) for source, (_, table) in zip(parameters.input, tables, strict=True)]
    path = Path(parameters.output)
    atomic_write_bytes(path, draw_compared(tables))
    rows, pairs = compare_rows(tables), list(compare_with_first(tables))
    if parameters.flips:
        flips = (each.to_json(pair.before, pair.after) for pair in pairs for each in pair.problems)
        atomic_write_bytes(Path(parameters.flips), b"".join(map(dump_line, flips)))
    paired = [line for pair in pairs for line in ("", *pair.lines())]
    written = [f"comparison: {path}", *([f"flips: {parameters.flips}"] if parameters.flips else [])]
    _print_lines([*aligned(list(rows[0]), rows), *paired, "", *written])


def curves(parameters: Curves) -> None:
    """Print and draw the sampling curves over k rollouts."""
    from rollmill.reports.attempts import corpus_curves
    from rollmill.reports.curve_table import curve_table
    from rollmill.reports.plots.sampling_curves import draw_sampling_curves

    with reading(parameters.input, max_bad_share=parameters.max_bad_share, fields=parameters.fields) as corpus:
        sampling_curves = corpus_curves(corpus)
        if parameters.json_:
            dumped = [curve.model_dump(mode="json") for curve in sampling_curves]
            _print_lines([orjson.dumps(dumped, option=orjson.OPT_INDENT_2).decode()])
            return
        path = Path(parameters.output) if parameters.output else _default_output(corpus, "sampling_curves.png")
        atomic_write_bytes(path, draw_sampling_curves(sampling_curves, title=corpus.name))
        _print_lines([*curve_table(sampling_curves), f"curves: {path}"])


def health(parameters: Health) -> None:
    """Print the health check of the rollouts."""
    from rollmill.reports.health import check_health

    with reading(parameters.input, max_bad_share=parameters.max_bad_share, fields=parameters.fields) as corpus:
        report = check_health(corpus)
        if parameters.json_:
            _print_lines([orjson.dumps(report.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode()])
        else:
            _print_lines(report.lines())


def quality_report(parameters: QualityReport) -> None:
    """Write the quality report."""
    from rollmill.jobs.curation.quality_report import quality_report as make_report

    with reading(parameters.input, max_bad_share=parameters.max_bad_share, fields=parameters.fields) as corpus:
        path = Path(parameters.output) if parameters.output else _default_output(corpus, "quality_report.html")
        atomic_write_bytes(path, make_report(corpus.name, corpus.table, analyse_corpus(corpus), corpus.sources))
        _print_lines([f"quality report: {path}"])


_WRITE_ERRORS = {
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
"""Errors of the file system that the user can fix."""

_COMMANDS: dict[type[BaseModel], Callable[[Any], None]] = {
    Analyze: analyze,
    FilterData: filter_data,
    ExportSft: export_sft,
    ExportTrajectory: export_trajectory,
    ExportPreferences: export_preferences,
    ShowExample: show_example,
    Overview: overview,
    Compare: compare,
    Curves: curves,
    Health: health,
    QualityReport: quality_report,
}


def run_command(parameters: BaseModel) -> None:
    """Run the command of these parameters.

    Raises `InputError` as its parts do, and where the file system refuses to write.
    """
    try:
        _COMMANDS[type(parameters)](parameters)
    except OSError as error:
        if error.errno not in _WRITE_ERRORS:
            raise
        raise InputError(f"{error.filename or 'output'}: {error.strerror}: fix that, or write elsewhere") from error


def _default_output(corpus: Corpus, name: str) -> Path:
    """Return a file in the run's directory, or beside the first input and named after it.

    For a remote input, it is in the working directory.
    """
    source = corpus.files[0]
    if source.run:
        return source.run / name
    stem = corpus.sources[0].rsplit("/", 1)[-1].split(".", 1)[0]
    return (source.folder or Path.cwd()) / f"{stem}_{name}"


def _print_lines(lines: Sequence[str]) -> None:
    write_lines(sys.stdout, lines)
