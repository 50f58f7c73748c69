"""Sampling curves over k as a text table."""

from __future__ import annotations

from collections.abc import Sequence

from rollmill.statistics.sampling_curves import CurvePoint, SamplingCurve
from rollmill.terminal.text_table import aligned

TITLE = "What k rollouts of a problem are worth, with 95% intervals over problems"


def curve_table(curves: Sequence[SamplingCurve]) -> list[str]:
    """Return a title, a line for each k, and the numbers of problems left out of the shares."""
    if not curves:
        return []
    ks = [point.k for point in curves[0].points]
    rows = [{"k": str(k), **{curve.name: _cell(curve.points[i]) for curve in curves}} for i, k in enumerate(ks)]
    lines = aligned(list(rows[0]), rows)
    return [TITLE, *(f"  {line}".rstrip() for line in lines), *_left_out(curves)]


def _cell(point: CurvePoint) -> str:
    if point.value is None:
        return "-"
    interval = "" if point.low is None or point.high is None else f" ({point.low:.1%} to {point.high:.1%})"
    return f"{point.value:.1%}{interval}"


def _left_out(curves: Sequence[SamplingCurve]) -> list[str]:
    """Return a line for each k that some problems have too few rollouts for, and for each curve that lacks more."""
    lines = [
        f"  {point.left_out:,} problems with fewer than {point.k} judged rollouts left out"
        for point in curves[0].points
        if point.left_out
    ]
    least = curves[0].points[0].left_out
    lines += [
        f"  {curve.name}: {curve.points[0].left_out - least:,} more problems left out, whose rollouts do not all say it"
        for curve in curves[1:]
        if curve.points[0].left_out > least
    ]
    return lines
