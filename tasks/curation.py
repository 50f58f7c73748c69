"""The steps of curation as tasks that publish artifacts."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from rollmill.jobs.curation.analysis_text import analysis_rows, analysis_text
from rollmill.jobs.curation.apply_filters import Filtered
from rollmill.jobs.curation.export_job import ExportOutcome
from rollmill.jobs.curation.flow_steps import Report, analyse_inputs, write_export, write_filtered, write_report
from rollmill.jobs.curation.parameters import Curate, Export
from tasks.artifacts import show_files, show_picture, show_table, show_text
from tasks.errors import report_failure


@task(name="analyse", cache_policy=NO_CACHE)
@report_failure
def analyse_rollouts(parameters: Curate) -> None:
    """Show the analysis of the inputs."""
    name, analysis = analyse_inputs(parameters)
    show_table("curate-analysis", analysis_rows(analysis), f"Rollouts of {name}")
    show_text("curate-analysis-text", analysis_text(analysis, name), f"Analysis of {name}")
    for note in analysis.notes:
        get_run_logger().warning(note)


@task(name="filter", cache_policy=NO_CACHE)
@report_failure
def filter_rollouts(parameters: Curate) -> Filtered:
    """Write the rollouts that meet the conditions, and those that do not."""
    filtered = write_filtered(parameters)
    show_table("curate-filter", _accounts("kept", filtered.kept, filtered.reasons), "Rollouts kept and dropped")
    files = {"kept": filtered.path, "dropped": filtered.dropped_path}
    show_files("curate-filter-files", "the filter", filtered.path.parent, files)
    get_run_logger().info(filtered.lines()[0])
    return filtered


@task(name="export", task_run_name="export {kind}", cache_policy=NO_CACHE)
@report_failure
def export_rollouts(parameters: Curate, kind: Export) -> ExportOutcome:
    """Write one export."""
    outcome = write_export(parameters, kind)
    show_table(f"curate-export-{kind}", _accounts("used", outcome.kept, outcome.reasons), f"Export: {kind}")
    files = outcome.exported.files | {"dropped": outcome.dropped_path, "card": outcome.card}
    show_files(f"curate-export-{kind}-files", f"the export: {kind}", outcome.card.parent, files)
    get_run_logger().info(outcome.lines()[0])
    return outcome


@task(name="report", cache_policy=NO_CACHE)
@report_failure
def report_rollouts(parameters: Curate) -> Report:
    """Draw the overview, and write the quality report."""
    report = write_report(parameters)
    show_picture("curate-overview", report.overview, "Overview of the rollouts")
    show_files("curate-report-files", "the report", report.page.parent, report._asdict())
    return report


def _accounts(first: str, count: int, reasons: dict[str, int]) -> list[dict[str, str]]:
    rows = {first: count, **{f"dropped: {reason}": dropped for reason, dropped in reasons.items()}}
    return [{"rollouts": what, "count": f"{number:,}"} for what, number in rows.items()]
