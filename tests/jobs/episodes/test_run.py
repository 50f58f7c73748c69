import pytest

from rollmill.environments.registry import find_environment, listed_environments
from rollmill.errors import InputError
from rollmill.generation.lock import lock_directory
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.episodes.run import environment_settings, open_collection


def parameters(**given):
    return CollectEpisodes.model_validate({"model_path": "oracle"} | given)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (["world=chess"], "--env world=chess: Input should be 'path_finding', 'sokoban',"),
        (["wrold=sokoban"], "--env wrold: stateful_env has no such setting; did you mean world?"),
        (["max_actions=0"], "--env max_actions=0: Input should be greater than or equal to 1"),
    ],
)
def test_a_setting_that_the_environment_does_not_have_is_one_line(env, said):
    with pytest.raises(InputError) as caught:
        environment_settings(parameters(env=env), find_environment("stateful_env"))
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nosuch", "there is no environment 'nosuch': use code_env, math_env, search_env, stateful_env, or the path"),
        ("no.such:Thing", "environment 'no.such:Thing': cannot import 'no.such' (ModuleNotFoundError"),
        (
            "rollmill.errors:Nothing",
            "environment 'rollmill.errors:Nothing': the module 'rollmill.errors' has no 'Nothing'",
        ),
        ("rollmill.errors:InputError", "environment 'rollmill.errors:InputError' is not one: it has no name, version,"),
        ("rollmill.errors.__doc__", "environment 'rollmill.errors.__doc__' is not one: it is no class"),
    ],
)
def test_what_is_no_environment_is_one_line(spec, said):
    with pytest.raises(InputError) as caught:
        find_environment(spec)
    assert str(caught.value).startswith(said)


def test_all_built_in_environments_are_listed():
    assert listed_environments() == ["code_env", "math_env", "search_env", "stateful_env"]


def opened(folder, **given):
    asked = parameters(output_dir=str(folder), env_name="tests.jobs.episodes.toy:ToyEnvironment", **given)
    with lock_directory(folder), open_collection(asked) as run:
        return run.manifest.identity_key, run.expected


def test_how_many_episodes_and_who_watches_is_no_part_of_a_run(tmp_path):
    first, expected = opened(tmp_path / "run", num_episodes=7)
    again, more = opened(tmp_path / "run", num_episodes=9, concurrency=3, only_success=False)
    assert (first, expected, more) == (again, 7, 9)


@pytest.mark.parametrize(
    "given",
    [
        {"max_turns": 2}, {"seed": 1}, {"model_path": "random"}, {"env": ["gives=nan"]}, {"max_data": 2},
        {"policy": ["other=random"], "agent": ["second=other"]},
    ],
)  # fmt: skip
def test_what_decides_episodes_makes_another_run(tmp_path, given):
    opened(tmp_path / "run")
    with pytest.raises(InputError, match="holds another run"):
        opened(tmp_path / "run", **given)
