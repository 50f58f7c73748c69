"""Jobs on real vLLM: one with the small real model, the others, where texts do not matter, with a random one."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rollmill.generation.token_file import TokenReader
from rollmill.inference.backend import Served
from rollmill.inference.server import ServerConfig
from rollmill.inference.tokenizer_hash import tokenizer_hash
from rollmill.jobs.episodes.parameters import CollectEpisodes
from rollmill.jobs.episodes.policy_assignment import serving_cast
from rollmill.records import Rollout
from tests.flows.conftest import ROOT, Job, journal_lines, processes_of, stop, write_problems
from tests.inference.adapters import make_adapter
from tests.inference.vllm_processes import ONE_THREAD, prepared_vllm
from tests.jobs.episodes.policy_requests import answer_of
from tests.jobs.training.tiny_models import CHATML, make_base
from tests.waiting import wait_until

MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"
SERVER = ROOT / ".venv-vllm" / "bin" / "python"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not SERVER.exists(), reason="no vLLM here: run `make setup`"),
]

RUN = (
    *("--model_path", str(MODEL), "--model_name", "smol", "--vllm_args", "--max-model-len 2048"),
    *("--dataset", "reasoning_gym:chain_sum?size=40&seed=7&min_terms=2&max_terms=2&min_digits=1&max_digits=2"),
    *("--few_shot", str(ROOT / "examples" / "chain_sum_few_shot.jsonl")),
    *("--num_rollout", "4", "--temperature", "0.8", "--max_tokens", "32", "--concurrency", "4"),
)
SMALL = {**ONE_THREAD, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""vLLM's worker then runs in its engine's process, which takes a third less time to start."""


@pytest.mark.skipif(not MODEL.exists(), reason="no model here: run `scripts/demo_model`")
def test_killed_server_restarts_and_killed_flow_leaves_no_process(
    tmp_path: Path, prefect_environment: dict[str, str]
) -> None:
    mark = uuid.uuid4().hex
    environment = prefect_environment | {"PYTHONPATH": str(ROOT), "ROLLMILL_TEST": mark} | ONE_THREAD
    job = Job("reject_sampling", tmp_path, environment)
    process = job.start(*RUN)
    wait_until(lambda: len(journal_lines(tmp_path)) >= 12 or process.poll() is not None, timeout=400)
    assert process.poll() is None, process.communicate()
    servers = [
        candidate
        for candidate in processes_of("vllm.entrypoints.launchers.api_server.entry")
        if candidate in processes_of(mark)
    ]
    assert len(processes_of(mark)) >= 4, "the flow, the supervisor, vLLM's API and its engine"
    api = next(server for server in servers if "process_supervisor" not in " ".join(server.cmdline()))
    api.kill()
    before = len(journal_lines(tmp_path))
    wait_until(lambda: len(journal_lines(tmp_path)) >= before + 20 or process.poll() is not None, timeout=600)
    assert process.poll() is None, process.communicate()
    _, errors = stop(process, signal.SIGKILL)
    assert "restart 1 of 3" in errors
    wait_until(lambda: not processes_of(mark), timeout=30)

    rows = [json.loads(line) for line in journal_lines(tmp_path)]
    assert before + 20 <= len({(row["instance_id"], row["sample_id"]) for row in rows}) == len(rows)
    assert not [row for row in rows if row["error"]]
    assert sum(row["verdict"]["status"] == "ok" for row in rows) > len(rows) / 2
    assert all(row["usage"]["completion_tokens"] > 0 for row in rows)
    check_tokens([Rollout.model_validate(row) for row in rows], tmp_path)


def check_tokens(rollouts: list[Rollout], folder: Path) -> None:
    """Check that the recorded tokens are those of the answers, and their log-probabilities those of the sampling."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(MODEL), AutoModelForCausalLM.from_pretrained(MODEL)
    (journal,) = folder.rglob("0001.jsonl")
    reader = TokenReader(journal.parent)
    for number, rollout in enumerate(rollouts):
        (call,) = reader.read(rollout.tokens, rollout.instance_id, rollout.sample_id).calls
        assert tokenizer.decode(call.ids.tolist(), skip_special_tokens=True) == rollout.completion
        prompt = tokenizer.apply_chat_template(rollout.messages, add_generation_prompt=True, return_dict=False)
        assert call.prompt.tolist() == prompt
        assert call.source == (tokenizer_hash(str(MODEL)), "processed_logprobs")
        if number < 2:
            with torch.no_grad():
                logits = model(torch.tensor([call.sequence.tolist()])).logits[0, len(prompt) - 1 : -1]
            expected = torch.log_softmax(logits.float() / 0.8, -1)[range(len(call.ids)), call.ids.tolist()]
            assert call.logprobs.tolist() == pytest.approx(expected.tolist(), abs=0.02)
    reader.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a random base with a context for an agent's byte-level prompt, and two adapters that change its answers."""
    folder = tmp_path_factory.mktemp("models")
    config = make_base(folder / "base", CHATML, hidden=64) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 65_536}))
    for rank in (4, 16):
        make_adapter(folder / f"rank_{rank}", folder / "base", rank=rank, scale=1.0)
    return folder


@pytest.fixture(scope="module")
def vllm() -> Iterator[str]:
    """Yield an interpreter that has already imported vLLM, for tests that do not check how servers end."""
    with prepared_vllm("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server") as python:
        yield str(python)


@pytest.fixture(scope="module")
def cast(models: Path, vllm: str) -> Iterator[dict[str, Served]]:
    """Serve the base as `plain` and `again`, and its adapters as `a` and `b`, by one vLLM."""
    base, log_dir = models / "base", models / "logs"
    adapted = [f"{name}={base},adapter={models}/rank_{rank}" for name, rank in (("a", 4), ("b", 16))]
    parameters = CollectEpisodes.model_validate(
        {"policy": [f"plain={base}", f"again={base}", *adapted], "max_tokens": 12, "log_dir": str(log_dir)}
    )
    server = ServerConfig(python=vllm, environment=SMALL)
    with serving_cast(parameters, parameters.policies, server=server) as served:
        yield served


def test_a_base_and_two_adapters_on_one_server(cast: dict[str, Served]) -> None:
    sampling = {"messages": [{"role": "user", "content": "Tell me about rivers."}], "max_tokens": 12, "temperature": 0}
    answers = {name: answer_of(item, **sampling) for name, item in cast.items()}
    assert answers["plain"] == answers["again"]
    assert len(set(answers.values())) == 3


def test_server_of_a_job_on_a_worker_serves_an_adapter(
    tmp_path: Path, prefect_environment: dict[str, str], models: Path, cast: dict[str, Served], vllm: str
) -> None:
    write_problems(tmp_path / "problems.jsonl", 4)
    environment = prefect_environment | {"PYTHONPATH": str(ROOT), "ROLLMILL_VLLM_PYTHON": vllm} | SMALL
    job = Job("reject_sampling", tmp_path, environment)
    model = ("--model_path", str(models / "base"), "--model_name", "adapted", "--adapter", str(models / "rank_4"))
    sampling = ("--dataset", "problems.jsonl", "--num_rollout", "1", "--temperature", "0", "--max_tokens", "12")
    where = ("--gpu_workers", "1", "--no_canary", "--vllm_args", "--max-model-len 2048")  # on a Dask worker
    done = job.run(*model, *sampling, *where, timeout=800)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in journal_lines(tmp_path)]
    assert [row["error"] for row in rows] == [None] * 4
    assert all(row["usage"]["completion_tokens"] > 0 for row in rows)
    for row in rows:
        body = {"messages": row["messages"], "max_tokens": 12, "temperature": 0}
        assert row["completion"] == answer_of(cast["a"], **body) != answer_of(cast["plain"], **body)


def test_agent_rollouts_on_vllm(tmp_path: Path, prefect_environment: dict[str, str], cast: dict[str, Served]) -> None:
    job = Job("agent_rollouts", tmp_path, prefect_environment | {"PYTHONPATH": str(ROOT)})
    pack = ("--dataset", str(ROOT / "examples/performance_problems/dataset.json"), "--max_tasks", "2")
    agent = ("--config", "mini_textbased.yaml", "--step_limit", "2", "--max_tokens", "64", "--samples_per_task", "2")
    model = ("--model", "plain", "--base_url", address(cast), "--workers", "4", "--output", "out.json")
    done = job.run("generate_multi", *pack, *agent, *model, timeout=800)
    assert done.returncode == 0, done.stderr
    examples = json.loads((tmp_path / "out.json").read_text())["examples"]
    assert len({(item["instance_id"], item["sample_id"]) for item in examples}) == len(examples) == 4
    for item in examples:
        assert item["error"] is None
        assert item["exit_status"] in {"LimitsExceeded", "Submitted"}
        assert item["reward"] == 0.0
        assert item["evaluation_info"]["phase"] == "git_precheck"
        roles = [turn["role"] for turn in item["messages"]]
        assert roles[:3] == ["system", "user", "assistant"]
        assert item["usage"]["completion_tokens"] > 0
    assert len({item["seed"] for item in examples}) == 4


def test_episodes(
    tmp_path: Path, sandboxes: Path, prefect_environment: dict[str, str], cast: dict[str, Served]
) -> None:
    environment = prefect_environment | {"PYTHONPATH": str(ROOT), "TMPDIR": str(sandboxes)}
    job = Job("collect_episodes", tmp_path, environment)
    model = ("--model_path", "plain", "--base_url", address(cast), "--max_turns", "1", "--max_tokens", "48")
    sampling = (*model, "--num_episodes", "4", "--no_only_success", "--keep_truncated")
    names = ("code_env", "math_env", "search_env", "stateful_env")
    ends = list(job.fail_each(*(("--env_name", name, "--output_dir", name, *sampling) for name in names), timeout=800))
    assert [code for code, _ in ends] == [0] * 4, ends
    for name in names:
        rows = [json.loads(line) for line in journal_lines(tmp_path / name)]
        assert [row["error"] for row in rows] == [None] * 4
        assert all(row["usage"]["completion_tokens"] > 0 and row["turns"] for row in rows)
        assert all(turn["reward"] is not None for row in rows for turn in row["turns"])
        [data] = (tmp_path / name).glob("sft_data_*.jsonl")
        lines = [json.loads(line) for line in data.read_text().splitlines()]
        assert len(lines) == sum(len(row["turns"]) for row in rows)
        assert all(line["messages"][-1]["role"] == "assistant" for line in lines)


def address(cast: dict[str, Served]) -> str:
    return cast["plain"].endpoints[0].base_url
