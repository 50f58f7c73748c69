import pytest

from rollmill.environments.registry import ENVIRONMENTS, find_environment
from rollmill.errors import InputError
from rollmill.generation.job import opened_run
from rollmill.jobs.episodes.job import EpisodesJob, environment_settings
from rollmill.jobs.episodes.parameters import CollectEpisodes


def parameters(**options):
    return CollectEpisodes.model_validate({"model_path": "oracle"} | options)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (["world=chess"], "--env world=chess: Input should be 'path_finding', 'sokoban',"),
        (["wrold=sokoban"], "--env wrold: stateful_env has no such setting; did you mean world?"),
        (["max_actions=0"], "--env max_actions=0: Input should be greater than or equal to 1"),
    ],
)
def test_unknown_environment_setting_is_refused_in_one_line(env, message):
    with pytest.raises(InputError) as caught:
        environment_settings(parameters(env=env), find_environment("stateful_env"))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nosuch", "there is no environment 'nosuch': use code_env, math_env, search_env, stateful_env, or a class"),
        ("no.such:Thing", "environment 'no.such:Thing': cannot import 'no.such' (ModuleNotFoundError"),
        (
            "rollmill.errors:Nothing",
            "environment 'rollmill.errors:Nothing': the module 'rollmill.errors' has no 'Nothing'",
        ),
        ("rollmill.errors:InputError", "environment 'rollmill.errors:InputError' is not one: it has no name, version,"),
        ("rollmill.errors.__doc__", "environment 'rollmill.errors.__doc__' is not one: it is no class"),
    ],
)
def test_unknown_environment_is_refused_in_one_line(spec, message):
    with pytest.raises(InputError) as caught:
        find_environment(spec)
    assert str(caught.value).startswith(message)


def test_all_built_in_environments_are_listed():
    assert [find_environment(name).name for name in ENVIRONMENTS] == list(ENVIRONMENTS)


def opened(folder, **options):
    requested = parameters(output_dir=str(folder), env_name="tests.jobs.episodes.toy:ToyEnvironment", **options)
    with opened_run(EpisodesJob.of(requested)) as run:
        return run.manifest.identity_key, run.expected


def test_episode_count_and_concurrency_do_not_change_the_identity(tmp_path):
    first, expected = opened(tmp_path / "run", total_rollouts=7)
    again, more = opened(tmp_path / "run", total_rollouts=9, concurrency=3, only_success=False)
    assert (first, expected, more) == (again, 7, 9)


@pytest.mark.parametrize(
    "options",
    [
        {"max_turns": 2}, {"seed": 1}, {"model_path": "random"}, {"env": ["gives=nan"]}, {"max_data": 2},
        {"policy": ["other=random"], "agent": ["second=other"]},
    ],
)  # fmt: skip
def test_changed_sampling_makes_another_run(tmp_path, options):
    opened(tmp_path / "run")
    with pytest.raises(InputError, match="holds another run"):
        opened(tmp_path / "run", **options)
