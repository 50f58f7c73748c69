"""One run through a session in this process, against scripted servers in others."""

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
    """What a run came to."""

    rate: float
    """Completions per second."""
    slots: int | None
    """Rollouts at a time that were found to be best."""


def run_session(base_url: str, *, requests: int, slots: Concurrency, pool: EndpointPool | None = None) -> SessionRun:
    """Make `requests` rollouts.

    Args:
        base_url: The server's address; not used where there is a pool.
        requests: How many, in whole problems.
        slots: Rollouts at a time.
        pool: Where requests go, where there are several servers.
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
