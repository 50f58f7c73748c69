"""Held-out problems found among problems, and in recorded conversations."""

import hashlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.jobs.improvement.held_out import HeldOut, question_key
from rollmill.problems import ProblemSource
from rollmill.records import Image, Problem
from tests.generation.run_factory import append, opened
from tests.jobs.improvement.recorded_rollouts import recorded, write_lines

QUESTION = "Which number is larger, 51 or 14?"


def held_out(*prompts, **more):
    return HeldOut(Problem(instance_id=f"h{index}", prompt=prompt, **more) for index, prompt in enumerate(prompts))


def within(tmp_path, held_out_problems, *rows):
    return held_out_problems.find_in_conversations([write_lines(tmp_path / "rows.jsonl", rows)])


def test_questions_match_without_case_and_white_space():
    item = Problem(instance_id="a", prompt="What is\n 1+1?")
    other = Problem(instance_id="b", prompt="what is 1+1?", answer="2")
    assert question_key(item) == question_key(other)
    assert question_key(item) != question_key(Problem(instance_id="a", prompt="What is 1+2?"))


def test_among_problems_the_complete_question_counts(tmp_path):
    rows = [("a", f"{QUESTION} Say why."), ("b", "x")]
    path = write_lines(tmp_path / "t.jsonl", [{"id": index, "prompt": prompt, "answer": 1} for index, prompt in rows])
    assert held_out(QUESTION, " X ").find_in_problems(ProblemSource(dataset=path)) == {"h1": f"b of {path}"}


@pytest.mark.parametrize(
    ("question", "message", "result"),
    [
        (QUESTION, "which  number is\nLARGER, 51 or 14?", True),
        (QUESTION, f"Solve this.\n\nQuestion: {QUESTION} Answer in tags.", True),
        (QUESTION, f"Q:{QUESTION}A:", True),
        (QUESTION, "Which number is larger, 51 or 147?", False),
        ("Which number is larger, 51 or 14", "Which number is larger, 51 or 147?", False),
        ("Which number is larger, 51 or 14", "Which number is larger, 51 or 14.5?", False),
        ("Which number is larger, 51 or 14", "Which number is larger, 51 or 14. Why?", True),
        ("What is 3 + 1?", "What is 3 + 1?", True),
        ("What is 3 + 1?", "Solve:\n  what is  3 + 1?\nAnswer:", True),
        ("What is 3 + 1?", "Solve: What is 3 + 1? Answer:", False),  # short: it must stand alone on its line
        ("3 + 1", "13 + 12", False),
        ("3 + 1", "Add 3 + 1 and 5.", False),
        ("one\ntwo", "zero\nOne\n\n two\nthree", True),
        ("one\ntwo", "one\n1\ntwo", False),
        (
            "这个问题的答案是什么呢请用中文回答并且说明理由谢谢你",
            "问题：这个问题的答案是什么呢请用中文回答并且说明理由谢谢你啊",
            True,
        ),
    ],
)
def test_a_question_is_found_in_user_turns(tmp_path, question, message, result):
    held_out_problems = held_out("another that nobody asks here", question)
    index = f"row 1 of {tmp_path / 'rows.jsonl'}"
    assert within(tmp_path, held_out_problems, recorded("t", message)) == ({"h1": index} if result else {})


def test_a_runs_problems_are_searched_too(tmp_path):
    rows = [{"id": "a", "prompt": "3 + 1", "answer": "4"}, {"id": "b", "prompt": "3 + 2", "answer": "5"}]
    with opened(tmp_path / "run", rows=rows) as run:
        append(run.journal, "a", 0, messages=[{"role": "user", "content": "Solve 3 + 1 and say why."}])
    assert held_out("3 + 1", "3 + 3").find_in_conversations([str(tmp_path / "run")]) == {
        "h0": f"a of {tmp_path / 'run'}"
    }


def test_user_turns_count_but_model_turns_do_not(tmp_path):
    turns = [("user", "example"), ("assistant", QUESTION), ("user", QUESTION), ("assistant", "51")]
    messages = [{"role": role, "content": content} for role, content in turns]
    row = {"instance_id": "t", "messages": messages, "success": False}
    assert within(tmp_path, held_out(QUESTION), row).keys() == {"h0"}
    row["messages"] = messages[:2]
    assert within(tmp_path, held_out(QUESTION), row) == {}


def test_conversation_matches_only_if_all_user_turns_appear(tmp_path):
    prompt = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": QUESTION},
    ]
    held_out_problems = HeldOut([Problem(instance_id="h", prompt=prompt)])
    both = [{"role": "user", "content": "Hello"}, {"role": "user", "content": QUESTION}]
    assert within(tmp_path, held_out_problems, recorded("t", QUESTION)) == {}
    assert within(tmp_path, held_out_problems, recorded("t", "", messages=both)).keys() == {"h"}


def test_the_same_words_about_another_image_are_another_question(tmp_path):
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "b.png").write_bytes(b"b")
    image = Image(path="images/x.png", media_type="image/png", sha256=hashlib.sha256(b"a").hexdigest())
    held_out_problems = held_out(QUESTION, images=(image,))

    def shown(path):
        return recorded("t", [{"type": "image", "image": path}, {"type": "text", "text": QUESTION}])

    assert within(tmp_path, held_out_problems, shown("b.png"), recorded("t", QUESTION)) == {}
    assert within(tmp_path, held_out_problems, shown("a.png")).keys() == {"h0"}
    assert within(tmp_path, held_out_problems, shown(f"elsewhere/{image.sha256}.png")).keys() == {"h0"}


def test_images_that_rollouts_name_elsewhere_are_not_opened(tmp_path):
    """Not even to compare them: a pipe would be waited for, and a device read until memory ends."""
    folder = tmp_path / "rollouts"
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    (tmp_path / "a.png").write_bytes(b"a")
    (folder / "link.png").symlink_to(tmp_path / "a.png")
    image = Image(path="images/x.png", media_type="image/png", sha256=hashlib.sha256(b"a").hexdigest())
    held_out_problems = held_out(QUESTION, images=(image,))
    for path in ("pipe.png", "link.png", "../a.png", str(tmp_path / "a.png"), "/dev/zero", "a\0.png"):
        row = recorded("t", [{"type": "image", "image": path}, {"type": "text", "text": QUESTION}])
        assert within(folder, held_out_problems, row) == {}


def test_the_first_row_that_asks_is_named_in_every_batch(tmp_path):
    rows = [recorded("t", f"number {index}") for index in range(700)]
    rows[600] = rows[650] = recorded("t", QUESTION)
    assert within(tmp_path, held_out(QUESTION), *rows) == {"h0": f"row 601 of {tmp_path / 'rows.jsonl'}"}


@settings(max_examples=30, deadline=None)
@given(st.text("ab \n1.,", max_size=60), st.text("ab \n1.,"), st.text("ab \n1.,"))
def test_a_question_on_lines_of_its_own_is_always_found(tmp_path_factory, question, before, after):
    folder = tmp_path_factory.mktemp("held_out")
    result = within(folder, held_out(question), recorded("t", f"{before}\n{question}\n{after}"))
    assert result.keys() == ({"h0"} if question.strip() else set())
