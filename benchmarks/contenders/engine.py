"""rollmill's engine with all of a run: retries, verifier, journal on disk, resume; without Prefect.

`--via session` submits the problems as the flow does, in shards from several threads; `--via barrier` submits as many
rollouts as there are slots and waits for the last of them before the next batch.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from benchmarks.contenders.work import MAX_TOKENS, MODEL, ROLLOUTS, TEMPERATURE, TOP_P, Work, parser, report, work_of
from benchmarks.machine import peak_mb
from rollmill.generation.chat import ChatRollouts, ChatWork
from rollmill.generation.concurrency import Concurrency
from rollmill.generation.engine import Engine
from rollmill.generation.job import opened_run
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.session import RolloutSession
from rollmill.inference.client import ChatClient, ClientConfig
from rollmill.inference.endpoints import Endpoint, EndpointPool
from rollmill.inference.sampled_tokens import UNKNOWN_SOURCE
from rollmill.jobs.rejection_sampling.job import RejectionSamplingJob, jobs
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.records import Problem

SHARD_PROBLEMS = 256 // ROLLOUTS


def parameters_of(work: Work) -> RejectSampling:
    """Return the flow's parameters for this work."""
    return RejectSampling(
        model_path=[MODEL],
        model_name=[MODEL],
        dataset=str(work.write_problems()),
        num_rollout=ROLLOUTS,
        concurrent_problems=max(1, work.in_flight // ROLLOUTS),
        temperature=TEMPERATURE,
        top_p=TOP_P,
        max_tokens=MAX_TOKENS,
        base_url=[work.base_url],
        record_tokens=work.tokens,
        output_dir=str(work.folder / "results"),
    )


def rollouts_of(job: RejectionSamplingJob, pool: EndpointPool | None = None) -> ChatRollouts:
    """Return the generator that the engine calls."""
    return ChatRollouts(
        ChatClient(
            pool or EndpointPool([Endpoint(url) for url in job.parameters.base_urls]),
            ClientConfig(token_source=UNKNOWN_SOURCE if job.parameters.record_tokens else None),
        ),
        job.verifiers(),
        model=MODEL,
        sampling=job.sampling,
        prompting=job.prompting,
    )


@asynccontextmanager
async def open_engine(
    run: Run, job: RejectionSamplingJob, progress: Progress
) -> AsyncIterator[tuple[Engine[ChatWork], ChatRollouts]]:
    """Yield the engine, ready for work."""
    rollouts = rollouts_of(job)
    engine: Engine[ChatWork] = Engine(rollouts, run.journal, slots=job.slots, observe=progress.observe)
    async with rollouts.opened(), engine:
        yield engine, rollouts


async def through_engine(run: Run, job: RejectionSamplingJob, progress: Progress) -> None:
    """Generate all problems in one batch."""
    problems = list(run.problems())
    async with open_engine(run, job, progress) as (engine, rollouts):
        await engine.add(rollouts.work(run, problems), run.expected)


async def through_barriers(run: Run, job: RejectionSamplingJob, progress: Progress) -> None:
    """Generate in batches of as many rollouts as there are slots, each after the end of the previous one."""
    problems = list(run.problems())
    async with open_engine(run, job, progress) as (engine, rollouts):
        work: Iterator[ChatWork] = rollouts.work(run, problems)
        while batch := list(itertools.islice(work, job.slots)):
            await engine.add(iter(batch), len(batch))


def through_session(
    run: Run,
    job: RejectionSamplingJob,
    progress: Progress,
    *,
    pool: EndpointPool | None = None,
    slots: Concurrency | None = None,
) -> None:
    """Generate shards of problems from several threads, each submitted when the slots will soon need it.

    Args:
        run: The run.
        job: Its job.
        progress: Counts the rollouts.
        pool: Servers; None for the job's.
        slots: Concurrent rollouts; None for the job's.
    """
    session = RolloutSession(run, rollouts_of(job, pool), slots=slots or job.slots, progress=progress)
    problems: Iterator[Problem] = run.problems()
    with session, ThreadPoolExecutor(32) as threads:
        shards = []
        while shard := list(itertools.islice(problems, SHARD_PROBLEMS)):
            session.wait_for_room()
            shards.append(threads.submit(session.generate, shard))
        for done in shards:
            done.result()


def generate(run: Run, job: RejectionSamplingJob, progress: Progress, via: str) -> float:
    """Return the seconds until all rollouts are on disk.

    Args:
        run: The run.
        job: Its job.
        progress: Counts the rollouts.
        via: `engine`, `session` or `barrier`.
    """
    started = time.perf_counter()
    if via == "session":
        through_session(run, job, progress)
    else:
        asyncio.run((through_engine if via == "engine" else through_barriers)(run, job, progress))
    run.journal.sync()
    return time.perf_counter() - started


def main() -> None:
    options = parser()
    options.add_argument("--via", choices=["engine", "session", "barrier"], default="engine")
    options.add_argument("--results", action="store_true", help="also write the run's results")
    arguments = options.parse_args()
    work = work_of(arguments)
    [job] = jobs(parameters_of(work))
    with opened_run(job) as run:
        progress = job.progress(run)
        seconds = generate(run, job, progress, arguments.via)
        tally = run.journal.tally
        # A real model's answers need not be numbers.
        if tally.done != work.requests or tally.failed:
            raise RuntimeError(f"{tally.counts()} where {work.requests} rollouts should have an answer")
        if arguments.results:
            job.report(run, progress)
    report(requests=work.requests, seconds=seconds, peak_mb=peak_mb())


if __name__ == "__main__":
    main()
