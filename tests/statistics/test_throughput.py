import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.statistics.throughput import RateMeter, format_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_rates_are_zero_at_the_start():
    assert RateMeter(5.0, 3, 4).rates(5.0, 3, 4) == [0.0, 0.0]


def test_rates_are_relative_to_the_initial_counts():
    recent = RateMeter(10.0, 100, 5)
    recent.mark(12.0, 110, 5)
    assert recent.rates(14.0, 120, 7) == [5.0, 0.5]


@given(rate=st.integers(1, 1000), before=st.integers(0, 1000), gap=st.sampled_from([1, 2, 7, 45]))
def test_counts_before_the_last_minute_are_ignored(rate, before, gap):
    recent, now, count = RateMeter(0.0, 0), 0.0, 0
    for pace, seconds in ((before, 300), (rate, 120)):
        for _ in range(0, seconds, gap):
            now, count = now + gap, count + pace * gap
            recent.mark(now, count)
    assert recent.rates(now, count) == [rate]


def test_marks_more_than_a_minute_apart_use_the_last_one():
    recent = RateMeter(0.0, 0)
    for step in range(1, 5):
        recent.mark(100.0 * step, step)
    assert recent.rates(400.0, 4) == [pytest.approx(0.01)]
