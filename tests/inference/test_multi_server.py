"""Several servers of one process: their GPUs and arguments. `docs/operations/gpus.md` has more cases."""

import sys
from pathlib import Path

import psutil
import pytest

from rollmill.errors import InputError
from rollmill.inference.backend import ServedModel, serve_model
from rollmill.inference.multi_server import assigned_devices, can_start_together
from rollmill.inference.parameters import ServerParameters
from rollmill.inference.server import ServerConfig
from tests.gpus import FakeMachine

SEE = "CUDA_VISIBLE_DEVICES"
CONFIG = ServerConfig(arguments=("--x",), environment={"MORE": "more"})


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    return FakeMachine(tmp_path / "machine", monkeypatch)


def assign_devices(config, count, vllm_args=""):
    """Return the configurations, of which the reservations end at once."""
    with assigned_devices(config, count, vllm_args) as configs:
        return configs


def gpus_of(configs):
    return [config.environment.get(SEE) for config in configs]


def test_one_server_on_one_gpu_inherits_it(machine):
    machine.show_gpus(1)
    assert assign_devices(CONFIG, 1) == [CONFIG]
    assert not can_start_together([CONFIG])


def test_each_has_gpus_of_its_own_where_there_are_enough(machine, monkeypatch):
    machine.show_gpus(10)
    monkeypatch.setenv(SEE, "0,3,4,GPU-a7,9")
    configs = assign_devices(CONFIG, 2, "--tensor-parallel-size 2")
    assert gpus_of(configs) == ["0,3", "4,GPU-a7"]
    assert {config.environment["MORE"] for config in configs} == {"more"}
    assert {config.arguments for config in configs} == {("--x",)}
    assert can_start_together(configs)


def test_size_in_the_block_s_arguments_counts_unless_the_job_s_follow(machine):
    machine.show_gpus(8)
    block = ServerConfig(arguments=("-tp", "4"))
    assert gpus_of(assign_devices(block, 1)) == ["0,1,2,3"]
    assert gpus_of(assign_devices(block, 1, "-tp 2")) == ["0,1"]


def test_gpus_of_a_block_count(machine):
    machine.show_gpus(8)
    assert gpus_of(assign_devices(ServerConfig(environment={SEE: "5,6"}), 2)) == ["5", "6"]


def test_servers_on_one_gpu_share_its_memory_and_start_in_turn(machine):
    machine.show_gpus(2)
    configs = assign_devices(CONFIG, 3)
    assert gpus_of(configs) == ["0", "1", "0"]
    shared = ("--gpu-memory-utilization", "0.450", "--x")
    assert [config.arguments for config in configs] == [shared, ("--x",), shared]
    assert not can_start_together(configs)


def test_memory_that_the_user_gives_is_not_replaced(machine):
    machine.show_gpus(1)
    configs = assign_devices(CONFIG, 2, "--gpu-memory-utilization 0.4")
    assert [config.arguments for config in configs] == [("--x",), ("--x",)]
    with pytest.raises(InputError, match=r"0\.6 for each of 2 servers on one GPU is more than its memory: give 0\.45"):
        assign_devices(CONFIG, 2, "--gpu-memory-utilization 0.6")


def test_ray_looks_for_gpus_itself(machine):
    machine.show_gpus(2)
    assert assign_devices(CONFIG, 1, "-tp 16 --distributed-executor-backend ray") == [CONFIG]


def test_without_a_gpu_nothing_is_placed(machine, monkeypatch):
    assert assign_devices(CONFIG, 2, "-tp 2") == [CONFIG, CONFIG]
    machine.show_gpus(2)
    monkeypatch.setenv(SEE, "")
    assert assign_devices(CONFIG, 2) == [CONFIG, CONFIG]
    assert not can_start_together([CONFIG, CONFIG])


def test_gpus_are_reserved_while_the_servers_run(machine):
    machine.show_gpus(3)
    with assigned_devices(CONFIG, 1) as first, assigned_devices(CONFIG, 1) as second:
        assert gpus_of([*first, *second]) == ["0", "1"]
    with assigned_devices(CONFIG, 3) as configs:
        assert gpus_of(configs) == ["0", "1", "2"]


def test_servers_of_given_memory_share_a_gpu_with_each_other_only(machine, monkeypatch):
    machine.show_gpus(1)
    memory = "--gpu-memory-utilization 0.4"
    with assigned_devices(CONFIG, 1, memory), assigned_devices(CONFIG, 1, memory) as configs:
        assert configs == [CONFIG]
        with pytest.raises(InputError, match=r"^in use by another job: GPU 0: wait for its end"):
            assign_devices(CONFIG, 1)
        monkeypatch.setenv("ROLLMILL_SHARE_GPUS", "1")
        assert assign_devices(CONFIG, 1) == [CONFIG]


def test_server_processes_of_two_jobs_see_different_gpus(machine, tmp_path):
    """Servers at the same time take a GPU each; when the first has ended, its GPU is free again."""
    machine.show_gpus(2)
    config = ServerConfig(python=sys.executable, module="rollmill.inference.scripted", grace_s=5.0)
    parameters = ServerParameters(record_tokens=False)

    def serve():
        before = set(psutil.Process().children(recursive=True))
        with serve_model(parameters, ServedModel("org/m", "m", tmp_path / "log"), server=config):
            started = set(psutil.Process().children(recursive=True)) - before
            yield {process.environ().get(SEE) for process in started if "--model" in process.cmdline()}

    jobs = [serve() for _ in range(3)]
    assert [next(job) for job in jobs[:2]] == [{"0"}, {"1"}]
    jobs[0].close()
    assert next(jobs[2]) == {"0"}
    for job in jobs:
        job.close()
