"""Command lines of q* sampling, and of the comparison of its diagnostics."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rollmill.config.command_line import parse_command_line
from rollmill.jobs.optimal_sampling.parameters import AnalyzeDiagnostics, OptimalSampling
from rollmill.terminal.escapes import write_lines
from rollmill.terminal.text_table import aligned

ANALYZE = "analyze_diagnostics"
_PROG = "optimal_sampling"


def parse(argv: Sequence[str], *, description: str, examples: str) -> OptimalSampling | AnalyzeDiagnostics:
    """Parse the parameters of one call: of `analyze_diagnostics FILE...`, or of sampling. See `parse_command_line`."""
    if argv and argv[0].replace("-", "_") == ANALYZE:
        return parse_command_line(
            AnalyzeDiagnostics, _add_files_flag(argv[1:]), prog=f"{_PROG} {ANALYZE}",
            description=AnalyzeDiagnostics.__doc__ or "", examples="",
        )  # fmt: skip
    return parse_command_line(OptimalSampling, argv, prog=_PROG, description=description, examples=examples)


def analyze_diagnostics(parameters: AnalyzeDiagnostics) -> None:
    """Print a table of the files, and plot their curves. Raises `InputError` for a file without diagnostics."""
    from rollmill.files.atomic import atomic_write_bytes
    from rollmill.jobs.optimal_sampling.analysis import read_diagnostics
    from rollmill.reports.plots.optimal_sampling import draw_by_position

    measured = [read_diagnostics(file) for file in parameters.files]
    atomic_write_bytes(Path(parameters.output), draw_by_position(measured))
    rows = [measurement.row() for measurement in measured]
    lines = [*aligned(list(rows[0]), rows), "", f"picture: {parameters.output}"]
    write_lines(sys.stdout, lines)


def _add_files_flag(argv: Sequence[str]) -> list[str]:
    """Return the arguments with positional file names behind `--files`."""
    files: list[str] = []
    others: list[str] = []
    remaining = iter(argv)
    for argument in remaining:
        if not argument.startswith("-"):
            files.append(argument)
            continue
        others.append(argument)
        if argument == "--output":
            others += [value for value in [next(remaining, None)] if value is not None]
    others = [argument for argument in others if argument != "--files"]
    return [*others, "--files", *files] if files else others
