"""q* sampling as users start it: real workers, real (tiny) models."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from rollmill.inference.server import SERVER_ENVIRONMENT
from tests.flows.conftest import ROOT, Job, journal_lines, processes_of, stop
from tests.flows.test_cluster import cluster_in
from tests.inference.adapters import make_adapter
from tests.inference.vllm_processes import ONE_THREAD
from tests.jobs.optimal_sampling.runs import draw, parameters
from tests.jobs.optimal_sampling.tiny_pairs import make_model
from tests.jobs.training.tiny_models import make_base
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DATASET_CLASS = """
class Counting:
    def __init__(self, name, split):
        self.name = name
    def __len__(self):
        return 3
    def get_prompt(self, idx):
        return f"{self.name} {idx}"
    def get_metadata(self, idx):
        return {"level": idx}
"""
LOADED = "could ask the model after"
LONG = ("--save_diagnostics", "--max_new_tokens", "100", "--shard_size", "2")
"""Flags of a run in which processes are killed."""
ROWS = 36
"""Rows of that run: after three interruptions some are left to sample."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_base(folder / "theta", seed=0)
    make_base(folder / "t", seed=1)
    return folder


def write_questions(folder: Path, count: int) -> None:
    rows = [{"question": f"what is {number}?", "answer": number, "level": number % 3} for number in range(count)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def job(tmp_path: Path, models: Path, prefect_environment: dict[str, str]) -> Job:
    write_questions(tmp_path, 24)
    for name in ("theta", "t"):
        (tmp_path / name).symlink_to(models / name)
    (tmp_path / "custom_data.py").write_text(DATASET_CLASS)
    options = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MARK": str(tmp_path)}
    return Job("optimal_sampling", tmp_path, prefect_environment | options)


def flags(output: str, *more: str, tokens: int = 8) -> list[str]:
    models = ["--model_theta", "theta", "--model_t", "t", "--dataset", "rows.jsonl", "--output", output]
    return [*models, "--max_new_tokens", str(tokens), "--batch_size", "2", "--shard_size", "4", *more]


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the worker processes of a flow."""
    result = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            result += [child] if any("spawn_main" in argument for argument in child.cmdline()) else []
    return result


def samples(job: Job) -> list[bytes]:
    """Return the journal lines of the run that is killed."""
    return journal_lines(job.folder / "killed")


def workers_with_models(printed: str) -> set[str]:
    """Return the workers that have loaded the models; each does so once."""
    result = re.findall(rf"(\S+:\d+) {LOADED}", printed)
    assert len(result) == len(set(result)), printed
    return set(result)


def output_bytes(job: Job, name: str) -> tuple[bytes, bytes]:
    """Return samples, without the run's name in their token references, and diagnostics."""
    samples = (job.folder / f"{name}.jsonl").read_bytes().replace(f'"{name}/'.encode(), b'"run/')
    return samples, (job.folder / f"{name}.diagnostics.jsonl").read_bytes()


def rows_of(job: Job, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.folder / f"{name}.jsonl").read_text().splitlines()]


def test_killed_run_leaves_no_process_and_resumes_to_the_same_bytes(job: Job) -> None:
    """The flow with two workers is killed, then interrupted; then only its worker is killed, and the run completes."""
    write_questions(job.folder, ROWS)
    complete = job.run(*flags("whole.jsonl", *LONG, "--workers", "2"), timeout=400)
    assert complete.returncode == 0, complete.stderr
    assert f"{ROWS} samples, " in complete.stdout
    assert len(workers_with_models(complete.stderr)) == 2
    assert f"whole: {ROWS}/{ROWS} samples, mean alpha 0.5" in complete.stderr
    first = rows_of(job, "whole")[0]
    assert set(first) == {"messages", "sample_idx", "question", "answer", "level", "optimal_sampling", "metadata"}
    assert first["messages"][0] == {"role": "user", "content": "what is 0?"}
    assert first["optimal_sampling"]["convention"] == "q* ~ pi_theta^alpha * pi_t^(1-alpha)"
    assert processes_of(str(job.folder)) == []

    killed = flags("killed.jsonl", *LONG)
    process = job.start(*killed, "--workers", "2", "--start_idx", "3", "--num_samples", "20")
    wait_until(lambda: len(samples(job)) >= 4 or process.poll() is not None, timeout=200)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: processes_of(str(job.folder)) == [], timeout=30)
    before = samples(job)
    assert 4 <= len(before) < 20
    assert {json.loads(line)["instance_id"] for line in before} <= {f"row-{number}" for number in range(3, 23)}
    assert not (job.folder / "killed.jsonl").exists()

    process = job.start(*killed)
    wait_until(lambda: len(samples(job)) > len(before) or process.poll() is not None, timeout=200)
    code, printed = stop(process, signal.SIGINT)
    assert code == 130, printed
    assert processes_of(str(job.folder)) == []

    count = len(samples(job))
    process = job.start(*killed)
    wait_until(lambda: workers(process) or process.poll() is not None, timeout=200)
    [worker] = workers(process)
    wait_until(lambda: len(samples(job)) > count or process.poll() is not None, timeout=200, every=0.01)
    worker.kill()  # another worker replaces it, and samples the shard again
    assert len(samples(job)) < ROWS
    _, printed = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    assert output_bytes(job, "killed") == output_bytes(job, "whole")
    after = samples(job)
    assert after[: len(before)] == before
    assert len(after) == ROWS

    (again, _), (other, refusal) = job.fail_each(killed, [*killed, "--seed", "1"])
    assert (again, other) == (0, 1)
    assert samples(job) == after
    assert "killed holds another run: seed (0 on disk, 1 now)" in refusal
    shown = job.run("analyze_diagnostics", "whole.diagnostics.jsonl", "killed.diagnostics.jsonl", PREFECT_API_URL="")
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[:3] for line in shown.stdout.splitlines()[2:4]] == [
        ["whole", "kl_symmetry", str(ROWS)],
        ["killed", "kl_symmetry", str(ROWS)],
    ]
    assert (job.folder / "analysis.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.vllm
@pytest.mark.skipif(not SERVER_ENVIRONMENT.exists(), reason="no vLLM: `make setup` installs it")
def test_both_models_in_one_vllm(job: Job) -> None:
    """A killed and resumed run gives what the same models give in Transformers without an interruption."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    base = make_model(job.folder / "base", words=40, initializer_range=0.3, eos=39, **sizes)
    adapter = make_adapter(job.folder / "adapter", base, scale=0.3)
    rows = [{"question": f"w{number} w{number + 3}"} for number in range(24)]
    arguments = (
        *flags("killed.jsonl", tokens=100),
        "--model_theta",
        "base",
        "--model_t",
        "base",
        "--adapter_t",
        "adapter",
    )
    expected = parameters(
        job.folder, rows, model_t=base, adapter_t=str(adapter),
        max_new_tokens=100, batch_size=24, shard_size=24, save_diagnostics=True,
        output=str(job.folder / "expected.jsonl"),
    )  # fmt: skip
    draw(expected)

    vllm = ("--save_diagnostics", "--backend", "vllm", "--vllm_args", "--max-model-len 256")
    process = job.start(*arguments, *vllm, **ONE_THREAD)
    wait_until(lambda: len(samples(job)) >= 4 or process.poll() is not None, timeout=200)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: processes_of(str(job.folder)) == [], timeout=30)
    before = samples(job)
    assert len(before) < 24
    done = job.run(*arguments, *vllm, timeout=400, **ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert "24 samples, " in done.stdout
    assert len(workers_with_models(done.stderr)) == 1
    assert processes_of(str(job.folder)) == []
    assert samples(job)[: len(before)] == before
    for name in ("sample_idx", "messages", "question"):
        assert [row[name] for row in rows_of(job, "killed")] == [row[name] for row in rows_of(job, "expected")]
    for result, reference in zip(rows_of(job, "killed.diagnostics"), rows_of(job, "expected.diagnostics"), strict=True):
        for name in ("alpha", "kl_theta", "kl_t", "ess_ratio"):
            assert result[name] == pytest.approx(reference[name], rel=1e-3, abs=1e-4)


def test_custom_dataset_class_with_hint_and_warnings(job: Job) -> None:
    options = ["--dataset_adapter", "custom_data:Counting", "--hint", "Level {level}."]
    done = job.run(*flags("own.jsonl", *options, "--dataset", "set", "--alpha_method", "entropy"), timeout=300)
    assert done.returncode == 0, done.stderr
    assert [(row["messages"][0]["content"], row["level"]) for row in rows_of(job, "own")] == [
        ("set 0", 0), ("set 1", 1), ("set 2", 2),
    ]  # fmt: skip
    assert "samples were cut off: raise --max_tokens" in done.stdout
    curate = Job("curate", job.folder, job.environment)
    looked = curate.run("analyze", "--input", "own")
    assert looked.returncode == 0, looked.stderr


def test_optimal_sampling_on_a_cluster(job: Job, tmp_path: Path) -> None:
    with cluster_in(tmp_path / "cluster", job.environment) as cluster:
        remote = flags("there.jsonl", "--cluster_block", cluster.block)
        alone = job.run(*remote, timeout=300)
        assert alone.returncode == 1
        assert f"no worker has GPU=1 ({cluster.address}: 0 workers, 0 with GPU)" in alone.stderr
        cluster.start_worker("GPU=1")
        done = job.run(*remote, timeout=300)
        assert done.returncode == 0, done.stderr + (tmp_path / "cluster/worker.log").read_text()[-3000:]
    assert len(rows_of(job, "there")) == 24


MISTAKES = [
    (("--fixed_alpha", "0.2"), 2, "--fixed_alpha 0.2: --alpha_method kl_symmetry finds its own"),
    (("--dataset", "nowhere.jsonl"), 1, "nowhere.jsonl"),
    (("--prompt_field", "nope"), 1, "has no column 'nope' (--prompt_field)"),
    (("--start_idx", "24"), 1, "--start_idx 24: rows.jsonl has 24 rows"),
    (
        ("--dataset_adapter", "custom_data:Nobody"),
        1,
        "--dataset_adapter custom_data:Nobody: the module 'custom_data' has no 'Nobody'",
    ),
    (("--hint", "{gold}"), 1, "--hint names {gold}, which row-0 does not have"),
    (("--cluster_block", "nobody"), 1, "there is no block dask-cluster/nobody"),
    (("--model_t", "./nowhere"), 1, "--model_t ./nowhere: there is no such directory"),
    (("--model_t", "broken"), 1, "/broken: "),
]


def test_mistakes_are_one_line(job: Job) -> None:
    (job.folder / "broken").mkdir()
    (job.folder / "broken/config.json").write_text("{}")
    failed = job.fail_each(*(flags(f"out_{at}.jsonl", *arguments) for at, (arguments, _, _) in enumerate(MISTAKES)))
    for (code, line), (_, status, message) in zip(failed, MISTAKES, strict=True):
        assert code == status, line
        assert line.startswith("optimal_sampling: ")
        assert message in line
