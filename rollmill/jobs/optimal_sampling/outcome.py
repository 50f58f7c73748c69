"""Writes the results of a call: samples, diagnostics, a table and a plot of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from rollmill.corpus.corpus import index_run
from rollmill.exports.token_references import relocate
from rollmill.files.atomic import atomic_write, atomic_write_bytes
from rollmill.files.rows import dump_line
from rollmill.generation.failures import count_failures, failure_lines
from rollmill.generation.outcome import JobOutcome
from rollmill.generation.progress import Progress
from rollmill.generation.row_digest import row_digest
from rollmill.generation.run import JOURNALS, Run, problem_files
from rollmill.jobs.optimal_sampling.analysis import DiagnosticsSummary
from rollmill.jobs.optimal_sampling.datasets import original_fields, row_number
from rollmill.jobs.optimal_sampling.parameters import CONVENTION, OptimalSampling
from rollmill.records import Problem, Rollout, is_cut_off
from rollmill.reports.health import check_health
from rollmill.reports.plots.labels import counted
from rollmill.reports.plots.optimal_sampling import draw_by_position
from rollmill.terminal.escapes import visible
from rollmill.terminal.text_table import aligned

STATISTICS = "statistics.txt"
PLOT = "overview.png"
_USUAL_ALPHAS = (0.2, 0.8)
_RELATIVE_GAP = 0.01
_ABSOLUTE_GAP = 1e-4
_MOST_CUT_OFF = 0.5
"""Limits beyond which a note tells the user: range of the mean alpha, KL gap, share of samples that are cut off."""


class SamplingOutcome(JobOutcome):
    """Results of a finished call."""

    title: ClassVar[str] = "q* samples"
    artifact_key: ClassVar[str] = "optimal-sampling"

    output: Path
    diagnostics: Path | None
    samples: int
    failed: int
    """Number of rows whose prompt the models cannot take."""
    tokens: int

    @property
    def files(self) -> dict[str, Path]:
        """The files that were written, by their content."""
        files = {"samples": self.output}
        if self.diagnostics is not None:
            files["diagnostics"] = self.diagnostics
        return files | {
            "statistics": self.directory / STATISTICS,
            "picture": self.directory / PLOT,
            "journal": self.directory / "rollouts",
            **problem_files(self.directory),
        }

    def headline(self) -> str:
        """Return the run's numbers in one line."""
        failed = f", {self.failed:,} rows failed" if self.failed else ""
        return f"{counted(self.samples, 'sample')}, {counted(self.tokens, 'token')}{failed}"


class _Counts(BaseModel):
    """Counts of the samples that need a user's attention."""

    failed: int = 0
    cut_off: int = 0
    empty: int = 0

    def add(self, rollout: Rollout) -> None:
        if rollout.completion is None:
            self.failed += 1
        elif not rollout.completion.strip():
            self.empty += 1
        if is_cut_off(rollout.finish_reason):
            self.cut_off += 1


def write_samples(run: Run, parameters: OptimalSampling, progress: Progress) -> SamplingOutcome:
    """Write all samples of the journal, also those of earlier calls, in the order of rows, with statistics and a plot.

    Diagnostics are written with --save_diagnostics, and where an earlier call has written them.
    """
    measured, counts = DiagnosticsSummary(parameters.directory.name), _Counts()
    wants_diagnostics = parameters.save_diagnostics or parameters.diagnostics.exists()
    columns = run.manifest.identity.generation["columns"]
    with ExitStack() as files:
        output = files.enter_context(atomic_write(Path(parameters.output)))
        diagnostics = files.enter_context(atomic_write(parameters.diagnostics)) if wants_diagnostics else None
        for problem, rollout in _journaled(run):
            counts.add(rollout)
            if rollout.completion is None:
                continue
            output.write(dump_line(sample_row(problem, rollout, columns, parameters)))
            diagnostic_row = diagnostics_row(rollout, parameters)
            measured.add(diagnostic_row)
            if diagnostics is not None:
                diagnostics.write(dump_line(diagnostic_row))
    rows = [measured.row()]
    failed = failure_lines(count_failures(run))
    health = check_health(index_run(run.directory, run.num_rollout)).lines()
    lines = [*aligned(list(rows[0]), rows), *(f"failed: {line}" for line in failed), "", *map(visible, health), ""]
    atomic_write_bytes(run.directory / STATISTICS, "\n".join(lines).encode())
    atomic_write_bytes(run.directory / PLOT, draw_by_position([measured]))
    outcome = SamplingOutcome(
        name=Path(parameters.output).stem,
        output=Path(parameters.output),
        directory=run.directory,
        diagnostics=parameters.diagnostics if wants_diagnostics else None,
        samples=measured.samples,
        made=progress.tally.done,
        failed=counts.failed,
        tokens=measured.tokens,
        table=rows,
        notes=list(_notes(measured, counts, failed, parameters)),
        health=health,
    )
    run.finish(outcome.model_dump(mode="json", include={"samples", "failed", "tokens"}))
    return outcome


def sample_row(
    problem: Problem, rollout: Rollout, columns: dict[str, str], parameters: OptimalSampling
) -> dict[str, Any]:
    """Return one line of the output.

    Args:
        problem: The row of the data set.
        rollout: Its sample.
        columns: The columns that were used for `prompt` and `answer`.
        parameters: The call's parameters.
    """
    new_fields = {
        "messages": [*rollout.messages, {"role": "assistant", "content": rollout.completion}],
        "sample_idx": row_number(rollout.instance_id),
    }
    mixture = {**_convention(parameters), "finish_reason": rollout.finish_reason}
    row = new_fields | original_fields(problem, columns) | new_fields | {"optimal_sampling": mixture}
    added: dict[str, Any] = {}
    if is_cut_off(rollout.finish_reason):  # usual here: the row is trained on without an end token
        added["truncated"] = True
    if rollout.tokens is not None:
        output = Path(parameters.output)
        tokens = rollout.tokens.model_copy(update={"instance_id": rollout.instance_id, "sample_id": rollout.sample_id})
        location = relocate(tokens, parameters.directory / JOURNALS, output.parent)
        added["tokens"] = location.model_dump(mode="json") if location else None
    if added:
        metadata = row.get("metadata")
        row["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), **added}
    if added.get("tokens"):
        # Of the row before it has the digest; the row's metadata refers to this same dict.
        added["tokens"]["digest"] = row_digest(row)
    return row


def diagnostics_row(rollout: Rollout, parameters: OptimalSampling) -> dict[str, Any]:
    """Return one line of the diagnostics: means over the answer's tokens, then lists with a value for each token."""
    return {
        "sample_idx": row_number(rollout.instance_id),
        **rollout.metadata["diagnostics"],
        "tokens": rollout.usage.completion_tokens,
        **_convention(parameters),
        **rollout.metadata["tokens"],
    }


def _convention(parameters: OptimalSampling) -> dict[str, Any]:
    fixed = {"fixed_alpha": parameters.fixed_alpha} if parameters.alpha_method == "fixed" else {}
    return {"alpha_weighs": "theta", "convention": CONVENTION, "alpha_method": parameters.alpha_method, **fixed}


def _journaled(run: Run) -> Iterator[tuple[Problem, Rollout]]:
    """Yield the problems that have a sample, or a failure, in the journal."""
    for problem, (rollout,) in run.groups():
        if rollout is not None:
            yield problem, rollout


def _notes(
    measured: DiagnosticsSummary, counts: _Counts, failed: Sequence[str], parameters: OptimalSampling
) -> Iterator[str]:
    """Yield notes on what a user should look at.

    Args:
        measured: The samples' diagnostics.
        counts: Samples that need attention.
        failed: Messages of the rows without a sample.
        parameters: The call's parameters.
    """
    if parameters.is_policy:
        yield "pi_t is pi_theta, so that q* is pi_theta: give --model_t, an adapter or a --hint to tell them apart"
    if counts.failed:
        yield f"{counts.failed} rows have no sample: the models cannot take their prompts ({'; '.join(failed)})"
    alpha, gap = measured.mean("alpha"), measured.mean("kl_gap")
    low, high = _USUAL_ALPHAS
    if parameters.alpha_method != "fixed" and alpha is not None and not low <= alpha <= high:
        yield (
            f"the mean of alpha is {alpha:.3f}, outside {low}..{high}: q* is nearly one of the models: "
            "they may be too far apart, or have chat templates that do not fit"
        )
    small = _ABSOLUTE_GAP + _RELATIVE_GAP * (measured.mean("kl_theta") or 0.0)
    if parameters.alpha_method == "kl_symmetry" and gap is not None and gap > small:
        yield f"KL symmetry was not reached: |KL theta - KL t| is {gap:.3g} in the mean: lower --alpha_tol"
    total = measured.samples
    if counts.cut_off > _MOST_CUT_OFF * total:
        yield f"{counts.cut_off} of {total} samples were cut off: raise --max_tokens, with another --output"
    if counts.empty:
        yield f"{counts.empty} of {total} samples are empty: is the chat template the models' own?"
