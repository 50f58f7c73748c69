import json
from inspect import signature
from pathlib import Path

import orjson
import polars as pl
import pytest
from transformers import PreTrainedTokenizerBase

from rollmill.corpus.corpus import read_corpus
from rollmill.errors import InputError
from rollmill.exports.card import write_card
from rollmill.exports.sft import export_sft
from rollmill.exports.splitting import Split
from rollmill.files.rows import BadRow
from rollmill.generation.sampling import NOT_FOR_TEMPLATES
from rollmill.jobs.training.data_files import find_data
from rollmill.jobs.training.rows import TrainingRow, read_training_rows, training_row
from tests.corpus.sample_records import make_run, record
from tests.corpus.test_producers import FILES
from tests.exports.sample_corpus import InMemoryCorpus, rollout
from tests.jobs.training.tiny_models import row, write_rows

ASSISTANT = {"role": "assistant", "content": "b"}
USER = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({}, "neither messages, nor prompt and completion"),
        ({"prompt": "a"}, "neither messages, nor prompt and completion"),
        ({"prompt": [USER], "chosen": [ASSISTANT], "rejected": [ASSISTANT]}, "neither messages"),
        ({"messages": []}, "not a list of messages"),
        ({"messages": [USER]}, "no assistant turn to train on"),
        ({"prompt": [USER, ASSISTANT], "completion": [USER]}, "no assistant turn to train on"),
        ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, "the assistant's turns are empty"),
        ({"messages": [{"content": "a"}, ASSISTANT]}, "a message without a role"),
        ({"messages": [{"role": "user", "content": 3}, ASSISTANT]}, "neither text nor a list"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "image": "x"}]}, ASSISTANT]}, "images are not"),
        ({"messages": [USER, ASSISTANT], "tools": "{"}, "not valid JSON"),
        ({"messages": [USER, ASSISTANT], "tools": "{}"}, "not a list"),
        ({"messages": [USER, ASSISTANT], "chat_template_kwargs": 3}, "not an object"),
    ],
)
def test_unusable_rows_have_a_reason(bad, reason):
    result = training_row(7, bad)
    assert isinstance(result, BadRow)
    assert result.number == 7
    assert reason in result.reason


@pytest.mark.parametrize("name", sorted(NOT_FOR_TEMPLATES))
def test_rendering_parameters_in_a_row_are_refused(name):
    result = training_row(
        1, {"messages": [USER, ASSISTANT], "chat_template_kwargs": {"enable_thinking": True, name: 1}}
    )
    assert (result.field, result.reason) == ("chat_template_kwargs", f"{name} is not a variable of templates")


def test_all_parameters_of_apply_chat_template_are_refused():
    custom = signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    assert custom.keys() - NOT_FOR_TEMPLATES == {"documents"}
    assert training_row(1, {**row(), "chat_template_kwargs": {"documents": []}}).options == {"documents": []}


def test_messages_are_as_templates_expect_them():
    parts = [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]
    call = {"id": None, "function": {"name": "f", "arguments": '{"n": 1}'}}
    broken = {"function": {"name": "f", "arguments": "{n"}}
    spoken = {"role": "assistant", "content": None, "tool_calls": [call, broken], "name": None}
    result = training_row(1, {"messages": [{"role": "user", "content": parts}, spoken]})
    assert result.messages == [
        {"role": "user", "content": "x\ny"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"function": {"name": "f", "arguments": {"n": 1}}},
                {"function": {"name": "f", "arguments": "{n"}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("mark", "untrained"),
    [
        ({"weight": 0}, True),
        ({"weight": 0.0}, True),
        ({"weight": 1}, False),
        ({"weight": None}, False),
        ({"train": False}, True),
        ({"trainable": False}, True),
        ({"loss": False}, True),
        ({"loss": True}, False),
        ({"loss": 0}, True),
        ({"weight": "0"}, True),
        ({"train": "false"}, True),
        ({"training": False}, True),
        ({"train_on_turn": False}, True),
        ({"loss_mask": 0}, True),
        ({"mask": True}, True),
        ({"masked": 1}, True),
        ({"train_detail": [{"train": False}]}, True),
        ({"train_detail": [{"train": True}]}, False),
        ({"mask": 1}, False),
        ({}, False),
    ],
)
def test_marked_turns_do_not_carry_the_loss(mark, untrained):
    result = training_row(1, {"messages": [USER, {**ASSISTANT, **mark}, USER, ASSISTANT]})
    assert result.trained == ((3,) if untrained else (1, 3))
    assert result.messages[1] == ASSISTANT


@pytest.mark.parametrize(
    "mark",
    [{"train": False}, {"trainable": "no"}, {"is_trainable": 0}, {"exclude_from_training": True}],
)
def test_marked_rows_are_left_out(mark):
    for marked in (mark, {"metadata": {**mark, "reward": 1}}):
        assert training_row(1, {"messages": [USER, ASSISTANT], **marked}).field == "marked_not_for_training"
    assert not isinstance(training_row(1, {"messages": [USER, ASSISTANT], "train": True}), BadRow)


@pytest.mark.parametrize("end", [{"finish_reason": "length"}, {"stop_reason": "max_tokens"}])
def test_turns_are_marked_as_cut_off_by_their_finish_reason(end):
    result = training_row(1, {"messages": [USER, {**ASSISTANT, **end}, USER, {**ASSISTANT, "finish_reason": "stop"}]})
    assert (result.cut_off, result.endless) == ({1}, {1})
    assert result.messages[1] == ASSISTANT


@pytest.mark.parametrize("more", [{"metadata": {"truncated": True}}, {"finish_reason": "max_tokens"}])
def test_rows_marked_as_truncated_are_cut_off_at_the_last_turn(more):
    assert training_row(1, {"messages": [USER, ASSISTANT, USER, ASSISTANT], **more}).cut_off == {3}


def test_a_row_of_marked_turns_only_is_unusable():
    result = training_row(1, {"messages": [USER, {**ASSISTANT, "weight": 0}]})
    assert result.field == "marked_not_for_training"
    assert result.reason == "all turns of the assistant are marked as not to be trained on"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_get_one_key(name):
    result = training_row(1, {"messages": [USER, {**ASSISTANT, name: "hm"}]})
    assert result.messages[1] == {**ASSISTANT, "reasoning_content": "hm"}
    blank = training_row(1, {"messages": [USER, {**ASSISTANT, "reasoning_content": "", name: "hm"}]})
    assert blank.messages[1].get("reasoning_content") == "hm"
    assert "reasoning_content" not in training_row(1, {"messages": [USER, {**ASSISTANT, name: " "}]}).messages[1]


def test_arguments_keep_their_text():
    call = {"function": {"name": "f", "arguments": '{"n":1,  "m": 2}'}}
    result = training_row(1, {"messages": [USER, {**ASSISTANT, "tool_calls": [call]}]})
    arguments = result.messages[1]["tool_calls"][0]["function"]["arguments"]
    assert (arguments, arguments.text) == ({"n": 1, "m": 2}, '{"n":1,  "m": 2}')


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize(("deep", "usable"), [(99, True), (101, False), (900, False)])
def test_deeply_nested_arguments_are_refused(as_text, deep, usable):
    text = f'{{"a": {"[" * deep}1{"]" * deep}}}'
    call = {"function": {"name": "f", "arguments": text if as_text else orjson.loads(text)}}
    result = training_row(1, {"messages": [USER, {**ASSISTANT, "tool_calls": [call]}]})
    assert isinstance(result, BadRow) != usable
    assert usable or result.reason == "arguments of a call that are nested more than 100 levels deep"


@pytest.mark.parametrize("name", ["arguments", "args", "input", "parameters"])
@pytest.mark.parametrize("arguments", [{"n": 1}, '{"n": 1}'])
def test_flat_calls_get_openais_form(name, arguments):
    calls = [{"id": "c", "name": "f", name: arguments}, {"name": "g"}]
    result = training_row(1, {"messages": [USER, {**ASSISTANT, "tool_calls": calls}]})
    assert result.messages[1]["tool_calls"] == [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"n": 1}}},
        {"type": "function", "function": {"name": "g", "arguments": {}}},
    ]


def test_an_empty_list_of_calls_is_dropped():
    result = training_row(1, {"messages": [USER, {**ASSISTANT, "tool_calls": []}]})
    assert "tool_calls" not in result.messages[1]


def test_the_problem_is_the_instance_id_or_the_prompt():
    assert training_row(1, row(3)).problem == "p3"
    first, same, other = ({"prompt": text, "completion": answer} for text, answer in ("ab", "ac", "bb"))
    assert training_row(1, first).problem == training_row(1, same).problem != training_row(1, other).problem


def test_bad_lines_have_their_line_numbers(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [row(), "", "{", "[]", row(1)])
    result = dict(read_training_rows(path))
    assert [number for number, item in result.items() if isinstance(item, BadRow)] == [3, 4]
    assert sorted(result) == [1, 3, 4, 5]


def exported(folder: Path, name="sft", split=0.3):
    corpus = InMemoryCorpus([rollout(f"p{number}", 0, 1.0, answer=f"a{number}") for number in range(8)])
    result = export_sft(folder / f"{name}.jsonl", corpus, corpus.table, split=Split(split) if split else None)
    write_card(result, corpus=corpus)
    return result


def test_a_folder_stands_for_its_export(tmp_path):
    result = exported(tmp_path)
    data = find_data([str(tmp_path)], [])
    assert [Path(file.path).name for file in data.train] == ["sft.jsonl"]
    assert [Path(file.path).name for file in data.validation] == ["sft.validation.jsonl"]
    assert find_data([str(tmp_path)], [], own_validation=False).validation == []
    assert len(list(read_training_rows(data.train[0].path))) == result.rows["train"]
    assert find_data([str(result.files["train"])], [str(tmp_path)]) == data


def test_hashes_are_of_the_content(tmp_path):
    item, two, other = (write_rows(tmp_path / f"{name}.jsonl", [row(name == "c")]) for name in "abc")
    hashes = [find_data([path], []).train[0].sha256 for path in (item, two, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_invalid_training_data_is_refused(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [row()])
    (tmp_path / "b.txt").write_text("no rows")
    for options, message in (
        ([path, path], "given twice"),
        ([str(tmp_path / "b.jsonl")], "there is no file"),
        ([str(tmp_path / "b.txt")], "b.txt is of no kind that can be read"),
        ([str(tmp_path)], "has no card of an export that trains"),
    ):
        with pytest.raises(InputError, match=message):
            find_data(options, [])
    with pytest.raises(InputError, match="given twice"):
        find_data([path], [path])
    exported(tmp_path, "one", None)
    exported(tmp_path, "two", None)
    with pytest.raises(InputError, match=r"several exports \(one, two\): name the .jsonl file of one"):
        find_data([str(tmp_path)], [])


@pytest.mark.parametrize("path", sorted(FILES.iterdir()), ids=lambda path: path.name)
def test_training_reads_what_curation_reads(path, tmp_path):
    corpus = read_corpus([str(path)])
    usable = corpus.table.filter(pl.col("error_type").is_null())
    export_sft(tmp_path / "sft.jsonl", corpus, usable, keep_truncated=True)
    exported = [row.messages for _, row in read_training_rows(str(tmp_path / "sft.jsonl"))]
    rows = [row for _, row in read_training_rows(str(path))]
    trained = [row.messages for row in rows if isinstance(row, TrainingRow)]
    assert trained == exported


@pytest.mark.parametrize("label", [False, 0, "false"])
def test_rejected_answers_are_not_trained_on(label):
    rows = [{"prompt": "q", "completion": "a", "label": each} for each in (label, True)]
    refused, trained = (training_row(1, row) for row in rows)
    assert refused.field == "rejected_side_of_a_preference"
    assert isinstance(trained, TrainingRow)


def test_an_unrelated_label_column_is_ignored():
    assert isinstance(training_row(1, {"messages": [USER, ASSISTANT], "label": 0}), TrainingRow)


@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_a_system_prompt_beside_messages_becomes_the_first_message(name):
    result = training_row(1, {name: "s", "messages": [USER, ASSISTANT]})
    assert [message["role"] for message in result.messages] == ["system", "user", "assistant"]


def test_messages_as_json_text_are_a_conversation(tmp_path):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path = write_rows(tmp_path / "a.jsonl", [{"instance_id": "p", "messages": json.dumps(messages)}])
    assert [result.messages for _, result in read_training_rows(path)] == [messages]


def test_a_runs_directory_stands_for_its_journal(tmp_path):
    journal = make_run(tmp_path / "run", [record("a"), record("b", error={"type": "http"})])
    assert [file.path for file in find_data([str(tmp_path / "run")], []).train] == [str(journal)]
    rows = [row for _, row in read_training_rows(str(journal))]
    assert [isinstance(row, TrainingRow) for row in rows] == [False, True]


def arguments_of(options):
    call = {"type": "function", "function": {"name": "f", "arguments": options}}
    row = {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]}
    result = training_row(1, row)
    return result.reason if isinstance(result, BadRow) else result.messages[1]["tool_calls"][0]["function"]["arguments"]


def test_integers_of_any_length_stay_exact():
    assert arguments_of('{"n": 123456789012345678901234567890}') == {"n": 123456789012345678901234567890}
    assert "not read exactly" in arguments_of(orjson.loads(b'{"n": [123456789012345678901234567890]}'))
    assert "not read exactly" in arguments_of('{"n": 1e999}')
    assert arguments_of('{"n": NaN}') == '{"n": NaN}'


def test_thoughts_repeated_in_the_content_are_removed_there():
    turn = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb", "reasoning": "hm"}
    assert training_row(1, {"messages": [USER, turn]}).messages[1] == ASSISTANT | {"reasoning_content": "hm"}


def test_conversations_of_langchain_are_trained_on(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(orjson.dumps({"messages": [{"type": "human", "content": "a"}, {"type": "ai", "content": "b"}]}))
    [(_, result)] = read_training_rows(str(path))
    assert result.messages == [USER, ASSISTANT]
