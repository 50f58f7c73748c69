"""What a call leaves: the samples, their diagnostics, a table and a picture of these."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rollmill.files.atomic import atomic_write, atomic_write_bytes
from rollmill.files.rows import dump_line
from rollmill.generation.run import Run, problem_files
from rollmill.jobs.optimal_sampling.analysis import Measured
from rollmill.jobs.optimal_sampling.datasets import original_fields, row_number
from rollmill.jobs.optimal_sampling.parameters import CONVENTION, OptimalSampling
from rollmill.jobs.optimal_sampling.progress import SamplingProgress
from rollmill.records import Problem, Rollout
from rollmill.reports.plots.labels import counted
from rollmill.reports.plots.optimal_sampling import draw_by_position
from rollmill.terminal.text_table import aligned

STATISTICS = "statistics.txt"
PLOT = "overview.png"
_ALPHAS = (0.2, 0.8)
_SMALL_GAP = 0.01
_LEAST_GAP = 1e-4
_MOST = 0.5


class SamplingOutcome(BaseModel):
    """A call when it is over: numbers, and the paths of what was written."""

    model_config = ConfigDict(frozen=True)

    output: Path
    directory: Path
    diagnostics: Path | None
    samples: int
    made: int
    """By this call; the others were journaled before."""
    failed: int
    """Rows whose prompt the models cannot take."""
    tokens: int
    table: list[dict[str, str]]
    notes: list[str]

    @property
    def files(self) -> dict[str, Path]:
        """What was written, by what it is."""
        found = {"samples": self.output}
        if self.diagnostics is not None:
            found["diagnostics"] = self.diagnostics
        return found | {
            "statistics": self.directory / STATISTICS,
            "picture": self.directory / PLOT,
            "journal": self.directory / "rollouts",
            **problem_files(self.directory),
        }

    def lines(self) -> list[str]:
        """What a user should read."""
        done = [] if self.made else ["already complete, nothing was drawn"]
        failed = f", {self.failed:,} rows failed" if self.failed else ""
        return [
            f"{counted(self.samples, 'sample')}, {counted(self.tokens, 'token')}{failed}",
            *done,
            *self.notes,
            *(f"{what}: {path}" for what, path in self.files.items()),
        ]


class _Counts(BaseModel):
    """Samples that are something to look at."""

    failed: int = 0
    cut_off: int = 0
    empty: int = 0

    def add(self, rollout: Rollout) -> None:
        self.failed += rollout.completion is None
        self.cut_off += rollout.finish_reason == "length"
        self.empty += rollout.completion is not None and not rollout.completion.strip()


def write_samples(run: Run, parameters: OptimalSampling, progress: SamplingProgress) -> SamplingOutcome:
    """Writes all samples that are journaled, of whatever call, in the order of rows, and what describes them.

    Diagnostics are written where they are wanted, and where there are some of an earlier call.
    """
    measured, counts = Measured(parameters.directory.name), _Counts()
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
            told = diagnostics_row(rollout, parameters)
            measured.add(told)
            if diagnostics is not None:
                diagnostics.write(dump_line(told))
    rows = [measured.row()]
    atomic_write_bytes(run.directory / STATISTICS, "\n".join([*aligned(list(rows[0]), rows), ""]).encode())
    atomic_write_bytes(run.directory / PLOT, draw_by_position([measured]))
    outcome = SamplingOutcome(
        output=Path(parameters.output),
        directory=run.directory,
        diagnostics=parameters.diagnostics if wants_diagnostics else None,
        samples=measured.samples,
        made=progress.made,
        failed=counts.failed,
        tokens=measured.tokens,
        table=rows,
        notes=list(_notes(measured, counts, parameters)),
    )
    run.finish(outcome.model_dump(mode="json", include={"samples", "failed", "tokens"}))
    return outcome


def sample_row(
    problem: Problem, rollout: Rollout, columns: dict[str, str], parameters: OptimalSampling
) -> dict[str, Any]:
    """One line of the output."""
    own = {
        "messages": [*rollout.messages, {"role": "assistant", "content": rollout.completion}],
        "sample_idx": row_number(rollout.instance_id),
    }
    mixture = {**_convention(parameters), "finish_reason": rollout.finish_reason}
    return own | original_fields(problem, columns) | own | {"optimal_sampling": mixture}


def diagnostics_row(rollout: Rollout, parameters: OptimalSampling) -> dict[str, Any]:
    """One line of the diagnostics: means over the answer's tokens, then lists with a number for each."""
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
    for problem, (rollout,) in run.groups():
        if rollout is not None:
            yield problem, rollout


def _notes(measured: Measured, counts: _Counts, parameters: OptimalSampling) -> Iterator[str]:
    """What a user should look at."""
    if parameters.is_policy:
        yield "pi_t is pi_theta, so that q* is pi_theta: give --model_t, an adapter or a --hint to tell them apart"
    if counts.failed:
        yield f"{counts.failed} rows have no sample: the models cannot take their prompts (`error` in the journal)"
    alpha, gap = measured.mean("alpha"), measured.mean("kl_gap")
    if parameters.alpha_method != "fixed" and alpha is not None and not _ALPHAS[0] <= alpha <= _ALPHAS[1]:
        yield (
            f"the mean of alpha is {alpha:.3f}, outside {_ALPHAS[0]}..{_ALPHAS[1]}: q* is nearly one of the models: "
            "they may be too far apart, or have chat templates that do not fit"
        )
    small = _LEAST_GAP + _SMALL_GAP * (measured.mean("kl_theta") or 0.0)
    if parameters.alpha_method == "kl_symmetry" and gap is not None and gap > small:
        yield f"KL symmetry was not reached: |KL theta - KL t| is {gap:.3g} in the mean: lower --alpha_tol"
    whole = measured.samples
    if counts.cut_off > _MOST * whole:
        yield f"{counts.cut_off} of {whole} samples were cut off: raise --max_new_tokens, with another --output"
    if counts.empty:
        yield f"{counts.empty} of {whole} samples are empty: is the chat template the models' own?"
