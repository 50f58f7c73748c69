import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.jobs.optimal_sampling.analysis import DiagnosticsSummary
from rollmill.jobs.optimal_sampling.sampler import mean_diagnostics, token_lists
from rollmill.reports.plots.optimal_sampling import draw_by_position


def diagnostics_line(alpha, kl_theta=None, **more):
    lists = {
        "alpha": alpha,
        "kl_theta": kl_theta or [1.0] * len(alpha),
        "kl_t": [3.0] * len(alpha),
        "ess_ratio": [2.0] * len(alpha),
    }
    custom = {f"{name}_mean": sum(values) / len(values) for name, values in lists.items()}
    return {**custom, "kl_gap_mean": 0.5, "tokens": len(alpha), "alpha_method": "entropy", **lists, **more}


def measured(*rows):
    result = DiagnosticsSummary("f")
    for row in rows:
        result.add(row)
    return result


def test_means_are_over_tokens():
    result = measured(diagnostics_line([0.2]), diagnostics_line([0.5, 0.7, 0.6]))
    assert (result.samples, result.tokens) == (2, 4)
    assert result.mean("alpha") == pytest.approx(0.5)
    assert result.mean("kl_gap") == pytest.approx(0.5)
    row = result.row()
    assert row["std"] == f"{np.std([0.2, 0.5, 0.7, 0.6]):.4g}"
    assert (row["min"], row["max"], row["KL theta"], row["KL t"], row["ESS ratio"]) == ("0.2", "0.7", "1", "3", "2")


def test_a_curve_by_position():
    result = measured(diagnostics_line([0.1, 0.2]), diagnostics_line([0.3, 0.4]), diagnostics_line([0.5]))
    curve = result.curve("alpha")
    assert curve.position.tolist() == [1, 2]
    assert curve.mean == pytest.approx([0.3, 0.3])
    assert curve.low == pytest.approx([0.14, 0.22])
    assert curve.high == pytest.approx([0.46, 0.38])


def test_positions_that_hardly_any_sample_reaches_are_left_out():
    curve = measured(*[diagnostics_line([0.5] * 4)] * 99, diagnostics_line([0.5] * 50)).curve("alpha")
    assert curve.position.tolist() == [1, 2, 3, 4]


def test_long_answers_are_binned():
    curve = measured(diagnostics_line([0.25] * 300)).curve("alpha")
    assert len(curve.position) == 100
    assert curve.position[:2].tolist() == [2, 5]
    assert set(curve.mean) == {0.25}


def test_missing_values_do_not_count():
    result = measured(
        diagnostics_line([0.5, 0.7], ess_ratio=[None, 4.0], ess_ratio_mean=4.0),
        diagnostics_line([0.2], ess_ratio_mean=None),
    )
    assert result.mean("ess_ratio") == 4.0
    assert result.curve("ess_ratio").mean.tolist() == [2.0, 4.0]


def test_a_file_with_means_alone_is_read():
    result = DiagnosticsSummary("f")
    result.add({"sample_idx": 0, "alpha_mean": 0.4, "ess_ratio_mean": 1.0, "kl_theta_mean": 0.3, "kl_t_mean": 0.1})
    result.add({"sample_idx": 1, "alpha_mean": 0.6, "ess_ratio_mean": 1.0, "kl_theta_mean": 0.1, "kl_t_mean": 0.1})
    row = result.row()
    assert (row["method"], row["samples"], row["alpha"], row["min"], row["|gap|"]) == ("?", "2", "0.5", "0.4", "0.1")
    assert result.curve("alpha") is None
    assert draw_by_position([result]).startswith(b"\x89PNG")


def test_an_empty_file_is_plotted():
    assert draw_by_position([DiagnosticsSummary("f")]).startswith(b"\x89PNG")
    assert DiagnosticsSummary("f").row()["alpha"] == "-"


def test_many_files_with_any_names_and_wide_ratios_are_plotted():
    files = [measured(diagnostics_line([0.1, 0.9], ess_ratio=[1e-3, 1e3])) for _ in range(10)]
    files[0].name = "$x_1$ 名前\n" * 20
    assert draw_by_position(files).startswith(b"\x89PNG")


def test_means_and_lists_of_a_sample():
    result = mean_diagnostics(
        {"alpha": [0.25, 0.75], "kl_gap": [1e-9, 3e-9], "ess_ratio": [math.nan, 2.0], "kl_t": [math.inf]}
    )
    assert result == {
        "alpha_mean": 0.5, "alpha_std": 0.25, "kl_gap_mean": 2e-9, "ess_ratio_mean": 2.0, "ess_ratio_std": 0.0,
        "kl_t_mean": None,
    }  # fmt: skip
    assert token_lists({"alpha": [0.123456789, math.nan], "kl_gap": [1.0]}) == {"alpha": [0.12346, None]}


@given(st.lists(st.floats(0, 1), min_size=1), st.integers(0, 30))
def test_values_that_are_not_finite_change_no_mean(values, index):
    with_nan = [*values[:index], math.nan, *values[index:]]
    assert mean_diagnostics({"alpha": with_nan}) == mean_diagnostics({"alpha": values})
