from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.grading.patch import Change
from rollmill.grading.path_policy import _Automaton, _simple, refusal


def change(path: str, status: str = "M", mode: str = "100644") -> Change:
    return Change(status, path, mode)


@pytest.mark.parametrize(
    ("path", "patterns"),
    [
        ("src/a.py", ["src/a.py"]),
        ("src/a.py", ["src/*.py"]),
        ("src/deep/a.py", ["src/**"]),
        ("src/deep/a.py", ["src/"]),
        ("src/deep/a.py", ["**/a.py"]),
        ("a.py", ["**/a.py"]),
        ("src/a.py", ["src/?.py"]),
        ("src/conftest.py", ["src/conftest.py"]),
        (".gitignore", [".gitignore"]),
    ],
)
def test_matching_pattern_allows_a_change(path: str, patterns: list[str]) -> None:
    assert refusal([change(path)], patterns) is None


@pytest.mark.parametrize(
    ("path", "patterns", "reason"),
    [
        ("src/b.py", ["src/a.py"], "src/b.py was changed, and only src/a.py may be"),
        ("src/deep/a.py", ["src/*.py"], "was changed"),
        ("src/a.pyc", ["src/*.py"], "was changed"),
        ("srcXa.py", ["src.a.py"], "was changed"),
        ("x/src/a.py", ["src/**"], "was changed"),
        ("src", ["src/**"], "was changed"),
        ("src/a.py\n", ["src/a.py"], "was changed"),
        ("a.py", [], "and only nothing may be"),
        ("src/conftest.py", ["src/**"], "name that is read by"),
        ("src/sitecustomize.py", ["src/**"], "name that is read by"),
        ("src/x.pth", ["src/**"], "name that is read by"),
        ("src/.gitattributes", ["src/**"], "name that is read by"),
    ],
)
def test_path_without_a_matching_pattern_is_refused(path: str, patterns: list[str], reason: str) -> None:
    assert reason in str(refusal([change(path)], patterns))


def test_links_and_hidden_modules_are_refused() -> None:
    assert refusal([change("src/a.py", "T", "120000")], ["src/a.py"]) == "src/a.py is a symbolic link"
    hidden = ["src/unittest.py", "src/json/__init__.py", "src/time.cpython-311-x86_64-linux-gnu.so", "src/hashlib.pyc"]
    for path in hidden:
        assert "would hide a module" in str(refusal([change(path, "A")], ["src/**"]))
    assert refusal([change("src/queue.py", "M")], ["src/**"]) is None
    assert refusal([change("src/json/fast.py", "A")], ["src/**"]) is None


def test_refusal_names_the_kind_of_change() -> None:
    assert "x was added" in str(refusal([change("x", "A")], ["y"]))
    assert "x was deleted" in str(refusal([change("x", "D", "000000")], ["y"]))
    assert refusal([], []) is None


PATTERNS = ["lib/*", "lib/*.py", "**/a.py", "lib/**", "lib/", "a?b", "*", "**", "l.b"]


@given(st.sampled_from(PATTERNS), st.text(st.sampled_from("libapy./x\n"), max_size=12))
def test_expression_and_automaton_agree(pattern: str, end: str) -> None:
    expression, automaton = _simple(pattern), _Automaton(pattern)
    assert expression is not None
    for path in (end, "lib/" + end, end + "a.py", "lib/" + end + "/a"):
        state = automaton.start
        for character in path:
            state = automaton.next_state(state, character)
        assert (expression.fullmatch(path) is not None) == automaton.ends_in(state)


def test_many_wildcards_do_not_backtrack() -> None:
    pattern = "**/*a*a*a*a*a*a*a*a*a/**/*b*b*b*b*b*b*b"
    assert refusal([change("a" * 3000 + "/" + "ab" * 20 + "c")], [pattern]) is not None
    assert refusal([change("x/" + "a" * 30 + "/y/" + "b" * 30)], [pattern]) is None
