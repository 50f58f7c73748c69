"""The check of names, docstrings, comments and messages finds what it forbids, at its line, and nothing else."""

from pathlib import Path

import pytest

from scripts.check_language import check_markdown, check_python, questions

MODULE = Path("rollmill/part.py")
TEST = Path("tests/test_part.py")


def findings(source: str, path: Path = MODULE) -> list[str]:
    return [f"{finding.line}: {finding.text}" for finding in check_python(path, source)]


@pytest.mark.parametrize(
    "source",
    [
        "def told() -> None: ...",
        "def run(told: str) -> None: ...",
        "class Told: ...",
        "told = 1",
        "self.told = 1",
        "for told in (): ...",
        "with open('x') as told: ...",
        "items = [told for told in ()]",
        "if (told := 1): ...",
        "_told: int = 1",
    ],
)
def test_a_forbidden_name_is_found_wherever_it_is_bound(source: str) -> None:
    assert any("told`" in finding.lower() for finding in findings(source))


@pytest.mark.parametrize("source", ["print(told)", "item.told", "run(told=1)", "retold = 1", "import there_is as part"])
def test_a_use_of_a_name_is_not_its_definition(source: str) -> None:
    assert findings(source) == []


def test_a_forbidden_file_name_is_found() -> None:
    assert len(findings("", Path("rollmill/told.py"))) == 1


@pytest.mark.parametrize(
    "source", ['"""Said."""', "# was said", 'raise ValueError("the server said no")', 'text = f"{x} mended"']
)
def test_a_forbidden_word_is_found_in_docstrings_comments_and_messages(source: str) -> None:
    assert len(findings(source)) == 1


def test_the_line_of_a_word_in_a_long_docstring_is_named() -> None:
    assert findings('x = 1\n"""Return.\n\nIt is\nmended."""\n')[0].startswith("5: ")


def test_texts_of_tests_are_a_models_words() -> None:
    assert findings('ANSWER = "she said 4"', TEST) == []
    assert len(findings("# she said 4", TEST)) == 1


def test_code_between_backticks_is_no_prose() -> None:
    assert findings('"""Return `said`."""') == []
    assert check_markdown(Path("page.md"), "`said`\n```\nsaid\n```\n[link](said.md)\n") == []
    assert len(check_markdown(Path("page.md"), "It is said.\n")) == 1


FOUR = "def run(a: int, b: int, c: int, d: int) -> None:"


def test_four_parameters_are_described() -> None:
    assert len(findings(f'{FOUR}\n    """Run."""')) == 1
    assert findings(f'{FOUR}\n    """Run.\n\n    Args:\n        a: Tokens.\n    """') == []
    assert findings('def run(a: int, b: int, c: int) -> None:\n    """Run."""') == []


def test_a_class_describes_the_parameters_of_its_constructor() -> None:
    init = "    def __init__(self, a: int, b: int, c: int, d: int) -> None: ..."
    assert len(findings(f'class Run:\n    """A run."""\n{init}')) == 1
    assert findings(f'class Run:\n    """A run.\n\n    Args:\n        a: Tokens.\n    """\n{init}') == []


def test_few_docstrings_may_begin_with_a_question_word() -> None:
    verbs = "".join(f'def run_{i}():\n    """Run."""\n' for i in range(97))
    question = 'def item_{}():\n    """What it is."""\n'
    few = verbs + "".join(question.format(i) for i in range(3))
    many = verbs + "".join(question.format(i) for i in range(4))
    assert questions({MODULE: few}) == []
    assert len(questions({MODULE: many})) == 4
