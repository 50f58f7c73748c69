"""Score the completions of a run again, with another verifier or another version of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from rollmill.files.atomic import atomic_write
from rollmill.files.rows import dump_line
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.identity import Identity
from rollmill.generation.ownership import Ownership
from rollmill.generation.run import Run
from rollmill.generation.tally import RolloutOutcome
from rollmill.generation.verification import REFUSED, no_text_reason, verify_completion
from rollmill.problems import ProblemFault
from rollmill.records import Failure, Problem, Rollout
from rollmill.verifiers import CompletionJudge, VerifierFailed

_AT_ONCE = 64


def reverify(run: Run, verifiers: CompletionJudge, *, fault: ProblemFault | None = None) -> int:
    """Score the run's rollouts again into a new journal, and make that the run's journal; return how many were scored.

    The old journal is kept. Rollouts without a completion stay failed; those of problems that `fault` finds unsuited to
    the verifier get an error in place of a verdict.
    """
    name = run.next_journal()
    identity = Identity(generation=run.manifest.identity.generation, verification=verifiers.identity)
    count = asyncio.run(_write(run, verifiers, fault, name, Ownership(identity, has_manifest=True)))
    run.switch_journal(name, identity)
    return count


def verify_failed(run: Run, verifiers: CompletionJudge) -> int:
    """Verify again the completions that the verifier failed on; append those that have a verdict now to the journal.

    Returns how many there are. Rollouts of problems that the verifier cannot judge keep their error.
    """
    return asyncio.run(_verify_failed(run, verifiers))


async def _verify_failed(run: Run, verifiers: CompletionJudge) -> int:
    count = 0
    async with verifiers:
        for problem, rollouts in run.groups():
            failed = [each for each in rollouts if each and _has_only_failed_verification(each)]
            for judged in await asyncio.gather(*(_score(each, problem, verifiers) for each in failed)):
                if judged.error is None:
                    run.journal.append(_completed(judged))
                    count += 1
    return count


def _has_only_failed_verification(rollout: Rollout) -> bool:
    return rollout.completion is not None and rollout.error is not None and not _is_refused(rollout)


def _completed(rollout: Rollout) -> CompletedRollout:
    row = rollout.model_copy(update={"run_identity": None}).model_dump(mode="json")
    row.pop("run_identity", None)
    return CompletedRollout(rollout.instance_id, rollout.sample_id, dump_line(row), RolloutOutcome.of_row(row), None)


async def _write(run: Run, verifiers: CompletionJudge, fault: ProblemFault | None, name: str, owner: Ownership) -> int:
    """Write a journal with new verdicts; return the number of rollouts that were scored.

    Args:
        run: The run whose rollouts are read.
        verifiers: Judges the completions.
        fault: Returns why a problem cannot be judged, or None.
        name: Path of the new journal, relative to the run directory.
        owner: Stamps the rows with the run's new identity.
    """
    count = 0
    async with verifiers:
        with atomic_write(run.directory / name) as file:
            async for rollout in _scored(run, verifiers, fault):
                file.write(owner.stamp(dump_line(rollout.model_dump(mode="json"))))
                count += rollout.completion is not None and not _is_refused(rollout)
    return count


async def _scored(run: Run, verifiers: CompletionJudge, fault: ProblemFault | None) -> AsyncIterator[Rollout]:
    waiting: list[asyncio.Task[Rollout]] = []
    for problem in run.problems():
        rollouts = run.journal.group(problem.instance_id, run.journal.size(problem.instance_id))
        refused = fault(problem) if fault else None
        if refused:
            for rollout in filter(None, rollouts):
                yield _refuse(rollout, refused)
            continue
        # A bounded queue, emptied from its head: rows keep the order of the problems.
        waiting += [asyncio.create_task(_score(rollout, problem, verifiers)) for rollout in rollouts if rollout]
        while len(waiting) >= _AT_ONCE:
            yield await waiting.pop(0)
    for task in waiting:
        yield await task


async def _score(rollout: Rollout, problem: Problem, verifiers: CompletionJudge) -> Rollout:
    if rollout.completion is None:
        return rollout
    try:
        no_text = _no_text(rollout, rollout.completion)
        verdict = await verify_completion(verifiers, problem, rollout.completion, no_text=no_text, seed=rollout.seed)
    except VerifierFailed as failure:
        return _failed(rollout, Failure(type=failure.type, message=failure.message))
    return rollout.model_copy(
        update={"verdict": verdict, "error": None, "reward": verdict.reward, "success": verdict.success}
    )


def _no_text(rollout: Rollout, completion: str) -> str | None:
    refusal = rollout.metadata.get("refusal")
    return no_text_reason(
        completion,
        reasoning=rollout.reasoning_content,
        has_calls=bool(rollout.tool_calls),
        finish_reason=rollout.finish_reason,
        refusal=refusal if isinstance(refusal, str) else None,
    )


def _refuse(rollout: Rollout, fault: str) -> Rollout:
    """Return the rollout without a verdict; one without a completion failed for another reason."""
    if rollout.completion is None:
        return rollout
    return _failed(rollout, Failure(type=REFUSED, message=fault))


def _failed(rollout: Rollout, error: Failure) -> Rollout:
    return rollout.model_copy(update={"verdict": None, "error": error, "reward": None, "success": None})


def _is_refused(rollout: Rollout) -> bool:
    return rollout.error is not None and rollout.error.type == REFUSED
