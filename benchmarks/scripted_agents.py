"""Scripts agents on a problem pack whose seeds determine their change: good, wrong, nothing, forbidden."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from rollmill.agents.model import turn_seed
from rollmill.generation.identity import rollout_seed
from rollmill.grading.pack import Pack
from rollmill.grading.problem import GradedProblem
from rollmill.inference.script import Conversation, Script

Doing = Literal["good", "wrong", "nothing", "forbidden"]
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
DOES: list[Doing] = [
    "good", "good", "good", "good", "wrong", "wrong", "nothing", "nothing", "forbidden", "forbidden",
]  # fmt: skip
"""The agent's change, by the last decimal digit of the seed of its second request."""
CONFIG = "mini_textbased.yaml"


def script_of(pack: Pack, doing: Collection[Doing] = (), *, latency_s: float = 0.0) -> Script:
    """Script agents that look, act, look again, and submit; with `doing`, all make the first of these changes."""
    conversations = [
        Conversation(
            when=problem.problem_statement,
            answers=[
                act("ls -la && git log --oneline"),
                act(_deed(pack, problem, doing)),
                act("git status --short"),
                act(SUBMIT),
            ],
        )
        for problem in pack.problems.values()
    ]
    return Script(conversations=conversations, latency_s=latency_s)


def act(command: str) -> str:
    """Return an answer with one command in it."""
    return f"THOUGHT: the next step.\n\n```mswea_bash_command\n{command}\n```"


def does(run_seed: int, instance_id: str, sample_id: int) -> Doing:
    """Return the change that the agent of a sample makes."""
    return DOES[turn_seed(rollout_seed(run_seed, instance_id, sample_id), 2) % 10]


def _deed(pack: Pack, problem: GradedProblem, doing: Collection[Doing]) -> str:
    deeds = {
        "good": _apply(pack.solution(problem.instance_id, "good").decode()),
        "wrong": _apply(pack.solution(problem.instance_id, "wrong").decode()),
        "nothing": "echo nothing to do",
        "forbidden": "echo '# changed' >> README.md",
    }
    if doing:
        return deeds[next(iter(doing))]
    cases = [
        f"{'|'.join(str(digit) for digit, done in enumerate(DOES) if done == name)})\n{deed}\n;;"
        for name, deed in deeds.items()
    ]
    return "\n".join(["case {digit} in", *cases, "esac"])


def _apply(patch: str) -> str:
    return f"cat > /tmp/change.patch <<'END_OF_PATCH'\n{patch}END_OF_PATCH\ngit apply /tmp/change.patch"
