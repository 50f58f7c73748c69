"""Plots of any input."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.reports.plots.bins import axis_end, bin_edges
from rollmill.reports.plots.comparison import ModelScores, draw_comparison
from rollmill.reports.plots.error_distribution import draw_error_distribution
from rollmill.reports.plots.sampling_curves import draw_sampling_curves
from rollmill.statistics.sampling_curves import Attempt, CurveTally

RNG = np.random.default_rng(0)
NONE = np.zeros(0)


def draw(least, errors=None, **options):
    errors = least if errors is None else errors
    counts = {"problems": least.size, "rollouts": errors.size, "num_rollout": 4, "parse_rate": 0.5}
    png = draw_error_distribution(least, errors, **{"title": "model", **counts, **options})
    assert png.startswith(b"\x89PNG")
    return png


@pytest.mark.parametrize(
    "errors",
    [
        np.zeros((5, 4)),
        np.full((5, 4), 2.5),
        RNG.integers(0, 2, (50, 4)).astype(float),
        np.abs(RNG.normal(size=(200, 4))),
        np.abs(RNG.standard_cauchy((200, 4))) ** 3,
        RNG.poisson(20, (200, 4)).astype(float),
        np.array([[1.0, 2.0, 3.0, 4.0]]),
        10 ** RNG.uniform(-300, 300, (60, 4)),
    ],
    ids=["zeros", "one_value", "zero_one", "normal", "heavy", "whole", "one_problem", "huge"],
)
def test_every_shape_draws(errors):
    draw(errors.min(axis=1), errors.ravel(), guess_baseline=0.3, accept_error=0.1)


def test_empty_input_draws_a_note():
    assert draw(NONE, NONE, parse_rate=None) != draw(np.zeros(3))


def test_names_from_outside_are_not_rendered_as_formulas():
    draw(np.zeros(3), title="$\\frac{1$ 模型 " + "x" * 300)


@settings(max_examples=12)
@given(st.lists(st.floats(0, allow_infinity=False), min_size=1, max_size=40), st.one_of(st.none(), st.floats(0, 1e300)))
def test_any_errors_draw(errors, guess):
    numbers = np.array(errors)
    draw(numbers[: len(errors) // 2 + 1], numbers, guess_baseline=guess)


@given(st.lists(st.floats(0, 1e9), min_size=13, max_size=60, unique=True))
def test_bins_contain_every_number_up_to_their_end(errors):
    numbers = np.array(errors)
    edges = bin_edges(numbers, axis_end(numbers, numbers), numbers.size)
    assert (np.diff(edges) > 0).all()
    assert np.histogram(numbers, edges)[0].sum() == (numbers <= edges[-1]).sum()


def test_bins_of_whole_numbers_are_equal():
    numbers = np.arange(0.0, 300.0)
    edges = bin_edges(numbers, 299.0, 10_000)
    assert set(np.histogram(numbers, edges)[0][:-1]) == {6}
    assert edges[0] == pytest.approx(-0.5)


def test_a_long_tail_is_cut():
    least = np.abs(RNG.normal(size=1000))
    assert axis_end(least, np.append(least, 1e9)) < 10
    assert axis_end(least, least) == pytest.approx(least.max(), rel=0.5)


@pytest.mark.parametrize(
    "curves",
    [
        [],
        [ModelScores("a", [(1, 0.1), (2, 0.2)], 1.0, 0.5, 0.4), ModelScores("b", [(1, 0.3), (2, None)], None, None)],
        [ModelScores("a", [(1, None)], None, None)],
        [ModelScores("$x$", [(1, 0.0)], 1e6, 1e-3, 0.1), ModelScores("a" * 99, [(1, 1.0)], 0.0, 0.0, 0.0)],
        [ModelScores(f"step{i}", [(1, i / 20), (16, i / 10)], 2 - i / 10, 1 - i / 10, 0.3) for i in range(10)],
    ],
)
def test_comparisons_draw(curves):
    assert draw_comparison(curves, title="t").startswith(b"\x89PNG")


def test_matplotlib_is_imported_only_to_draw():
    code = (
        "import sys, rollmill.reports.plots.error_distribution, rollmill.reports.plots.comparison\n"
        "assert not [name for name in sys.modules if name.startswith('matplotlib')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "problems",
    [
        [],
        [[Attempt(right=True, answer="1")]],
        [[Attempt(right=False)] * 3] * 4,
        [[Attempt(True, "1", 0.5, -0.3)] * 2] * 2,
    ],
)
def test_sampling_curves_draw_known_points(problems):
    tally = CurveTally(4)
    for attempts in problems:
        tally.add(attempts)
    assert draw_sampling_curves(tally.curves(), title="$ten 中").startswith(b"\x89PNG")
