"""Scoring the completions of a run again, with another verifier or another version of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from rollmill.files.atomic import atomic_write
from rollmill.files.rows import dump_line
from rollmill.generation.identity import Identity
from rollmill.generation.ownership import Ownership
from rollmill.generation.run import Run
from rollmill.records import Failure, Problem, Rollout
from rollmill.verifiers import VerifierFailed, VerifierPool

_AT_ONCE = 64


def reverify(run: Run, verifiers: VerifierPool) -> int:
    """Writes the run's rollouts, scored again, as its next journal, and makes that the one that counts.

    The journal before stays where it is. Rollouts without a completion stay failed. Returns how many were scored.
    """
    name = run.next_journal()
    identity = Identity(generation=run.manifest.identity.generation, verification=verifiers.identity)
    count = asyncio.run(_write(run, verifiers, name, Ownership(identity, has_manifest=True)))
    run.switch_journal(name, identity)
    return count


async def _write(run: Run, verifiers: VerifierPool, name: str, owner: Ownership) -> int:
    count = 0
    async with verifiers:
        with atomic_write(run.directory / name) as file:
            async for rollout in _scored(run, verifiers):
                file.write(owner.stamp(dump_line(rollout.model_dump(mode="json"))))
                count += rollout.completion is not None
    return count


async def _scored(run: Run, verifiers: VerifierPool) -> AsyncIterator[Rollout]:
    waiting: list[asyncio.Task[Rollout]] = []
    for problem in run.problems():
        rollouts = run.journal.group(problem.instance_id, run.journal.size(problem.instance_id))
        waiting += [asyncio.create_task(_score(rollout, problem, verifiers)) for rollout in rollouts if rollout]
        while len(waiting) >= _AT_ONCE:
            yield await waiting.pop(0)
    for task in waiting:
        yield await task


async def _score(rollout: Rollout, problem: Problem, verifiers: VerifierPool) -> Rollout:
    if rollout.completion is None:
        return rollout
    try:
        verdict = await verifiers.verify(problem, rollout.completion)
    except VerifierFailed as failure:
        error = Failure(type=failure.type, message=failure.message)
        return rollout.model_copy(update={"verdict": None, "error": error, "reward": None, "success": None})
    return rollout.model_copy(
        update={"verdict": verdict, "error": None, "reward": verdict.reward, "success": verdict.success}
    )
