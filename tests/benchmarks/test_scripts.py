"""Runs every benchmark at a tiny size, and checks that it prints its figures."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rollmill.inference.sampled_tokens import TokenSource
from rollmill.inference.scripted import Script, ScriptedServer
from rollmill.inference.server import SERVER_ENVIRONMENT
from rollmill.inference.tokenizer_hash import tokenizer_hash
from rollmill.verifiers.process_sandbox import sandbox_missing
from tests.generation.run_factory import opened
from tests.generation.test_chat import make
from tests.inference.vllm_processes import ONE_THREAD, prepared_vllm
from tests.jobs.optimal_sampling.tiny_pairs import make_model
from tests.jobs.training.tiny_models import make_base, make_byte_tokenizer
from tests.prepared_python import prepared_python

ROOT = Path(__file__).parent.parent.parent
NAMES = (
    "rollout_overhead",
    "heavy_tail",
    "verdicts",
    "verifier_agreement",
    "resume",
    "memory",
    "task_runs",
    "scaling",
    "curation",
    "training",
    "agent_rollouts",
    "episodes",
    "alpha_solver",
    "decoding_steps",
    "optimal_sampling",
    "optimal_sampling_vllm",
    "sampling_worth",
    "token_drift",
    "affinity",
    "concurrency",
    "gpu",
)
BENCHMARKS = [f"benchmarks.{name}" for name in NAMES]
RUNS = ("benchmarks.", "distributed.cli.", "flows.", "rollmill.", "tests.flows.one_process", "uvicorn")
IMPORTED = """
    benchmarks.contenders.bare_aiohttp benchmarks.contenders.curation benchmarks.contenders.engine
    flows.agent_rollouts flows.reject_sampling rollmill.jobs.curation.commands rollmill.jobs.training.trainer
    rollmill.services.evaluation rollmill.services.sandbox rollmill.verifiers.worker_process
    datasets distributed.cli.dask_scheduler distributed.cli.dask_worker matplotlib.backends.backend_agg polars
    prefect.engine prefect.server.api.server prefect.utilities.visualization prefect_dask reasoning_gym
    transformers.models.llama.modeling_llama uvicorn.lifespan.on uvicorn.loops.auto
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Yield an interpreter that has already imported the modules of benchmarks and of their subprocesses."""
    folder = tmp_path_factory.mktemp("home")
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    environment["PREFECT_HOME"] = str(folder / "prefect")
    with prepared_python(
        imported=f"{IMPORTED} {' '.join(BENCHMARKS)}", runs=RUNS, environment=environment
    ) as python_with_imports:
        yield python_with_imports


def start(python, module, *flags, **popen_options):
    return subprocess.run(
        [python, "-m", module, *flags], cwd=ROOT, capture_output=True, text=True, timeout=580, **popen_options
    )


@pytest.fixture
def run(python):
    """Run a benchmark; return its output."""

    def run(name, *flags, python=python, **popen_options):
        done = start(python, f"benchmarks.{name}", *flags, **popen_options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def cells(output, start):
    """Return the cells, separated by two or more spaces, of the first line with this start."""
    [line, *_] = [line for line in output.splitlines() if line.startswith(start)]
    return re.split(r"\s{2,}", line.strip())


def test_help_describes_each_benchmark(python):
    """All in one process, since imports take most of the time."""
    requested = json.dumps([[name, "--help"] for name in BENCHMARKS])
    done = start(python, "tests.flows.one_process", input=requested)
    assert done.returncode == 0, done.stderr
    for name, (code, printed) in zip(NAMES, map(json.loads, done.stdout.splitlines()), strict=True):
        assert code == 0, name
        assert "--check" in printed, name


@pytest.mark.slow
def test_heavy_tail(run):
    printed = run("heavy_tail", "--requests", "64", "--in_flight", "16", "--least_s", "0.01", "--longest_s", "0.1")
    rollouts, longest, shared, took, over = map(float, cells(printed, "rollmill engine")[1:])
    assert rollouts == 64
    assert 0.01 <= longest <= 0.1
    assert over == pytest.approx(took / max(longest, shared), rel=0.1)
    assert cells(printed, "a barrier after every batch")[1] == "16"
    assert "engine over the bound" in printed


@pytest.mark.slow
@pytest.mark.skipif(sandbox_missing() is not None, reason="there is no bubblewrap here")
def test_verdicts(run):
    printed = run("verdicts", "--verdicts", "40", "--rounds", "1", "--workers", "1")
    sandboxed, plain, ratio = (float(cell.replace(",", "")) for cell in cells(printed, "math")[1:])
    assert ratio == pytest.approx(sandboxed / plain, abs=0.02)
    assert float(cells(printed, "reasoning_gym n_queens, in forks")[1]) > 0
    assert "reasoning_gym leg_counting, of plain" in printed


def test_verifier_agreement(run):
    printed = run("verifier_agreement", "--every", "8", "--only", "exact", "last number", "--workers", "1", "--show")
    rows, agreement = cells(printed, "all, last number")[1:3]
    shown = printed.count("\nlast number, ")
    assert float(agreement) == pytest.approx(1 - shown / int(rows), abs=0.001)
    assert cells(printed, "gsm8k, given, exact")[1] == "10"
    assert cells(printed, "verifier  right by hand")


def test_memory(run):
    little = ("--few", "32", "--many", "320", "--in_flight", "16")
    printed = run("memory", *little, python=sys.executable)  # a fork's memory would include the modules imported before
    assert float(cells(printed, "32 ")[1]) > 10
    assert float(cells(printed, "320 ")[2].replace(",", "")) > 0
    assert "growth of peak memory" in printed


def test_decoding_steps(run):
    printed = run("decoding_steps", "--layers", "2", "--vocabulary", "400", "--batch", "3", "--check")
    [two] = [cells(printed, "kl_symmetry ")]
    assert int(two[1]) > 50
    assert int(two[2]) > 100
    assert two[3] == "1"


@pytest.mark.slow
def test_scaling(run):
    sizes = ("--workers", "1", "2", "--rollouts", "64", "--slots", "16", "--latency_s", "0.01", "--settle_s", "1")
    printed = run("scaling", *sizes)
    [first, second] = [cells(printed, f"{count}  ") for count in (1, 2)]
    assert (first[1], first[4], second[1]) == ("64", "1.000", "128")
    assert float(second[4]) == pytest.approx(float(second[3]) / 2 / float(first[3]), abs=0.02)
    assert "efficiency of 2 workers" in printed
    assert "what a run costs its orchestrators" in printed


@pytest.mark.slow
def test_affinity(run):
    printed = run(
        "affinity", "--servers", "2", "--slots", "16", "--requests", "256", "--latency_s", "0.01", "--repeat", "1"
    )
    without, affinity = (list(map(float, cells(printed, name)[1:])) for name in ("least load", "affinity  "))
    assert without[1] == 1.0
    assert affinity[2] > without[2]
    assert affinity[1] == pytest.approx(affinity[0] / without[0], abs=0.01)
    assert "requests on their problem's main server" in printed


@pytest.mark.slow
def test_concurrency(run):
    printed = run("concurrency", "--limit", "16", "--latency_s", "0.02", "--requests", "512", "--fixed", "8", "16")
    rate, of_best, slots = cells(printed, "auto ")[1:]
    assert float(rate) > 0
    assert float(of_best) > 0.2
    assert int(slots) >= 4
    assert "auto of the best fixed number, hard" in printed


@pytest.mark.slow
def test_rollout_overhead(run):
    printed = run(
        "rollout_overhead", "--requests", "64", "--in_flight", "16", "--repeat", "1", "--minutes", "0.02", "--no_others"
    )
    bare = cells(printed, "bare aiohttp")
    assert bare[2] == bare[5] == "1.000"
    assert 0 < float(cells(printed, "rollmill engine")[1]) <= 32
    assert float(cells(printed, "flow")[5]) > 0
    assert "flow of engine at 0.5 s" in printed


@pytest.mark.slow
def test_resume(run):
    printed = run("resume", "--requests", "256", "--in_flight", "32", "--rows", "1000", "--latency_s", "0.2")
    requested, journaled, in_flight, twice, twice_though_journaled, missing = map(int, cells(printed, "256 "))
    assert requested == 256
    assert journaled >= 128
    assert twice <= in_flight <= 32
    assert twice_though_journaled == missing == 0
    assert cells(printed, "1,000 ")[1] == "2"


@pytest.mark.slow
def test_task_runs(run):
    printed = run("task_runs", "--requests", "1024")
    assert 2 <= int(cells(printed, "all ")[1]) <= 8
    assert "rollouts per task run" in printed


@pytest.mark.slow
def test_a_missed_target_counts_only_when_asked(python):
    command = ["benchmarks.heavy_tail", "--requests", "16", "--in_flight", "16"]
    command += ["--least_s", "0.001", "--longest_s", "0.001"]  # the bound is far below what starting the engine takes
    assert start(python, *command).returncode == 0
    missed = start(python, *command, "--check")
    assert missed.returncode == 1
    assert "MISSED" in missed.stdout


@pytest.mark.slow
def test_curation(run):
    printed = run("curation", "--rows", "40", "--repeat", "1")
    assert "40 trajectories" in printed
    assert float(cells(printed, "orjson loop")[2]) == 1
    for name in ("datasets", "polars scan to sink", "rollmill export_sft", "rollmill analyze, from a run"):
        assert float(cells(printed, name)[3].replace(",", "")) > 10
    assert "filter_data, places of the dropped, from a run, over the orjson loop" in printed


@pytest.mark.slow
def test_agent_rollouts(run):
    printed = run(
        "agent_rollouts",
        "--commands",
        "3",
        "--attempts",
        "6",
        "--fewer",
        "6",
        "--workers",
        "2",
        "--latency_s",
        "0.05",
        "--kill",
        "sandbox",
        "--check",
    )
    assert float(cells(printed, "bubblewrap")[1]) > 0
    assert float(cells(printed, "service over bubblewrap")[1]) > 0
    assert cells(printed, "2 ")[1] == "6"
    killed = cells(printed, "the sandbox service")
    assert killed[2] == killed[4] == "0"


@pytest.mark.slow
def test_episodes(run):
    printed = run("episodes", "--in_flight", "4", "--rounds", "2", "--latency_s", "0.2", "--sandboxed", "2")
    for name, in_flight, calls in (("stateful_env", 4, 48), ("search_env", 4, 72), ("math_env", 2, 24)):
        row = cells(printed, name)
        assert [int(row[1]), int(row[2])] == [in_flight, 2 * in_flight]
        assert int(row[3]) == calls
        assert 0 < float(row[5]) <= 1
    assert int(cells(printed, "code_env")[2]) == 4


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """Make a tiny model whose vocabulary has all ids of the benchmark's prompts."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    return make_model(tmp_path_factory.mktemp("model") / "model", ids=40_064, **sizes)


@pytest.mark.slow
def test_optimal_sampling(run, small_model):
    printed = run("optimal_sampling", "--model", small_model, "--batches", "1", "2", "--tokens", "4", "--repeat", "1")
    assert all(float(cell) > 0 for cell in cells(printed, "q*, kl_symmetry  ")[1:])
    assert "batch 2, kl_symmetry over fixed, time of a step: " in printed


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.skipif(not SERVER_ENVIRONMENT.exists(), reason="no vLLM: `make setup` installs it")
def test_optimal_sampling_vllm(run, small_model):
    """Both pairs' engines are forks of one process that has imported vLLM."""
    flags = ("--model", small_model, "--batches", "2", "--tokens", "4", "--repeat", "1")
    with prepared_vllm("benchmarks.contenders.pair_engine") as vllm:
        printed = run(
            "optimal_sampling_vllm", *flags, env=os.environ | ONE_THREAD | {"ROLLMILL_VLLM_PYTHON": str(vllm)}
        )
    for pair in ("base and adapter", "two prompts"):
        assert float(cells(printed, f"{pair}: vLLM alone")[2]) == 1
        assert float(cells(printed, f"{pair}: q*, kl_symmetry")[2]) > 0


@pytest.mark.slow
def test_sampling_worth(run, tmp_path):
    make_base(tmp_path / "base")
    printed = run(
        "sampling_worth", "--model", str(tmp_path / "base"), "--samples", "4", "--judged", "2", "--tokens", "4"
    )
    assert float(cells(printed, "q* (kl_symmetry)")[1]) > 0


def test_token_drift(run, tmp_path):
    make_byte_tokenizer().save_pretrained(tmp_path / "base")
    source = TokenSource(tokenizer_hash(str(tmp_path / "base")), "processed_logprobs")
    with opened(tmp_path / "run", rows=2, num_rollout=2) as journaled, ScriptedServer(Script()) as server:
        for rollout in make(journaled, server.base_url, token_source=source):
            journaled.journal.append(rollout)
    printed = run("token_drift", "--model", str(tmp_path / "base"), "--run", str(tmp_path / "run"))
    assert cells(printed, "their text")[1:] == ["4", "4", "100%"]  # the scripted model ends in another way
    assert cells(printed, "recorded ids")[1:] == ["4", "0", "0%"]


GROUPS = ("machine", "draw", "passes", "generate", "decode", "waits", "memory", "ended")


def measured(output):
    """Return the lines of measurements by name."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {name: [line for line in lines if line["measurement"] == name] for name in {x["measurement"] for x in lines}}


@pytest.mark.slow
def test_gpu_is_rehearsed_on_the_cpu_in_calls_that_continue_each_other(run, tmp_path):
    flags = ("--tiny", "--out", str(tmp_path / "gpu.jsonl"), "--only", *GROUPS)
    assert measured(run("gpu", *flags, "--budget_s", "0")) == {}
    printed = run("gpu", *flags)
    lines = measured(printed)
    assert [line["settings"]["rows"] for line in lines["generate, one model"]] == [1, 2]
    assert all(line["tokens_per_s"] > 0 for line in [*lines["q*"], *lines["generate, one model"]])
    assert len(lines["draw"]) == 10
    assert all(line["waits"] >= 1 and line["ms"] > 0 for line in lines["draw"])
    assert all(line["waits"] >= 1 and line["operations"] > 100 for line in lines["one step of q*"])
    assert all(line["process_s"] < 30 for line in lines["memory after the owner is killed"])
    [skipped] = lines["batch that runs out of memory"]
    assert skipped["not_measured"] == "no GPU: the CPU's memory is not limited for torch"
    assert "| tiny | two models | 2 |" in printed
    again = measured(run("gpu", *flags))
    assert again.keys() == {"batch that runs out of memory", "draws of the GPU against those of the CPU"}


@pytest.mark.slow
def test_gpu_training_beside_a_bare_loop(run, tmp_path):
    lines = measured(run("gpu", "--tiny", "--out", str(tmp_path / "gpu.jsonl"), "--only", "training"))
    ours, bare = sorted(lines["LoRA training"], key=lambda line: line["settings"]["by"], reverse=True)
    assert ours["tokens"] == pytest.approx(bare["tokens"], rel=0.1)
    assert min(ours["tokens_per_s"], bare["tokens_per_s"]) > 0


def test_gpu_without_vllm_reports_the_reason(run, tmp_path):
    flags = ("--tiny", "--out", str(tmp_path / "gpu.jsonl"), "--only", "serving", "pairs")
    printed = run("gpu", *flags, env=os.environ | {"ROLLMILL_VLLM_PYTHON": sys.executable})
    lines = [line for lines in measured(printed).values() for line in lines]
    assert len(lines) == 5
    assert all("has no vLLM" in line["not_measured"] for line in lines)


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.skipif(not SERVER_ENVIRONMENT.exists(), reason="no vLLM: `make setup` installs it")
def test_gpu_serving_and_swapping(run, tmp_path):
    """The pair engine's measurement is that of `optimal_sampling_vllm`."""
    flags = ("--tiny", "--out", str(tmp_path / "gpu.jsonl"), "--only", "serving")
    with prepared_vllm("vllm.entrypoints.openai.api_server") as vllm:
        printed = run("gpu", *flags, env=os.environ | ONE_THREAD | {"ROLLMILL_VLLM_PYTHON": str(vllm)})
    lines = measured(printed)
    [client] = lines["engine over a bare aiohttp loop"]
    assert client["engine_of_bare"] == pytest.approx(client["engine_per_s"] / client["bare_per_s"], abs=0.01)
    [swapped] = lines["weights swapped in a running server"]
    assert 0 < swapped["swap_s"] <= swapped["first_swap_s"]
