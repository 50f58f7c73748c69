import json
import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollmill.environments.mathematics.environment import MathEnvironment, MathSettings
from rollmill.environments.mathematics.judging import LONGEST_ANSWER, Judge
from rollmill.environments.registry import find_environment
from rollmill.environments.tools import Tools
from rollmill.records import Image
from rollmill.verifiers.failure import VerifierFailed
from tests.environments.mathematics.playing import VERIFIERS, box, new, problem, program, say


def shown(environment, agent):
    return "\n".join(message["content"] for message in environment.agents[agent].prompt())


def test_math_env_is_registered():
    assert find_environment("math_env") is MathEnvironment
    assert MathEnvironment.agent_names(MathSettings()) == ("reasoner", "tool_user")
    assert MathEnvironment.agent_names(MathSettings(single_agent=True)) == ("math_single_agent",)


def test_right_answers_that_agree_are_a_success(python):
    environment = new(python=python)
    assert not environment.success
    reasoner, tool_user = say(environment, f"I think {box('918273')}", program("print('so')", "print(918_270 + 3)"))
    assert reasoner == (1.0, {"answer": "918273", "right": True, "agreed": False})
    assert tool_user == (
        1.0,
        {"answer": "918273", "right": True, "agreed": True, "output": "so\n918273\n", "returncode": 0},
    )
    assert (environment.done, environment.success) == (True, True)


def test_wrong_answers_that_agree_end_the_episode_without_success(python):
    environment = new(python=python)
    assert [step.reward for step in say(environment, box("5"), program("print(5)"))] == [0.0, 0.0]
    assert (environment.done, environment.success) == (True, False)


def test_a_right_answer_without_agreement_is_no_success(python):
    environment = new(python=python)
    steps = say(environment, *[box("918273"), program("print(1)")] * 3)
    assert [step.reward for step in steps] == [1.0, 0.0] * 3
    assert (environment.done, environment.success) == (False, False)


def test_reasoner_agreeing_with_the_tool_user_ends_the_episode(python):
    environment = new(python=python)
    say(environment, box("1"), program("print(918273)"), box("918273"))
    assert (environment.done, environment.success) == (True, True)


def test_malformed_message_keeps_the_last_answer(python):
    environment = new(python=python)
    steps = say(environment, box("918273"), program("print(1)"), "no box", program("print(918273)"))
    assert [step.reward for step in steps] == [1.0, 0.0, -0.5, 1.0]
    assert (environment.done, environment.success) == (True, True)


def test_equal_as_mathematics_is_agreement_and_right(python):
    environment = new(problem("0.5"), python=python)
    steps = say(environment, box(r"\frac{1}{2}"), program("from fractions import Fraction", "print(Fraction(1, 2))"))
    assert [step.reward for step in steps] == [1.0, 1.0]
    assert environment.success is True


def test_wrong_percentage_fails_under_both_readings(python):
    environment = new(problem("50"), python=python)
    steps = say(environment, box("50\\%"), program("print(0.5)"))
    assert [step.reward for step in steps] == [1.0, 0.0]
    assert environment.success is False


def test_single_agent_is_done_after_its_first_well_formed_answer():
    environment = new(single_agent=True)
    assert say(environment, "hm")[0].reward == -0.5
    assert not environment.done
    assert say(environment, box("918273"))[0].reward == 1.0
    assert (environment.done, environment.success) == (True, True)
    wrong = new(single_agent=True)
    say(wrong, box("1"))
    assert (wrong.done, wrong.success) == (True, False)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("", "no \\boxed{}"),
        ("\\boxed{}", "no \\boxed{}"),
        ("\\boxed{1", "no \\boxed{}"),
        ("the answer is 918273", "no \\boxed{}"),
        (box("9" * (LONGEST_ANSWER + 1)), "more than 1000 characters"),
        (box("<answer>918273</answer>"), "tags in it"),
    ],
)
def test_malformed_reasoner_turn_is_penalised(message, fault):
    environment = new()
    (step,) = say(environment, message)
    assert step.reward == -0.5
    assert fault in step.info["fault"]
    assert fault in shown(environment, "reasoner")
    assert "did not count" not in shown(environment, "tool_user")


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("print(918273)", "no closed ```python block"),
        (program("print(918273"), "failed with code 1"),
        (program("print(918273)", "raise SystemExit(3)"), "failed with code 3"),
        (program("x = 1"), "printed nothing"),
        (program("print(' ')"), "printed nothing"),
        (program("print('1' * 5000)"), "more than 1000 characters"),
        (program("print(input())"), "failed with code 1"),
        (program("x = '\0'"), "failed with code 1"),
    ],
)
def test_program_without_an_answer_is_penalised(python, message, fault):
    environment = new(python=python)
    _, step = say(environment, box("918273"), message)
    assert step.reward == -0.5
    assert fault in step.info["fault"]
    assert fault in shown(environment, "tool_user")
    assert not environment.success


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines",
    [
        ["while True: pass"],
        ["import os", "while True: os.fork()"],
        ["while True: print('918273' * 100)"],
        ["x = bytearray(10 << 30)", "print(918273)"],
        ["import os, signal", "os.kill(os.getppid(), signal.SIGKILL)", "os.kill(0, signal.SIGKILL)"],
        ["import socket", "socket.create_connection(('1.1.1.1', 80), timeout=1)"],
        ["print(open('/etc/shadow').read())"],
    ],
    ids=lambda lines: lines[-1],
)
def test_hostile_program_is_only_a_failed_step(python, lines):
    environment = new(python=python)
    _, step = say(environment, box("918273"), program(*lines))
    assert step.reward == -0.5
    assert step.info["fault"]
    json.dumps(step.info)
    assert len(shown(environment, "tool_user")) < 4000
    say(environment, box("918273"), program("print(918273)"))
    assert environment.success is True


def test_agents_see_the_others_answer_and_their_own_program(python):
    environment = new(python=python)
    assert "918273" not in shown(environment, "reasoner") + shown(environment, "tool_user")
    say(environment, box("111"), program("print('half way')", "print(222)"))
    reasoner, tool_user = shown(environment, "reasoner"), shown(environment, "tool_user")
    assert "Your last answer: 111" in reasoner
    assert "The other agent's answer, which may be wrong: 222" in reasoner
    assert "half way" not in reasoner
    assert "The other agent's answer, which may be wrong: 111" in tool_user
    assert "half way\n222" in tool_user
    assert "918273" not in reasoner + tool_user
    alone = shown(new(single_agent=True), "math_single_agent")
    assert "other" not in alone


def test_answers_that_are_no_mathematics_are_wrong_and_no_failure(python):
    environment = new(python=python)
    steps = say(environment, box("$"), program("print('}{')"), box("$$"))
    assert [step.reward for step in steps] == [0.0, 0.0, 0.0]
    assert (environment.done, environment.success) == (False, False)


def test_unreadable_ground_truth_is_a_failure():
    with pytest.raises(VerifierFailed, match="is not mathematics"):
        say(new(problem("}{")), box("1"))


@given(st.text())
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_a_step(text):
    environment = new()
    for message in (text, box(text)):
        if environment.done:
            break
        step = environment.agents["reasoner"].act(message)
        assert math.isfinite(step.reward)
        json.dumps(step.info).encode()
        environment.agents["reasoner"].prompt()
        assert environment.success is False


def test_unusable_problem_is_refused_with_a_reason():
    def fault(custom_problem, **settings):
        return MathEnvironment.problem_fault(MathSettings(**settings), custom_problem)

    assert fault(problem()) is None
    assert fault(problem(None)) == "there is no answer"
    assert fault(problem("  ")) == "there is no answer"
    assert fault(problem("1\n2")) == "the answer has several lines, and of what a program prints the last one counts"
    assert fault(problem("1\n2"), single_agent=True) is None
    assert fault(problem(reasoning_gym={"name": "x"})) == "reasoning_gym.config is not an object"
    picture = problem().model_copy(update={"images": (Image(path="a", media_type="image/png", sha256="b"),)})
    assert fault(picture) == "it has images, and this environment shows text alone"
    with pytest.raises(ValueError, match="needs a verifier"):
        MathEnvironment.make(problem(), 0, MathSettings(), Tools())
    with pytest.raises(ValueError, match="needs Python"):
        MathEnvironment.make(problem(), 0, MathSettings(), Tools(verification=VERIFIERS))


def test_a_chat_prompt_is_shown_as_text():
    turns = [{"role": "system", "content": "Be exact."}, {"role": "user", "content": "1 + 1?"}]
    environment = new(problem("2").model_copy(update={"prompt": turns}))
    assert "Problem:\nBe exact.\n\n1 + 1?" in shown(environment, "reasoner")
    turns = [*turns, {"role": "assistant", "content": "2"}, {"role": "user", "content": "and 2 + 2?"}]
    environment = new(problem("4").model_copy(update={"prompt": turns}))
    assert "user: 1 + 1?\n\nassistant: 2\n\nuser: and 2 + 2?" in shown(environment, "reasoner")


def test_demonstrations_without_a_model(python):
    environment = new(python=python)
    agents = environment.agents
    say(environment, agents["reasoner"].oracle(), agents["tool_user"].oracle())
    assert environment.success is True
    environment = new(python=python)
    agents = environment.agents
    steps = say(environment, agents["reasoner"].random(random.Random(1)), agents["tool_user"].random(random.Random(2)))
    assert [step.reward for step in steps] == [0.0, 0.0]
    assert agents["reasoner"].random(random.Random(1)) == agents["reasoner"].random(random.Random(1))
    unknown = new(problem(None, reasoning_gym={"name": "x", "config": {"seed": 1}, "index": 0}))
    assert say(unknown, unknown.agents["reasoner"].oracle())[0].reward == -0.5


def test_the_last_right_answer_of_a_quoted_text_is_printed(python):
    environment = new(problem(r"\frac{'1'}{2}"), python=python)
    text = environment.agents["tool_user"].oracle()
    assert python.run(text.removeprefix("```python\n").removesuffix("\n```")).output == "\\frac{'1'}{2}\n"


def test_equal_answers_are_recognized():
    judge = Judge(problem(), VERIFIERS)
    assert judge.is_same("yes", "yes")
    assert judge.is_same("1/2", "0.5")
    assert judge.is_same("x+1", "1+x")
    assert not judge.is_same("yes", "no")
    assert judge.is_same(r"\$1,234", "1234.0")
    assert not judge.is_same("}{", "3")
    assert not judge.is_same("3", "}{")
