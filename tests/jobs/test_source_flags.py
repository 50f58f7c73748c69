"""Messages about a data set name flags that the command has which reads it."""

from pathlib import Path

import pytest

from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.agent_rollouts.problems import source_of
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.evaluation.train_and_evaluate import TrainAndEvaluate
from rollmill.jobs.improvement.parameters import Improve
from rollmill.jobs.optimal_sampling.datasets import SOURCE_FLAGS
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.rejection_sampling.parameters import HeldOutSampling, LoopSampling, RejectSampling

AGENTS = AgentRollouts.model_construct(model_path="m", max_problems=None, max_bad_share=0.1)


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (RejectSampling, RejectSampling.source_flags),
        (CollectEpisodes, CollectEpisodes.source_flags),
        (OptimalSampling, SOURCE_FLAGS),
        (AgentRollouts, source_of(AGENTS, "problems.json").flags),
        (TrainAndEvaluate, HeldOutSampling.source_flags),
        (Improve, HeldOutSampling.source_flags),
        (Improve, LoopSampling.source_flags),
    ],
)
def test_the_command_has_the_flags(command, flags):
    assert {flag.removeprefix("--") for flag in flags.values()} <= set(command.model_fields)


def test_held_out_problems_are_named_by_their_own_flags(tmp_path: Path):
    trained = TrainAndEvaluate(model_path="m", train_data=["a"], output_dir=str(tmp_path), held_out="h.jsonl")
    source = trained.evaluation("m", str(tmp_path)).source
    assert [source.flag(name) for name in ("dataset", "split", "prompt")] == ["--held_out", "--held_out_split", None]


def test_the_loops_problems_are_named_by_its_flags(tmp_path: Path):
    loop = Improve(model_path="m", dataset="d.jsonl", held_out="h.jsonl", output_dir=str(tmp_path))
    [planned] = loop.plan_sources(1, "m")
    source = planned.parameters.source
    assert [source.flag(name) for name in ("dataset", "split", "prompt")] == ["--dataset", "--dataset_split", None]
