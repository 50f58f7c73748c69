"""Collect training data from an environment of your own: an agent guesses a number, and reads "too low" or "too high".

    python examples/python/own_environment.py

An environment is the state of one episode; its agents turn it into a prompt, and a completion into a reward. A scripted
server stands in for vLLM. The same in a shell: `python -m flows.collect_episodes --env_name own_environment:Guessing`.
"""

import json
from pathlib import Path
from typing import Any, Self

from rollmill.environments.environment import FixedCast, Step
from rollmill.inference.scripted import Conversation, Script, ScriptedServer
from rollmill.records import Message, Problem


class Guessing(FixedCast):
    """One episode, which is its only agent, too. The problem's answer is the number."""

    name, version = "guessing", "1"
    success = False

    def __init__(self, number: int) -> None:
        super().__init__({"guesser": self})
        self.number, self.reply = number, ""

    @classmethod
    def agent_names(cls, settings: Any) -> tuple[str, ...]:
        return ("guesser",)

    @classmethod
    def make(cls, problem: Problem, *_: Any) -> Self:  # after the problem come seed, settings and tools
        return cls(int(problem.answer or 0))

    def prompt(self) -> list[Message]:
        return [{"role": "user", "content": f"Guess a number from 1 to 100. {self.reply} Reply with the number alone."}]

    def act(self, completion: str) -> Step:
        if not completion.strip().isdecimal():  # a step with a low reward: no completion raises an exception
            return Step(-0.1, {"malformed": completion[:80]})
        guess = int(completion)
        self.success = guess == self.number
        self.reply = f"{guess} is too {'low' if guess < self.number else 'high'}."
        return Step(float(self.success), {"guess": guess})

    def oracle(self) -> str:  # optional: with it `--model_path oracle` plays without a model
        return str(self.number)


def main() -> None:
    """Play each of three problems twice, and print the turns of the episodes that succeeded."""
    from flows.collect_episodes import CollectEpisodes, collect_episodes

    Path("example_runs").mkdir(exist_ok=True)
    dataset = Path("example_runs/numbers.jsonl")
    dataset.write_text(
        "".join(json.dumps({"id": f"n{n}", "prompt": "Guess.", "answer": n}) + "\n" for n in (25, 50, 60))
    )
    guesses = {"50 is too low": "75", "75 is too high": "60", "50 is too high": "20", "20 is too low": "30"}
    script = Script(completion="50", conversations=[Conversation(when=k, answers=[v]) for k, v in guesses.items()])
    with ScriptedServer(script) as server:
        parameters = CollectEpisodes(
            env_name="own_environment:Guessing", model_path="scripted", base_url=[server.base_url],
            dataset=str(dataset), total_rollouts=6, max_turns=3, output_dir="example_runs/own_environment",
        )  # fmt: skip
        outcome = collect_episodes(parameters)
    print(outcome.headline())
    for row in map(json.loads, outcome.data.read_text().splitlines()):
        print(row["metadata"]["instance_id"], row["metadata"]["turn_idx"], row["messages"][-1]["content"])


if __name__ == "__main__":
    main()
