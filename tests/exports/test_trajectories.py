"""Export of whole trajectories."""

import gzip

import orjson
import pytest

from rollmill.corpus.record import decode_record
from rollmill.errors import InputError
from rollmill.exports.trajectories import export_trajectory
from tests.exports.sample_corpus import InMemoryCorpus, lines_of, msg, reasons_of, rollout

KEYS = [
    "instance_id",
    "sample_id",
    "problem_statement",
    "tools",
    "chat_template_kwargs",
    "trajectory",
    "git_diff",
    "exit_status",
    "reward",
    "speedup",
    "success",
    "model_calls",
    "metadata",
]
PROMPT = [msg("system", "s", extra={"t": 1}), msg("user", "q")]


def export(path, records, **options):
    corpus = InMemoryCorpus(records)
    return export_trajectory(path, corpus, corpus.table, **options)


def record(**fields):
    return {"instance_id": "p", "sample_id": 0, **fields}


def test_all_fields_are_kept_with_facts_of_the_table(tmp_path):
    recorded = record(
        problem_statement="make it fast",
        messages=[*PROMPT, msg("assistant", "a"), msg("exit", "Submitted")],
        git_diff="--- a",
        exit_status="Submitted",
        reward=0.5,
        success=True,
        speedup=2.0,
        model_calls=3,
        metadata={"k": [1]},
    )
    corpus = InMemoryCorpus([recorded])
    table = corpus.table.with_columns(success=False)
    exported = export_trajectory(tmp_path / "t.jsonl", corpus, table)
    (line,) = lines_of(tmp_path / "t.jsonl")
    assert list(line) == KEYS
    assert line == {key: recorded.get(key) for key in KEYS} | {"trajectory": recorded["messages"], "success": False}
    assert (exported.form, exported.rows, exported.problems) == ("trajectories", {"train": 1}, {"train": 1})


@pytest.mark.parametrize(
    ("fields", "trajectory"),
    [
        ({}, []),
        ({"messages": None, "completion": None}, []),
        ({"messages": PROMPT, "completion": "a"}, [*PROMPT, msg("assistant", "a")]),
        (
            {"messages": [*PROMPT, msg("assistant", "a")], "completion": "a"},
            [*PROMPT, msg("assistant", "a")],
        ),
        ({"messages": [], "completion": "a"}, [msg("assistant", "a")]),
        ({"trajectory": PROMPT}, PROMPT),
        ({"prompt": "q", "completion": "a"}, [msg("user", "q"), msg("assistant", "a")]),
        (
            {"prompt": PROMPT, "completion": [msg("assistant", "a", k=1)]},
            [*PROMPT, msg("assistant", "a", k=1)],
        ),
        ({"completion": "a"}, [msg("assistant", "a")]),
    ],
)
def test_separate_completion_is_appended(tmp_path, fields, trajectory):
    export(tmp_path / "t.jsonl", [record(**fields)])
    assert lines_of(tmp_path / "t.jsonl")[0]["trajectory"] == trajectory


def test_one_document_with_the_origin(tmp_path):
    exported = export(tmp_path / "t.json", [rollout(), rollout(sample=1)], origin={"run": "abc"})
    document = orjson.loads((tmp_path / "t.json").read_bytes())
    assert document["metadata"] == {"run": "abc"}
    assert [item["sample_id"] for item in document["trajectories"]] == [0, 1]
    assert exported.kept == 2


def test_no_rows_make_an_empty_document(tmp_path):
    export(tmp_path / "t.json", [])
    assert orjson.loads((tmp_path / "t.json").read_bytes()) == {"metadata": {}, "trajectories": []}


def test_indented_records_stay_on_one_line_each(tmp_path):
    text = orjson.dumps(rollout(), option=orjson.OPT_INDENT_2)
    export(tmp_path / "t.jsonl.gz", [text, text])
    lines = gzip.decompress((tmp_path / "t.jsonl.gz").read_bytes()).splitlines()
    assert [orjson.loads(line)["trajectory"] for line in lines] == [rollout()["messages"]] * 2


def test_row_with_invalid_unicode_is_dropped(tmp_path):
    exported = export(tmp_path / "t.jsonl", [b'{"instance_id":"p","sample_id":0,"git_diff":"\xff"}', rollout()])
    assert reasons_of(exported) == {0: "not_unicode"}
    assert len(lines_of(tmp_path / "t.jsonl")) == exported.kept == 1


def test_written_trajectories_round_trip(tmp_path):
    recorded = record(messages=PROMPT, completion="é\n")
    export(tmp_path / "t.jsonl", [recorded])
    line = (tmp_path / "t.jsonl").read_bytes()
    assert decode_record(line).conversation() == decode_record(orjson.dumps(recorded)).conversation()


def test_other_names_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.json or \.jsonl"):
        export(tmp_path / "t.parquet", [])


def test_blank_answers_are_noted(tmp_path):
    records = [rollout(answer=" \n"), rollout(sample=1, answer=" ", error={"type": "timeout"}), rollout(sample=2)]
    built = export(tmp_path / "t.jsonl", [orjson.dumps(each) for each in records])
    assert built.notes == ("in 1 of them the model wrote nothing: --drop_empty leaves them out",)
