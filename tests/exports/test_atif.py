"""Documents of the Agent Trajectory Interchange Format."""

from typing import Any, Literal

import msgspec
import orjson
import pytest
from pydantic import BaseModel, ConfigDict

from rollmill.corpus.corpus import read_corpus
from rollmill.corpus.record import decode_record
from rollmill.exports.trajectories import export_trajectory
from tests.corpus.test_producers import FILES, FORMS
from tests.exports.sample_corpus import InMemoryCorpus, msg


class Strict(BaseModel):
    """A model that rejects further fields, as the models of the format do."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Source(Strict):
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    path: str


class Part(Strict):
    type: Literal["text", "image"]
    text: str | None = None
    source: Source | None = None


class Call(Strict):
    tool_call_id: str
    function_name: str
    arguments: dict[str, Any]


class Result(Strict):
    source_call_id: str | None = None
    content: str | list[Part] | None = None


class Observation(Strict):
    results: list[Result]


class Step(Strict):
    step_id: int
    source: Literal["system", "user", "agent"]
    message: str | list[Part]
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None
    observation: Observation | None = None
    extra: dict[str, Any] | None = None


class AgentInfo(Strict):
    name: str
    version: str
    model_name: str | None = None
    tool_definitions: list[dict[str, Any]] | None = None


class Metrics(Strict):
    total_prompt_tokens: int | None = None
    total_completion_tokens: int | None = None
    total_steps: int | None = None


class Document(Strict):
    schema_version: Literal["ATIF-v1.6"]
    session_id: str
    agent: AgentInfo
    steps: list[Step]
    final_metrics: Metrics | None = None
    extra: dict[str, Any] | None = None


def conversations(corpus):
    """The messages of each rollout, arguments as objects, no empty content."""
    rollouts = []
    for line in corpus.records(corpus.table):
        turns = msgspec.json.decode(msgspec.json.encode(decode_record(line).conversation()))
        for turn in turns:
            turn["content"] = _text(turn.get("content"))
            for call in turn.get("tool_calls", ()):
                arguments = call["function"]["arguments"]
                call["function"]["arguments"] = orjson.loads(arguments) if isinstance(arguments, str) else arguments
            turn.pop("name", None)
        rollouts.append([turn for turn in turns if turn["role"] != "exit"])
    return rollouts


def _text(content):
    return "\n".join(part["text"] for part in content) if isinstance(content, list) else content or ""


@pytest.mark.parametrize("name", [name for name in FORMS if name != "share_gpt.json"])
def test_documents_are_valid_and_round_trip(tmp_path, name):
    corpus = read_corpus([str(FILES / name)])
    export_trajectory(tmp_path / "x.jsonl", corpus, corpus.table, format="atif")
    documents = [orjson.loads(line) for line in (tmp_path / "x.jsonl").read_bytes().splitlines()]
    for document in documents:
        parsed = Document.model_validate(document)
        assert [step.step_id for step in parsed.steps] == list(range(1, len(parsed.steps) + 1))
    again = read_corpus([str(tmp_path / "x.jsonl")])
    facts = ("instance_id", "sample_id", "reward", "success", "exit_status")
    assert again.table.select(facts).equals(corpus.table.select(facts))
    assert conversations(again) == conversations(corpus)


def test_a_file_of_one_document_and_of_several(tmp_path):
    corpus = InMemoryCorpus([{"instance_id": "p", "messages": [msg("user", "q"), msg("assistant", "a")]}] * 2)
    for rows, kind in ((1, dict), (2, list)):
        path = tmp_path / f"{rows}.json"
        export_trajectory(path, corpus, corpus.table.head(rows), format="atif")
        assert isinstance(orjson.loads(path.read_bytes()), kind)
        assert read_corpus([str(path)]).table.height == rows


@pytest.mark.parametrize(
    ("arguments", "written"), [('{"a": 1}', {"a": 1}), ({"a": 1}, {"a": 1}), ("[1", {"text": "[1"}), ("3", {"text": 3})]
)
def test_arguments_are_objects(tmp_path, arguments, written):
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    turns = [
        msg("user", "q"),
        msg("assistant", "", tool_calls=[call]),
        msg("tool", "r"),
        msg("tool", "stray"),
    ]
    corpus = InMemoryCorpus([{"instance_id": "p", "messages": turns}])
    export_trajectory(tmp_path / "x.json", corpus, corpus.table, format="atif")
    step, stray = orjson.loads((tmp_path / "x.json").read_bytes())["steps"][1:]
    assert step["tool_calls"] == [{"tool_call_id": "call-2-1", "function_name": "f", "arguments": written}]
    assert step["observation"] == {"results": [{"source_call_id": "call-2-1", "content": "r"}]}
    assert (stray["source"], stray["message"]) == ("user", "stray")


def test_images_and_tools(tmp_path):
    parts = [{"type": "text", "text": "what"}, {"type": "image", "image": "a/b.jpg"}]
    tool = {"type": "function", "function": {"name": "f"}}
    record = {
        "instance_id": "p",
        "messages": [msg("user", parts), msg("assistant", "a")],
        "tools": [tool],
    }
    corpus = InMemoryCorpus([record])
    export_trajectory(tmp_path / "x.json", corpus, corpus.table, format="atif", origin={"model": "m"})
    document = Document.model_validate(orjson.loads((tmp_path / "x.json").read_bytes()))
    assert document.steps[0].message[1].source.path == "a/b.jpg"
    assert (document.agent.model_name, document.agent.tool_definitions) == ("m", [tool])
