from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rollmill.grading.speedup import Interval, PairCount, compare, interval, student_quantile


@pytest.mark.parametrize(
    ("freedom", "quantile", "within"),
    [(2, 4.303, 0.01), (3, 3.182, 0.003), (4, 2.776, 0.001), (5, 2.571, 0.001), (9, 2.262, 5e-4), (30, 2.042, 5e-4)],
)
def test_students_quantiles_are_the_tables(freedom: int, quantile: float, within: float) -> None:
    assert student_quantile(freedom) == pytest.approx(quantile, rel=within)


def test_an_interval_worked_by_hand() -> None:
    # logarithms 0, 1, 2: mean 1, deviation 1, t(2) = 4.303
    result = interval([1.0, math.e, math.e**2])
    half = 4.303 / math.sqrt(3)
    assert result.mean == pytest.approx(math.e)
    assert math.log(result.low) == pytest.approx(1 - half, abs=0.02)
    assert math.log(result.high) == pytest.approx(1 + half, abs=0.02)


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=20))
def test_interval_of_inverse_ratios_is_the_inverse(ratios: list[float]) -> None:
    result, turned = interval(ratios), interval([1 / ratio for ratio in ratios])
    assert result.low <= result.mean * (1 + 1e-9)
    assert result.mean <= result.high * (1 + 1e-9)
    assert turned.mean == pytest.approx(1 / result.mean)
    assert turned.low == pytest.approx(1 / result.high)


def test_noise_is_seldom_called_faster() -> None:
    noise, pairs = random.Random(1), PairCount()

    def measure(_seed: int, _first: bool) -> tuple[float, float]:
        return tuple(0.5 * math.exp(noise.gauss(0, 0.05)) for _ in range(2))  # type: ignore[return-value]

    faster = sum(compare(measure, pairs, random.Random(0)).low > 1 for _ in range(500))
    assert faster / 500 < 0.055  # 0.025 to 0.04 in the long run, whatever the noise


def test_a_difference_is_found_through_noise() -> None:
    noise = random.Random(2)

    def measure(_seed: int, _first: bool) -> tuple[float, float]:
        return 0.5 * math.exp(noise.gauss(0, 0.05)), 0.25 * math.exp(noise.gauss(0, 0.05))

    result = [compare(measure, PairCount(), random.Random(0)) for _ in range(50)]
    assert all(details.low > 1.5 and details.high < 2.7 for details in result)
    assert all(details.total_comparisons == len(details.comparisons) for details in result)


def test_pairs_interleave_with_fresh_seeds_and_a_dropped_warm_up() -> None:
    calls: list[tuple[int, bool]] = []

    def measure(seed: int, first: bool) -> tuple[float, float]:
        calls.append((seed, first))
        return (100.0 if len(calls) == 1 else 3.0), 1.5

    details = compare(measure, PairCount(least=10, most=10), random.Random(3))
    assert len(calls) == 11
    assert len({seed for seed, _ in calls}) == 11
    assert max(seed for seed, _ in calls).bit_length() <= 53
    assert [comparison.seed for comparison in details.comparisons] == [seed for seed, _ in calls[1:]]
    assert {first for _, first in calls[1:]} == {True, False}
    assert calls[0][1] is False
    assert (details.average_speedup, details.min_speedup, details.max_speedup) == pytest.approx((2.0, 2.0, 2.0))


def test_the_order_can_be_repeated() -> None:
    def orders() -> list[bool]:
        seen: list[bool] = []

        def measure(_seed: int, first: bool) -> tuple[float, float]:
            seen.append(first)
            return 1.0, 1.0

        compare(measure, PairCount(least=8, most=8), random.Random("problem"))
        return seen

    assert orders() == orders()


def test_measurement_ends_early_if_the_interval_is_narrow() -> None:
    noise = random.Random(5)
    few = compare(lambda *_: (1.0, 1.0), PairCount(least=4, most=20), random.Random(0))
    many = compare(lambda *_: (math.exp(noise.gauss(0, 1)), 1.0), PairCount(least=4, most=20), random.Random(0))
    over = compare(
        lambda *_: (math.exp(noise.gauss(0, 1)), 1.0), PairCount(least=4, most=20, seconds=1e-9), random.Random(0)
    )
    assert (few.total_comparisons, many.total_comparisons, over.total_comparisons) == (4, 20, 4)


def test_a_large_difference_is_settled_sooner() -> None:
    assert Interval(10.0, 8.0, 12.5).settled(PairCount())
    assert not Interval(1.02, 0.96, 1.08).settled(PairCount())


def test_fewer_than_three_pairs_are_no_measurement() -> None:
    with pytest.raises(ValidationError):
        PairCount(least=2)
    with pytest.raises(ValidationError, match="less than least"):
        PairCount(least=6, most=5)
