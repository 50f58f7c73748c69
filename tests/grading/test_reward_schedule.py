from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.grading.reward_schedule import DEFAULT, OBSERVED, read_ladder


@pytest.mark.parametrize(
    ("low", "reward"),
    [
        (0.5, 0.0),
        (0.99, 0.0),
        (1.0, 0.0),
        (1.001, 0.1),
        (1.05, 0.1),
        (1.07, 0.3),
        (1.15, 0.5),
        (1.3, 0.7),
        (1.9, 0.85),
        (2.01, 1.0),
        (100.0, 1.0),
    ],
)
def test_default_rewards_the_lower_bound(low: float, reward: float) -> None:
    assert DEFAULT.reward(average=1000.0, low=low) == reward


@pytest.mark.parametrize(
    ("average", "reward"),
    [(0.9, -0.2), (0.9952, 0.3), (1.0, 0.3), (1.01, 0.7), (1.05, 0.7), (1.1, 1.0), (1.2, 1.5), (1.21, 2.0)],
)
def test_observed_ladder_rewards_noise(average: float, reward: float) -> None:
    assert OBSERVED.reward(average, low=0.5) == reward


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_reward_is_monotonic_in_speedup(speedup: float, other: float) -> None:
    low, high = sorted((speedup, other))
    for ladder in (DEFAULT, OBSERVED):
        assert ladder.reward(low, low) <= ladder.reward(high, high)
        assert 0 <= DEFAULT.reward(high, low) <= 1


def test_ladders_are_read_by_name_and_from_files(tmp_path: Path) -> None:
    assert read_ladder("default") is DEFAULT
    assert read_ladder("observed") is OBSERVED
    file = tmp_path / "own.json"
    file.write_text('{"steps": [{"above": 1.5, "reward": 1}], "failed": -1}')
    assert read_ladder(str(file)).reward(2.0, 1.6) == 1.0
    assert read_ladder(str(file)).failed == -1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"steps": []}', "at least one step"),
        ('{"steps": [{"above": 1.5, "reward": 1}, {"above": 1.2, "reward": 2}]}', "above 1.2 is not higher"),
        ('{"steps": [{"above": 1.5, "reward": 1}, {"above": 1.6, "reward": 0.5}]}', "above 1.6 is not higher"),
        ('{"step": 1}', "step: Extra inputs"),
        ("{", "Invalid JSON"),
    ],
)
def test_invalid_schedule_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as refused:
        read_ladder(str(file))
    assert "\n" not in str(refused.value)
    assert str(file) in str(refused.value)


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no ladder 'best': name one of default, observed, or a JSON file"):
        read_ladder("best")
