"""Runs rollouts through a session in this process, against scripted servers in others."""

from __future__ import annotations

import time
from typing import NamedTuple

from benchmarks.contender_process import scratch_folder
from benchmarks.contenders.engine import parameters_of, through_session
from benchmarks.contenders.work import Work
from rollmill.generation.concurrency import Concurrency
from rollmill.generation.job import opened_run
from rollmill.inference.endpoints import EndpointPool
from rollmill.jobs.rejection_sampling.job import jobs


class SessionRun(NamedTuple):
    """The rate of a run."""

    rate: float
    """Completions per second."""
    slots: int | None
    """Number of slots that `auto` chose; None for a fixed number."""


def run_session(base_url: str, *, requests: int, slots: Concurrency, pool: EndpointPool | None = None) -> SessionRun:
    """Generate `requests` rollouts, and measure the rate.

    Args:
        base_url: The server's address; not used with a pool.
        requests: Number of rollouts, in whole problems.
        slots: Concurrent rollouts.
        pool: Several servers; None for the one.
    """
    with scratch_folder() as folder:
        [job] = jobs(parameters_of(Work(base_url, requests, in_flight=1, folder=folder)))
        with opened_run(job) as run:
            progress = job.progress(run)
            started = time.perf_counter()
            through_session(run, job, progress, pool=pool, slots=slots)
            seconds = time.perf_counter() - started
            if run.missing():
                raise RuntimeError(f"{run.missing()} rollouts are missing")
        return SessionRun(requests / seconds, progress.slots)
