"""Drawing q* samples: shards on workers that keep the models, and the end of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from blocks.cluster import dask_cluster, given_up
from rollmill.generation.run import Run
from rollmill.inference.devices import use_line
from rollmill.jobs.optimal_sampling.device_env import environments
from rollmill.jobs.optimal_sampling.outcome import SamplingOutcome, write_samples
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.optimal_sampling.progress import SamplingProgress
from rollmill.jobs.optimal_sampling.run import journal_samples
from rollmill.jobs.optimal_sampling.sampler import SamplerSettings, ShardSamples, sample_shard
from rollmill.jobs.optimal_sampling.shards import RowRange, shards
from tasks.artifacts import show_outcome
from tasks.errors import report_failure
from tasks.workers import Workers, workers_here, workers_of

if TYPE_CHECKING:
    from prefect_dask.task_runners import PrefectDaskFuture

AHEAD = 2
"""Shards handed in for each worker: one that is drawn, and one that waits."""


@contextmanager
def sampling_workers(parameters: OptimalSampling) -> Iterator[Workers]:
    """The cluster's workers, or processes here. Raises as `dask_cluster` and `workers_of` do."""
    cluster = dask_cluster(parameters.cluster_block)
    with workers_of(cluster) if cluster else workers_here(environments(parameters)) as workers:
        yield workers


@task(name="samples", task_run_name="samples {first}..{last}", cache_policy=NO_CACHE)
@report_failure
def draw_shard(settings: SamplerSettings, shard: RowRange, run: Path, first: int, last: int) -> ShardSamples:
    """Draws what is wanted of a shard, on a worker; `run` is the folder of its logs."""
    return sample_shard(settings, shard, run, is_given_up=given_up())


def draw_all(run: Run, parameters: OptimalSampling, workers: Workers, progress: SamplingProgress) -> None:
    """Hands in shards, a little ahead of the workers, and journals what they give: this process alone writes."""
    settings = SamplerSettings.of(parameters)
    waiting = shards(run, parameters)
    pending: list[PrefectDaskFuture[ShardSamples]] = []
    seen: dict[int, int] = {}
    while True:
        while len(pending) < AHEAD * workers.count and (shard := next(waiting, None)):
            own = {"settings": settings, "shard": shard, "run": run.directory.absolute()}
            given = own | {"first": shard.first, "last": shard.last}
            pending.append(workers.submit(draw_shard, given))
        if not pending:
            return
        done = workers.first_done(pending)
        pending.remove(done)
        samples = workers.result(done)
        journal_samples(run, samples, progress)
        _say(samples, seen, parameters.batch_size)


def _say(samples: ShardSamples, seen: dict[int, int], batch_size: int) -> None:
    """What a worker has to tell, once."""
    if samples.load_s is not None:
        where = f" on {use_line(samples.used)}" if samples.used else ""
        get_run_logger().info("process %d has loaded the models in %.1f s%s", samples.process, samples.load_s, where)
    if samples.batch_size < seen.get(samples.process, batch_size):
        get_run_logger().warning(
            "memory ran out in process %d: it goes on with %d samples at once; --batch_size %d draws the same so",
            samples.process, samples.batch_size, samples.batch_size,
        )  # fmt: skip
    seen[samples.process] = samples.batch_size


@task(name="write samples", cache_policy=NO_CACHE)
@report_failure
def write_all_samples(run: Run, parameters: OptimalSampling, progress: SamplingProgress) -> SamplingOutcome:
    """Writes the samples and their diagnostics from the journal, and shows what they say."""
    outcome = write_samples(run, parameters, progress)
    show_outcome("optimal-sampling", "q* samples", outcome.output.stem, outcome.table, outcome.files, outcome.notes)
    return outcome
