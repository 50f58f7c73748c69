import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.exports.splitting import Split
from rollmill.jobs.training.masks import Masks, Tokens
from rollmill.jobs.training.packing import pack_rows
from rollmill.jobs.training.prepared import TRAIN, VALIDATION, prepare_rows, read_prepared, rows_file
from tests.jobs.training.made import make_tokenizer, row, write_rows

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


def test_rows_that_the_model_cannot_take_are_left_out_whatever_max_length_is(tmp_path):
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
    }  # fmt: skip
    assert prepared.validation.rows == prepared.validation.problems == 1
    assert prepared.dropped == {"unusable": 2, "over_max_length": 2}
    left_out = [orjson.loads(line) for line in (tmp_path / "dropped.jsonl").read_bytes().splitlines()]
    assert [(one["file"].rpartition("/")[2], one["line"], one["reason"]) for one in left_out] == [
        ("train0.jsonl", 2, "unusable"),
        ("train0.jsonl", 3, "unusable"),
        ("train0.jsonl", 4, "over_max_length"),
        ("validation0.jsonl", 2, "over_max_length"),
    ]
    assert read_prepared(tmp_path) == prepared
    assert [TOKENIZER.decode([one for one in tokens.labels if one >= 0]) for tokens in
            learnt_rows(rows_file(tmp_path, TRAIN))] == ["yes<eos>", "no<eos>", "yes<eos>"]  # fmt: skip


def test_one_row_is_enough(tmp_path):
    assert prepare(tmp_path, [[row()]]).train.rows == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "the train data has no rows: check --train_data"),
        ([row(0, "a" * 99)], "the only row of the train data has more than --max_length 64 tokens: raise it"),
        ([row(n, "a" * 99) for n in range(3)], "all 3 rows of the train data have more than --max_length 64"),
        (["{", row(0, "a" * 99), "["], r"can be used \(2 unusable, 1 over_max_length\); the first: .*0.jsonl, line 1:"),
    ],
)
def test_nothing_to_train_on_is_said_in_one_line(tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        prepare(tmp_path, [rows])
    assert read_prepared(tmp_path) is None
    assert not rows_file(tmp_path, TRAIN).exists()


def test_validation_shares_no_problem_with_training(tmp_path):
    with pytest.raises(InputError, match="2 problems are in both the training and the validation data, such as 'p1'"):
        prepare(tmp_path, [[row(n) for n in range(3)]], [[row(1), row(2, "other"), row(7)]])


def test_a_share_is_set_aside_by_problem(tmp_path):
    rows = [row(n // 2, "yes" if n % 2 else "no") for n in range(40)]
    prepared = prepare(tmp_path, [rows], split=Split(0.25))
    assert prepared.train.rows + prepared.validation.rows == 40
    assert prepared.train.problems + prepared.validation.problems == 20
    assert prepared.validation.rows == 2 * prepared.validation.problems > 0
    assert len(list(learnt_rows(rows_file(tmp_path, VALIDATION)))) == prepared.validation.rows


def test_packs_hold_every_row_whole(tmp_path):
    rows = [row(n, "a" * (n * 7 % 30 + 1)) for n in range(30)]
    plain = prepare(tmp_path / "plain", [rows])
    assert prepare(tmp_path / "packed", [rows], packing=True) == plain
    apart = sorted(tuple(tokens.input_ids) for tokens in learnt_rows(rows_file(tmp_path / "plain", TRAIN)))
    with pa.memory_map(str(rows_file(tmp_path / "packed", TRAIN))) as file, pa.ipc.open_stream(file) as stream:
        packs = stream.read_all().to_pylist()
    found = []
    for pack in packs:
        assert len(pack["input_ids"]) == len(pack["labels"]) == sum(pack["seq_lengths"]) <= 64
        begin = 0
        for length in pack["seq_lengths"]:
            found.append(tuple(pack["input_ids"][begin : begin + length]))
            begin += length
    assert sorted(found) == apart
    assert len(packs) < 20


@given(st.lists(st.integers(1, 50), max_size=60))
def test_packing_loses_nothing_and_is_never_worse_than_next_fit(lengths):
    packs = pack_rows(lengths, 50)
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    sums = [sum(lengths[row] for row in pack) for pack in packs]
    assert all(total <= 50 for total in sums)
    assert sum(total <= 25 for total in sums) <= 1


def test_a_row_longer_than_a_pack_is_a_mistake():
    with pytest.raises(ValueError, match="row 1 has 51 tokens"):
        pack_rows([3, 51], 50)
