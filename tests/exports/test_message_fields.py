"""Thoughts, tools, calls, images, truncated turns and training marks in exports."""

from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pytest
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.corpus.corpus import read_corpus
from rollmill.errors import InputError
from rollmill.exports.preferences import export_preferences
from rollmill.exports.sft import export_sft
from rollmill.exports.trajectories import export_trajectory
from tests.exports.sample_corpus import lines_of

TOOLS = [{"type": "function", "function": {"name": "read", "parameters": {"type": "object", "properties": {}}}}]
QUESTION = {"role": "user", "content": "2+3"}


def answer(content="5", **fields):
    return {"role": "assistant", "content": content, **fields}


def row(*turns, sample=0, reward=1.0, **fields):
    facts = {"instance_id": "p", "sample_id": sample, "reward": reward, "success": reward > 0.5}
    return facts | {"messages": [QUESTION, *turns]} | fields


def call(arguments, name="read"):
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


class Exports:
    """Exports of some rows, into one folder."""

    def __init__(self, folder, rows):
        self.folder = folder
        (folder / "in.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
        self.corpus = read_corpus([str(folder / "in.jsonl")])

    def write(self, exporter, **options):
        return exporter(self.folder / "out.jsonl", self.corpus, self.corpus.table, **options)

    def sft(self, **options):
        exported = self.write(export_sft, **options)
        return lines_of(self.folder / "out.jsonl"), exported


@pytest.fixture
def exports(tmp_path):
    return lambda *rows: Exports(tmp_path, rows)


@pytest.mark.parametrize("form", ["messages", "prompt_completion"])
def test_thoughts_and_tools_are_in_every_row(exports, form):
    recorded = row(answer(reasoning="why"), tools=TOOLS, chat_template_kwargs={"enable_thinking": True})
    [line], _ = exports(recorded).sft(format=form)
    assert line[form.rpartition("_")[2]][-1] == answer(reasoning_content="why")
    assert (line["tools"], line["chat_template_kwargs"]) == (TOOLS, {"enable_thinking": True})


def test_pairs_have_thoughts_and_tools(exports):
    rows = [row(answer(reasoning="right"), tools=TOOLS), row(answer(reasoning="no"), sample=1, reward=0.0, tools=TOOLS)]
    built = exports(*rows)
    built.write(export_preferences)
    [pair] = lines_of(built.folder / "out.jsonl")
    thoughts = [pair[side][0]["reasoning_content"] for side in ("chosen", "rejected")]
    assert (thoughts, pair["tools"]) == (["right", "no"], TOOLS)


def test_trajectories_have_thoughts_and_tools(exports):
    recorded = row(answer("looking", reasoning="why"), QUESTION, completion="5", reasoning_content="so", tools=TOOLS)
    built = exports(recorded)
    built.write(export_trajectory)
    [line] = lines_of(built.folder / "out.jsonl")
    assert line["trajectory"][1:] == [
        answer("looking", reasoning_content="why"), QUESTION, answer(reasoning_content="so"),
    ]  # fmt: skip
    assert line["tools"] == TOOLS


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        ('{"path": "a", "n": 123456789012345678901234567890}', b'{"path": "a", "n": 123456789012345678901234567890}'),
        ('{"x": 1.50, "x": 2e3}', b'{"x": 1.50, "x": 2e3}'),
        ('{"b": null,\n "a": "\u00e9"}', '{"b":null,"a":"\u00e9"}'.encode()),
        ({"path": "a"}, b'{"path":"a"}'),
        (None, b"{}"),
        ("", b"{}"),
    ],
)
def test_arguments_are_objects_of_the_values_that_were_sent(exports, sent, written):
    built = exports(row(answer("", tool_calls=[call(sent)])))
    assert not [note for note in built.sft()[1].notes if "no JSON" in note]
    assert b'"arguments":' + written + b"}" in (built.folder / "out.jsonl").read_bytes()


@pytest.mark.parametrize("sent", ["ls -l", "[1]", '{"a": NaN}', '{"a": 1'])
def test_arguments_that_are_no_object_stay_text_and_are_counted(exports, sent):
    [line], exported = exports(row(answer("", tool_calls=[call(sent)]))).sft()
    assert line["messages"][-1]["tool_calls"][0]["function"]["arguments"] == sent
    assert "1 tool calls have arguments that are no JSON object: they stay text" in exported.notes


def test_arguments_can_be_text(exports):
    calls = [call('{"a": 1}'), call({"a": 1})]
    [line], _ = exports(row(answer("", tool_calls=calls))).sft(arguments="text")
    written = [each["function"]["arguments"] for each in line["messages"][-1]["tool_calls"]]
    assert written == ['{"a": 1}', '{"a":1}']


def test_unanswered_calls_and_stray_results_are_noted(exports):
    turns = [answer("", tool_calls=[call("{}")]), {"role": "tool", "tool_call_id": "c9", "content": "x"}, answer()]
    _, exported = exports(row(*turns)).sft()
    assert exported.notes[-2:] == (
        "1 tool calls have no result (the last turn's own among them)",
        "1 results answer no tool call",
    )


def test_one_thinking_part_leaves_all_rows_text(exports):
    parts = [{"type": "thinking", "thinking": "why"}, {"type": "text", "text": "6"}]
    lines, _ = exports(row(answer()), row(answer(parts), sample=1)).sft()
    assert [line["messages"][1] for line in lines] == [answer(), answer("6", reasoning_content="why")]
    assert not any("images" in line for line in lines)


def test_other_media_are_parts_without_images(exports):
    audio = {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}
    [line], _ = exports(row({"role": "user", "content": [audio]}, answer())).sft()
    assert "images" not in line
    assert line["messages"][-1]["content"] == [{"type": "text", "text": "5"}]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}},
        {"type": "image_url", "image_url": "data:image/png;base64,eA=="},
        {"type": "input_image", "image_url": "data:image/png;base64,eA=="},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}},
        {"type": "image", "image": "data:image/png;base64,eA==", "text": None},
    ],
)
def test_images_as_data_uris_are_listed(exports, part):
    [line], _ = exports(row({"role": "user", "content": [part]}, answer())).sft()
    assert line["images"] == ["data:image/png;base64,eA=="]
    assert {"type": "image"} in [piece for turn in line["messages"] for piece in turn["content"]]


def test_an_export_with_images_is_read_back(exports, tmp_path):
    part = {"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}
    [line], _ = exports(row({"role": "user", "content": [part]}, answer())).sft()
    [again], _ = exports(line).sft()
    assert again == line


def deep(depth=900):
    return b"[" * depth + b"]" * depth


UNREADABLE = {
    "arguments": b'"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\\"a\\":1e400}"}}]',
    "thoughts": b'"thinking_blocks":' + deep(),
    "call": b'"function_call":{"name":"f","function":{"name":4}}',
    "tools": b'"name":null}],"tools":[{"a":1e400}],"more":[{"a":1',
    "deep tools": b'"name":null}],"tools":[' + deep() + b'],"more":[{"a":1',
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("exporter", [export_sft, export_preferences, export_trajectory])
def test_a_row_that_cannot_be_read_is_left_out_alone(tmp_path, exporter, kind):
    rows = [row(answer("XX")), row(answer("6"), sample=1), row(answer("7"), sample=2, reward=0.0)]
    text = b"\n".join(map(orjson.dumps, rows)).replace(b'"XX"', b'"8",' + UNREADABLE[kind])
    (tmp_path / "in.jsonl").write_bytes(text)
    corpus = read_corpus([str(tmp_path / "in.jsonl")])
    exported = exporter(tmp_path / "out.jsonl", corpus, corpus.table)
    assert exported.kept + exported.dropped.height + corpus.quarantined == 3
    assert set(exported.reasons) <= {"unreadable_content", "no_contrast"}
    assert exported.reasons.get("unreadable_content", 0) + corpus.quarantined <= 1
    assert b"8" not in (tmp_path / "out.jsonl").read_bytes() or exporter is export_trajectory


def test_truncated_rollouts_are_dropped(exports):
    recorded = [row(answer(), finish_reason="stop"), row(answer("4"), sample=1, finish_reason="length")]
    lines, exported = exports(*recorded).sft()
    assert ([line["messages"][1]["content"] for line in lines], exported.reasons) == (["5"], {"truncated": 1})


def test_kept_truncated_rollout_is_recorded(exports):
    turns = [answer("a", finish_reason="length"), QUESTION, answer(finish_reason="length")]
    [line], _ = exports(row(*turns)).sft(keep_truncated=True)
    assert line["metadata"]["truncated"] is True
    assert [turn.get("weight") for turn in line["messages"]] == [None, 0, None, None]


@pytest.mark.parametrize(("keep", "chosen"), [(False, "fair"), (True, "best")])
def test_truncated_rollout_is_not_chosen(exports, keep, chosen):
    rows = [
        row(answer("best"), reward=1.0, finish_reason="length"),
        row(answer("fair"), sample=1, reward=0.8),
        row(answer("worst"), sample=2, reward=0.0, finish_reason="length"),
    ]
    built = exports(*rows)
    built.write(export_preferences, keep_truncated=keep)
    [pair] = lines_of(built.folder / "out.jsonl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == (chosen, "worst")
    assert pair["metadata"]["rejected_truncated"] is True


def test_truncated_rollout_without_pair_has_the_reason(exports):
    rows = [row(answer("best"), finish_reason="length"), row(answer("worst"), sample=1, reward=0.0)]
    assert exports(*rows).write(export_preferences).reasons == {"truncated": 1, "no_contrast": 1}


def test_a_marked_row_is_in_no_export(exports):
    built = exports(row(answer(), train=False), row(answer("4"), sample=1, reward=0.0))
    assert built.sft()[1].reasons == {"marked_not_for_training": 1}
    assert built.write(export_preferences).reasons == {"marked_not_for_training": 1, "no_contrast": 1}


def test_a_marked_turn_has_no_weight_and_is_cut_off_at_the_end(exports):
    turns = [answer("a", train=False), QUESTION, answer(), QUESTION, answer("b", weight=0)]
    [line], _ = exports(row(*turns)).sft()
    assert line["messages"] == [QUESTION, answer("a", weight=0), QUESTION, answer()]


def test_completion_begins_at_the_first_trained_turn(exports):
    turns = [answer("a", train=False), QUESTION, answer()]
    [line], _ = exports(row(*turns)).sft(format="prompt_completion")
    assert (len(line["prompt"]), line["completion"]) == (3, [answer()])


def test_a_row_of_marked_turns_is_dropped(exports):
    assert exports(row(answer(train=False))).sft()[1].reasons == {"marked_not_for_training": 1}


@pytest.mark.parametrize("exporter", [export_sft, export_preferences, export_trajectory])
def test_an_export_of_nothing_leaves_the_file_as_it_was(exports, tmp_path, exporter):
    built = exports(row(answer()))
    (tmp_path / "out.jsonl").write_text("an earlier one")
    with pytest.raises(InputError, match="left as it was"):
        exporter(tmp_path / "out.jsonl", built.corpus, built.corpus.table.clear(), allow_empty=False)
    assert (tmp_path / "out.jsonl").read_text() == "an earlier one"


def test_an_export_written_as_parquet_is_read_back_as_the_same_rows(exports, tmp_path):
    rows = [
        row(answer("", reasoning="why", tool_calls=[call('{"path": "a"}')]), tools=TOOLS),
        row(answer("", tool_calls=[call('{"n": [1, null], "deep": {"x": null}}', "write")]), sample=1, tools=TOOLS),
        row(answer("plain"), sample=2),
    ]
    lines, _ = exports(*rows).sft()
    loaded = load_dataset("json", data_files=str(tmp_path / "out.jsonl"), cache_dir=str(tmp_path / "cache"))["train"]
    loaded.to_parquet(tmp_path / "again.parquet")
    corpus = read_corpus([str(tmp_path / "again.parquet")])
    export_sft(tmp_path / "again.jsonl", corpus, corpus.table)
    assert lines_of(tmp_path / "again.jsonl") == lines


TEXT = st.text(st.sampled_from('a\u00e9 "{['), min_size=1, max_size=5).filter(str.strip)
VALUES = st.dictionaries(st.sampled_from("xyz"), TEXT | st.none() | st.integers(-9, 9).map(lambda n: {"n": n}))
ROWS = st.lists(
    st.fixed_dictionaries(
        {"answer": TEXT, "thoughts": st.none() | TEXT, "calls": st.lists(VALUES, max_size=2)},
        optional={
            "tools": st.just(TOOLS),
            "tokens": st.fixed_dictionaries({"file": st.just("t"), "offset": st.integers(0, 9)})
            | st.just({"file": "t", "offset": 3, "calls": [-1], "other_prompt": True}),
            "chat_template_kwargs": st.just({"enable_thinking": False}),
            "image": st.just("data:image/png;base64,eA=="),
        },
    ),
    min_size=1,
    max_size=4,
)


def made_row(sample, answer, thoughts, calls, image=None, **fields):
    built = [call(orjson.dumps(arguments).decode()) for arguments in calls]
    turn = {"role": "assistant", "content": answer, "reasoning_content": thoughts, "tool_calls": built}
    question = {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "?"}]}
    return row(*([question] if image else []), turn, sample=sample, **fields)


# Parquet has one column for each field of all rows; what each row has of it is to come back, and nothing besides.
@settings(max_examples=8, deadline=None)
@given(ROWS)
def test_any_export_written_as_parquet_is_read_back_as_the_same_rows(rows):
    with TemporaryDirectory() as name:
        folder = Path(name)
        lines, _ = Exports(folder, [made_row(number, **each) for number, each in enumerate(rows)]).sft()
        load_json(folder / "out.jsonl").to_parquet(folder / "again.parquet")
        corpus = read_corpus([str(folder / "again.parquet")])
        export_sft(folder / "again.jsonl", corpus, corpus.table)
        assert lines_of(folder / "again.jsonl") == lines


def load_json(path):
    return load_dataset("json", data_files=str(path), cache_dir=str(path.parent / "cache"))["train"]


@pytest.mark.parametrize("text", ["\\ud800", "\\udc00 x", "\\ud83d y"])
def test_lone_surrogate_becomes_a_question_mark(tmp_path, text):
    line = orjson.dumps(row(answer("ab"))).replace(b"ab", b"a" + text.encode())
    (tmp_path / "in.jsonl").write_bytes(line)
    corpus = read_corpus([str(tmp_path / "in.jsonl")])
    export_sft(tmp_path / "out.jsonl", corpus, corpus.table)
    [written] = lines_of(tmp_path / "out.jsonl")
    assert written["messages"][1]["content"] == "a?" + text[6:]
    assert corpus.repaired == 1


@pytest.mark.parametrize("location", ["row", "metadata"])
def test_calls_beside_a_completion_belong_to_the_answer(exports, location):
    calls = {"tool_calls": [call('{"x": 1}')]}
    beside = calls if location == "row" else {"metadata": calls}
    [line], exported = exports(row(completion="", **beside)).sft()
    assert line["messages"][-1] == answer("", tool_calls=[call({"x": 1})])
    assert exported.kept == 1


def test_sent_arguments_and_dropped_reasoning(exports):
    odd = answer("", tool_calls=[call("{")], extra={"sent_arguments": ['{"malformed_arguments":"{"}'], "cost": 1})
    [line], _ = exports(
        row(odd, {"role": "tool", "content": "no"}, answer(), metadata={"reasoning_dropped": True})
    ).sft()
    assert line["messages"][1] == answer("", tool_calls=[call("{")], sent_arguments=['{"malformed_arguments":"{"}'])
    assert line["metadata"]["reasoning_dropped"] is True


@pytest.mark.parametrize(
    "stopped",
    [{"stop_text": "END"}, {"stop_text": ""}, {"stop_reason": "stop_sequence"}],
)
def test_stop_string_is_exported(exports, stopped):
    text = stopped.get("stop_text", "")
    [alone], _ = exports(row(completion="5", **stopped)).sft()
    [last], _ = exports(row(answer(**stopped))).sft()
    [earlier], _ = exports(row(answer(**stopped), QUESTION, answer("6"))).sft()
    assert alone["messages"][-1] == last["messages"][-1] == earlier["messages"][1] == answer(stop_text=text)
    assert [line["metadata"].get("no_end") for line in (alone, last, earlier)] == [True, True, None]


def test_examples_in_a_prompt_are_context(exports):
    example = [answer("4"), {"role": "user", "content": "2+4"}]
    [line], _ = exports(row(*example, completion="6")).sft()
    assert line["messages"] == [QUESTION, answer("4", weight=0), example[1], answer("6")]
    [parted], _ = exports(row(*example, completion="6")).sft(format="prompt_completion")
    assert parted["completion"] == [answer("6")]
