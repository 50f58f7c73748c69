"""The tokens of an agent's calls: one for each of its answers."""

from rollmill.exports.token_sequences import IGNORED, join_calls
from rollmill.inference.sampled_tokens import TokenSource
from rollmill.inference.script import render_prompt
from rollmill.inference.scripted import Conversation, Script, ScriptedAnswer, ScriptedServer
from tests.agents.scripted_agents import SUBMIT, ShellSandbox, call, play_on, tool_settings

SOURCE = TokenSource("0123456789abcdef", "processed_logprobs")
TURNS = [call("echo one", reasoning="I look first."), call({"name": "bash", "arguments": "{"}), call(SUBMIT)]


def played(folder, **config):
    answers = [ScriptedAnswer(**turn) for turn in TURNS]
    with ScriptedServer(Script(conversations=[Conversation(answers=answers)])) as server:
        return play_on(server, ShellSandbox(folder), tool_settings(), **config), server.bodies


def test_each_answer_has_the_tokens_of_its_request(tmp_path):
    run, bodies = played(tmp_path, token_source=SOURCE)
    assert sum(message["role"] == "assistant" for message in run.messages) == len(run.tokens) == 3
    for body, tokens in zip(bodies, run.tokens, strict=True):
        assert bytes(list(tokens.prompt)) == render_prompt(body["messages"])


def test_append_only_conversation_is_one_training_sequence(tmp_path):
    answers = [ScriptedAnswer(**turn) for turn in (call("echo one", reasoning="First."), call(SUBMIT))]
    with ScriptedServer(Script(conversations=[Conversation(answers=answers)])) as server:
        run = play_on(server, ShellSandbox(tmp_path), tool_settings(), token_source=SOURCE)
    (sequence,) = join_calls(run.tokens)
    trained = bytes(label for label in sequence.labels if label != IGNORED)
    assert trained == b"".join(bytes(list(tokens.ids)) for tokens in run.tokens)


def test_no_tokens_without_a_token_source(tmp_path):
    run, _ = played(tmp_path)
    assert run.tokens == ()
