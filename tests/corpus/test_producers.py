"""Rollouts of other producers: a file of each tool is recognized by its content."""

import json
import struct
import zipfile
import zlib
from pathlib import Path

import msgspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.corpus.corpus import read_corpus
from rollmill.corpus.inputs import find_sources, identify
from rollmill.corpus.producer import PRODUCERS
from rollmill.corpus.record import decode_record
from rollmill.corpus.row_reader import FieldNames, find_reader
from rollmill.errors import InputError
from rollmill.files.raw_row import RawRow
from rollmill.files.rows import BadRow
from tests.corpus.sample_records import lines, record

FILES = Path(__file__).parent / "of_producers"
FORMS = {
    "kettle__kettle-7.traj.json": ("MiniSweAgent", [("kettle__kettle-7", None, None)]),
    "mini_2.traj.json": ("MiniSweAgent", [("kettle__kettle-8", None, None)]),
    "kettle__kettle-9.traj": ("SweAgent", [("kettle__kettle-9", None, None)]),
    "swe_smith.jsonl": ("SweSmith", [("kettle__kettle.1a2b.pr_1", 1, None), ("kettle__kettle.1a2b.pr_1", 0, None)]),
    "openhands.jsonl": (
        "OpenHands",
        [("kettle__kettle-3", 1, None), ("kettle__kettle-4", None, "AgentRuntimeTimeoutError")],
    ),
    "results.jsonl": ("Verifiers", [("4", 1, None), ("4", None, "ModelError")]),
    "traces.jsonl": ("Verifiers", [("sums-v1/2", 1, None), ("sums-v1/3", None, "ProviderError")]),
    "nemo_gym_rollouts.jsonl": ("NemoGym", [("weather_agent-0", 1, None), ("nemo_gym_rollouts-1", 0, None)]),
    "inspect_log.json": ("InspectAi", [("s1", 1, None), ("s1", 0, None), ("s2", None, "sample_error")]),
    "trajectory.json": ("Atif", [("close-the-lid", 1, None)]),
    "share_gpt.json": ("ShareGpt", [("s1", None, None), ("s2", None, None)]),
    "litellm.jsonl": ("LiteLlm", [("chatcmpl-1", None, None), ("chatcmpl-2", None, "RateLimitError")]),
    "trl_completions.jsonl": ("Trl", [("prompt-15d24733035ffb14", 1, None), ("prompt-15d24733035ffb14", 0, None)]),
    "trl_messages.jsonl": ("Trl", [("prompt-15d24733035ffb14", None, None)]),
    "trl_preferences.jsonl": (
        "Trl",
        [
            ("prompt-15d24733035ffb14", 1, None),
            ("prompt-15d24733035ffb14", 0, None),
            ("prompt-19aeb8efeff2daa1", 8.5, None),
            ("prompt-19aeb8efeff2daa1", 2, None),
        ],
    ),
    "messages.json": ("MessageList", [("messages", None, None)]),
}


def read(path, **options):
    bad = []
    corpus = read_corpus([str(path)], lambda _, row: bad.append(row), **options)
    assert not bad
    return corpus


def conversations(corpus):
    """The messages of each rollout, in the one form."""
    return [
        msgspec.json.decode(msgspec.json.encode(decode_record(line).conversation()))
        for line in corpus.records(corpus.table)
    ]


def conversation(name):
    return conversations(read(FILES / name))[0]


def producer(path):
    (source,) = find_sources([str(path)])
    return type(identify(source).reader.producer).__name__


@pytest.mark.parametrize("name", FORMS)
def test_each_producer_is_recognized_by_content(name):
    kind, facts = FORMS[name]
    assert producer(FILES / name) == kind
    table = read(FILES / name).table
    assert table.select("instance_id", "reward", "error_type").rows() == facts
    verdicts = [(row["success"], row["reward"]) for row in table.to_dicts()]
    assert all((success is None) == (reward is None) for success, reward in verdicts)


def test_every_producer_has_a_sample_file():
    assert {entry.target for entry in PRODUCERS.values()} == {kind for kind, _ in FORMS.values()}


def test_mini_swe_agent_of_version_2():
    turns = conversation("mini_2.traj.json")
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "tool", "assistant", "tool", "exit"]
    assert turns[2]["reasoning_content"] == "Look at the spout."
    answer = turns[4]
    assert (answer["reasoning_content"], answer["tool_calls"][0]["id"]) == ("Ready.", "c2")
    (row,) = read(FILES / "mini_2.traj.json").table.to_dicts()
    assert (row["exit_status"], row["model_calls"], row["unanswered_calls"]) == ("Submitted", 2, 0)


def test_an_exception_of_the_agent_is_a_failure(tmp_path):
    document = orjson.loads((FILES / "mini_2.traj.json").read_bytes())
    document["info"] |= {"exit_status": "APIError", "traceback": "...", "exception_str": "503"}
    (tmp_path / "x.traj.json").write_bytes(orjson.dumps(document))
    assert read(tmp_path / "x.traj.json").table["error_type"].to_list() == ["APIError"]


def test_swe_agents_history():
    turns = conversation("kettle__kettle-9.traj")
    assert [turn.get("weight") for turn in turns if turn["role"] == "assistant"] == [0, None, None]
    assert (turns[4]["tool_calls"][0]["id"], turns[5]["tool_call_id"]) == ("t1", "t1")


@pytest.mark.parametrize("kept", ["query", "steps"])
def test_swe_agent_without_a_history(tmp_path, kept):
    document = orjson.loads((FILES / "kettle__kettle-9.traj").read_bytes())
    prompt = [turn for turn in document.pop("history") if not turn.get("is_demo")][:4]
    document["trajectory"][-1]["query"] = prompt if kept == "query" else []
    (tmp_path / "x.traj").write_bytes(orjson.dumps(document))
    (turns,) = conversations(read(tmp_path / "x.traj"))
    roles = ["system", "user", "assistant", "tool", "assistant"] if kept == "query" else ["assistant", "user"] * 2
    assert [turn["role"] for turn in turns] == roles


def test_openhands_events_become_turns():
    turns = conversation("openhands.jsonl")
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert [call["id"] for call in turns[2]["tool_calls"]] == ["c1", "c2"]
    _, second = conversations(read(FILES / "openhands.jsonl"))
    assert second[1]["tool_calls"][0]["function"]["name"] == "run"


def test_events_of_the_agent_sdk_of_openhands(tmp_path):
    text = [{"type": "text", "text": "t"}]
    call = {"tool_name": "bash", "tool_call_id": "c1", "tool_call": {"id": "c1", "name": "bash", "arguments": "{}"}}
    history = [
        {"kind": "SystemPromptEvent", "system_prompt": {"type": "text", "text": "s"}, "tools": [{"name": "bash"}]},
        {"kind": "MessageEvent", "source": "user", "llm_message": {"role": "user", "content": text}},
        {
            "kind": "ActionEvent",
            "thought": text,
            "reasoning_content": "why",
            "action": {},
            "llm_response_id": "r",
            **call,
        },
        {"kind": "ObservationEvent", "tool_call_id": "c1", "observation": {"content": text}},
        {"kind": "MessageEvent", "source": "agent", "llm_message": {"role": "assistant", "content": text}},
    ]
    row = {"instance_id": "p", "test_result": {"resolved": False}, "history": history}
    (tmp_path / "output.jsonl").write_bytes(lines([row]))
    corpus = read(tmp_path / "output.jsonl")
    (turns,) = conversations(corpus)
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "tool", "assistant"]
    assert (turns[2]["reasoning_content"], corpus.table["success"].to_list()) == ("why", [False])


def test_verifiers_calls_are_json_text():
    turns = conversation("results.jsonl")
    assert turns[1]["tool_calls"][0]["function"] == {"name": "sum", "arguments": '{"of": [2, 3]}'}
    (line, _) = list(read(FILES / "results.jsonl").records(read(FILES / "results.jsonl").table))
    assert msgspec.json.decode(decode_record(line).request_field("tools"))[0]["function"]["name"] == "sum"


def test_a_graph_of_messages_is_read_along_its_last_branch():
    turns = conversation("traces.jsonl")
    assert [(turn["content"], turn.get("weight")) for turn in turns] == [
        ("3+3", None), ("Compacted.", 0), ("Again.", None), ("6", None)
    ]  # fmt: skip


def test_nemo_gyms_responses():
    turns = conversation("nemo_gym_rollouts.jsonl")
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "tool", "assistant"]
    assert turns[2]["reasoning_content"] == "Ask the tool."
    table = read(FILES / "nemo_gym_rollouts.jsonl").table
    assert table.select("sample_id", "truncated", "prompt_tokens").rows() == [(1, False, 30), (0, True, None)]


def test_inspect_ais_messages():
    turns = conversation("inspect_log.json")
    assert turns[1]["content"] == "What is 2 plus 3?"
    assert (turns[2]["reasoning_content"], turns[2]["tool_calls"][0]["function"]["name"]) == ("Use it.", "add")
    assert read(FILES / "inspect_log.json").table["sample_id"].to_list() == [0, 1, 0]


@pytest.mark.parametrize(
    ("value", "reward"),
    [("C", 1), ("I", 0), ("P", 0.5), ("yes", 1), ("0.25", 0.25), (True, 1), ({"a": 0.5}, 0.5), ("odd", None)],
)
def test_inspect_ais_grades(tmp_path, value, reward):
    log = orjson.loads((FILES / "inspect_log.json").read_bytes())
    log["samples"] = log["samples"][:1]
    log["samples"][0]["scores"]["match"]["value"] = value
    (tmp_path / "log.json").write_bytes(orjson.dumps(log))
    assert read(tmp_path / "log.json").table["reward"].to_list() == [reward]


def test_a_score_that_is_not_a_number_is_none(tmp_path):
    text = (FILES / "inspect_log.json").read_text().replace('"value": "C"', '"value": NaN')
    (tmp_path / "log.json").write_text(text)
    assert read(tmp_path / "log.json").table["reward"].to_list() == [None, 0, None]


def eval_log(path, compression=zipfile.ZIP_DEFLATED, contents=None):
    """A log as inspect_ai packs it."""
    log = orjson.loads((FILES / "inspect_log.json").read_bytes())
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("header.json", orjson.dumps({key: log[key] for key in ("version", "eval")}))
        for sample in contents or log["samples"]:
            content = sample if isinstance(sample, bytes) else orjson.dumps(sample)
            name = "x" if isinstance(sample, bytes) else f"{sample['id']}_epoch_{sample['epoch']}"
            archive.writestr(f"samples/{name}.json", content)


def zstd_log(path):
    """Return the same log compressed by zstd, which `zipfile` cannot write: stored, with the method set afterwards."""
    log = orjson.loads((FILES / "inspect_log.json").read_bytes())
    with zipfile.ZipFile(path, "w") as archive:
        for sample in log["samples"]:
            content = orjson.dumps(sample)
            packed = pa.compress(content, codec="zstd", asbytes=True)
            info = zipfile.ZipInfo(f"samples/{sample['id']}_epoch_{sample['epoch']}.json")
            archive.writestr(info, packed)
            info.compress_type, info.file_size, info.CRC = 93, len(content), zlib.crc32(content)


@pytest.mark.parametrize("pack", [eval_log, zstd_log])
def test_zipped_log_is_read_as_the_plain_one(tmp_path, pack):
    pack(tmp_path / "x.eval")
    corpus, plain = read(tmp_path), read(FILES / "inspect_log.json")
    assert corpus.table.select("instance_id", "reward").equals(plain.table.select("instance_id", "reward"))
    assert list(corpus.records(corpus.table)) == list(plain.records(plain.table))


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ([b"[" * (32 << 20)], "decompresses to more than"),
        ([], "has no samples/"),
        (None, "cannot be read as a zip file"),
    ],
)
def test_damaged_zipped_log_is_refused(tmp_path, contents, words):
    path = tmp_path / "x.eval"
    if contents is None:
        path.write_bytes(b"PK\x03\x04" + b"x" * 90)
    elif contents:
        eval_log(path, contents=contents)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("header.json", "{}")
    with pytest.raises(InputError, match=words):
        read_corpus([str(path)])


def test_atif_steps():
    turns = conversation("trajectory.json")
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert (turns[2]["reasoning_content"], turns[3]["tool_call_id"]) == ("The lid is in lid.py.", "c1")


def test_share_gpts_calls():
    first, second = conversations(read(FILES / "share_gpt.json"))
    assert [turn["role"] for turn in first] == ["system", "user", "assistant"]
    assert [turn["role"] for turn in second] == ["user", "assistant", "tool", "assistant"]
    assert second[1]["tool_calls"][0]["function"] == {"name": "bash", "arguments": {"command": "ls"}}


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.traj", "x.log", "x"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_under_any_name(tmp_path, name, indent):
    (tmp_path / name).write_text(json.dumps([record("a"), record("b")], indent=indent))
    assert read(tmp_path / name).table["instance_id"].to_list() == ["a", "b"]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.traj", "x"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_concatenated_documents(tmp_path, name, indent, count):
    (tmp_path / name).write_text("\n".join(json.dumps(record(str(each)), indent=indent) for each in range(count)))
    corpus = read(tmp_path / name)
    assert corpus.table["instance_id"].to_list() == [str(each) for each in range(count)]
    assert len(list(corpus.records(corpus.table))) == count


def test_a_list_of_messages_on_each_line(tmp_path):
    turns = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}] for answer in "ab"]
    (tmp_path / "chats.jsonl").write_bytes(b"\n".join(map(orjson.dumps, turns)))
    assert read(tmp_path / "chats.jsonl").table["instance_id"].to_list() == ["chats-1", "chats-2"]


def test_columns_of_a_table_are_read_alike(tmp_path):
    rows = [orjson.loads(line) for line in (FILES / "swe_smith.jsonl").read_bytes().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet").table["reward"].to_list() == [1, 0]


def test_own_rows_are_read_unchanged(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(lines([record()]))
    (source,) = find_sources([str(tmp_path / "x.jsonl")])
    assert identify(source) == source


ODD = {"task": {"name": "p"}, "turns": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "points": 0.5}


def test_field_names_of_the_user(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(lines([ODD, ODD | {"points": None}, ODD | {"points": True}]))
    corpus = read(tmp_path / "x.jsonl", fields=FieldNames("task.name", "points", "turns"))
    assert corpus.table["instance_id"].to_list() == ["p"] * 3
    assert corpus.table["reward"].to_list() == [0.5, None, 1]
    assert corpus.table["success"].to_list() == [False, None, True]
    assert [turn["role"] for turn in conversations(corpus)[0]] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            FieldNames(id="task.nme"),
            "missing: `task.nme` identifies the problem of a row; the row has task, turns, points",
        ),
        (FieldNames(id="task.name", messages="points"), "points holds no messages"),
    ],
)
def test_missing_field_of_the_user(tmp_path, fields, reason):
    (tmp_path / "x.jsonl").write_bytes(lines([ODD]))
    bad = []
    read_corpus([str(tmp_path / "x.jsonl")], lambda _, row: bad.append(row), fields=fields)
    assert [row.reason.startswith(reason) for row in bad] == [True]


def test_rows_of_no_known_form_are_refused_with_their_fields(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(lines([{"instance_id": "p", "dialogue": [["q", "a"]], "points": 1}]))
    words = "their fields are instance_id, dialogue, points: name the messages with --messages_field, the reward with"
    with pytest.raises(InputError, match=words):
        read_corpus([str(tmp_path / "x.jsonl")])


def test_id_field_of_the_user_applies_to_other_producers(tmp_path):
    rows = [orjson.loads(line) | {"group": 7} for line in (FILES / "results.jsonl").read_bytes().splitlines()]
    (tmp_path / "x.jsonl").write_bytes(lines(rows))
    assert read(tmp_path / "x.jsonl", fields=FieldNames(id="group")).table["instance_id"].to_list() == ["7", "7"]


def nodes(value, path=()):
    """The ways to all values in a value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from nodes(item, (*path, key))


def replaced(value, path, other):
    if not path:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], other)
    return copy


DOCUMENTS = [
    (name, document)
    for name in FORMS
    for document in (
        [orjson.loads((FILES / name).read_bytes())]
        if not name.endswith(".jsonl")
        else map(orjson.loads, (FILES / name).read_bytes().splitlines())
    )
]
ODDITIES = st.sampled_from(
    [None, True, 3, -1, 1e308, 2**64, "", "x", "[", "[1]", "{}", [], [None], [[]], [{}], {}, {"a": [1]}, {"role": 3}]
)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_value_in_any_field_is_a_row_or_a_bad_row(data):
    _, document = data.draw(st.sampled_from(DOCUMENTS))
    for _ in range(data.draw(st.integers(1, 3))):
        document = replaced(document, data.draw(st.sampled_from(list(nodes(document)))), data.draw(ODDITIES))
    try:
        reader = find_reader("x.json", document, FieldNames())
    except InputError:
        return
    row = RawRow(1, orjson.dumps(document) if not _has_large(document) else json.dumps(document).encode())
    for produced in reader.rows([row]) if reader else ():
        assert isinstance(produced, BadRow) or isinstance(orjson.loads(produced.text), dict)


def _has_large(value):
    return str(2**64) in str(value)


def test_deeply_nested_document_is_a_bad_row(tmp_path):
    deep = b'{"trajectory_format": "mini-swe-agent-1", "messages": [' + b"[" * 900 + b"]" * 900 + b"]}"
    (tmp_path / "x.traj.json").write_bytes(deep)
    bad = []
    read_corpus([str(tmp_path / "x.traj.json")], lambda _, row: bad.append(row))
    assert len(bad) <= 1


def test_zip_header_with_a_wrong_offset_is_refused(tmp_path):
    zstd_log(tmp_path / "x.eval")
    content = bytearray((tmp_path / "x.eval").read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 42 : at + 46] = struct.pack("<I", 1)
    (tmp_path / "x.eval").write_bytes(bytes(content))
    with pytest.raises(InputError, match="cannot be read as a zip file"):
        read_corpus([str(tmp_path / "x.eval")])


@pytest.mark.parametrize(
    ("value", "reward"), [(True, 1), (1, 1), (0, 0), (0.0, 0), ("true", 1), ("False", 0), (2, None), ("x", None)]
)
def test_verdicts_as_tables_write_them(tmp_path, value, reward):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    (tmp_path / "x.jsonl").write_bytes(lines([{"instance_id": "p", "trajectory": messages, "resolved": value}]))
    table = read(tmp_path / "x.jsonl").table
    assert (table["reward"].to_list(), table["turns"].to_list()) == ([reward], [1])


def test_responses_in_a_log_of_requests(tmp_path):
    output = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ho"}]}]
    row = {
        "request": {"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function", "name": "f"}]},
        "response": {"output": output, "usage": {"input_tokens": 3, "output_tokens": 2}},
    }
    (tmp_path / "x.jsonl").write_bytes(lines([row]))
    corpus = read(tmp_path / "x.jsonl")
    assert [turn["role"] for turn in conversations(corpus)[0]] == ["user", "assistant"]
    assert corpus.table.select("instance_id", "prompt_tokens").rows() == [("x", 3)]


def test_choices_are_samples_of_one_problem(tmp_path):
    row = orjson.loads((FILES / "litellm.jsonl").read_bytes().splitlines()[0])
    row["response"]["choices"] *= 2
    (tmp_path / "x.jsonl").write_bytes(lines([row, row | {"id": "other"}]))
    table = read(tmp_path / "x.jsonl").table
    assert table["sample_id"].to_list() == [0, 1, 0, 1]
    assert table["number"].to_list() == [1, 2, 3, 4]


def test_rewards_of_steps_add_up(tmp_path):
    document = orjson.loads((FILES / "trajectory.json").read_bytes())
    del document["extra"]["reward"]
    document["steps"][2]["metrics"]["reward"] = 0.25
    document["steps"][3]["metrics"]["extra"] = {"reward": 0.5}
    (tmp_path / "x.json").write_bytes(orjson.dumps(document))
    assert read(tmp_path / "x.json").table["reward"].to_list() == [0.75]


CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]}
OF_ANTHROPIC = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}],
    "stop_reason": "max_tokens",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"role": "human", "value": "q"}, {"role": "gpt", "value": "a"}]},
        {"conversations": [{"from": "user", "content": "q"}, {"from": "ai", "content": "a"}]},
        {"conversations": [{"from": "human", "text": "q"}, {"from": "bot", "text": "a"}]},
        {"conversation": [{"input": "q", "output": "a"}]},
        {"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"messages": [{"type": "human", "content": "q"}, {"type": "ai", "content": "a"}]},
    ],
)
def test_speakers_and_texts_under_other_names(tmp_path, row):
    (tmp_path / "x.jsonl").write_bytes(lines([row]))
    assert conversations(read(tmp_path / "x.jsonl")) == [CHAT]


@pytest.mark.parametrize(
    "row",
    [
        {"system_prompt": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"system": [{"type": "text", "text": "s"}], "messages": CHAT},
        {"request": {"system": "s", "messages": CHAT[:1]}, "response": OF_ANTHROPIC},
        {"proxy_server_request": {"system": "s", "messages": CHAT[:1]}, "response": OF_ANTHROPIC},
        {"system": "s", "messages": CHAT[:1], "request": {"max_tokens": 8}, "response": OF_ANTHROPIC},
    ],
)
def test_a_system_prompt_beside_the_conversation_is_its_first_message(tmp_path, row):
    (tmp_path / "x.jsonl").write_bytes(lines([row]))
    assert [turn["role"] for turn in conversations(read(tmp_path / "x.jsonl"))[0]] == ["system", "user", "assistant"]


def test_anthropics_answers_in_a_log(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(lines([{"call_type": "x", "messages": CHAT[:1], "response": OF_ANTHROPIC}]))
    corpus = read(tmp_path / "x.jsonl")
    assert corpus.table.select("error_type", "truncated", "completion_tokens").rows() == [(None, True, 2)]
    assert conversations(corpus)[0][1]["reasoning_content"] == "t"


def test_an_error_as_the_response_is_a_failure(tmp_path):
    prompt = {"request": {"messages": CHAT[:1]}}
    error = {"message": "slow down", "type": "rate_limit"}
    (tmp_path / "x.jsonl").write_bytes(lines([prompt | {"response": ANSWER}, prompt | {"response": {"error": error}}]))
    assert read(tmp_path / "x.jsonl").table["error_type"].to_list() == [None, "rate_limit"]


def test_outputs_of_batches(tmp_path):
    rows = [
        {"custom_id": "1", "response": {"status_code": 200, "body": ANSWER}, "error": None},
        {"custom_id": "2", "response": {"status_code": 400, "body": {"error": {"type": "invalid"}}}, "error": None},
        {"custom_id": "3", "response": None, "error": {"code": "batch_expired"}},
        {"custom_id": "4", "result": {"type": "succeeded", "message": OF_ANTHROPIC}},
        {"custom_id": "5", "result": {"type": "errored", "error": {"type": "overloaded"}}},
        {"custom_id": "6", "request": {"body": {"messages": CHAT[:1]}}, "response": {"body": ANSWER}},
    ]
    (tmp_path / "x.jsonl").write_bytes(lines(rows))
    table = read(tmp_path / "x.jsonl").table
    assert table["instance_id"].to_list() == list("123456")
    assert table["error_type"].to_list() == [None, "invalid", "batch_expired", None, "overloaded", None]
    # Without its request an answer is not trained on.
    assert table["marked"].to_list() == [True] * 5 + [False]


def test_rows_of_several_producers_in_one_file(tmp_path):
    rows = [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, {"messages": CHAT}]
    (tmp_path / "x.jsonl").write_bytes(lines(rows))
    assert conversations(read(tmp_path / "x.jsonl")) == [CHAT, CHAT]


@pytest.mark.parametrize(
    ("row", "reward"),
    [
        ({"prompt": "q", "completion": "a", "label": False}, 0),
        ({"prompt": "q", "completion": "a", "label": 1}, 1),
        ({"messages": CHAT, "label": 0}, None),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "kto_tag": False}, 0),
    ],
)
def test_labels_of_kto(tmp_path, row, reward):
    (tmp_path / "x.jsonl").write_bytes(lines([row]))
    corpus = read(tmp_path / "x.jsonl")
    (line,) = corpus.records(corpus.table)
    assert corpus.table["reward"].to_list() == [reward]
    assert (b'"rejected"' in line) == (reward == 0)


@pytest.mark.parametrize(
    ("error", "report", "results"),
    [
        ("RuntimeError: Agent reached maximum iteration. Current iteration: 30", {"resolved": False}, (False, None)),
        ("RuntimeError: Agent reached maximum budget for conversation", {}, (None, None)),
        (None, {"resolved": False, "error_eval": True}, (None, "error_eval")),
    ],
)
def test_openhands_failures(tmp_path, error, report, results):
    events = [{"action": "message", "source": "user", "args": {"content": "q"}}]
    row = {"instance_id": "p", "history": events, "error": error, "test_result": {"report": report}}
    (tmp_path / "output.jsonl").write_bytes(lines([row]))
    assert read(tmp_path / "output.jsonl").table.select("success", "error_type").rows() == [results]


def harbor_trial(job, name, result, **verifier):
    """A trial's folder as Harbor leaves it."""
    trial = job / name
    (trial / "agent").mkdir(parents=True)
    (trial / "verifier").mkdir()
    document = orjson.loads((FILES / "trajectory.json").read_bytes()) | {"extra": {}}
    (trial / "agent" / "trajectory.json").write_bytes(orjson.dumps(document))
    (trial / "result.json").write_bytes(orjson.dumps({"task_name": "lid", "trial_name": name, **result}))
    for kind, content in verifier.items():
        (trial / "verifier" / f"reward.{kind}").write_text(content)
    return trial


TIMEOUT = {"exception_type": "AgentTimeoutError", "exception_message": "900 s"}


@pytest.mark.parametrize(
    ("result", "verifier", "results"),
    [
        ({"verifier_result": {"rewards": {"reward": 1.0, "style": 0.5}}}, {}, (1, True, None)),
        ({"verifier_result": {"rewards": {"solved": 0}}}, {}, (0, False, None)),
        ({"verifier_result": None}, {"txt": "0.5\n"}, (0.5, False, None)),
        ({"verifier_result": None}, {"json": '{"reward": 1}'}, (1, True, None)),
        ({"verifier_result": {"rewards": {"reward": 0}}, "exception_info": TIMEOUT}, {}, (0, False, None)),
        ({"verifier_result": None, "exception_info": TIMEOUT}, {}, (None, None, "AgentTimeoutError")),
    ],
)
def test_harbor_verdict_beside_the_trajectory(tmp_path, result, verifier, results):
    trial = harbor_trial(tmp_path, "lid__1", result, **verifier)
    table = read(trial / "agent" / "trajectory.json").table
    assert table.select("reward", "success", "error_type").rows() == [results]
    assert table["instance_id"].to_list() == ["lid"]


def test_verdict_outside_of_the_trial_is_not_read(tmp_path):
    trial = harbor_trial(tmp_path / "job", "lid__1", {})
    (tmp_path / "secret").write_text("1")
    (trial / "verifier" / "reward.txt").symlink_to(tmp_path / "secret")
    assert read(trial).table["reward"].to_list() == [None]


def test_harbor_job_is_read_as_its_trials(tmp_path):
    for number in range(2):
        harbor_trial(tmp_path, f"lid__{number}", {"verifier_result": {"rewards": {"reward": number}}})
    (tmp_path / "result.json").write_text('{"n_total_trials": 2}')
    assert read(tmp_path).table["reward"].to_list() == [0, 1]


@pytest.mark.parametrize("name", ["kettle__kettle-7.traj.json", "kettle__kettle-9.traj"])
def test_trajectories_each_in_a_folder_of_its_own(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes((FILES / name).read_bytes())
    (tmp_path / "preds.json").write_text('{"p": {"model_patch": "x"}}')
    assert read(tmp_path).table["instance_id"].to_list() == [name.removesuffix(".json").removesuffix(".traj")]


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {
            "input": {"messages": CHAT[:1], "tools": []},
            "preferred_output": CHAT[1:],
            "non_preferred_output": [{"role": "assistant", "content": "b"}],
        },
    ],
)
def test_preferences_of_other_producers(tmp_path, row):
    (tmp_path / "x.jsonl").write_bytes(lines([row]))
    corpus = read(tmp_path / "x.jsonl")
    assert conversations(corpus) == [CHAT, [CHAT[0], {"role": "assistant", "content": "b"}]]
    assert corpus.table["success"].to_list() == [True, False]


def test_a_request_of_responses_is_the_prompt(tmp_path):
    output = [{"type": "message", "role": "assistant", "content": "a"}]
    row = {"request": {"input": "q", "instructions": "s"}, "response": {"output": output}}
    (tmp_path / "x.jsonl").write_bytes(lines([row]))
    assert conversations(read(tmp_path / "x.jsonl")) == [[{"role": "system", "content": "s"}, *CHAT]]


def test_a_reward_as_text_is_a_number(tmp_path):
    rows = [{"prompt": "q", "completion": "a", "reward": reward} for reward in ("1.0", "0", "nan", "good")]
    (tmp_path / "x.jsonl").write_bytes(lines(rows))
    assert read(tmp_path / "x.jsonl").table["reward"].to_list() == [1, 0, None, None]


def test_events_in_a_column_of_json_text(tmp_path):
    row = orjson.loads((FILES / "openhands.jsonl").read_bytes().splitlines()[0])
    row["history"] = json.dumps(row["history"])
    (tmp_path / "x.jsonl").write_bytes(lines([row]))
    assert conversations(read(tmp_path / "x.jsonl"))[0] == conversation("openhands.jsonl")


def test_answer_under_another_field(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(lines([{"instance_id": "p", "prompt": "q", "response": "a", "reward": 1}]))
    assert conversations(read(tmp_path / "x.jsonl")) == [CHAT]


@pytest.mark.parametrize("target", [True, False])
def test_trajectories_of_nebius(tmp_path, target):
    turns = [
        {"role": "system", "system_prompt": "s", "text": None, "mask": False},
        {"role": "user", "system_prompt": "", "text": "q", "mask": False},
        {"role": "ai", "system_prompt": "", "text": "a", "mask": False},
    ]
    row = {"instance_id": "p", "target": target, "trajectory": turns, "generated_patch": "d"}
    (tmp_path / "x.jsonl").write_bytes(lines([row]))
    corpus = read(tmp_path / "x.jsonl")
    assert conversations(corpus) == [[{"role": "system", "content": "s"}, *CHAT]]
    assert corpus.table["success"].to_list() == [target]


def test_langchain_conversation_is_read_in_any_format(tmp_path):
    prompt = {"type": "human", "content": "q"}
    answers = [{"type": "ai", "content": "a"}, {"type": "ai", "data": {"content": "b", "type": "ai"}}]
    (tmp_path / "alone.json").write_bytes(orjson.dumps([prompt, answers[0]]))
    (tmp_path / "rows.jsonl").write_bytes(lines([{"messages": [prompt, answer], "reward": 1} for answer in answers]))
    assert [turn["role"] for turn in conversations(read(tmp_path / "alone.json"))[0]] == ["user", "assistant"]
    rows = read(tmp_path / "rows.jsonl")
    assert rows.table["instance_id"].n_unique() == 1  # equal prompts are the same problem
    assert [turns[-1]["content"] for turns in conversations(rows)] == ["a", "b"]
