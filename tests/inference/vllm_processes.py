"""Real vLLM servers for tests, with little memory, and a Python that has imported vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rollmill.inference.server import SERVER_ENVIRONMENT
from tests.prepared_python import prepared_python

ROOT = Path(__file__).parents[2]
ONE_THREAD = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
"""Threads on all cores, as vLLM has them by itself, wait for one another by spinning: beside other tests, and with tiny
models, that takes two thirds of the time."""
IMPORTED = "rollmill.jobs.optimal_sampling.pair_engine.worker vllm.v1.engine.core vllm.v1.worker.cpu_worker"
RUNS = ("benchmarks.contenders.", "rollmill.jobs.optimal_sampling.", "tests.jobs.optimal_sampling.", "vllm.")


@contextmanager
def prepared_vllm(*more: str) -> Iterator[Path]:
    """The python of vLLM's environment, with vLLM imported, and the modules `more`."""
    environment = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"} | ONE_THREAD
    imported = " ".join([IMPORTED, *more])
    with prepared_python(
        imported=imported, runs=RUNS, environment=environment, interpreter=SERVER_ENVIRONMENT
    ) as python:
        yield python
