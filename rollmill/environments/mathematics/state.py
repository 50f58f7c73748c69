"""State that the agents of one mathematics episode share."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

from rollmill.environments.environment import Step
from rollmill.environments.mathematics.judging import Judge, answer_fault
from rollmill.records import Message

RIGHT = 1.0
WRONG = 0.0
MALFORMED = -0.5
"""Reward of a completion without an answer, and of a program that fails or prints no answer."""


class Answer(NamedTuple):
    """An agent's last well-formed answer."""

    text: str
    right: bool


@dataclass
class MathState:
    """The state of one episode."""

    question: str
    ground_truth: str | None
    """The ground truth as text, for the policies `oracle` and `random`; None if only a scorer knows it."""
    judge: Judge
    agents: int
    """Number of agents that have to agree."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """Last answer by agent."""
    faults: dict[str, str] = field(default_factory=dict)
    """Fault of the last completion, by agent."""
    agreed: bool = False

    @property
    def solved(self) -> bool:
        """Return whether all agents agree on answers that are right."""
        return self.agreed and all(answer.right for answer in self.answers.values())

    def take(self, agent: str, text: str) -> Step:
        """Record and judge an agent's answer. Raises `VerifierFailed`."""
        if fault := answer_fault(text):
            return self.refuse(agent, fault)
        answer = Answer(text, self.judge.is_right(text))
        self.answers[agent] = answer
        self.faults.pop(agent, None)
        others = [other.text for name, other in self.answers.items() if name != agent]
        # Comparing all others with the new answer suffices, since equality is transitive.
        self.agreed = len(self.answers) == self.agents and all(self.judge.is_same(text, other) for other in others)
        return Step(RIGHT if answer.right else WRONG, {"answer": text, "right": answer.right, "agreed": self.agreed})

    def refuse(self, agent: str, fault: str) -> Step:
        """Return a malformed step for a completion without an answer, and keep the agent's last answer."""
        self.faults[agent] = fault
        return Step(MALFORMED, {"fault": fault})

    def shown(self, agent: str, system: str, *more: str) -> list[Message]:
        """Build a prompt: the question, the agent's earlier answers (`more`), and the other agents' answers."""
        parts = [f"Problem:\n{self.question}", *filter(None, more)]
        if answer := self.answers.get(agent):
            parts.append(f"Your last answer: {answer.text}")
        if fault := self.faults.get(agent):
            parts.append(f"Your last message did not count: {fault}.")
        parts += [
            f"The other agent's answer, which may be wrong: {other.text}"
            for name, other in self.answers.items()
            if name != agent
        ]
        return [{"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(parts)}]


def wrong_number(rng: random.Random, known: str | None) -> str:
    """Return a random number that is not the ground truth."""
    number = str(rng.randrange(10**8, 10**9))
    return number if number != known else f"{number}1"
