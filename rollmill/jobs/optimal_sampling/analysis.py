"""Summarises the diagnostics of a file of samples: a row of a table, and curves by position. Does not import torch."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollmill.errors import InputError
from rollmill.files.rows import BadRow, read_json_lines
from rollmill.reports.plots.labels import number, one_line

SUFFIX = ".diagnostics.jsonl"
LISTS = ("alpha", "kl_theta", "kl_t", "ess_ratio")
_MOST_BINS = 128
_FEWEST_LEFT = 0.05
"""Share of the samples that must be as long as a position, for a curve to have it."""

Numbers = NDArray[np.float64]


class PositionCurve(NamedTuple):
    """Mean and percentiles of a diagnostic by position; arrays of one length."""

    position: Numbers
    mean: Numbers
    low: Numbers
    """The 10th percentile."""
    high: Numbers
    """The 90th percentile."""


class DiagnosticsSummary:
    """Collects the diagnostics of one file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.samples = self.tokens = 0
        self.methods: dict[str, None] = {}
        self._lengths = array("q")
        self._by_token = {field: array("d") for field in LISTS}
        self._by_sample: dict[str, tuple[array[float], array[float]]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one line of diagnostics, with or without lists of tokens. Raises `KeyError` or `TypeError` for others."""
        tokens = int(row.get("tokens") or 1)
        self.samples += 1
        self.tokens += tokens
        self.methods.setdefault(str(row.get("alpha_method") or "?"))
        means = {name: row[f"{name}_mean"] for name in LISTS}
        gap = row.get("kl_gap_mean")
        if gap is None and means["kl_theta"] is not None and means["kl_t"] is not None:
            gap = abs(means["kl_theta"] - means["kl_t"])
        for name, mean in (means | {"kl_gap": gap}).items():
            values, weights = self._by_sample.setdefault(name, (array("d"), array("d")))
            if mean is not None:
                values.append(mean)
                weights.append(tokens)
        if all(isinstance(row.get(name), list) for name in LISTS):
            self._lengths.append(len(row["alpha"]))
            for name in LISTS:
                self._by_token[name].extend(math.nan if value is None else value for value in row[name])

    def mean(self, name: str) -> float | None:
        """Return the mean over all tokens of a diagnostic (`LISTS`, or `kl_gap`); None where there is no value."""
        values, weights = self._by_sample.get(name, (array("d"), array("d")))
        return float(np.average(values, weights=weights)) if values else None

    def alphas(self) -> Numbers:
        """Return alpha of every token; where the file has no lists, the mean of every sample."""
        values = self._by_token["alpha"] or self._by_sample.get("alpha", (array("d"),))[0]
        alphas = np.array(values, dtype=np.float64)
        return alphas[np.isfinite(alphas)]

    def row(self) -> dict[str, str]:
        """Return the file's row of the table."""
        alphas = self.alphas()
        extremes = [alphas.std(), alphas.min(), alphas.max()] if alphas.size else [None] * 3
        return {
            "file": one_line(self.name),
            "method": ", ".join(self.methods) or "-",
            "samples": number(self.samples),
            "tokens": number(self.tokens),
            "alpha": _format_value(self.mean("alpha")),
            **{name: _format_value(value) for name, value in zip(("std", "min", "max"), extremes, strict=True)},
            "KL theta": _format_value(self.mean("kl_theta")),
            "KL t": _format_value(self.mean("kl_t")),
            "|gap|": _format_value(self.mean("kl_gap")),
            "ESS ratio": _format_value(self.mean("ess_ratio")),
        }

    def curve(self, name: str) -> PositionCurve | None:
        """Return a diagnostic of `LISTS` by position in the answer, from 1 on; None where the file has no lists.

        Positions that fewer than a twentieth of the samples reach are left out; of long answers several positions share
        a bin.
        """
        values = np.array(self._by_token[name], dtype=np.float64)
        if not values.size:
            return None
        lengths = np.array(self._lengths, dtype=np.int64)
        # All answers are in one array: subtract where each begins.
        positions = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        end = int(np.sort(lengths)[-max(1, math.ceil(_FEWEST_LEFT * len(lengths)))])
        mask = np.isfinite(values) & (positions < end)
        width = -(-end // _MOST_BINS)
        bins, values = positions[mask] // width, values[mask]
        order = np.argsort(bins, kind="stable")
        numbers, starts = np.unique(bins[order], return_index=True)
        groups = np.split(values[order], starts[1:])
        if not len(numbers):
            return None
        low, high = np.array([np.percentile(group, [10, 90]) for group in groups]).T
        middle = np.minimum((numbers + 0.5) * width, end) + 0.5
        return PositionCurve(middle, np.array([group.mean() for group in groups]), low, high)


def read_diagnostics(path: str) -> DiagnosticsSummary:
    """Read a file of diagnostics. Raises `InputError` where it cannot be read, or has a line of another kind."""
    measured = DiagnosticsSummary(path.removesuffix(SUFFIX))
    for line, row in read_json_lines(path):
        try:
            if isinstance(row, BadRow):
                raise InputError(f"{path} line {line}: {row.reason}")
            measured.add(row)
        except (LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} line {line} holds no diagnostics ({error}): give files that --save_diagnostics wrote"
            ) from error
    if not measured.samples:
        raise InputError(f"{path} holds no samples")
    return measured


def _format_value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
