"""The defaults of environments."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from rollmill.environments.environment import FixedCast
from rollmill.environments.registry import find_environment
from rollmill.errors import InputError


class Smallest(FixedCast):
    name, version = "smallest", "1"
    success = False

    @classmethod
    def agent_names(cls, settings):
        return ("player",)

    @classmethod
    def make(cls, problem, seed, settings, tools):
        return cls({"player": object()})


class Unfinished(FixedCast):
    name, version = "unfinished", "1"


def test_defaults_are_enough_for_an_environment(tmp_path: Path) -> None:
    environment = find_environment(f"{__name__}:Smallest")
    settings = environment.Settings()
    assert environment.needs == frozenset()
    assert environment.problem_fault(settings, None) is None
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        environment.Settings(size=3)
    with pytest.raises(InputError, match=r"^--dataset: required: environment 'smallest' has no"):
        environment.source(settings, tmp_path)


def test_episode_ends_with_success() -> None:
    episode = Smallest.make(None, 0, None, None)
    assert episode.turn_order == ("player",)
    assert not episode.done
    episode.success = True
    assert episode.done


def test_what_has_no_default_is_required() -> None:
    with pytest.raises(InputError, match="it has no agent_names, make, success;"):
        find_environment(f"{__name__}:Unfinished")
