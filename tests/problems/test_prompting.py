import pickle
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.errors import InputError
from rollmill.problems import Prompting


def test_template_is_rendered_with_columns():
    prompting = Prompting(template="{{{topic}}} {prompt} [{meta.level}] {n:.2f} {flag}")
    columns = {"topic": "maths", "meta": {"level": 3}, "n": 1.5, "flag": True}
    assert prompting.render("{1+1}", columns, "x") == "{maths} {1+1} [3] 1.50 true"


def test_template_from_a_file(tmp_path: Path):
    path = tmp_path / "template.txt"
    path.write_text("Q: {prompt}\nA:\n")
    assert Prompting.from_flags(str(path), None, None).template == "Q: {prompt}\nA:"
    assert Prompting.from_flags("Q: {prompt}", None, "be brief").system_prompt == "be brief"
    assert Prompting.from_flags("x" * 10_000 + "{prompt}", None, None).template.endswith("{prompt}")
    path.write_bytes(b"\xff{prompt}")
    with pytest.raises(InputError, match="cannot read the prompt template"):
        Prompting.from_flags(str(path), None, None)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no place", r"no \{prompt\} in it, and is not a file"),
        ("", r"no \{prompt\}"),
        ("{{prompt}}", r"no \{prompt\}"),
        (r"{prompt} \boxed{}", r"double those .* \\boxed\{\{\}\}"),
        (r"{prompt} \frac{1}{2}", "malformed"),
        (r"{prompt} \text{some words}", "malformed"),
        ("{prompt} {", "malformed"),
        ("{prompt} }", "malformed"),
        ("{prompt} {a[0]}", "malformed"),
        ("{prompt:{width}}", "malformed"),
        ("{prompt} {answer}", "ground truth"),
    ],
)
def test_templates_that_cannot_work(template, message):
    with pytest.raises(InputError, match=message):
        Prompting.from_flags(template, None, None)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (r"Q: {prompt}\nA:", "Q: {prompt}\nA:"),
        (r"{prompt}\n\nanswer: \nno", "{prompt}\n\nanswer: \nno"),
        (r"{prompt} \\n stays", r"{prompt} \n stays"),
        (
            r"{prompt} a \neq b, \nu, \nabla f, \\ \text{{x}} \boxed{{}}\t",
            r"{prompt} a \neq b, \nu, \nabla f, \\ \text{{x}} \boxed{{}}\t",
        ),
        ("{prompt}\n\\nu\\nA", "{prompt}\n\\nu\\nA"),
    ],
)
def test_line_breaks_in_a_template_of_one_line(written, expected, tmp_path: Path):
    assert Prompting.from_flags(written, None, None).template == expected
    assert Prompting.from_flags(None, None, written).system_prompt == expected
    (tmp_path / "template").write_text(written)
    assert Prompting.from_flags(str(tmp_path / "template"), None, None).template == written


@given(lines=st.lists(st.text(st.characters(codec="ascii", exclude_characters="\\\n{}"), max_size=6), min_size=2))
def test_escaped_line_breaks_become_line_breaks(lines):
    written = "{prompt}" + "\\n ".join(lines)
    assert Prompting.from_flags(written, None, None).template == "{prompt}" + "\n ".join(lines)


def test_template_may_name_the_questions_column():
    prompting = Prompting(template="Q: {question} ({topic})")
    assert prompting.render("1+1?", {"topic": "sums"}, "x") == "Q: 1+1? (sums)"
    prompting.check_columns({"prompt": "Question", "answer": "label"})
    with pytest.raises(
        InputError, match=r"has \{question\} for the question.* column problem: write \{prompt\}, or name"
    ):
        prompting.check_columns({"prompt": "problem"})
    both = Prompting(template="{prompt} {question}")
    assert both.render("1+1?", {"question": "another"}, "x") == "1+1? another"


def test_template_with_the_answers_column():
    prompting = Prompting(template="{prompt} {gold}")
    prompting.check_columns({"prompt": "prompt", "answer": "label"})
    with pytest.raises(InputError, match=r"names the answer's column \{gold\}"):
        prompting.check_columns({"prompt": "prompt", "answer": "gold"})


def test_column_that_a_row_does_not_have():
    with pytest.raises(InputError, match=r"problem a-7 has no column 'topic' .* it has prompt, level; double"):
        Prompting(template="{prompt} {topic}").render("q", {"level": 1}, "problem a-7")
    with pytest.raises(InputError, match="never offered, because it would show the model the ground truth"):
        Prompting(template="{prompt} {solution}").render("q", {}, "problem a-7")
    with pytest.raises(InputError, match=r"problem a-7: .* cannot format \{level\}"):
        Prompting(template="{prompt} {level:.2f}").render("q", {"level": "x"}, "problem a-7")


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": "q1", "completion": "a1"}, {"prompt": "q2", "completion": 2}],
        [{"question": "q1", "answer": "a1"}, {"problem": "q2", "response": "2"}],
    ],
)
@pytest.mark.parametrize("name", ["examples.jsonl", "examples.json"])
def test_few_shot_files(tmp_path: Path, rows, name):
    path = tmp_path / name
    lines = name.endswith("l")
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)) if lines else orjson.dumps(rows))
    assert Prompting.from_flags(None, str(path), None).few_shot == (("q1", "a1"), ("q2", "2"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{bad", "line 2: not valid JSON"),
        (b'{"prompt": "q"}', "line 2: has none of the fields completion, answer, response.*its fields: prompt"),
        (b'{"completion": "a"}', "line 2: has none of the fields prompt, problem"),
        (b'{"prompt": "q", "completion": ["a"]}', "line 2: field completion expected text"),
        (b'{"prompt": "", "completion": "a"}', "line 2: field prompt is empty"),
    ],
)
def test_bad_few_shot_rows(tmp_path: Path, line, message):
    path = tmp_path / "shots.jsonl"
    path.write_bytes(b'{"prompt": "q", "completion": "a"}\n' + line)
    with pytest.raises(InputError, match=f"shots.jsonl {message}"):
        Prompting.from_flags(None, str(path), None)


def test_few_shot_file_that_is_empty_or_absent(tmp_path: Path):
    (tmp_path / "shots.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match="no few-shot examples"):
        Prompting.from_flags(None, str(tmp_path / "shots.jsonl"), None)
    with pytest.raises(InputError, match="cannot read"):
        Prompting.from_flags(None, str(tmp_path / "none.jsonl"), None)


def test_few_shot_examples_are_refused_with_other_columns():
    with pytest.raises(InputError, match=r"\{topic\}, which few-shot examples do not have"):
        Prompting(template="{topic} {prompt}", few_shot=(("q", "a"),))


def test_identity_is_content(tmp_path: Path):
    def make_prompting(folder: str, answer: str) -> Prompting:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "template").write_text("T {prompt}")
        (tmp_path / folder / "shots.jsonl").write_bytes(orjson.dumps({"prompt": "q", "completion": answer}))
        paths = (str(tmp_path / folder / name) for name in ("template", "shots.jsonl"))
        return Prompting.from_flags(*paths, "s")

    first = make_prompting("a", "1")
    assert first.identity == {"template": "T {prompt}", "system_prompt": "s", "few_shot": [["q", "1"]]}
    assert make_prompting("b", "1").identity == first.identity
    assert make_prompting("c", "2").identity != first.identity
    assert pickle.loads(pickle.dumps(first)) == first


@pytest.mark.parametrize(
    "template",
    [
        "{prompt:9999999999}",
        "{prompt:>10000}",
        "{prompt:.99999}",
        "{prompt:{prompt}}",
        "{prompt:>" + "\u0669" * 8 + "}",
        "{prompt:\uff19\u06699\u0967}",
        "{prompt}{n:." + "\uff19" * 9 + "f}",
        "{prompt}" * 1001,
    ],
)
def test_width_of_a_template_field_is_bounded(template):
    with pytest.raises(InputError, match=r"is more than 999 wide|is nested|more than 1,000 of them name columns"):
        Prompting(template=template)


@pytest.mark.parametrize(
    "template", ["{prompt.__class__}", "{prompt!r:.0}{x.__init__.__globals__}", "{0}", "{prompt[0]}"]
)
def test_template_cannot_access_python_attributes(template):
    with pytest.raises(InputError):
        Prompting(template=template).render("question", {"x": {"y": 1}}, "row 1")


def test_formatting_error_is_reported_in_one_line():
    with pytest.raises(InputError, match=r"row 1: the prompt template cannot format \{n\}"):
        Prompting(template="{prompt}{n:c}").render("q", {"n": 1 << 40}, "row 1")


def test_a_template_may_have_many_braces():
    assert Prompting(template="{{}}" * 2000 + "{prompt}").render("q", {}, "row 1") == "{}" * 2000 + "q"
