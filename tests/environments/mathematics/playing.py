"""Play episodes of mathematics in tests, with verifiers in this process."""

from rollmill.environments.mathematics.environment import MathEnvironment, MathSettings
from rollmill.environments.tools import Tools
from rollmill.records import Problem
from rollmill.verifiers import make_verifier
from rollmill.verifiers.failure import VerifierFailed, describe


class Verifiers:
    """A real `Verification` in this process."""

    def __init__(self):
        self._verifiers = {}

    def verify(self, verifier, problem, completion):
        if verifier not in self._verifiers:
            self._verifiers[verifier] = make_verifier(verifier)
        try:
            return self._verifiers[verifier].verify(problem, completion)
        except Exception as error:
            raise VerifierFailed("verifier_raised", describe(error)) from error


VERIFIERS = Verifiers()


class NoPython:
    """A runner for episodes without programs."""

    def run(self, program, *, stdin="", timeout_s=None):
        raise AssertionError(f"a program was run: {program}")


def problem(answer="918273", **fields):
    return Problem(instance_id="p", prompt="What is it?", answer=answer, fields=fields)


def new(custom_problem=None, python=None, **settings):
    tools = Tools(python=python or NoPython(), verification=VERIFIERS)
    return MathEnvironment.make(custom_problem or problem(), 0, MathSettings(**settings), tools)


def say(environment, *completions):
    """Apply completions in turn order, from the first agent on, and return the steps."""
    steps = []
    names = environment.turn_order
    for number, text in enumerate(completions):
        assert not environment.done
        agent = environment.agents[names[number % len(names)]]
        agent.prompt()
        steps.append(agent.act(text))
    return steps


def box(answer):
    return f"\\boxed{{{answer}}}"


def program(*lines):
    return "\n".join(["```python", *lines, "```"])
