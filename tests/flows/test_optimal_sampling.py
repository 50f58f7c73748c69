"""q* sampling as users start it: real workers, real (tiny) models."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from rollmill.serving.server import SERVER_ENVIRONMENT
from tests.flows.conftest import ROOT, Job, journal_lines, processes_of, stop
from tests.flows.test_cluster import cluster_in
from tests.optimal_sampling.made import make_model
from tests.serving.adapters import make_adapter
from tests.training.made import make_base
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OWN = """
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
LOADED = "has loaded the models"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_base(folder / "theta", seed=0)
    make_base(folder / "t", seed=1)
    return folder


@pytest.fixture
def job(tmp_path: Path, models: Path, prefect_environment: dict[str, str]) -> Job:
    rows = [{"question": f"what is {number}?", "answer": number, "level": number % 3} for number in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("theta", "t"):
        (tmp_path / name).symlink_to(models / name)
    (tmp_path / "own_data.py").write_text(OWN)
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MARK": str(tmp_path)}
    return Job("optimal_sampling", tmp_path, prefect_environment | own)


def flags(output: str, *more: str, tokens: int = 8) -> list[str]:
    models = ["--model_theta", "theta", "--model_t", "t", "--dataset", "rows.jsonl", "--output", output]
    return [*models, "--max_new_tokens", str(tokens), "--batch_size", "2", "--shard_size", "4", *more]


def is_worker(process: psutil.Process) -> bool:
    return any("spawn_main" in argument for argument in process.cmdline())


def bytes_of(job: Job, name: str) -> tuple[bytes, bytes]:
    return (job.folder / f"{name}.jsonl").read_bytes(), (job.folder / f"{name}.diagnostics.jsonl").read_bytes()


def rows_of(job: Job, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.folder / f"{name}.jsonl").read_text().splitlines()]


def test_a_run_its_parts_and_two_workers(job: Job) -> None:
    done = job.run(*flags("whole.jsonl", "--save_diagnostics"), timeout=300)
    assert done.returncode == 0, done.stderr
    assert "24 samples, " in done.stdout
    assert done.stderr.count(LOADED) == 1
    assert "whole: 24/24 samples, mean alpha 0.5" in done.stderr
    first = rows_of(job, "whole")[0]
    assert set(first) == {"messages", "sample_idx", "question", "answer", "level", "optimal_sampling"}
    assert first["messages"][0] == {"role": "user", "content": "what is 0?"}
    assert first["optimal_sampling"]["convention"] == "q* ~ pi_theta^alpha * pi_t^(1-alpha)"
    assert processes_of(str(job.folder)) == []

    for start, count in ((10, 9), (0, 3)):
        part = ("--start_idx", str(start), "--num_samples", str(count), "--save_diagnostics")
        assert job.run(*flags("parts.jsonl", *part), timeout=300).returncode == 0
    assert [row["sample_idx"] for row in rows_of(job, "parts")] == [*range(3), *range(10, 19)]
    rest = job.run(*flags("parts.jsonl", "--workers", "2"), timeout=300)
    assert rest.returncode == 0, rest.stderr
    assert bytes_of(job, "parts") == bytes_of(job, "whole")
    processes = re.findall(rf"process (\d+) {LOADED}", rest.stderr)
    assert len(processes) == len(set(processes)) == 2

    again = job.run(*flags("parts.jsonl"), timeout=300)
    assert "already complete, nothing was drawn" in again.stdout
    assert LOADED not in again.stderr
    other = job.run(*flags("parts.jsonl", "--seed", "1"), timeout=300)
    assert other.returncode == 1
    assert "parts holds another run: seed (0 on disk, 1 now)" in other.stderr
    assert "Traceback" not in other.stderr

    shown = job.run("analyze_diagnostics", "whole.diagnostics.jsonl", "parts.diagnostics.jsonl", PREFECT_API_URL="")
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[:3] for line in shown.stdout.splitlines()[2:4]] == [
        ["whole", "kl_symmetry", "24"],
        ["parts", "kl_symmetry", "24"],
    ]
    assert (job.folder / "analysis.png").read_bytes().startswith(b"\x89PNG")


def test_killed_in_the_middle_nothing_is_left_and_it_ends_with_the_same_bytes(job: Job) -> None:
    long = ("--save_diagnostics",)
    whole = job.run(*flags("whole.jsonl", *long, tokens=100), timeout=400)
    assert whole.returncode == 0, whole.stderr
    process = job.start(*flags("killed.jsonl", *long, "--workers", "2", tokens=100))
    wait_until(lambda: len(journal_lines(job.folder / "killed")) >= 4 or process.poll() is not None, timeout=200)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: processes_of(str(job.folder)) == [], timeout=30)
    before = journal_lines(job.folder / "killed")
    assert 4 <= len(before) < 24
    assert not (job.folder / "killed.jsonl").exists()

    process = job.start(*flags("killed.jsonl", *long, tokens=100))
    wait_until(lambda: len(journal_lines(job.folder / "killed")) > len(before), timeout=200)
    code, said = stop(process, signal.SIGINT)
    assert code == 130, said
    assert processes_of(str(job.folder)) == []

    left = 24 - len(journal_lines(job.folder / "killed"))
    process = job.start(*flags("killed.jsonl", *long, tokens=100))
    wait_until(lambda: 24 - len(journal_lines(job.folder / "killed")) < left, timeout=200)
    [worker] = [one for one in psutil.Process(process.pid).children(recursive=True) if is_worker(one)]
    worker.kill()  # another one takes its place, and draws the shard again
    said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert bytes_of(job, "killed") == bytes_of(job, "whole")
    after = journal_lines(job.folder / "killed")
    assert after[: len(before)] == before
    assert len(after) == 24


@pytest.mark.vllm
@pytest.mark.skipif(not SERVER_ENVIRONMENT.exists(), reason="no vLLM: `make setup` installs it")
def test_both_models_in_one_vllm(job: Job) -> None:
    """Killed in the middle it ends with the bytes of a run that was not."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    base = make_model(job.folder / "base", words=40, initializer_range=0.3, eos=39, **sizes)
    make_adapter(job.folder / "adapter", base, scale=0.3)
    (job.folder / "rows.jsonl").write_text("".join(f'{{"question": "w{n} w{n + 3}"}}\n' for n in range(24)))
    asked = ("--save_diagnostics", "--model_theta", "base", "--model_t", "base", "--adapter_t", "adapter")
    vllm = ("--backend", "vllm", "--vllm_args", "--max-model-len 256")
    whole = job.run(*flags("whole.jsonl", *asked, *vllm, tokens=100), timeout=400)
    assert whole.returncode == 0, whole.stderr
    assert "24 samples, " in whole.stdout
    assert whole.stderr.count(LOADED) == 1
    assert processes_of(str(job.folder)) == []

    process = job.start(*flags("killed.jsonl", *asked, *vllm, tokens=100))
    wait_until(lambda: len(journal_lines(job.folder / "killed")) >= 4, timeout=200)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: processes_of(str(job.folder)) == [], timeout=30)
    before = len(journal_lines(job.folder / "killed"))
    done = job.run(*flags("killed.jsonl", *asked, *vllm, tokens=100), timeout=400)
    assert done.returncode == 0, done.stderr
    assert before < 24
    assert bytes_of(job, "killed") == bytes_of(job, "whole")


def test_a_class_of_ones_own_a_hint_and_the_warnings(job: Job) -> None:
    own = ["--dataset_adapter", "own_data:Counting", "--hint", "Level {level}."]
    done = job.run(*flags("own.jsonl", *own, "--dataset", "set", "--alpha_method", "entropy"), timeout=300)
    assert done.returncode == 0, done.stderr
    assert [(row["messages"][0]["content"], row["level"]) for row in rows_of(job, "own")] == [
        ("set 0", 0), ("set 1", 1), ("set 2", 2),
    ]  # fmt: skip
    assert "samples were cut off: raise --max_new_tokens" in done.stdout
    curate = Job("curate", job.folder, job.environment)
    looked = curate.run("analyze", "--input", "own")
    assert looked.returncode == 0, looked.stderr


def test_on_a_cluster(job: Job, tmp_path: Path) -> None:
    with cluster_in(tmp_path / "cluster", job.environment) as cluster:
        there = flags("there.jsonl", "--cluster_block", cluster.block)
        alone = job.run(*there, timeout=300)
        assert alone.returncode == 1
        assert f"no worker has GPU=1 ({cluster.address}: 0 workers, 0 with GPU)" in alone.stderr
        cluster.start_worker("GPU=1")
        done = job.run(*there, timeout=300)
        assert done.returncode == 0, done.stderr + (tmp_path / "cluster/worker.log").read_text()[-3000:]
    assert len(rows_of(job, "there")) == 24


MISTAKES = [
    (("--fixed_alpha", "0.2"), 2, "--fixed_alpha 0.2: --alpha_method kl_symmetry finds its own"),
    (("--dataset", "nowhere.jsonl"), 1, "nowhere.jsonl"),
    (("--prompt_field", "nope"), 1, "has no column 'nope' (--prompt_field)"),
    (("--start_idx", "24"), 1, "--start_idx 24: rows.jsonl has 24 rows"),
    (("--dataset_adapter", "own_data:Nobody"), 1, "--dataset_adapter own_data:Nobody: cannot import it"),
    (("--hint", "{gold}"), 1, "--hint names {gold}, which row-0 does not have"),
    (("--cluster_block", "nobody"), 1, "there is no block dask-cluster/nobody"),
    (("--model_t", "./nowhere"), 1, "--model_t ./nowhere: there is no such directory"),
    (("--model_t", "broken"), 1, "/broken: "),
]


def test_mistakes_are_one_line(job: Job) -> None:
    (job.folder / "broken").mkdir()
    (job.folder / "broken/config.json").write_text("{}")
    failed = job.fail_each(*(flags(f"out_{at}.jsonl", *given) for at, (given, _, _) in enumerate(MISTAKES)))
    for (code, line), (_, expected, said) in zip(failed, MISTAKES, strict=True):
        assert code == expected, line
        assert line.startswith("optimal_sampling: ")
        assert said in line
