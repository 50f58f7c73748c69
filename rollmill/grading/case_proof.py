"""Checks the cases of a problem at its start commit: reproducible, different from seed to seed, long enough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rollmill.grading.case_measurement import answer_cases, first_difference
from rollmill.grading.cases import CaseInputs, Part
from rollmill.grading.clean_copy import CleanCopies
from rollmill.grading.prepared import BuiltProblem, prepare
from rollmill.grading.problem import GradedProblem
from rollmill.sandboxes.sandbox import CaseAnswers, Limits, SandboxHost

LEAST_EDGE_CASES = 20
LEAST_S = 0.1
"""Of the measured calls at the start commit: less is lost in the noise of starting them."""
MOST_UNTIMED = 0.25
"""Of encoding and decoding, over the measured calls: a change could do work there, unseen, in as much time."""
_SEEDS = (1, 2)
_MOST_TREE_BYTES = 256 << 20


class CaseProof(NamedTuple):
    """What a problem's cases are like at its start commit."""

    edge_cases: int
    speed_cases: int
    timed_s: float
    """Of the measured calls of one run."""
    untimed_s: float
    """Of decoding and encoding the cases of that run, without the program's start."""
    faults: list[str]


def prove_cases(problem: GradedProblem, host: SandboxHost) -> CaseProof:
    """Generate and answer cases of two seeds, each twice. Raises `ProblemError` where that fails, `SandboxError`."""
    with TemporaryDirectory(prefix="rollmill-pack-") as scratch:
        prepared = prepare(problem, CleanCopies(host, problem, Limits(), _MOST_TREE_BYTES), Path(scratch))
        faults: list[str] = []
        answers: dict[Part, CaseAnswers] = {}
        for part in ("edge", "speed"):
            answers[part] = _prove_part(prepared, part, faults)
    edge, speed = answers["edge"], answers["speed"]
    timed_s = speed.answer_s
    untimed_s = sum(time.encode_s for time in speed.times) + sum(time.decode_s for time in speed.times[1:])
    if len(edge.outputs) < LEAST_EDGE_CASES:
        faults.append(f"BENCH_PART=edge: {len(edge.outputs)} cases: {LEAST_EDGE_CASES} at least")
    if timed_s < LEAST_S:
        faults.append(f"BENCH_PART=speed: the calls take {timed_s:.3f} s: {LEAST_S} s at least")
    elif untimed_s > MOST_UNTIMED * timed_s:
        faults.append(
            f"BENCH_PART=speed: decoding and encoding take {untimed_s:.3f} s, the calls {timed_s:.3f} s: send and "
            "print less"
        )
    return CaseProof(len(edge.outputs), len(speed.outputs), timed_s, untimed_s, faults)


def _prove_part(prepared: BuiltProblem, part: Part, faults: list[str]) -> CaseAnswers:
    """Return the answers to the first seed's cases; append what is wrong to `faults`."""
    inputs = CaseInputs(prepared)
    cases, others = inputs.generate(part, _SEEDS)
    if inputs.generate(part, _SEEDS) != [cases, others]:
        faults.append(f"BENCH_PART={part}: inputs_command prints other cases for the same BENCH_SEED")
    if cases == others:
        faults.append(f"BENCH_PART={part}: inputs_command prints the same cases for another BENCH_SEED")
    answers = answer_cases(prepared, prepared.overlay, cases, prepared.problem.timeout_s)
    again = answer_cases(prepared, prepared.overlay, cases, prepared.problem.timeout_s)
    if answers.fault:
        faults.append(f"BENCH_PART={part}: worker_command fails in case {len(answers.outputs) + 1}: {answers.fault}")
    elif why := first_difference(cases, answers, again):
        faults.append(f"BENCH_PART={part}: worker_command prints other outputs for the same cases: {why}")
    elif _is_constant(answers.outputs):
        faults.append(f"BENCH_PART={part}: all outputs are the same")
    return answers


def _is_constant(outputs: Sequence[str]) -> bool:
    return len(outputs) > 1 and len(set(outputs)) == 1
