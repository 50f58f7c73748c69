from __future__ import annotations

import pytest

from rollmill.grading.case_proof import prove_cases
from rollmill.grading.clean_copy import ProblemError
from rollmill.grading.problem import GradedProblem
from rollmill.sandboxes.bubblewrap import BubblewrapHost

PRINTED = 'for n in $(seq 30); do echo \'{"numbers": [1], "changes": []}\'; done'


@pytest.mark.slow
def test_cases_of_a_sound_problem_have_no_fault(host: BubblewrapHost, problems: dict[str, GradedProblem]) -> None:
    proof = prove_cases(problems["py"], host)
    assert proof.faults == []
    assert (proof.edge_cases, proof.speed_cases) == (25, 5)
    assert proof.timed_s > 0.24 > proof.untimed_s > 0


FAULTS = {
    "one for all seeds": (
        {"inputs_command": PRINTED},
        ["prints the same cases for another BENCH_SEED", "all outputs are the same", "the calls take 0.0"],
    ),
    "others each time": (
        {"inputs_command": "echo \"{\\\"numbers\\\": [$RANDOM], \\\"changes\\\": []}\""},
        ["prints other cases for the same BENCH_SEED"],
    ),
    "few": (
        {"inputs_command": "echo \"{\\\"numbers\\\": [$BENCH_SEED], \\\"changes\\\": []}\""},
        ["BENCH_PART=edge: 1 cases: 20 at least"],
    ),
    "outputs that differ": ({"image_name": "flaky"}, ["prints other outputs for the same cases"]),
    "a worker that fails": ({"worker_command": "exit 3"}, ["worker_command fails in case 1: it ended: return code 3"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", FAULTS)
def test_faults_of_cases_are_found(host: BubblewrapHost, problems: dict[str, GradedProblem], what: str) -> None:
    changes, expected = FAULTS[what]
    faults = prove_cases(problems["py"].model_copy(update=changes), host).faults
    assert all(any(fault in text for text in faults) for fault in expected), faults


BROKEN = {
    "exit 4": "return code 4",
    "true": "it prints no case",
    "printf 'a\\n\\nb\\n'": "line 2 is empty",
    "printf '\\377\\n'": "its output is not UTF-8: invalid start byte at byte 0",
    "head -c 70000000 /dev/zero": "67108864 are taken",
}


@pytest.mark.parametrize("command", BROKEN)
def test_inputs_that_cannot_be_used_are_an_error(
    host: BubblewrapHost, problems: dict[str, GradedProblem], command: str
) -> None:
    problem = problems["py"].model_copy(update={"inputs_command": command, "test_command": ""})
    with pytest.raises(ProblemError) as caught:
        prove_cases(problem, host)
    assert str(caught.value).startswith("inputs_command of py fails with BENCH_PART=edge: ")
    assert BROKEN[command] in str(caught.value)
