"""Combine several verifiers by a weighted mean of their rewards."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rollmill.records import Problem, Verdict
from rollmill.verifiers.pool import VerifierPool
from rollmill.verifiers.protocol import CompletionJudge
from rollmill.verifiers.registry import arguments_per_verifier, read_verifiers

if TYPE_CHECKING:  # it brings an HTTP client
    from rollmill.verifiers.judge import JudgeConfig


def open_verifiers(verifiers: str, *, judge: JudgeConfig | None = None, **arguments: Any) -> CompletionJudge:
    """Return an unopened judge of completions by one verifier, or by several with weights.

    The other arguments, and the `InputError`s, are those of `make_verifiers`.
    """
    weighted = read_verifiers(verifiers)
    per_verifier = arguments_per_verifier(weighted, arguments)
    pools = [VerifierPool(spec, **accepted, judge=judge) for spec, accepted in per_verifier]
    return pools[0] if len(pools) == 1 else WeightedVerifiers(pools, [each.weight for each in weighted])


class WeightedVerifiers:
    """Judges by each of several verifiers; an asynchronous context manager.

    The reward is the weighted mean of their rewards; success is the success of all. If one of them fails, there is no
    verdict.

    Args:
        pools: One pool per verifier.
        weights: Weight of each pool, above 0; only ratios matter.
    """

    def __init__(self, pools: Sequence[VerifierPool], weights: Sequence[float]) -> None:
        self._pools = pools
        self._weights = weights
        self._stack = AsyncExitStack()
        self._names = [str(pool.identity["verifier"]) for pool in pools]
        pairs = zip(self._names, weights, strict=True)
        self.identity: dict[str, Any] = {
            **{name: value for pool in pools for name, value in pool.identity.items()},
            "verifier": " ".join(f"{name}={weight:g}" for name, weight in pairs),
        }

    async def __aenter__(self) -> Self:
        for pool in self._pools:
            await self._stack.enter_async_context(pool)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def verify(self, problem: Problem, completion: str, *, seed: int = 0) -> Verdict:
        """Return the combined verdict. Raises `VerifierFailed`, after all have ended, if one has no verdict."""
        judged = await asyncio.gather(
            *(pool.verify(problem, completion, seed=seed) for pool in self._pools), return_exceptions=True
        )
        # All have ended by now, so that no verification continues in the background after an error.
        verdicts = []
        for each in judged:
            if isinstance(each, BaseException):
                raise each
            verdicts.append(each)
        return self._combine(verdicts)

    def _combine(self, verdicts: Sequence[Verdict]) -> Verdict:
        total = sum(self._weights)
        parsed = [verdict for verdict in verdicts if verdict.status == "ok"]
        weighted = list(zip(verdicts, self._weights, strict=True))
        return Verdict(
            verifier=str(self.identity["verifier"]),
            status="ok" if parsed else "unparseable",
            answer=next((verdict.answer for verdict in parsed if verdict.answer is not None), None),
            reason="; ".join(dict.fromkeys(each.reason for each in verdicts if each.reason)) or None,
            reward=sum(verdict.reward * weight for verdict, weight in weighted) / total,
            success=all(verdict.success for verdict in verdicts),
            metadata={"verdicts": [{**verdict.model_dump(), "weight": weight} for verdict, weight in weighted]},
        )
