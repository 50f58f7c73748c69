"""The flow's steps: each reads the inputs, and leaves its files in the output directory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rollmill.files.atomic import atomic_write_bytes
from rollmill.generation.run import IMAGES
from rollmill.jobs.curation.analysis_result import Analysis
from rollmill.jobs.curation.apply_filters import Filtered, filter_corpus
from rollmill.jobs.curation.export_job import ExportOutcome, export_corpus
from rollmill.jobs.curation.exporters import preference_exporter, sft_exporter, trajectory_exporter
from rollmill.jobs.curation.parameters import Curate, Export
from rollmill.jobs.curation.reading import analyse_corpus, reading


class Analysed(NamedTuple):
    """What was read: its title, and what is to be said of it."""

    name: str
    analysis: Analysis


class Report(NamedTuple):
    """The pictures and the page."""

    overview: Path
    page: Path


class Curated(NamedTuple):
    """What a flow made."""

    kept: Filtered
    exports: list[ExportOutcome]
    report: Report | None

    @property
    def directory(self) -> Path:
        """The output directory."""
        return self.kept.path.parent

    @property
    def files(self) -> dict[str, Path]:
        """What was written, by what it is."""
        found = {"kept": self.kept.path, "dropped": self.kept.dropped_path, "images": self.directory / IMAGES}
        found |= {path.name: path for path in sorted(self.directory.glob("*.quarantine.jsonl"))}
        for export in self.exports:
            form = export.exported.form
            found |= {f"{form}, {split}": path for split, path in export.exported.files.items()}
            found |= {f"{form}, dropped": export.dropped_path, "card": export.card}
        return found | (self.report._asdict() if self.report else {})

    def lines(self) -> list[str]:
        """What a user should read."""
        exports = [line for export in self.exports for line in ["", *export.lines()]]
        report = ["", f"report: {self.report.page}", f"overview: {self.report.overview}"] if self.report else []
        return [*self.kept.lines(), *exports, *report]


def analyse_inputs(parameters: Curate) -> Analysed:
    """Reads and analyses."""
    with reading(parameters.input) as corpus:
        return Analysed(corpus.name, analyse_corpus(corpus, parameters.tokenizer))


def write_kept(parameters: Curate) -> Filtered:
    """`rollouts.jsonl`, what meets the conditions, and beside it what does not."""
    path = Path(parameters.output_dir) / "rollouts.jsonl"
    with reading(parameters.input, path, hashed=parameters.drop_duplicates) as corpus:
        return filter_corpus(corpus, parameters, path, parameters.dropped)


def write_export(parameters: Curate, kind: Export) -> ExportOutcome:
    """`sft.jsonl`, `trajectories.jsonl` or `preferences.jsonl`, with its card."""
    path = Path(parameters.output_dir) / f"{kind}.jsonl"
    exporter, filters = sft_exporter(path, parameters, parameters)
    if kind == "trajectories":
        exporter, filters = trajectory_exporter(path), parameters
    elif kind == "preferences":
        exporter, filters = preference_exporter(path, parameters, parameters), parameters
    with reading(parameters.input, path) as corpus:
        return export_corpus(corpus, filters, exporter)


def write_report(parameters: Curate) -> Report:
    """`overview.png` and `quality_report.html`, of all that was read."""
    from rollmill.jobs.curation.overview_plot import draw_overview
    from rollmill.jobs.curation.quality_report import quality_report

    folder = Path(parameters.output_dir)
    report = Report(folder / "overview.png", folder / "quality_report.html")
    with reading(parameters.input) as corpus:
        analysis = analyse_corpus(corpus, parameters.tokenizer)
        atomic_write_bytes(report.overview, draw_overview(corpus.table, corpus.name))
        atomic_write_bytes(report.page, quality_report(corpus.name, corpus.table, analysis, corpus.sources))
    return report
