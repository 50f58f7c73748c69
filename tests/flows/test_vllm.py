"""The job on real vLLM with the small real model."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollmill.serving.server import ModelServer, ServerConfig
from tests.flows.conftest import ROOT, Job, journal_lines, processes_of, stop, write_problems
from tests.serving.adapters import make_adapter
from tests.waiting import wait_until

MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"
SERVER = ROOT / ".venv-vllm" / "bin" / "python"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not SERVER.exists(), reason="no vLLM here: run `make setup`"),
    pytest.mark.skipif(not MODEL.exists(), reason="no model here: run `scripts/demo_model`"),
]

RUN = (
    *("--model_path", str(MODEL), "--model_name", "smol", "--vllm_args", "--max-model-len 2048"),
    *("--dataset", "reasoning_gym:chain_sum?size=40&seed=7&min_terms=2&max_terms=2&min_digits=1&max_digits=2"),
    *("--few_shot", str(ROOT / "examples" / "chain_sum_few_shot.jsonl")),
    *("--num_rollout", "4", "--temperature", "0.8", "--max_tokens", "32", "--concurrency", "4"),
)


def test_killed_server_and_killed_flow(tmp_path: Path, prefect_environment: dict[str, str]) -> None:
    mark = uuid.uuid4().hex
    job = Job("reject_sampling", tmp_path, prefect_environment | {"PYTHONPATH": str(ROOT), "ROLLMILL_TEST": mark})
    process = job.start(*RUN)
    wait_until(lambda: len(journal_lines(tmp_path)) >= 20 or process.poll() is not None, timeout=400)
    assert process.poll() is None, process.communicate()
    servers = [
        found for found in processes_of("vllm.entrypoints.launchers.api_server.entry") if found in processes_of(mark)
    ]
    assert len(processes_of(mark)) >= 4, "the flow, the keeper, vLLM's API and its engine"
    api = next(found for found in servers if "keeper" not in " ".join(found.cmdline()))
    api.kill()
    before = len(journal_lines(tmp_path))
    wait_until(lambda: len(journal_lines(tmp_path)) >= before + 40 or process.poll() is not None, timeout=600)
    assert process.poll() is None, process.communicate()
    _, errors = stop(process, signal.SIGKILL)
    assert "restart 1 of 3" in errors
    wait_until(lambda: not processes_of(mark), timeout=30)

    rows = [json.loads(line) for line in journal_lines(tmp_path)]
    assert before + 40 <= len({(row["instance_id"], row["sample_id"]) for row in rows}) == len(rows)
    assert not [row for row in rows if row["error"]]
    assert sum(row["verdict"]["status"] == "ok" for row in rows) > len(rows) / 2
    assert all(row["usage"]["completion_tokens"] > 0 for row in rows)


def test_an_adapter_is_served_on_its_base(tmp_path: Path, prefect_environment: dict[str, str]) -> None:
    make_adapter(tmp_path / "adapter", MODEL, scale=0.5)
    write_problems(tmp_path / "problems.jsonl", 4)
    job = Job("reject_sampling", tmp_path, prefect_environment | {"PYTHONPATH": str(ROOT)})
    models = ("--model_path", str(MODEL), str(MODEL), "--model_name", "plain", "adapted", "--adapter", "", "adapter")
    asked = ("--dataset", "problems.jsonl", "--num_rollout", "1", "--temperature", "0", "--max_tokens", "8")
    where = ("--gpu_workers", "1", "--no_canary", "--vllm_args", "--max-model-len 512")  # on a Dask worker
    done = job.run(*models, *asked, *where, timeout=800)
    assert done.returncode == 0, done.stderr
    said: dict[str, dict[str, str]] = {}
    for name in ("plain", "adapted"):
        rows = [json.loads(line) for line in journal_lines(tmp_path / "reject_sampling_results" / name)]
        assert [row["error"] for row in rows] == [None] * 4
        assert all(row["usage"]["completion_tokens"] > 0 for row in rows)
        said[name] = {row["instance_id"]: row["completion"] for row in rows}
    assert all(said["plain"][problem] != said["adapted"][problem] for problem in said["plain"]), said


@pytest.fixture(scope="module")
def smol(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a vLLM that serves the small model as `smol`."""
    config = ServerConfig(arguments=("--max-model-len", "8192"))
    log = tmp_path_factory.mktemp("vllm") / "vllm.log"
    with ModelServer(config, model_path=str(MODEL), model_name="smol", log_path=log) as server:
        yield server.endpoint.base_url


def test_agents_of_a_small_model(tmp_path: Path, prefect_environment: dict[str, str], smol: str) -> None:
    job = Job("agent_rollouts", tmp_path, prefect_environment | {"PYTHONPATH": str(ROOT)})
    pack = ("--dataset", str(ROOT / "examples/performance_problems/dataset.json"), "--max_tasks", "2")
    agent = ("--config", "mini_textbased.yaml", "--step_limit", "2", "--max_tokens", "64", "--samples_per_task", "2")
    model = ("--model", "smol", "--base_url", smol, "--workers", "4", "--output", "out.json")
    done = job.run("generate_multi", *pack, *agent, *model, timeout=800)
    assert done.returncode == 0, done.stderr
    examples = json.loads((tmp_path / "out.json").read_text())["examples"]
    assert len({(one["instance_id"], one["sample_id"]) for one in examples}) == len(examples) == 4
    for one in examples:
        assert one["error"] is None
        assert one["exit_status"] in {"LimitsExceeded", "Submitted"}
        assert one["reward"] == 0.0
        assert one["evaluation_info"]["phase"] == "git_precheck"
        roles = [turn["role"] for turn in one["messages"]]
        assert roles[:3] == ["system", "user", "assistant"]
        assert one["usage"]["completion_tokens"] > 0
    assert len({one["seed"] for one in examples}) == 4


@pytest.mark.parametrize("env_name", ["code_env", "math_env", "search_env", "stateful_env"])
def test_episodes_of_a_small_model(
    tmp_path: Path, sandboxes: Path, prefect_environment: dict[str, str], smol: str, env_name: str
) -> None:
    environment = prefect_environment | {"PYTHONPATH": str(ROOT), "TMPDIR": str(sandboxes)}
    job = Job("collect_episodes", tmp_path, environment)
    asked = (
        "--model_path",
        "smol",
        "--base_url",
        smol,
        "--num_episodes",
        "4",
        "--max_turns",
        "1",
        "--max_tokens",
        "48",
    )
    done = job.run("--env_name", env_name, *asked, "--no_only_success", timeout=400)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in journal_lines(tmp_path)]
    assert [row["error"] for row in rows] == [None] * 4
    assert all(row["usage"]["completion_tokens"] > 0 and row["turns"] for row in rows)
    assert all(turn["reward"] is not None for row in rows for turn in row["turns"])
    [data] = (tmp_path / "sft_data").glob("sft_data_*.jsonl")
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    assert len(lines) == sum(len(row["turns"]) for row in rows)
    assert all(line["messages"][-1]["role"] == "assistant" for line in lines)
