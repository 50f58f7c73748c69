"""Contamination by benchmarks."""

import gzip

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.jobs.curation import contamination as module
from rollmill.jobs.curation.contamination import Benchmarks

LONG = "If a train leaves the station at noon and travels sixty miles per hour, how far has it gone by five?"
SHORT = "How many primes are below 100?"  # six words


def lines(path, rows):
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return str(path)


def words(text):
    return text.replace(",", "").replace("?", "").split()


def test_a_shared_run_of_thirteen_words(tmp_path):
    marks = Benchmarks.read([lines(tmp_path / "b.jsonl", [{"question": SHORT}, {"question": LONG}])])
    cut = words(LONG)
    texts = [
        f"He wrote:\n{LONG.upper()}",
        " ".join(["so", *cut[3:16], "then"]),
        " ".join(["so", *cut[3:15], "then"]),
        " -- ".join(cut[-13:]),
        "",
        "Tell me: how many PRIMES are\nbelow 100",
        "how many primes are below 101",
        "primes are below 100",
        f"{SHORT} {LONG}",
    ]
    item, short = "b.jsonl:2", "b.jsonl:1"
    assert marks.contaminated(texts) == [item, item, None, item, None, short, None, None, short]
    assert (marks.items, marks.too_short, marks.too_common) == (2, 0, 0)
    assert marks.contaminated([]) == []


def test_runs_do_not_cross_texts(tmp_path):
    marks = Benchmarks.read([lines(tmp_path / "b.jsonl", [{"question": LONG}, {"question": SHORT}])])
    cut, short = words(LONG), words(SHORT)
    assert marks.contaminated([" ".join(cut[:10]), " ".join(cut[10:])]) == [None, None]
    assert marks.contaminated([" ".join(short[:5]), short[5]]) == [None, None]
    assert marks.contaminated([" ".join(short[:5])]) == [None]


def test_other_lengths_of_runs(tmp_path):
    path = lines(tmp_path / "b.jsonl", [{"question": LONG}])
    text = " ".join(words(LONG)[2:10])
    assert Benchmarks.read([path], ngram=8).contaminated([text]) == ["b.jsonl:1"]
    assert Benchmarks.read([path], ngram=9).contaminated([text]) == [None]
    with pytest.raises(InputError, match="n-grams of 4 words"):
        Benchmarks.read([path], ngram=4)


def test_chinese_is_compared_by_character(tmp_path):
    marks = Benchmarks.read([lines(tmp_path / "b.jsonl", [{"problem": "一列火车中午从车站出发每小时行驶六十英里"}])])
    assert marks.contaminated(["他说：火车中午从车站出发每小时行驶。", "火车中午从车站出发每小"]) == ["b.jsonl:1", None]


def test_short_items_are_ignored(tmp_path):
    rows = [{"question": "What is two?"}, {"question": "What is one plus one?"}, {"question": ""}, {"other": 1}]
    marks = Benchmarks.read([lines(tmp_path / "b.jsonl", rows)])
    assert (marks.items, marks.too_short) == (4, 3)
    assert marks.contaminated(["What is two?", "say: what is one plus one"]) == [None, "b.jsonl:2"]


def test_phrases_of_many_items_are_no_evidence(tmp_path):
    advice = "Please reason step by step and put your final answer within a box at the end"
    rows = [
        {"instruction": advice, "input": f"Add the number {number} to itself {number} times"} for number in range(11)
    ]
    marks = Benchmarks.read([lines(tmp_path / "b.jsonl", rows)])
    assert marks.too_common == 4  # sixteen words
    assert marks.contaminated([advice, "add the number 7 to itself 7 times"]) == [None, "b.jsonl:8"]
    ten = Benchmarks.read([lines(tmp_path / "b.jsonl", rows[:10])])
    assert ten.contaminated([advice]) == ["b.jsonl:1"]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [{"role": "system", "content": "x"}, {"role": "user", "content": LONG}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG}, {"type": "image", "image": "a"}]}]},
        {"text": LONG, "answer": 3},
        {"problem_statement": [None, LONG]},
    ],
)
def test_question_columns(tmp_path, row):
    marks = Benchmarks.read([lines(tmp_path / "b.jsonl", [row])])
    assert marks.contaminated([LONG]) == ["b.jsonl:1"]


def test_answers_of_a_model_are_no_questions(tmp_path):
    row = {"messages": [{"role": "user", "content": SHORT}, {"role": "assistant", "content": LONG}]}
    assert Benchmarks.read([lines(tmp_path / "b.jsonl", [row])]).contaminated([LONG, SHORT]) == [None, "b.jsonl:1"]


def test_every_kind_of_file(tmp_path):
    (tmp_path / "a.json").write_bytes(orjson.dumps({"examples": [{"question": "x"}, {"question": LONG}]}))
    pl.DataFrame({"question": [LONG]}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text(f"\ufeffone\n\n{LONG}\n", encoding="utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(LONG.encode()))
    for name, number in {"a.json": 2, "a.parquet": 1, "a.txt": 3, "a.txt.gz": 1}.items():
        assert Benchmarks.read([str(tmp_path / name)]).contaminated([LONG]) == [f"{name}:{number}"]


def test_files_of_one_name_are_distinguished(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    paths = [lines(tmp_path / "a/b.jsonl", [{"text": SHORT}]), lines(tmp_path / "b/b.jsonl", [{"text": LONG}])]
    assert Benchmarks.read(paths).contaminated([LONG]) == [f"{paths[1]}:1"]


def test_mistakes_are_named(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b'{"question": "a"}\n{"question": \n')
    none = lines(tmp_path / "none.jsonl", [{"answer": 1, "body": LONG}])
    empty = lines(tmp_path / "empty.jsonl", [])
    latin = tmp_path / "latin.txt"
    latin.write_bytes("é".encode("latin-1"))
    for path, reason in {
        str(bad): "bad.jsonl, row 2: not valid JSON",
        none: "none.jsonl has none of the columns prompt, .* only answer, body: rename",
        empty: "empty.jsonl holds no row",
        str(latin): "cannot read benchmark .*latin.txt",
        str(tmp_path / "absent.jsonl"): "cannot read .*absent.jsonl",
        "openai/gsm8k": "benchmark openai/gsm8k is no file",
    }.items():
        with pytest.raises(InputError, match=reason):
            Benchmarks.read([path])


def test_hash_collision_is_no_hit(tmp_path, monkeypatch):
    path = lines(tmp_path / "b.jsonl", [{"question": LONG}, {"question": SHORT}])
    original = module.split_words
    monkeypatch.setattr(
        module, "split_words", lambda texts: original(texts)._replace(hashes=original(texts).hashes * 0)
    )
    marks = Benchmarks.read([path])
    assert marks.contaminated(["quite other words " * 20, f"before this: {LONG}"])[0] is None


@settings(max_examples=60)
@given(
    items=st.lists(st.lists(st.sampled_from("abc"), max_size=9), min_size=1, max_size=6),
    texts=st.lists(st.lists(st.sampled_from("abc"), max_size=25), max_size=4),
)
def test_contamination_equals_a_naive_search(tmp_path_factory, items, texts):
    path = lines(tmp_path_factory.mktemp("b") / "b.jsonl", [{"question": " ".join(item)} for item in items])
    result = Benchmarks.read([path], ngram=7).contaminated([" ".join(text) for text in texts])
    runs = [item[start : start + 7] for item in items for start in range(len(item) - 6)]
    runs += [item for item in items if 5 <= len(item) < 7]
    for text, name in zip(texts, result, strict=True):
        shared = any(text[start : start + len(run)] == run for run in runs for start in range(len(text)))
        assert (name is not None) == shared
