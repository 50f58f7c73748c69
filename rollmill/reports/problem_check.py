"""Check of problems with their verifier: it has to accept the ground truth, and to refuse an empty answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from rollmill.errors import InputError
from rollmill.generation.manifest import read_manifest
from rollmill.generation.run import PROBLEMS
from rollmill.problems import read_problems
from rollmill.records import Problem
from rollmill.verifiers import VerifierFailed, VerifierPool

_MOST = 200
"""Most problems of a run that are checked."""
_AT_ONCE = 64
"""Most verdicts at the same time."""
_MOST_TRUTHS = 8
_COMPARING = {"numeric", "exact", "math"}
"""Verifiers that compare an answer with the ground truth: they are cheap, and accept a ground truth as an answer."""


class ProblemCheck(NamedTuple):
    """The number of problems checked, and the ids of those with a fault."""

    checked: int = 0
    truth_fails: Sequence[str] = ()
    """Ids of problems whose ground truth the verifier refuses, in every form of an answer."""
    nothing_passes: Sequence[str] = ()
    """Ids of problems for which the verifier accepts an empty answer."""


def check_run_problems(directory: Path) -> ProblemCheck:
    """Check up to 200 problems of a run, evenly spread, with the verifier that its manifest names.

    Checks none where the run has no verifier that compares answers.
    """
    manifest = read_manifest(directory)
    spec = manifest.parameters.get("verifier") if manifest else None
    if manifest is None or not isinstance(spec, str) or spec not in _COMPARING:
        return ProblemCheck()
    step = max(1, -(-int(manifest.problems["count"]) // _MOST))
    problems = islice(read_problems(directory / PROBLEMS), 0, None, step)
    return asyncio.run(check_problems(problems, VerifierPool(spec, **_readings(manifest.parameters))))


def _readings(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verifier's options from a run's parameters; parameters of older runs have fewer."""
    readings: dict[str, Any] = {"accept_error": 0.0}
    for name, kinds in (("accept_error", int | float), ("answer", str), ("strict_numbers", bool)):
        if isinstance(parameters.get(name), kinds):
            readings[name] = parameters[name]
    return readings


async def check_problems(problems: Iterable[Problem], verifiers: VerifierPool) -> ProblemCheck:
    """Give the verifier each problem's ground truth, bare and in `<answer>` tags, and an empty answer.

    A verdict that fails is no finding: it tells nothing about the problem.
    """
    limit = asyncio.Semaphore(_AT_ONCE)

    async def accepts(problem: Problem, completion: str) -> bool | None:
        async with limit:
            try:
                return (await verifiers.verify(problem, completion)).success
            except (VerifierFailed, InputError):
                return None

    async def check(problem: Problem) -> tuple[str, bool, bool]:
        right = [await accepts(problem, form) for form in _forms(problem.answer or "")]
        fails = not any(right) and False in right
        nothing = [await accepts(problem, form) for form in ("", "<answer></answer>")]
        return problem.instance_id, fails, any(nothing)

    async with verifiers:
        rows = await asyncio.gather(*(check(problem) for problem in problems if problem.answer is not None))
    fails = [instance_id for instance_id, truth_fails, _ in rows if truth_fails]
    passes = [instance_id for instance_id, _, nothing_passes in rows if nothing_passes]
    return ProblemCheck(len(rows), fails, passes)


def _forms(truth: str) -> Iterator[str]:
    """Yield completions that state a ground truth; a JSON list has several, each of them right."""
    items: object = None
    if truth.lstrip().startswith("["):
        try:
            items = orjson.loads(truth)
        except orjson.JSONDecodeError:
            items = None
    for text in (truth, *(str(item) for item in (items if isinstance(items, list) else ())[:_MOST_TRUTHS])):
        yield f"<answer>{text}</answer>"
        yield text
