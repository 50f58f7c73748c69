"""The steps of the curation flow: each reads the inputs, and writes files to the output directory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rollmill.corpus.corpus import Corpus
from rollmill.exports.training_file import nothing_usable
from rollmill.files.atomic import atomic_write_bytes
from rollmill.generation.run import IMAGES
from rollmill.jobs.curation.analysis_result import Analysis
from rollmill.jobs.curation.apply_filters import Filtered, filter_corpus
from rollmill.jobs.curation.export_job import ExportOutcome, export_corpus
from rollmill.jobs.curation.exporters import preference_exporter, sft_exporter, trajectory_exporter
from rollmill.jobs.curation.parameters import Curate, Export
from rollmill.jobs.curation.reading import analyse_corpus, reading
from rollmill.jobs.curation.select_rollouts import select


class Analysed(NamedTuple):
    """The analysis of the inputs, with a title."""

    name: str
    analysis: Analysis


class Report(NamedTuple):
    """The files of the report: a picture and a page."""

    overview: Path
    page: Path


class Curated(NamedTuple):
    """The results of the flow."""

    kept: Filtered
    exports: list[ExportOutcome]
    report: Report | None

    @property
    def directory(self) -> Path:
        """Return the output directory."""
        return self.kept.path.parent

    @property
    def files(self) -> dict[str, Path]:
        """Return the written files by their contents."""
        files = {"kept": self.kept.path, "dropped": self.kept.dropped_path, "images": self.directory / IMAGES}
        files |= {path.name: path for path in sorted(self.directory.glob("*.quarantine.jsonl"))}
        for export in self.exports:
            form = export.exported.form
            files |= {f"{form}, {split}": path for split, path in export.exported.files.items()}
            files |= {f"{form}, dropped": export.dropped_path, "card": export.card}
        return files | (self.report._asdict() if self.report else {})

    def lines(self) -> list[str]:
        """Return the lines for the user."""
        exports = [line for export in self.exports for line in ["", *export.lines()]]
        report = ["", f"report: {self.report.page}", f"overview: {self.report.overview}"] if self.report else []
        return [*self.kept.lines(), *exports, *report]


def analyse_inputs(parameters: Curate) -> Analysed:
    """Read the inputs and analyse them."""
    with reading(parameters.input, max_bad_share=parameters.max_bad_share, fields=parameters.fields) as corpus:
        return Analysed(corpus.name, analyse_corpus(corpus, parameters.tokenizer))


def write_filtered(parameters: Curate) -> Filtered:
    """Write the kept rollouts to `rollouts.jsonl`, and the dropped ones beside it."""
    path = Path(parameters.output_dir) / "rollouts.jsonl"
    with reading(
        parameters.input,
        path,
        hashed=parameters.needs_costly_columns,
        max_bad_share=parameters.max_bad_share,
        fields=parameters.fields,
    ) as corpus:
        _check_usable(corpus, parameters, path)
        return filter_corpus(corpus, parameters, path, parameters.dropped)


def _check_usable(corpus: Corpus, parameters: Curate, path: Path) -> None:
    """Raise `InputError` if no rollout could be trained on, before any earlier file is overwritten."""
    if "sft" not in parameters.export:
        return
    # The export's own filters, without that of duplicates, which always leaves one.
    filters = sft_exporter(path, parameters, parameters)[1].model_copy(update={"drop_duplicates": False})
    selected = select(corpus, filters)
    empty = selected.kept["empty"].fill_null(value=False)
    if empty.all():
        reasons = selected.judged["drop_reason"].drop_nulls().to_list()
        raise nothing_usable(path, [*reasons, *(["empty_completion"] * len(empty))])


def write_export(parameters: Curate, kind: Export) -> ExportOutcome:
    """Write `sft.jsonl`, `trajectories.jsonl` or `preferences.jsonl`, with its card."""
    path = Path(parameters.output_dir) / f"{kind}.jsonl"
    # One of several exports may have nothing, as preferences where all rollouts of a problem succeeded.
    allow_empty = len(parameters.export) > 1
    exporter, filters = sft_exporter(path, parameters, parameters, allow_empty=allow_empty)
    if kind == "trajectories":
        exporter, filters = trajectory_exporter(path, allow_empty=allow_empty), parameters
    elif kind == "preferences":
        exporter, filters = preference_exporter(path, parameters, parameters, allow_empty=allow_empty), parameters
    with reading(parameters.input, path, max_bad_share=parameters.max_bad_share, fields=parameters.fields) as corpus:
        return export_corpus(corpus, filters, exporter)


def write_report(parameters: Curate) -> Report:
    """Write `overview.png` and `quality_report.html` about all rollouts that were read."""
    from rollmill.jobs.curation.overview_plot import draw_overview
    from rollmill.jobs.curation.quality_report import quality_report

    folder = Path(parameters.output_dir)
    report = Report(folder / "overview.png", folder / "quality_report.html")
    with reading(parameters.input, max_bad_share=parameters.max_bad_share, fields=parameters.fields) as corpus:
        analysis = analyse_corpus(corpus, parameters.tokenizer)
        atomic_write_bytes(report.overview, draw_overview(corpus.table, corpus.name))
        atomic_write_bytes(report.page, quality_report(corpus.name, corpus.table, analysis, corpus.sources))
    return report
