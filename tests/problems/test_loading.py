import json
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.problems import ProblemSource, load_problems, read_problems
from tests.problems.conftest import make_png


def test_rows_become_problems(load, write_lines):
    path = write_lines(
        {"prompt": "1+1", "answer": 2, "id": 7, "level": "easy", "raw": {"x": None}},
        b"",
        {"prompt": "2+2", "answer": "4", "id": "b", "level": "hard"},
    )
    loaded = load(path)
    first, second = loaded.problems
    assert (first.instance_id, first.prompt, first.answer) == ("7", "1+1", "2")
    assert first.fields == {"level": "easy", "raw": {"x": None}}
    assert second.instance_id == "b"
    assert loaded.report.fields == {"prompt": "prompt", "answer": "answer", "id": "id"}
    assert (loaded.report.count, loaded.report.quarantined, loaded.report.quarantine_path) == (2, 0, None)
    assert [child.name for child in loaded.report.path.parent.iterdir()] == ["problems.jsonl"]


def test_rows_without_ids_are_numbered_from_0_bad_ones_counted(load, write_lines):
    loaded = load(write_lines({"prompt": "a", "answer": 1}, b"{bad", b"", {"prompt": "c", "answer": 1}))
    assert [problem.instance_id for problem in loaded.problems] == ["row-0", "row-2"]


def test_nested_answer_is_taken_out_of_the_fields(load, write_lines):
    row = {"prompt": [{"role": "user", "content": "q"}], "reward_model": {"ground_truth": "7", "style": "rule"}}
    (problem,) = load(write_lines(row)).problems
    assert problem.answer == "7"
    assert problem.fields == {"reward_model": {"style": "rule"}}
    assert problem.prompt == [{"role": "user", "content": "q"}]


GOOD = {"id": "good", "prompt": "q", "answer": "a"}


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (b'{"id": 1, "prompt": "\\ud800", "answer": 1}', None, "not valid JSON in UTF-8: no low surrogate"),
        (b'{"id": 1, "prompt": "\xff", "answer": 1}', None, "not valid JSON in UTF-8"),
        (b'{"id": 1, "prompt": "q", "answer": NaN}', "answer", "is not a finite number"),
        (b'{"id": 1, "prompt": NaN, "answer": 1}', "prompt", "expected text or chat messages"),
        (b'{"id": 1, "prompt": "\\ud800", "answer": 1, "x": NaN}', None, "not valid JSON in UTF-8: no low surrogate"),
        (b'{"id": 1, "prompt": "q", "answer": 1, "x": NaN', None, "not valid JSON"),
        (b"[1]", None, "expected a JSON object"),
        ({"id": 1, "answer": "a"}, "prompt", "is missing"),
        ({"id": 1, "prompt": " ", "answer": "a"}, "prompt", "is empty"),
        ({"id": 1, "prompt": None, "answer": "a"}, "prompt", "is null"),
        ({"id": 1, "prompt": "q"}, "answer", "is missing"),
        ({"id": 1, "prompt": "q", "answer": None}, "answer", "is null"),
        ({"id": 1, "prompt": "q", "answer": True}, "answer", "expected text or a number: found true or false"),
        ({"id": 1, "prompt": "q", "answer": [["a"]]}, "answer", "expected text or a number: found a list"),
        ({"id": 1, "prompt": "q", "answer": []}, "answer", "is an empty list"),
        ({"id": 1, "prompt": "q", "answer": {"a": 1}}, "answer", "expected text or a number: found an object"),
        ({"prompt": "q", "answer": "a"}, "id", "is missing"),
        ({"id": None, "prompt": "q", "answer": "a"}, "id", "is null"),
        ({"id": "good", "prompt": "q", "answer": "a"}, "instance_id", "duplicate id, first at row 1"),
    ],
)
def test_quarantine(load, write_lines, row, field, reason):
    loaded = load(write_lines(GOOD, b"", row), id_field="id")
    assert [problem.instance_id for problem in loaded.problems] == ["good"]
    (rejected,) = loaded.quarantine
    assert (rejected["row"], rejected["field"]) == (3, field)
    assert rejected["reason"].startswith(reason)
    assert rejected["raw"]
    assert loaded.report.quarantined == sum(loaded.report.reasons.values()) == 1


@pytest.mark.parametrize("ids", [[1, 1], [0.5, 1.5], [None, 1], [[1], [2]], [True, False], ["", "a"]])
def test_column_without_unique_values_is_not_the_id(load, write_lines, ids):
    loaded = load(write_lines(*({"id": value, "prompt": "q", "answer": 1} for value in ids)))
    assert [problem.instance_id for problem in loaded.problems] == ["row-0", "row-1"]
    assert "id" not in loaded.report.fields


def test_next_id_column_is_used(load, write_lines):
    rows = [{"id": "same", "task_id": f"t{n}", "prompt": "q", "answer": 1} for n in range(30)]
    assert load(write_lines(*rows)).problems[29].instance_id == "t29"


def test_column_with_duplicates_after_the_first_rows_is_not_the_id(load, write_lines, caplog):
    rows = [{"id": min(n, 25), "prompt": "q", "answer": 1} for n in range(40)]
    loaded = load(write_lines(*rows), max_bad_share=0.1)
    assert (loaded.report.count, loaded.problems[39].instance_id) == (40, "row-39")
    assert loaded.report.fields == {"prompt": "prompt", "answer": "answer"}
    assert "'id' holds the same value in many rows, and is not taken for ids" in caplog.text


def test_few_rows_with_duplicate_ids_are_quarantined(load, write_lines):
    rows = [{"id": min(n, 37), "prompt": "q", "answer": 1} for n in range(40)]
    loaded = load(write_lines(*rows))
    assert (loaded.report.count, loaded.report.reasons) == (38, {"instance_id: duplicate id": 2})


@pytest.mark.parametrize("answer", [["5"], "5", 5, [5, 5]])
def test_list_with_one_ground_truth_is_that_ground_truth(load, write_lines, answer):
    (problem,) = load(write_lines({"question": "2+3?", "answer": answer})).problems
    assert (problem.answer, problem.equivalent_answers) == ("5", ())


def test_equivalent_ground_truths(load, write_lines):
    (problem,) = load(write_lines({"question": "2+3?", "answer": ["5", "five", 5.0, "five"]})).problems
    assert (problem.answer, problem.equivalent_answers) == ("5", ("five", "5.0"))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(-(2**53), 2**53),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(other=JSON)
def test_values_of_unused_columns_never_refuse_a_row(scratch, other):
    row = {"id": "a", "question": "2+2?", "answer": 4, "difficulty": [float("nan"), other]}
    (scratch / "nan.jsonl").write_text(json.dumps(row))
    report = load_problems(ProblemSource(dataset=str(scratch / "nan.jsonl")), scratch / "nan")
    (problem,) = read_problems(report.path)
    assert (problem.instance_id, problem.answer, problem.fields["difficulty"][0]) == ("a", "4", None)


def test_nan_in_a_document(load, tmp_path):
    (tmp_path / "a.json").write_text('{"question": "q", "answer": 1, "x": NaN}')
    assert load(str(tmp_path / "a.json")).problems[0].fields == {"x": None}
    (tmp_path / "b.json").write_text('[{"question": "q", "answer": 1, "x": -Infinity}]')
    assert load(str(tmp_path / "b.json"), into="b").problems[0].fields == {"x": None}


HUB_ROWS = {
    "gsm8k": ({"question": "q", "answer": "2 * 12 = <<2*12=24>>24.\n#### 24"}, "q", "2 * 12 = <<2*12=24>>24.\n#### 24"),
    "math": ({"problem": "q", "level": "Level 1", "type": "Algebra", "solution": "\\boxed{7}"}, "q", "\\boxed{7}"),
    "math_500": ({"problem": "q", "solution": "s", "answer": "7", "unique_id": "test/1"}, "q", "7"),
    "aime": ({"ID": "2024-I-1", "Problem": "q", "Solution": "s", "Answer": 204}, "q", "204"),
    "mmlu": ({"question": "q", "subject": "law", "choices": ["a", "b"], "answer": 0}, "q", "0"),
    "mmlu_pro": ({"question_id": 1, "question": "q", "options": ["a"], "answer": "I", "answer_index": 8}, "q", "I"),
    "arc": ({"id": "M1", "question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"}, "q", "A"),
    "gpqa": ({"Question": "q", "Correct Answer": "c", "Incorrect Answer 1": "i"}, "q", "c"),
    "humaneval": ({"task_id": "H/0", "prompt": "def f():", "canonical_solution": " 1", "test": "t"}, "def f():", " 1"),
    "mbpp": ({"task_id": 2, "text": "q", "code": "def f(): 1", "test_list": ["assert f()"]}, "q", "def f(): 1"),
    "openr1": ({"problem": "q", "solution": "s", "answer": "7", "correctness_math_verify": [True]}, "q", "7"),
    "deepscaler": ({"problem": "q", "answer": "7", "solution": "s"}, "q", "7"),
    "openmath": ({"expected_answer": "7", "problem": "q", "generated_solution": "g"}, "q", "7"),
    "numina": ({"source": "amc", "problem": "q", "solution": "s", "messages": []}, "q", "s"),
    "simpleqa": ({"metadata": "{}", "problem": "q", "answer": "a"}, "q", "a"),
    "dapo": (
        {"data_source": "d", "prompt": [{"content": "q", "role": "user"}], "reward_model": {"ground_truth": "34"}},
        [{"role": "user", "content": "q"}],
        "34",
    ),
    "triviaqa": ({"question": "q", "question_id": "t1", "answer": {"value": "a", "aliases": ["b"]}}, "q", "a"),
    "squad": ({"id": "1", "context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [1]}}, "q", "a"),
    "olympiad": ({"id": 1, "question": "q", "solution": ["s"], "final_answer": ["2"]}, "q", "2"),
    "bbh": ({"input": "q", "target": "(A)"}, "q", "(A)"),
}


@pytest.mark.parametrize(("row", "prompt", "answer"), HUB_ROWS.values(), ids=HUB_ROWS)
def test_rows_as_data_sets_of_the_hub_have_them(load, write_lines, row, prompt, answer):
    (problem,) = load(write_lines(row)).problems
    assert (problem.prompt, problem.answer, problem.equivalent_answers) == (prompt, answer, ())


def test_deeply_nested_row_is_quarantined(load, write_lines):
    loaded = load(write_lines(GOOD, b'{"id": 1, "prompt": "q", "answer": 1, "x": ' + b"[" * 600 + b"]" * 600 + b"}"))
    assert "nested too deeply" in loaded.quarantine[0]["reason"]


def test_reasons_are_counted(load, write_lines):
    rows = [{"prompt": "q", "answer": None}] * 3 + [{"prompt": "", "answer": "a"}]
    loaded = load(write_lines({"prompt": "q", "answer": "a"}, *rows))
    assert loaded.report.reasons == {"answer: is null": 3, "prompt: is empty": 1}


def test_problem_fault(load, write_lines):
    rows = [{"prompt": "q", "answer": answer} for answer in ("1", "x", "2")]
    loaded = load(
        write_lines(*rows), problem_fault=lambda problem: None if problem.answer.isdigit() else "answer is no number"
    )
    assert [problem.answer for problem in loaded.problems] == ["1", "2"]
    assert loaded.quarantine[0]["reason"] == "answer is no number"
    assert loaded.report.reasons == {"answer is no number": 1}


def test_too_many_bad_rows(tmp_path: Path, write_lines):
    path = write_lines(*[GOOD | {"id": n} for n in range(8)], {"id": 8, "prompt": ""}, {"id": 9, "prompt": "q"})
    source = ProblemSource(dataset=path)
    with pytest.raises(InputError, match=r"2 of 10 rows .* cannot be used.*1 x prompt: is empty.*quarantine\.jsonl"):
        load_problems(source, tmp_path / "run")
    assert len((tmp_path / "run" / "quarantine.jsonl").read_bytes().splitlines()) == 2
    assert not (tmp_path / "run" / "problems.jsonl").exists()
    load_problems(source.model_copy(update={"max_bad_share": 0.2}), tmp_path / "run")


@pytest.mark.parametrize("row", [{"prompt": " ", "answer": 1}, b"{bad"])
def test_no_usable_row(load, write_lines, row):
    with pytest.raises(InputError, match=r"1 of 1 rows .* none is left"):
        load(write_lines(row))


@pytest.mark.parametrize(("name", "content"), [("e.jsonl", b""), ("e.jsonl", b"\n \n"), ("e.json", b"[]")])
def test_empty_file(load, tmp_path: Path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="holds no rows"):
        load(str(tmp_path / name))
    assert not list((tmp_path / "run").iterdir())


def test_columns_are_decided_by_the_first_readable_rows(load, write_lines):
    bad = [b"{bad"] * 50
    later = [{"question": "r", "label": 2}] * 19 + [{"question": "s", "label": 3, "prompt": "beyond the head"}]
    loaded = load(write_lines(*bad, {"question": "q", "label": 1}, *later))
    assert [problem.prompt for problem in loaded.problems] == ["q", *["r"] * 19, "s"]
    assert loaded.report.quarantined == 50


def test_max_problems_counts_usable_ones_and_stops_there(load, write_lines):
    rows = [{"prompt": "", "answer": "a"}, *({"prompt": "q", "answer": n} for n in range(30)), b"{never read"]
    loaded = load(write_lines(*rows), max_problems=25)
    assert (loaded.report.count, loaded.report.quarantined) == (25, 1)


def test_stale_quarantine_is_removed(load, write_lines):
    load(write_lines(GOOD, b"{bad"))
    assert load(write_lines(GOOD)).report.quarantine_path is None
    assert not (load(write_lines(GOOD)).report.path.parent / "quarantine.jsonl").exists()


def test_a_prompt_of_10_mb(load, write_lines):
    (problem,) = load(write_lines({"prompt": "x" * 10_000_000, "answer": "a"})).problems
    assert len(problem.prompt) == 10_000_000


def test_sha256_follows_the_content(load, write_lines):
    def digest(*rows, into):
        return load(write_lines(*rows), into=into).report.sha256

    rows = [{"prompt": f"q{n}", "answer": n} for n in range(3)]
    first = digest(*rows, into="a")
    assert digest(*rows, into="b") == first
    assert digest(*rows, b"{bad", into="c") == first
    assert digest(*rows[:2], {"prompt": "q2", "answer": 3}, into="d") != first


def test_sha256_depends_on_the_content_of_images_not_their_path(load, write_lines, tmp_path):
    def digest(shade, into):
        (tmp_path / "a.png").write_bytes(make_png(shade))
        return load(write_lines({"prompt": "q", "answer": 1, "image": "a.png"}), into=into).report.sha256

    assert digest(1, "a") == digest(1, "b") != digest(2, "c")


def test_images_of_a_row(load, write_lines, tmp_path):
    (tmp_path / "a.png").write_bytes(make_png(1))
    rows = [
        {"prompt": "q", "answer": 1, "images": images} for images in (["a.png"], [], None, ["no.png"], ["http://x/y"])
    ]
    loaded = load(write_lines(*rows))
    assert [len(problem.images) for problem in loaded.problems] == [1, 0, 0]
    image = loaded.problems[0].images[0]
    assert (loaded.report.path.parent / image.path).parent == loaded.report.path.parent / "images"
    assert "images" not in loaded.problems[0].fields
    assert loaded.report.reasons == {"images: image file cannot be read": 1, "images: image URLs are not fetched": 1}


@pytest.mark.parametrize("dataset", ["./nowhere", "/nowhere", "~/nowhere-at-all", "/nowhere/a.jsonl"])
def test_local_path_that_does_not_exist(load, dataset):
    with pytest.raises(InputError, match=r"does not exist|No such file"):
        load(dataset)


def test_read_problems_refuses_other_lines(tmp_path: Path):
    path = tmp_path / "problems.jsonl"
    path.write_bytes(b'{"instance_id": "a"}\n')
    with pytest.raises(InputError, match=r"line 1 is not a problem: prompt"):
        list(read_problems(path))
    path.write_bytes(b"{torn\n")
    with pytest.raises(InputError, match="line 1: not valid JSON"):
        list(read_problems(path))


def test_real_data_of_the_seeds(load):
    path = Path(__file__).parents[3] / "shared/data/rocprim_v5.json"
    if not path.exists():
        pytest.skip("the seeds' data are not on this machine")
    loaded = load(str(path), answer_field="")
    assert loaded.report.count == 58
    assert loaded.report.fields == {"prompt": "problem_statement", "id": "instance_id"}


def test_importing_the_room_loads_no_heavy_library():
    code = "import sys, rollmill.problems; print({'datasets', 'pyarrow', 'reasoning_gym'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
COLUMNS = st.sampled_from(["prompt", "answer", "id", "images", "messages", "reward_model", "x"])
ROWS = st.dictionaries(COLUMNS, VALUES, max_size=6)


def as_line(row: dict) -> bytes:
    try:
        return orjson.dumps(row)
    except TypeError:
        return b"{" + repr(row).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    lines=st.lists(ROWS.map(as_line) | st.binary(max_size=30).map(lambda line: line.replace(b"\n", b" ")), max_size=8)
)
def test_fuzzed_lines_are_used_or_quarantined(scratch, lines):
    path = scratch / "data.jsonl"
    path.write_bytes(b"\n".join([orjson.dumps({"id": "first", "prompt": "q", "answer": "a"}), *lines]))
    report = load_problems(ProblemSource(dataset=str(path), max_bad_share=1.0), scratch / "run")
    assert report.count + report.quarantined == 1 + sum(bool(line.strip()) for line in lines)
    assert len(list(read_problems(report.path))) == report.count
    quarantine = report.quarantine_path.read_bytes().splitlines() if report.quarantine_path else []
    assert len([orjson.loads(line) for line in quarantine]) == report.quarantined
