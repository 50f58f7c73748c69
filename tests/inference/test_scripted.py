import pytest

from rollmill.inference.scripted import Conversation, Script, ScriptedAnswer, ScriptedServer
from tests.inference.chat_requests import ask_one, body

SCRIPT = Script(
    conversations=[
        Conversation(when="plan 3", answers=["never first", "three"]),
        Conversation(
            when="about b", answers=["plan {digit} of {seed}", ScriptedAnswer(content="b", finish_reason="length")]
        ),
        Conversation(when="about", answers=["any"]),
    ],
    completion="{digit}",
)


def messages(*contents):
    return [
        {"role": "assistant" if number % 2 else "user", "content": content} for number, content in enumerate(contents)
    ]


@pytest.mark.parametrize(
    ("turns", "seed", "content", "finish"),
    [
        (["about b"], 13, "plan 3 of 13", "stop"),
        (["about b", "plan 3 of 13", "go on"], 14, "three", "stop"),
        (["about b", "plan 4 of 14", "go on"], 14, "b", "length"),
        (["about b", "plan 4 of 14", "go on", "b", "go on"], 14, "b", "length"),
        (["about c"], 1, "any", "stop"),
        (["else"], 15, "5", "stop"),
    ],
)
def test_answer_depends_on_conversation_turn_and_seed(turns, seed, content, finish):
    with ScriptedServer(SCRIPT) as server:
        answer, _ = ask_one(server.base_url, content=body(messages=messages(*turns), seed=seed))
    assert (answer.text, answer.finish_reason) == (content, finish)


def test_requests_that_are_too_long_are_refused():
    with ScriptedServer(Script(context_tokens=50)) as server:
        fits, _ = ask_one(server.base_url, content=body(messages=messages("x" * 20)))
        failure, _ = ask_one(server.base_url, content=body(messages=messages("x" * 200)))
    assert fits.text == "It is <answer>7</answer>."
    assert (failure.type, failure.calls) == ("http_400", 1)
    assert "This model's maximum context length is 50 tokens. However, you requested " in failure.message
