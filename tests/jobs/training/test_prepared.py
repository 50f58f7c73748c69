import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.exports.splitting import Split
from rollmill.jobs.training.advice import many_texts
from rollmill.jobs.training.masks import Masks, Tokens
from rollmill.jobs.training.prepared import TRAIN, VALIDATION, pack_rows, prepare_rows, read_prepared, rows_file
from tests.jobs.training.tiny_models import QWEN, make_tokenizer, row, write_rows

TOKENIZER = make_tokenizer()
LENGTH = len("question 0") + len("yes") + 4


def learnt_rows(path):
    """The rows of a file that `prepare_rows` wrote."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return [Tokens(row["input_ids"], row["labels"]) for batch in stream for row in batch.to_pylist()]


def prepare(folder, train, validation=(), **options):
    folder.mkdir(exist_ok=True)
    paths = [[write_rows(folder / f"{name}{n}.jsonl", rows) for n, rows in enumerate(files)]
             for name, files in (("train", train), ("validation", validation))]  # fmt: skip
    return prepare_rows(folder, Masks(TOKENIZER, "base"), *paths, **{"max_length": 64, **options})


def test_rows_longer_than_the_model_length_are_dropped(tmp_path):
    rows = [row(1), row(2, "a" * 50), row(3, "a" * 90)]
    prepared = prepare(tmp_path / "bounded", [rows], max_length=80, model_length=60)
    assert prepared.dropped == {"over_model_length": 1, "over_max_length": 1}
    assert (prepared.train.rows, prepared.model_length) == (1, 60)
    why = orjson.loads((tmp_path / "bounded" / "dropped.jsonl").read_bytes().splitlines()[0])
    assert why["detail"] == f"{LENGTH + 47} tokens, more than the 60 that base takes"
    prepared = prepare(tmp_path / "roomy", [rows], max_length=80, model_length=80)
    assert (prepared.dropped, prepared.model_length) == ({"over_max_length": 1}, None)
    with pytest.raises(InputError, match=r"can be used \(1 over_model_length\); the first: .*60 that base takes"):
        prepare(tmp_path / "none", [rows[1:2]], max_length=80, model_length=60)


def test_every_row_is_used_or_left_out_with_a_reason(tmp_path):
    long = row(2, "a" * 100)
    rows = [row(), "{", {"messages": []}, long, row(1, "no")]
    prepared = prepare(tmp_path, [rows, [row(3)]], [[row(9), long | {"metadata": {"instance_id": "p8"}}]])
    assert prepared.train.model_dump() == {
        "rows": 3, "problems": 3, "tokens": 3 * LENGTH - 1, "learnt_tokens": 3 * 4 - 1, "longest": LENGTH,
        "texts": 3,
    }  # fmt: skip
    assert prepared.validation.rows == prepared.validation.problems == 1
    assert prepared.dropped == {"unusable": 2, "over_max_length": 2}
    left_out = [orjson.loads(line) for line in (tmp_path / "dropped.jsonl").read_bytes().splitlines()]
    assert [(item["file"].rpartition("/")[2], item["line"], item["reason"]) for item in left_out] == [
        ("train0.jsonl", 2, "unusable"),
        ("train0.jsonl", 3, "unusable"),
        ("train0.jsonl", 4, "over_max_length"),
        ("validation0.jsonl", 2, "over_max_length"),
    ]
    assert read_prepared(tmp_path) == prepared
    assert [TOKENIZER.decode([item for item in tokens.labels if item >= 0]) for tokens in
            learnt_rows(rows_file(tmp_path, TRAIN))] == ["yes<eos>", "no<eos>", "yes<eos>"]  # fmt: skip


def test_many_texts_per_row_are_noted(tmp_path):
    """A template that drops the thoughts of earlier turns makes a text of each turn."""
    turns = [{"role": role, "content": "a"} for _ in range(5) for role in ("user", "assistant")]
    path = write_rows(tmp_path / "a.jsonl", [{"messages": turns}])
    masks = Masks(make_tokenizer(QWEN), "M")
    (tmp_path / "made").mkdir()
    used = prepare_rows(tmp_path / "made", masks, [path], [], max_length=1000).train
    assert (used.rows, used.texts) == (1, 5)
    assert "1 rows became 5 texts" in many_texts(used.rows, used.texts)
    assert many_texts(5, 10) == many_texts(5, 0) == ""


def test_turns_left_out_of_rows_that_are_used_are_counted(tmp_path):
    turns = [*row()["messages"], {"role": "user", "content": "more?"}, {"role": "assistant", "content": ""}]
    prepared = prepare(tmp_path, [[{"messages": turns}, row(1)]])
    assert (prepared.train.rows, prepared.dropped, prepared.turns_left_out) == (2, {}, {"turn_empty": 1})
    left_out = orjson.loads((tmp_path / "dropped.jsonl").read_bytes())
    assert (left_out["line"], left_out["turn"], left_out["reason"]) == (1, True, "turn_empty")


def test_a_row_becomes_several_texts_where_earlier_turns_are_rewritten(tmp_path):
    messages = [*row(0, "<think>why</think>yes")["messages"], {"role": "user", "content": "more?"},
                {"role": "assistant", "content": "no"}]  # fmt: skip
    write_rows(tmp_path / "a.jsonl", [{"messages": messages}])
    masks = Masks(make_tokenizer(QWEN), "base")
    prepared = prepare_rows(tmp_path, masks, [str(tmp_path / "a.jsonl")], [], max_length=200, allow_no_end=True)
    assert (prepared.train.rows, prepared.train.texts, prepared.ends) == (1, 2, {"<|im_end|>": 2})
    assert len(learnt_rows(rows_file(tmp_path, TRAIN))) == 2


def test_data_without_end_tokens_is_refused_unless_allowed(tmp_path):
    rows = [row(n, metadata={"instance_id": f"p{n}", "truncated": True}) for n in range(3)]
    with pytest.raises(
        InputError, match=r"none of the 3 turns to train on ends with an end-of-turn token.*--allow_no_end"
    ):
        prepare(tmp_path / "a", [rows])
    assert read_prepared(tmp_path / "a") is None
    prepared = prepare(tmp_path / "b", [rows], allow_no_end=True)
    assert (prepared.ends, prepared.turns_without_end) == ({}, 3)


def test_end_tokens_at_which_the_base_does_not_stop_are_reported(tmp_path):
    added = []
    assert prepare(tmp_path / "a", [[row()]], add_stops=added.extend).stops_added == ["<eos>"] == added
    path = write_rows(tmp_path / "rows.jsonl", [row()])
    masks = Masks(TOKENIZER, "base", ["<eos>"])
    prepared = prepare_rows(tmp_path, masks, [path], [], max_length=64, add_stops=pytest.fail)
    assert prepared.stops_added == []


def test_one_row_is_enough(tmp_path):
    assert prepare(tmp_path, [[row()]]).train.rows == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the train data has no rows: check --train_data"),
        ([row(0, "a" * 99)], "the only row of the train data has more than --max_length 64 tokens: raise it"),
        ([row(n, "a" * 99) for n in range(3)], "all 3 rows of the train data have more than --max_length 64"),
        (["{", row(0, "a" * 99), "["], r"can be used \(2 unusable, 1 over_max_length\); the first: .*0.jsonl, line 1:"),
    ],
)
def test_empty_training_data_is_reported_in_one_line(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        prepare(tmp_path, [rows])
    assert read_prepared(tmp_path) is None
    assert not rows_file(tmp_path, TRAIN).exists()


def test_problems_in_training_and_validation_data_are_refused(tmp_path):
    with pytest.raises(InputError, match="2 problems are in both the training and the validation data, such as 'p1'"):
        prepare(tmp_path, [[row(n) for n in range(3)]], [[row(1), row(2, "other"), row(7)]])


def test_a_share_is_set_aside_by_problem(tmp_path):
    rows = [row(n // 2, "yes" if n % 2 else "no") for n in range(40)]
    prepared = prepare(tmp_path, [rows], split=Split(0.25))
    assert prepared.train.rows + prepared.validation.rows == 40
    assert prepared.train.problems + prepared.validation.problems == 20
    assert prepared.validation.rows == 2 * prepared.validation.problems > 0
    assert len(list(learnt_rows(rows_file(tmp_path, VALIDATION)))) == prepared.validation.rows


def test_packs_have_every_row_uncut(tmp_path):
    rows = [row(n, "a" * (n * 7 % 30 + 1)) for n in range(30)]
    plain = prepare(tmp_path / "plain", [rows])
    assert prepare(tmp_path / "packed", [rows], packing=True) == plain
    apart = sorted(tuple(tokens.input_ids) for tokens in learnt_rows(rows_file(tmp_path / "plain", TRAIN)))
    with pa.memory_map(str(rows_file(tmp_path / "packed", TRAIN))) as file, pa.ipc.open_stream(file) as stream:
        packs = stream.read_all().to_pylist()
    result = []
    for pack in packs:
        assert len(pack["input_ids"]) == len(pack["labels"]) == sum(pack["seq_lengths"]) <= 64
        begin = 0
        for length in pack["seq_lengths"]:
            result.append(tuple(pack["input_ids"][begin : begin + length]))
            begin += length
    assert sorted(result) == apart
    assert len(packs) < 20


@given(st.lists(st.integers(1, 50), max_size=60))
def test_packing_loses_nothing_and_is_never_worse_than_next_fit(lengths):
    packs = pack_rows(lengths, 50)
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    sums = [sum(lengths[row] for row in pack) for pack in packs]
    assert all(total <= 50 for total in sums)
    assert sum(total <= 25 for total in sums) <= 1


def test_a_row_longer_than_a_pack_is_an_error():
    with pytest.raises(ValueError, match="row 1 has 51 tokens"):
        pack_rows([3, 51], 50)
