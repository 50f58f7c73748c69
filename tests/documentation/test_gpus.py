"""Each row of the tables on the page about GPUs: its machine is simulated, its flags are parsed and placed for real."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rollmill.config.command_line import parse_command_line
from rollmill.environments.search.environment import ANSWERER, DECOMPOSER, SEARCHER
from rollmill.errors import InputError
from rollmill.generation.job import GenerationJob
from rollmill.generation.services import Services
from rollmill.inference.devices import VISIBLE
from rollmill.inference.gpu_reservation import reserve_gpus
from rollmill.inference.multi_server import assigned_devices
from rollmill.inference.placement import Placement
from rollmill.inference.server import ServerConfig
from rollmill.inference.visible_gpus import find_gpus
from rollmill.jobs.agent_rollouts.job import AgentRolloutsJob
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.episodes.job import EpisodesJob
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.evaluation.train_and_evaluate import TrainAndEvaluate
from rollmill.jobs.improvement.parameters import Improve
from rollmill.jobs.optimal_sampling.job import OptimalSamplingJob
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.rejection_sampling import job as rejection_sampling
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.jobs.training.hardware import training_placement
from tasks.run_job import check_placement
from tasks.training import check_training
from tests.documentation.pages import ROOT
from tests.gpus import FakeMachine

PAGE = ROOT / "docs/operations/gpus.md"
REQUIRED = {
    "sample": (RejectSampling, "--model_path org/m --model_name m --dataset rows.jsonl"),
    "agents": (AgentRollouts, "--model_path org/m --dataset rows.json --output out.json"),
    "episodes": (CollectEpisodes, "--env_name search_env --total_rollouts 4 --output_dir out"),
    "optimal-sampling": (OptimalSampling, "--model_theta org/m --dataset rows.jsonl --output out.jsonl"),
    "train": (TrainAndEvaluate, "--model_path org/m --train_data rows.jsonl --output_dir out"),
    "improve": (Improve, "--model_path org/m --dataset rows.jsonl --held_out h.jsonl"),
}
"""The parameters of each command, and the flags that the page leaves out."""
CPU, UNPLACED = "the CPU", "not placed"


class Row(NamedTuple):
    """A row of the tables."""

    machine: str
    command: str
    gpus: str
    says: str


def read_rows() -> Iterator[Row]:
    """Yield the rows of all tables of the page that have these four columns."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" |")] if line.startswith("| ") else []
        if len(cells) == 4 and cells[0] != "machine":
            yield Row(*cells)


ROWS = list(read_rows())


class Placed(NamedTuple):
    """The GPUs of each process, per phase of a command, and what the command says."""

    phases: list[Sequence[Sequence[str]]]
    says: Sequence[str]


def build(cell: str, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the machine that a cell describes, all but the GPUs in use."""
    for name, value in re.findall(r"`([A-Z_]+)=(.*?)`", cell):
        monkeypatch.setenv(name, value)
    if files := re.findall(r"`(nvidia\d+)`", cell):
        machine.show("nvidiactl", *files)
        return
    count = re.match(r"(\d+) GPUs?", cell)
    if count is None:
        assert cell.startswith("no GPU"), cell
        return
    divided = re.search(r"in (\d+) MIG instances", cell)
    machine.show_gpus(
        int(count[1]), instances={0: int(divided[1])} if divided else {}, smi="no `nvidia-smi`" not in cell
    )
    if "`nvidia-smi` hangs" in cell:
        machine.hang()


def place_command(command: str) -> Placed:
    """Parse a command's flags as it does, and place its processes as it does."""
    program, name, *flags = shlex.split(command)
    assert program == "rollmill"
    flags += agent_flags(flags) if name == "episodes" else []
    model, required = REQUIRED[name]
    parameters: Any = parse_command_line(
        model, [*shlex.split(required), *flags], prog=name, description="", examples=""
    )
    if name == "train":
        return place_training(parameters, rejection_sampling.jobs(parameters.before()) if parameters.held_out else [])
    if name == "improve":
        return place_training(parameters, rejection_sampling.jobs(parameters.evaluation(parameters.model_path, "out")))
    job = job_of(name, parameters)
    if parameters.cluster_block:
        assert check_placement(job, Services()) == ()  # not in the job's process, but on a worker
        return Placed([on_worker(job)], ())
    placement = job.placement(Services())
    if parameters.gpu_workers is None and name != "optimal-sampling" and not parameters.external:
        assert list(placement.processes) == on_worker(job)
    check_environments(placement)
    return Placed([placement.processes], check_placement(job, Services()))


def agent_flags(flags: Sequence[str]) -> list[str]:
    """Return flags that assign the policies to the agents of the environment, in turn."""
    policies = [flag.partition("=")[0] for flag in flags if "=org/" in flag]
    agents = [DECOMPOSER, SEARCHER, ANSWERER]
    return ["--agent", *(f"{agent}={policies[n % len(policies)]}" for n, agent in enumerate(agents))]


def job_of(name: str, parameters: Any) -> GenerationJob[Any]:
    """Return the generating job of a command."""
    if name == "sample":
        return rejection_sampling.jobs(parameters)[0]
    if name == "optimal-sampling":
        return OptimalSamplingJob(parameters, {}, None)
    return {"agents": AgentRolloutsJob, "episodes": EpisodesJob}[name].of(parameters)


def on_worker(job: Any) -> list[tuple[str, ...]]:
    """Return the GPUs of each server that a process starts, from the environment that the server gets."""
    with assigned_devices(ServerConfig(), len(job.server_models), job.parameters.vllm_args) as configs:
        return [find_gpus(os.environ | config.environment).names for config in configs]


def place_training(parameters: Any, evaluations: Sequence[GenerationJob[Any]]) -> Placed:
    """Return the placement of a training, after that of its evaluation if it comes first."""
    is_loop = isinstance(parameters, Improve)
    training = parameters.training(1, "org/m") if is_loop else parameters.training()
    says = check_training(training, parameters.cluster_block)
    evaluated = [job.placement(Services()).processes for job in evaluations]
    placement = training_placement(training)
    check_environments(placement)
    return Placed([*(evaluated if is_loop else []), placement.processes], says)


def check_environments(placement: Placement) -> None:
    """Check that each process sees its GPUs, and in that order, with the variables that it is started with."""
    for names, environment in zip(placement.processes, placement.environments, strict=True):
        assert set(environment) <= {VISIBLE}
        if names and environment:
            assert find_gpus(os.environ | environment).names == names


def text_of(placed: Placed, *, unplaced: str) -> str:
    """Return the cell that describes a placement."""
    phases = ["; ".join(", ".join(names) or unplaced for names in processes) for processes in placed.phases]
    return ", then ".join(phase or "none" for phase in phases)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.machine}, {row.command}".replace("`", ""))
def test_row_of_the_page(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(row.machine, FakeMachine(tmp_path / "machine", monkeypatch), monkeypatch)
    monkeypatch.chdir(tmp_path)
    used = re.findall(r"(\d+) in use by another job", row.machine)
    with reserve_gpus([gpu for gpu in find_gpus().gpus if gpu.name in used]):
        check(row)


def check(row: Row) -> None:
    """Check what a row says of its command."""
    if row.gpus.startswith("refused: "):
        with pytest.raises(InputError) as refused:
            place_command(row.command.strip("`"))
        assert str(refused.value) == row.gpus.removeprefix("refused: ").strip("`").strip()
        return
    placed = place_command(row.command.strip("`"))
    assert text_of(placed, unplaced=UNPLACED if UNPLACED in row.gpus else CPU) == row.gpus
    assert list(placed.says) == [note for note in [row.says.strip("`")] if note]


def test_tables_have_rows_of_every_kind() -> None:
    commands = {shlex.split(row.command.strip("`"))[1] for row in ROWS}
    assert commands == set(REQUIRED)
    assert len(ROWS) > 60
