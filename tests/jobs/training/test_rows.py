from pathlib import Path

import pytest

from rollmill.errors import InputError
from rollmill.exports.card import write_card
from rollmill.exports.sft import export_sft
from rollmill.exports.splitting import Split
from rollmill.files.rows import BadRow
from rollmill.jobs.training.data_files import find_data
from rollmill.jobs.training.rows import read_training_rows, training_row
from tests.exports.made import MadeCorpus, rollout
from tests.jobs.training.made import row, write_rows

ASSISTANT = {"role": "assistant", "content": "b"}
USER = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({}, "neither messages, nor prompt and completion"),
        ({"prompt": "a"}, "neither messages, nor prompt and completion"),
        ({"prompt": [USER], "chosen": [ASSISTANT], "rejected": [ASSISTANT]}, "neither messages"),
        ({"messages": []}, "not a list of messages"),
        ({"messages": [USER]}, "no assistant turn to learn"),
        ({"prompt": [USER, ASSISTANT], "completion": [USER]}, "no assistant turn to learn"),
        ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, "the assistant's turns are empty"),
        ({"messages": [{"content": "a"}, ASSISTANT]}, "a message without a role"),
        ({"messages": [{"role": "user", "content": 3}, ASSISTANT]}, "neither text nor a list"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "image": "x"}]}, ASSISTANT]}, "images are not"),
        ({"messages": [USER, ASSISTANT], "tools": "{"}, "not valid JSON"),
        ({"messages": [USER, ASSISTANT], "tools": "{}"}, "not a list"),
        ({"messages": [USER, ASSISTANT], "chat_template_kwargs": 3}, "not an object"),
    ],
)
def test_what_teaches_nothing_says_why(bad, reason):
    made = training_row(7, bad)
    assert isinstance(made, BadRow)
    assert made.number == 7
    assert reason in made.reason


def test_messages_are_as_templates_expect_them():
    parts = [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]
    call = {"id": None, "function": {"name": "f", "arguments": '{"n": 1}'}}
    broken = {"function": {"name": "f", "arguments": "{n"}}
    spoken = {"role": "assistant", "content": None, "tool_calls": [call, broken], "name": None}
    made = training_row(1, {"messages": [{"role": "user", "content": parts}, spoken]})
    assert made.messages == [
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


def test_the_problem_is_the_id_else_the_prompt():
    assert training_row(1, row(3)).problem == "p3"
    first, same, other = ({"prompt": text, "completion": answer} for text, answer in ("ab", "ac", "bb"))
    assert training_row(1, first).problem == training_row(1, same).problem != training_row(1, other).problem


def test_lines_that_are_no_rows_are_numbered(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [row(), "", "{", "[]", row(1)])
    found = dict(read_training_rows(path))
    assert [number for number, one in found.items() if isinstance(one, BadRow)] == [3, 4]
    assert sorted(found) == [1, 3, 4, 5]


def exported(folder: Path, name="sft", split=0.3):
    corpus = MadeCorpus([rollout(f"p{number}", 0, 1.0, answer=f"a{number}") for number in range(8)])
    made = export_sft(folder / f"{name}.jsonl", corpus, corpus.table, split=Split(split) if split else None)
    write_card(made, corpus=corpus)
    return made


def test_a_folder_stands_for_its_export(tmp_path):
    made = exported(tmp_path)
    data = find_data([str(tmp_path)], [])
    assert [Path(file.path).name for file in data.train] == ["sft.jsonl"]
    assert [Path(file.path).name for file in data.validation] == ["sft.validation.jsonl"]
    assert find_data([str(tmp_path)], [], own_validation=False).validation == []
    assert len(list(read_training_rows(data.train[0].path))) == made.rows["train"]
    assert find_data([str(made.files["train"])], [str(tmp_path)]) == data


def test_hashes_are_of_the_content(tmp_path):
    one, two, other = (write_rows(tmp_path / f"{name}.jsonl", [row(name == "c")]) for name in "abc")
    hashes = [find_data([path], []).train[0].sha256 for path in (one, two, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_is_no_training_data_is_refused(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [row()])
    for given, said in (
        ([path, path], "given twice"),
        ([str(tmp_path / "b.jsonl")], "there is no file"),
        ([str(tmp_path / "b.parquet")], "give a .jsonl file"),
        ([str(tmp_path)], "has no card of an export that trains"),
    ):
        with pytest.raises(InputError, match=said):
            find_data(given, [])
    with pytest.raises(InputError, match="given twice"):
        find_data([path], [path])
    exported(tmp_path, "one", None)
    exported(tmp_path, "two", None)
    with pytest.raises(InputError, match=r"several exports \(one, two\): name the .jsonl file of one"):
        find_data([str(tmp_path)], [])
