"""All flows with a store and with secrets: no secret leaks anywhere, and all results are in the store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from benchmarks.scripted_agents import CONFIG
from rollmill.environments.search.environment import OWN_QUESTIONS
from rollmill.environments.search.index import open_index
from tests.exports.sample_corpus import rollout
from tests.files.s3 import S3Server
from tests.flows.conftest import Job, journal_lines, script, write_problems
from tests.flows.guarded import SECRETS, SEEN, agent, chat, collect_traces, guarded, retriever
from tests.flows.stores import check_copied, save_blocks
from tests.flows.test_agent_rollouts import FOLDER, service
from tests.jobs.training.tiny_models import CHATML, make_base, row, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

AT_ONCE = 4
"""Concurrent runs: while one waits, another uses the CPU."""
HUB = ("nobody/model", "nobody/data")
"""Repositories that runs request from the hub, which has none of them."""
STORED = [
    (
        "improve",
        "improved",
        "rounds.json rounds.txt improvement.png round_01/adapter/manifest.json "
        "round_01/adapter/adapter_model.safetensors round_01/adapter/merged/model.safetensors",
    ),
    (
        "train",
        "trained",
        "manifest.json adapter_model.safetensors adapter_config.json README.md loss.png merged/model.safetensors "
        "evaluation.json evaluation.png before/evaluation/manifest.json before/evaluation/rollouts/0001.jsonl "
        "after/evaluation/manifest.json after/evaluation/rollouts/0001.jsonl",
    ),
    ("draw", "q", "manifest.json q.jsonl statistics.txt overview.png rollouts/0001.jsonl"),
    ("agents", "a", "manifest.json a.json statistics.txt overview.png rollouts/0001.jsonl"),
    (
        "curate",
        "curated",
        "sft.jsonl sft.dropped.jsonl sft.quarantine.jsonl README.md rollouts.jsonl rollouts.dropped.jsonl "
        "rollouts.quarantine.jsonl quality_report.html overview.png",
    ),
]
"""Run, its directory, and its files that must be in the store."""
GUESS = {"completion": "<answer>{digit}</answer>"}
LEARNED = f"--learned '{json.dumps({'completion': '<answer>7</answer>'})}'"


class Address(NamedTuple):
    """Addresses of the servers that runs get by flags; those of the others are in blocks."""

    sandboxes: str
    evaluations: str
    model: str


class AllRuns(NamedTuple):
    """The outcome of all runs."""

    folder: Path
    done: dict[str, subprocess.CompletedProcess[str]]
    left: dict[str, bytes]
    """All output, files and stored objects, by location."""
    stored: dict[str, bytes]
    used: set[str]
    """Names of the secrets that servers received, and the repositories requested from the hub with its token."""


def runs(at: Address) -> dict[str, tuple[str, list[str]]]:
    """Return flow and arguments of each run by its name; those named `fails_...` fail. The longest come first."""
    store, problems = ["--store_block", "good"], ["--dataset", "problems.jsonl"]
    trains = ["--model_path", "base", "--held_out", "held_out.jsonl", "--lora_r", "2", "--num_train_epochs", "1"]
    asks, answers = script(**GUESS)
    trains += ["--max_tokens", "16", asks, f"{answers} {LEARNED}"]
    draws = ["--model_theta", "base", *problems, "--max_new_tokens", "4"]
    sampling = ["--model_path", "scripted", *problems, "--num_rollout", "2", "--no_canary"]
    agents = ["generate-multi", "--dataset", str(FOLDER / "dataset.json"), "--max-tasks", "1", "--config", CONFIG]
    agents += ["--model", "scripted", "--base-url", at.model]
    services = ["--docker-server", at.sandboxes, "--eval-server", at.evaluations]
    episodes = ["--env_name", "search_env", "--model_path", "oracle", "--num_episodes", "3", "--search_block", "good"]
    wrong = [*sampling, "--model_name", "endpoint", "--endpoint_block", "wrong"]
    return {
        "improve": ("improve", [*trains, *problems, "--num_rollout", "8", "--rounds", "1", *store]),
        "train": ("train_lora", [*trains, "--train_data", "train.jsonl", "--output_dir", "trained", *store]),
        "draw": ("optimal_sampling", [*draws, "--model_t", "other", "--output", "q.jsonl", *store]),
        "fails_draw": ("optimal_sampling", [*draws, "--model_t", HUB[0], "--output", "no.jsonl", *store]),
        "agents": (
            "agent_rollouts",
            [*agents, "--output", "a.json", "--sandbox_block", "good", "--eval_block", "good", *store],
        ),
        "fails_agents": ("agent_rollouts", [*agents, "--output", "b.json", *services, *store]),
        "episodes": ("collect_episodes", [*episodes, "--dataset", str(OWN_QUESTIONS), "--store_block", "share"]),
        "sampling": ("reject_sampling", [*sampling, "--model_name", SEEN, "--endpoint_block", "good", *store]),
        "fails_store": ("reject_sampling", [*sampling, "--model_name", "store", "--store_block", "wrong"]),
        "fails_endpoint": ("reject_sampling", [*wrong, *store]),
        "fails_hub": ("reject_sampling", [*sampling, "--model_name", "hub", "--dataset", HUB[1], *store]),
        "curate": ("curate", ["run", "--input", "raw.jsonl", "--max_bad_share", "0.5", *store]),
    }


def write_inputs(folder: Path) -> None:
    make_base(folder / "base", CHATML)
    make_base(folder / "other", CHATML, seed=1)
    write_problems(folder / "problems.jsonl", 4)
    write_rows(folder / "held_out.jsonl", [{"prompt": f"held out {number}", "answer": 7} for number in range(10)])
    write_rows(folder / "train.jsonl", [row(number, "7") for number in range(4)])
    write_rows(folder / "raw.jsonl", [rollout("p0", 0, 1.0, answer="a"), rollout("p1", 0, 0.5, answer="b"), "torn"])


@contextmanager
def servers(
    folder: Path, sandboxes: Path, environment: dict[str, str], used: set[str]
) -> Iterator[tuple[Address, S3Server]]:
    """Start all servers, each with its own secret; save blocks `good` and `wrong` for them, and `share` (a folder)."""
    tokens = {"ROLLMILL_SANDBOX_TOKEN": SECRETS["sandbox"], "ROLLMILL_EVALUATION_TOKEN": SECRETS["evaluation"]}
    service_environment = environment | tokens | {"TMPDIR": str(sandboxes)}
    with ExitStack() as stack:
        s3 = stack.enter_context(S3Server(SECRETS["store_key"], SECRETS["store_secret"]))
        endpoint = stack.enter_context(guarded("endpoint", chat, used)).base_url
        model = stack.enter_context(guarded("VLLM_API_KEY", agent, used)).base_url
        search = stack.enter_context(guarded("search", retriever(stack.enter_context(open_index(""))), used))
        images = ["--images", str(FOLDER / "images")]
        at = stack.enter_context(
            service("sandbox", *images, log=folder / "sandbox.log", environment=service_environment)
        )
        graded = ["--sandbox_server", at, "--dataset", str(FOLDER / "dataset.json")]
        grader = service("evaluation", *graded, log=folder / "evaluation.log", environment=service_environment)
        grading = stack.enter_context(grader)
        store = {"url": "s3://results", "endpoint_url": s3.url, "key": s3.key, "secret": s3.secret}
        (folder / "share").mkdir()
        save_blocks(
            environment,
            ("inference-endpoint", "good", {"base_urls": [endpoint], "api_key": SECRETS["endpoint"]}),
            ("inference-endpoint", "wrong", {"base_urls": [endpoint], "api_key": SECRETS["wrong_endpoint"]}),
            ("sandbox-service", "good", {"address": at, "token": SECRETS["sandbox"]}),
            ("evaluation-service", "good", {"address": grading, "token": SECRETS["evaluation"]}),
            ("search-service", "good", {"address": search.base_url[:-3], "token": SECRETS["search"]}),
            ("result-store", "good", store),
            ("result-store", "wrong", store | {"secret": SECRETS["wrong_store"]}),
            ("result-store", "share", {"url": str(folder / "share")}),
        )
        yield Address(at, grading, model), s3


@pytest.fixture(scope="module")
def all_runs(tmp_path_factory: pytest.TempPathFactory, stand_in: dict[str, str]) -> AllRuns:
    """Run every flow, with every secret in its environment and in its blocks."""
    folder, used = tmp_path_factory.mktemp("runs"), set[str]()
    write_inputs(folder)

    def hub(path: bytes) -> bytes:
        used.update(name for name in HUB if name.encode() in path)
        return b"[]"

    with ExitStack() as stack:
        sandboxes = Path(stack.enter_context(TemporaryDirectory(prefix="sandboxes-of-a-test-")))
        sandboxes.chmod(0o755)
        hub_url = stack.enter_context(guarded("HF_TOKEN", hub, used)).base_url[:-3]
        at, s3 = stack.enter_context(servers(folder, sandboxes, stand_in, used))
        variables = {name: value for name, value in SECRETS.items() if name.isupper()}
        variables |= {"TMPDIR": str(sandboxes), "HF_ENDPOINT": hub_url, "HF_HOME": str(folder / "hub")}
        variables |= {"HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

        def run(flow: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
            return Job(flow, folder, stand_in | variables).run(*arguments, timeout=1200)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            running = {name: pool.submit(run, *what) for name, what in runs(at).items()}
        done = {name: future.result() for name, future in running.items()}
        outputs = {name: process.stdout + process.stderr for name, process in done.items()}
        left = collect_traces([folder, sandboxes, Path(stand_in["PREFECT_HOME"])], outputs, s3.objects())
        return AllRuns(folder, done, left, s3.objects(), used)


def test_runs_have_the_expected_status_and_use_the_secrets(all_runs: AllRuns) -> None:
    for name, done in all_runs.done.items():
        outputs = done.stdout + done.stderr
        assert (done.returncode != 0) == name.startswith("fails_"), outputs
        assert "Traceback" not in outputs, outputs
    assert all_runs.used == {"endpoint", "search", "VLLM_API_KEY", "HF_TOKEN", *HUB}
    looked = b"".join(journal_lines(all_runs.folder / "a"))
    assert b"PATH=" in looked, "the agent has printed its environment"


def test_no_secret_is_written_anywhere(all_runs: AllRuns) -> None:
    where_seen = {where for where, content in all_runs.left.items() if SEEN.encode() in content}
    database = {f"prefect.db: {table}" for table in ("flow_run", "log", "artifact")}
    run = f"reject_sampling_results/{SEEN}"
    names = ("manifest.json", "statistics.txt", "reject_sampling_results.json")
    files = {str(all_runs.folder / run / name) for name in names}
    assert where_seen >= {"sampling", f"s3: {run}/statistics.txt"} | database | files
    assert all_runs.left["prefect.db: block_document"].count(b"good") >= 5
    for name, secret in SECRETS.items():
        assert [where for where, content in all_runs.left.items() if secret.encode() in content] == [], name


@pytest.mark.parametrize(("name", "directory", "least"), STORED, ids=[name for name, *_ in STORED])
def test_results_of_a_flow_are_in_the_store(all_runs: AllRuns, name: str, directory: str, least: str) -> None:
    beside = (all_runs.folder / f"{directory}.json", all_runs.folder / f"{directory}.jsonl")
    copied = check_copied(all_runs.stored, f"{directory}/", all_runs.folder / directory, *beside)
    assert copied >= set(least.split())
    assert not [path for path in copied if path.startswith(("checkpoints", "logs", "."))]
    assert f"copied to s3://results/{directory}\n" in all_runs.left[name].decode()


def test_a_shared_folder_takes_results_too(all_runs: AllRuns) -> None:
    shared = all_runs.folder / "share/sft_data"
    stored = {f"{path.relative_to(shared)}": path.read_bytes() for path in shared.rglob("*") if path.is_file()}
    copied = check_copied(stored, "", all_runs.folder / "sft_data")
    assert {"manifest.json", "overview.png", "rollouts/0001.jsonl"} <= copied
    assert {name.rpartition("_")[2] for name in copied if name.startswith("sft_data_")} >= {"stats.json"}
    assert f"copied to {shared}\n" in all_runs.left["episodes"].decode()
