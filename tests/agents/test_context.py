"""From a request to the journal's row: a turn is trained in the context that the model saw."""

import orjson
import pytest

from rollmill.agents.mini_swe import BASH_TOOL
from rollmill.agents.record import make_record
from rollmill.files.rows import dump_line
from rollmill.inference.scripted import Conversation, Script, ScriptedAnswer, ScriptedServer
from rollmill.records import Failure
from tests.agents.scripted_agents import (
    PROBLEM,
    SUBMIT,
    ShellSandbox,
    bash,
    call,
    play_on,
    text_settings,
    tool_settings,
)
from tests.chat_template import answers, rendered_by_a_server, rendered_for_training

ODD = {"name": "bash", "arguments": '{"command"'}
SPACED = {"name": "bash", "arguments": '{ "command":  "true" }'}
TURNS = [
    call("echo one", reasoning="I look first.\n", content=None),
    call(ODD, reasoning="Now this."),
    call(SPACED, "true", reasoning="And <think> that.", finish_reason="max_tokens"),
    call(SUBMIT),
]


def row_of(folder, settings, turns=TURNS, keys=("reasoning", "reasoning_content")):
    """Return the journal's row, and the requests."""
    scripted = [ScriptedAnswer(**turn, **({"reasoning_keys": keys} if "reasoning" in turn else {})) for turn in turns]
    with ScriptedServer(Script(conversations=[Conversation(answers=scripted)])) as server:
        played = play_on(server, ShellSandbox(folder), settings)
        bodies = server.bodies
    assert (played.exit_status, played.error) == ("Submitted", None)
    metadata = {"reasoning_dropped": True} if settings.drop_reasoning else {}
    ungraded = make_record(
        PROBLEM, played.__class__(**{**played.__dict__, "error": Failure(type="t", message="not graded")}), None,
        sample_id=0, seed=1, metadata=metadata,
    )  # fmt: skip
    return orjson.loads(dump_line(ungraded.model_dump(mode="json"))), bodies


SETTINGS = {
    "tools": tool_settings(),
    "no thinking": tool_settings(request={"chat_template_kwargs": {"enable_thinking": False}}),
    "effort": tool_settings(request={"reasoning_effort": "none"}),
    "dropped": tool_settings(drop_reasoning=True),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("keys", [["reasoning"], ["reasoning_content"], ["reasoning", "reasoning_content"]])
def test_context_of_each_turn_is_that_of_its_request(tmp_path, settings, keys):
    row, bodies = row_of(tmp_path, settings, keys=keys)
    assert len(bodies) == len(answers(row)) == 4
    for body, before in zip(bodies, answers(row), strict=True):
        assert rendered_by_a_server(body) == rendered_for_training(row, before)


def test_journal_fields_of_a_turn(tmp_path):
    row, _ = row_of(tmp_path, tool_settings())
    first, odd, spaced, last = (row["messages"][at] for at in answers(row))
    assert (first["content"], first["reasoning_content"], first["finish_reason"]) == (
        "",
        "I look first.\n",
        "tool_calls",
    )
    assert odd["tool_calls"][0]["function"]["arguments"] == '{"command"'
    assert odd["extra"] == {"sent_arguments": ['{"malformed_arguments":"{\\"command\\""}']}
    assert spaced["tool_calls"][0]["function"]["arguments"] == '{ "command":  "true" }'
    assert (spaced["finish_reason"], "extra" in spaced) == ("max_tokens", False)
    assert "reasoning_content" not in last
    assert row["tools"] == [BASH_TOOL]
    assert "chat_template_kwargs" not in row


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_reasoning_is_sent_back_under_the_servers_key(tmp_path, key):
    _, bodies = row_of(tmp_path, tool_settings(), keys=[key])
    sent = bodies[-1]["messages"][2]
    assert sent[key] == "I look first.\n"
    assert {"reasoning", "reasoning_content"} & sent.keys() == {key}


def test_thoughts_that_are_dropped(tmp_path):
    row, bodies = row_of(tmp_path, tool_settings(drop_reasoning=True))
    assert not any({"reasoning", "reasoning_content"} & message.keys() for message in bodies[-1]["messages"])
    assert row["messages"][answers(row)[0]]["reasoning_content"] == "I look first.\n"
    assert row["metadata"]["reasoning_dropped"] is True


def test_no_tools_in_text_mode(tmp_path):
    row, bodies = row_of(tmp_path, text_settings(), [{"content": bash(SUBMIT), "reasoning": "hm"}])
    assert "tools" not in row
    assert "tools" not in bodies[0]
    assert row["messages"][-1]["reasoning_content"] == "hm"
