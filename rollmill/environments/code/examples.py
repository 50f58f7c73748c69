"""Convert the examples in a problem's text to tests."""

from __future__ import annotations

import ast
import doctest

from rollmill.environments.code.subject import UNPARSED, Subject, find_function


def example_tests(subject: Subject) -> str:
    """Convert the examples in the text (`>>> call` and its result) to assertions, one a line; empty without examples.

    A result is compared by value if it is a literal, else by its `repr`. Examples of exceptions are left out.
    """
    function = find_function(ast.parse(subject.prelude), subject.entry)
    text = ast.get_docstring(function) if function else subject.text
    try:
        examples = doctest.DocTestParser().get_examples(text or "")
    except ValueError:
        return ""
    tests = [_assertion(each) for each in examples if each.exc_msg is None]
    return "\n".join(tests) + "\n" if any(test.startswith("assert ") for test in tests) else ""


def _assertion(example: doctest.Example) -> str:
    try:
        call = ast.unparse(ast.parse(example.source.strip(), mode="eval"))
    except UNPARSED:
        return example.source.strip()  # a statement, on which later examples may depend
    want = example.want.strip()
    if not want:
        return call
    try:
        ast.literal_eval(want)
    except UNPARSED:
        return f"assert repr({call}) == {want!r}"
    return f"assert {call} == {' '.join(want.split())}"
