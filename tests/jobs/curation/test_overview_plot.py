"""The overview plot, comparison plot and histograms."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.corpus.table import empty_table
from rollmill.jobs.curation.comparison_plot import compare_rows, draw_compared
from rollmill.jobs.curation.overview_plot import draw_overview
from rollmill.reports.plots.histogram import make_histogram, usual_range
from rollmill.reports.plots.labels import number, one_line, share
from rollmill.statistics.intervals import wilson_interval
from tests.jobs.curation.made_rollouts import made_table

RNG = np.random.default_rng(0)


def sample_table(problems=6, each=4, *, reward=None, name="p"):
    rows = []
    for index in range(problems * each):
        success = bool(RNG.random() < 0.4)
        value = float(success) if reward is None else reward()
        rows.append(
            {
                "instance_id": f"{name}{index // each}",
                "sample_id": index % each,
                "reward": value,
                "success": success,
                "model_calls": int(RNG.integers(1, 30)),
                "messages": int(RNG.integers(1, 60)),
                "exit_status": "Submitted $x$ 模型",
            }
        )
    return made_table(*rows)


TABLES = {
    "empty": empty_table(),
    "one_row": sample_table(1, 1),
    "only_names": made_table({}, {"instance_id": "b"}),
    "several": sample_table(),
    "huge": sample_table(20, 6, reward=lambda: float(RNG.choice([0.0, RNG.normal(), 1e308, -1e308]))),
    "tiny": sample_table(5, 4, reward=lambda: float(RNG.random() * 1e-310)),
    "no_rewards": sample_table().with_columns(pl.lit(None, dtype=pl.Float64).alias("reward")),
    "no_verdicts": sample_table().with_columns(pl.lit(None, dtype=pl.Boolean).alias("success")),
    "many_problems": sample_table(400, 1),
    "many_samples": sample_table(1, 200),
    "failed": made_table({"status": "failed"}, *({"status": "failed", "error_type": f"E{n}"} for n in range(12))),
}


@pytest.mark.parametrize("name", TABLES)
def test_any_table_draws(name):
    assert draw_overview(TABLES[name], f"{name} $\\frac{{1$ 模型\x1b").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "names",
    [[], ["several"], ["several", "huge"], ["no_rewards", "several"], ["empty", "one_row"], list(TABLES)],
    ids=len,
)
def test_any_tables_compare(names):
    assert draw_compared([(name * 20, TABLES[name]) for name in names]).startswith(b"\x89PNG")


def test_panels_without_data_say_so(monkeypatch):
    labels = []
    for module in ("jobs.curation.overview_plot", "reports.plots.outcomes"):
        monkeypatch.setattr(f"rollmill.{module}.draw_note", lambda axes, text: labels.append(text))
    draw_overview(TABLES["only_names"], "t")
    assert labels == [
        "No rollout has a reward",
        "No rollout has a reward or a verdict",
        "No rollout has messages or token counts",
        "No rollout says how many model calls it took",
        "No rollout has a verdict",
    ]


def test_rows_of_a_comparison():
    table = made_table(
        {"success": True, "reward": 1.0, "model_calls": 2}, {"success": False, "reward": 0.0}, {"status": "failed"}
    )
    row, nothing = compare_rows([("a\nb", table), ("empty", empty_table())])
    assert row["file"] == "a b"
    assert (row["rollouts"], row["failed"], row["success rate"], row["mean reward"]) == ("3", "1", "50.0%", "0.5")
    assert (row["problems solved"], row["mean model calls"], row["mean tokens"]) == ("100.0%", "2", "-")
    assert nothing["success rate"] == nothing["95% interval"] == nothing["duplicates"] == "-"
    assert list(row) == list(nothing)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=80))
def test_histograms_lose_no_number(numbers):
    histogram = make_histogram(np.array(numbers))
    assert sum(histogram.counts) + histogram.below + histogram.above == len(numbers)
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert np.isfinite(histogram.edges).all()
    assert (np.diff(histogram.edges) >= 0).all()


def test_histograms_of_counted_values():
    histogram = make_histogram(np.array([0.0, 1.0, 0.3]), np.array([5, 2, 1]))
    assert (histogram.values, histogram.counts) == ([0.0, 0.3, 1.0], [5, 1, 2])
    assert make_histogram(np.zeros(0)) is None


def test_bins_have_round_edges_and_outliers_are_counted_apart():
    numbers = np.append(np.linspace(0.003, 0.997, 997) ** 1.1, [1e9, -1e9, -2e9])
    histogram = make_histogram(numbers)
    assert (histogram.below, histogram.above) == (2, 1)
    assert histogram.edges == pytest.approx(np.arange(21) * 0.05)


def test_whole_numbers_are_never_split_between_bins():
    histogram = make_histogram(np.arange(100.0))
    assert len(set(histogram.counts[:-1])) == 1
    assert histogram.edges[0] == pytest.approx(-0.5)


def test_one_outlier_among_few_numbers_is_beyond_the_range():
    assert usual_range(np.append(np.arange(20.0), 1e9)) == (0.0, 19.0)
    assert usual_range(np.array([0.0, 0.0, 5.0])) == (0.0, 5.0)


def test_intervals_contain_the_share():
    assert wilson_interval(0, 0) is None
    for successes, count in [(0, 1), (1, 1), (3, 7), (10**6, 10**6)]:
        low, high = wilson_interval(successes, count)
        assert 0 <= low <= successes / count <= high <= 1


def test_numbers_and_shares_are_short():
    assert [number(value) for value in (None, 3.0, 1234567, 0.123456, 12345.6, 1e300)] == [
        "-", "3", "1,234,567", "0.1235", "12,346", "1e+300",
    ]  # fmt: skip
    assert [share(*pair) for pair in ((0, 5), (1, 10**5), (10**5 - 1, 10**5), (2, 2), (0, 0))] == [
        "0.0%", "<0.1%", ">99.9%", "100.0%", "-",
    ]  # fmt: skip
    assert one_line("a\x1b[31m\n b\u202e") == r"a\x1b[31m b\u202e"


def test_matplotlib_is_imported_only_to_draw():
    code = (
        "import sys\n"
        "from rollmill.jobs.curation import comparison_plot, overview_plot, quality_report\n"
        "assert not [name for name in sys.modules if name.startswith('matplotlib')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
