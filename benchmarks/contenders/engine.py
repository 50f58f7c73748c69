"""rollmill's engine with everything that a run has: retries, verifier, journal on disk, resume; no Prefect.

`--via session` hands the problems in as the flow does, in shards from several threads; `--via barrier` hands in as
many rollouts as there are slots and waits for the last of them before the next.
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
from rollmill.generation.engine import Engine
from rollmill.generation.progress import Progress, progress_of
from rollmill.generation.run import Run
from rollmill.generation.session import RolloutSession
from rollmill.inference.client import ChatClient, ClientConfig
from rollmill.inference.endpoints import Endpoint, EndpointPool
from rollmill.jobs.rejection_sampling.checkpoint import checkpoints, hold, open_checkpoint_run, prompting, verifier_pool
from rollmill.jobs.rejection_sampling.outcome import write_outcome
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.records import Problem

SHARD_PROBLEMS = 256 // ROLLOUTS


def parameters_of(work: Work) -> RejectSampling:
    """The flow's own parameters for this work."""
    return RejectSampling(
        model_path=[MODEL],
        model_name=[MODEL],
        dataset=str(work.write_problems()),
        num_rollout=ROLLOUTS,
        concurrency=max(1, work.in_flight // ROLLOUTS),
        temperature=TEMPERATURE,
        top_p=TOP_P,
        max_tokens=MAX_TOKENS,
        base_url=[work.base_url],
        output_dir=str(work.folder / "results"),
    )


def rollouts_of(parameters: RejectSampling) -> ChatRollouts:
    """What the engine calls."""
    return ChatRollouts(
        ChatClient(EndpointPool([Endpoint(url) for url in parameters.base_urls]), ClientConfig()),
        verifier_pool(parameters),
        model=MODEL,
        sampling=parameters.sampling,
        prompting=prompting(parameters),
    )


@asynccontextmanager
async def opened(
    run: Run, parameters: RejectSampling, progress: Progress
) -> AsyncIterator[tuple[Engine[ChatWork], ChatRollouts]]:
    """The engine, ready for work."""
    rollouts = rollouts_of(parameters)
    engine: Engine[ChatWork] = Engine(rollouts, run.journal, slots=parameters.slots, observe=progress.observe)
    async with rollouts.opened(), engine:
        yield engine, rollouts


async def through_engine(run: Run, parameters: RejectSampling, progress: Progress) -> None:
    """All problems in one batch."""
    problems = list(run.problems())
    async with opened(run, parameters, progress) as (engine, rollouts):
        await engine.add(rollouts.work(run, problems), run.expected)


async def through_barriers(run: Run, parameters: RejectSampling, progress: Progress) -> None:
    """As many rollouts as there are slots, and the next only when the last of them is there."""
    problems = list(run.problems())
    async with opened(run, parameters, progress) as (engine, rollouts):
        work: Iterator[ChatWork] = rollouts.work(run, problems)
        while batch := list(itertools.islice(work, parameters.slots)):
            await engine.add(iter(batch), len(batch))


def through_session(run: Run, parameters: RejectSampling, progress: Progress) -> None:
    """Shards of problems from several threads, each handed in when the slots will soon need it."""
    session = RolloutSession(run, rollouts_of(parameters), slots=parameters.slots, progress=progress)
    problems: Iterator[Problem] = run.problems()
    with session, ThreadPoolExecutor(32) as threads:
        shards = []
        while shard := list(itertools.islice(problems, SHARD_PROBLEMS)):
            session.wait_for_room()
            shards.append(threads.submit(session.generate, shard))
        for done in shards:
            done.result()


def generate(run: Run, parameters: RejectSampling, via: str) -> float:
    """Seconds for all rollouts, until the last is on disk."""
    progress = progress_of(run)
    started = time.perf_counter()
    if via == "session":
        through_session(run, parameters, progress)
    else:
        asyncio.run((through_engine if via == "engine" else through_barriers)(run, parameters, progress))
    run.journal.sync()
    return time.perf_counter() - started


def main() -> None:
    options = parser()
    options.add_argument("--via", choices=["engine", "session", "barrier"], default="engine")
    options.add_argument("--results", action="store_true", help="also write the run's results")
    given = options.parse_args()
    work = work_of(given)
    parameters = parameters_of(work)
    [checkpoint] = checkpoints(parameters)
    with hold(checkpoint), open_checkpoint_run(parameters, checkpoint) as run:
        seconds = generate(run, parameters, given.via)
        tally = run.journal.tally
        if tally.ok != work.requests:
            raise RuntimeError(f"{tally.counts()} where {work.requests} rollouts should be ok")
        if given.results:
            write_outcome(run, parameters, checkpoint)
    report(requests=work.requests, seconds=seconds, peak_mb=peak_mb())


if __name__ == "__main__":
    main()
