import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.problems import ProblemSource
from rollmill.problems.columns import ANSWER_COLUMNS, MISSING, PROMPT_COLUMNS, choose_columns, get, without


def choose(row, **settings):
    return choose_columns(ProblemSource(dataset="d", **settings), [row])


@pytest.mark.parametrize("column", PROMPT_COLUMNS)
def test_prompt_column_is_detected(column):
    assert choose({"other": 1, column: "q", "answer": "a"}).prompt == column


@pytest.mark.parametrize("column", [column for column in ANSWER_COLUMNS if "." not in column])
def test_answer_column_is_detected(column):
    assert choose({"prompt": "q", column: "a"}).answer == column


@pytest.mark.parametrize("column", ["instance_id", "id", "problem_id", "task_id", "uid", "index"])
def test_id_column_is_detected(column):
    assert choose({"prompt": "q", "answer": "a", column: 1}).id == column


def test_no_id_on_request():
    assert choose({"prompt": "q", "answer": "a", "id": 1}, id_field="").id is None


def test_order_of_candidates_and_nested_answer():
    row = {"question": "q", "problem": "p", "label": 1, "reward_model": {"ground_truth": "7", "style": "rule"}}
    assert choose(row)[:3] == ("problem", "reward_model.ground_truth", None)


def test_a_column_of_nulls_is_not_detected():
    assert choose({"prompt": None, "question": "q", "answer": "a"}).prompt == "question"


def test_named_columns_take_precedence():
    row = {"prompt": "q", "x": {"y": "q"}, "answer": "a", "b": "c", "k": 1}
    assert choose(row, prompt_field="x.y", answer_field="b", id_field="k")[:3] == ("x.y", "b", "k")


@pytest.mark.parametrize("flag", ["prompt_field", "answer_field", "id_field"])
def test_named_column_that_is_absent(flag):
    with pytest.raises(InputError, match=rf"no column 'nope' \(--{flag}\).*prompt, answer, n, n\.m"):
        choose({"prompt": "q", "answer": "a", "n": {"m": 1}}, **{flag: "nope"})


def test_undetected_columns_name_the_flag_and_the_columns():
    with pytest.raises(InputError, match=r"--prompt_field; its columns: foo, answer"):
        choose({"foo": 1, "answer": 2})
    with pytest.raises(
        InputError, match=r"--answer_field \(or --answer_field '' where .* none\); its columns: prompt, bar"
    ):
        choose({"prompt": 1, "bar": 2})


def test_no_answer_and_no_images_on_request():
    columns = choose({"prompt": "q", "image": "docker/name"}, answer_field="", image_field="")
    assert columns == ("prompt", None, None, None)


def test_advice_names_only_flags_of_the_command():
    with pytest.raises(InputError, match=r"holds the question: call it prompt; its columns: foo, answer"):
        choose({"foo": 1, "answer": 2}, flags={})
    with pytest.raises(InputError, match=r"d has no column 'x' in its first row; its columns: foo"):
        choose({"foo": 1}, prompt_field="x", flags={})


def respell(column: str, case: str, mark: str) -> str:
    return getattr(column, case)().replace("_", mark)


@given(
    names=st.permutations([name for name in ANSWER_COLUMNS if "." not in name]).map(lambda names: names[:4]),
    case=st.sampled_from(["upper", "lower", "title"]),
    mark=st.sampled_from(["_", " ", "-", ""]),
)
def test_ground_truth_is_the_first_candidate_in_any_spelling(names, case, mark):
    row = {"Question": "q", **{respell(name, case, mark): "a" for name in names}}
    assert choose(row).answer == respell(min(names, key=ANSWER_COLUMNS.index), case, mark)


@pytest.mark.parametrize("better", ["expected_answer", "answer", "solution", "ground_truth", "target", "Answer"])
@pytest.mark.parametrize("rating", ["score", "label", "Label", "SCORE", "correct"])
def test_answer_takes_precedence_over_a_rating(better, rating):
    assert choose({"question": "q", rating: 1, better: "a"}).answer == better


def test_unusable_column_is_skipped():
    row = {"prompt": {"text": "q"}, "question": "q", "answer": {"spans": []}, "solution": "a"}
    assert choose(row)[:2] == ("question", "solution")


def test_exact_names_take_precedence():
    assert choose({"Answer": 1, "answer": 2, "PROMPT": "a", "prompt": "b"})[:2] == ("prompt", "answer")


def test_named_columns_in_another_case():
    assert choose({"Problem": "p", "Final": "a", "question": "q"}, prompt_field="problem", answer_field="final")[
        :2
    ] == (
        "Problem",
        "Final",
    )


def test_image_column():
    assert choose({"prompt": "q", "answer": "a", "image": "x"}).images == "image"
    assert choose({"prompt": "q", "answer": "a", "image": "x", "images": ["y"]}).images == "images"
    assert choose({"prompt": "q", "answer": "a", "image": "x", "pic": "y"}, image_field="pic").images == "pic"


def test_get_and_without_reach_into_nested_columns():
    row = {"a": {"b": {"c": 1, "d": 2}}, "e.f": 3}
    assert get(row, "a.b.c") == 1
    assert get(row, "e.f") == 3
    assert get(row, "a.x") is MISSING
    assert get(row, "e") is MISSING
    assert without(row, ["a.b.c", "e.f", "a.x.y"]) == {"a": {"b": {"d": 2}}}
    assert row["a"]["b"]["c"] == 1
