"""Measures the agreement of a judge and a second verifier, on a sample of a run's rollouts."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from rollmill.generation.run import Run
from rollmill.records import Problem, Rollout
from rollmill.verifiers import CompletionJudge, VerifierFailed

MOST = 200
"""Size of the sample, which has the same rollouts in every call."""


class JudgeAgreement(BaseModel):
    """Counts of the rollouts that both have judged."""

    model_config = ConfigDict(frozen=True)

    verifier: str
    both_accept: int
    both_refuse: int
    judge_alone: int
    """Accepted by the judge alone."""
    verifier_alone: int
    failed: int
    """Rollouts of the sample on which the second verifier failed."""

    @property
    def judged(self) -> int:
        """Number of rollouts that both have judged."""
        return self.both_accept + self.both_refuse + self.judge_alone + self.verifier_alone

    def line(self) -> str:
        """Return the counts as a sentence."""
        without = f"; on {self.failed} more it has no verdict" if self.failed else ""
        return (
            f"the judge and {self.verifier} agree on {self.both_accept + self.both_refuse} of {self.judged} rollouts "
            f"of a sample: {self.judge_alone} are accepted by the judge alone, {self.verifier_alone} by "
            f"{self.verifier} alone{without}"
        )


def measure_agreement(run: Run, verifiers: CompletionJudge, name: str) -> JudgeAgreement:
    """Judge a sample of the judged rollouts by a second verifier.

    Args:
        run: The run, whose verdicts are the judge's.
        verifiers: The second verifier.
        name: Name of the second verifier.
    """
    sample = heapq.nsmallest(MOST, _judged(run), key=_sampling_key)
    return asyncio.run(_measure(sample, verifiers, name))


def _judged(run: Run) -> Iterator[tuple[Problem, Rollout]]:
    for problem, rollouts in run.groups():
        yield from (
            (problem, rollout) for rollout in rollouts if rollout and rollout.verdict and rollout.completion is not None
        )


def _sampling_key(pair: tuple[Problem, Rollout]) -> bytes:
    """Return a hash of a rollout's identity: the smallest ones are a sample that is the same in every call."""
    return hashlib.sha256(f"{pair[1].instance_id} {pair[1].sample_id}".encode(errors="replace")).digest()


async def _measure(sample: list[tuple[Problem, Rollout]], verifiers: CompletionJudge, name: str) -> JudgeAgreement:
    counts: Counter[tuple[bool, bool] | None] = Counter()
    async with verifiers:
        for problem, rollout in sample:
            try:
                verdict = await verifiers.verify(problem, rollout.completion or "", seed=rollout.seed)
            except VerifierFailed:
                counts[None] += 1
                continue
            counts[bool(rollout.success), verdict.success] += 1
    return JudgeAgreement(
        verifier=name,
        both_accept=counts[True, True],
        both_refuse=counts[False, False],
        judge_alone=counts[True, False],
        verifier_alone=counts[False, True],
        failed=counts[None],
    )
