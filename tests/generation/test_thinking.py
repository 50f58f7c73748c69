"""Rejection sampling with a reasoning model, from its requests to the journal's rows."""

import orjson
import pytest

from rollmill.generation.reverify import reverify
from rollmill.generation.sampling import Sampling
from rollmill.generation.verification import REASONING_ONLY
from rollmill.inference.scripted import Conversation, Script, ScriptedAnswer, ScriptedServer
from rollmill.records import Rollout
from rollmill.verifiers import VerifierPool
from tests.chat_template import render, rendered_by_a_server
from tests.generation.run_factory import opened
from tests.generation.test_chat import make, read
from tests.inference.raw_server import RawServer

LOOK_UP = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


def answering(**answer):
    return ScriptedServer(Script(conversations=[Conversation(answers=[ScriptedAnswer(**answer)])]))


def test_thoughts_and_template_arguments_are_journaled(tmp_path):
    sampling = Sampling(chat_template_kwargs={"enable_thinking": False}, extra_body={"tools": [LOOK_UP]}, top_k=20)
    thinking = answering(content="<answer>0</answer>", reasoning="hm")
    with opened(tmp_path, rows=1, num_rollout=1) as run, thinking as server:
        (completed,) = make(run, server.base_url, sampling=sampling)
    row = orjson.loads(completed.line)
    (body,) = server.bodies
    assert body["top_k"] == 20
    assert (row["completion"], row["reasoning_content"], row["success"]) == ("<answer>0</answer>", "hm", True)
    assert row["tools"] == body["tools"] == [LOOK_UP]
    assert rendered_by_a_server(body) == render(row["messages"], row)


def test_thoughts_alone_are_an_empty_completion(tmp_path):
    thoughts = answering(content=None, reasoning="It is <answer>0</answer>.", finish_reason="length")
    with opened(tmp_path, rows=1, num_rollout=1) as run, thoughts as server:
        (completed,) = make(run, server.base_url)
        run.journal.append(completed)
        row = read(completed)
        assert (row.completion, row.status, row.verdict.reason) == ("", "unparseable", REASONING_ONLY)
        assert completed.outcome.truncated
        reverify(run, VerifierPool("exact", accept_error=0.0))
        [[again]] = [rollouts for _, rollouts in run.groups()]
    assert (again.verdict.reason, again.verdict.verifier[:5]) == (REASONING_ONLY, "exact")


@pytest.mark.parametrize(
    ("message", "finish_reason", "reason"),
    [
        ({"content": None, "refusal": "I won't."}, "stop", "refusal"),
        ({"content": None}, "refusal", "refusal"),
        ({"content": None}, "content_filter", "content_filter"),
        ({"content": ""}, "SAFETY", "content_filter"),
        ({"role": "assistant"}, "content_filter: RECITATION", "content_filter"),
        ({}, "stop", "no_text"),
        ({"content": " "}, None, "no_text"),
    ],
)
def test_no_text_is_judged_once_and_counted_by_its_reason(tmp_path, message, finish_reason, reason):
    body = orjson.dumps({"choices": [{"message": message, "finish_reason": finish_reason}]})
    with opened(tmp_path, rows=1, num_rollout=1) as run, RawServer(lambda *_: (200, body)) as server:
        (completed,) = make(run, server.base_url)
        assert len(server.headers) == 1
        run.journal.append(completed)
        row = read(completed)
        reverify(run, VerifierPool("exact", accept_error=0.0))
        [[again]] = [rollouts for _, rollouts in run.groups()]
    assert (row.completion.strip(), row.status, row.verdict.reason) == ("", "unparseable", reason)
    assert row.metadata.get("refusal") == message.get("refusal")
    assert again.verdict.reason == reason


def test_a_call_of_a_tool_is_not_lost(tmp_path):
    call = {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": '{"x": 1}'}}
    calling = answering(content=None, tool_calls=[call], reasoning="hm", finish_reason="tool_calls")
    with opened(tmp_path, rows=1, num_rollout=1) as run, calling as server:
        (completed,) = make(run, server.base_url, sampling=Sampling(extra_body={"tools": [LOOK_UP]}))
    row = read(completed)
    assert (row.completion, row.tool_calls) == ("", [call])
    older = orjson.loads(completed.line)
    older["metadata"]["tool_calls"] = older.pop("tool_calls")
    assert Rollout.model_validate(older).tool_calls == [call]
    assert row.verdict.reason != REASONING_ONLY
