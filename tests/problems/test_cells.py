from decimal import Decimal

import pytest

from rollmill.problems.cells import PLACEHOLDER, UnusableCellError, read_answer, read_answers, read_fields, read_prompt


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), (7, "7"), (-3, "-3"), (3.5, "3.5"), (7.0, "7.0"), (6.02e23, "6.02e+23"), (Decimal("1.10"), "1.10")],
)
def test_answer_keeps_the_value(value, text):
    assert read_answer(value, "answer") == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "is null"),
        ("", "is empty"),
        (" \n", "is empty"),
        (True, "found true or false"),
        ([1], "found a list"),
        ({"a": 1}, "found an object"),
        (b"x", "found bytes"),
        (float("nan"), "not a finite number"),
        (float("-inf"), "not a finite number"),
        (float(123456789012345678901234567890), "too large to be read exactly"),
    ],
)
def test_answer_that_cannot_be_used(value, reason):
    with pytest.raises(UnusableCellError, match=reason):
        read_answer(value, "answer")


def test_chat_prompt_loses_the_trailing_assistant_turn_only():
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "q2", "name": None},
        {"role": "assistant", "content": "secret"},
    ]
    assert read_prompt(messages, "messages") == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "q2"},
    ]


def test_content_parts_become_text_with_markers():
    parts = [{"type": "image", "text": None}, {"type": "text", "text": "what?"}]
    assert read_prompt([{"role": "user", "content": parts}], "prompt") == [{"role": "user", "content": "<image>what?"}]


@pytest.mark.parametrize(
    ("part", "cell"),
    [
        ({"type": "image", "image": b"x"}, b"x"),
        ({"type": "image", "image": {"bytes": b"x", "path": None}, "text": None}, b"x"),
        ({"type": "image", "image": {"bytes": None, "path": "a.png"}}, "a.png"),
        ({"type": "image", "path": "a.png"}, "a.png"),
        ({"type": "image", "url": "data:x"}, "data:x"),
        ({"type": "image", "base64": "iVBO"}, "iVBO"),
        ({"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}, "data:x"),
        ({"type": "image_url", "image_url": "data:x"}, "data:x"),
        ({"type": "input_image", "image_url": "data:x"}, "data:x"),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}, "iVBO"),
        ({"image": "a.png"}, "a.png"),
        ({"type": "image"}, PLACEHOLDER),
        ({"type": "image", "image": None, "text": None}, PLACEHOLDER),
        ({"type": "image", "image": {"bytes": None, "path": None}}, PLACEHOLDER),
    ],
)
def test_every_form_of_an_image_in_a_message(part, cell):
    images = []
    content = [part, {"type": "text", "text": "what?", "image": None}]
    (message,) = read_prompt([{"role": "user", "content": content}], "prompt", images)
    assert message["content"] == "<image>what?"
    assert [image.get("bytes") if isinstance(image, dict) else image for image in images] == [cell]


def test_images_of_the_answer_are_not_the_prompts():
    image, images = {"type": "image", "image": "a.png"}, []
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": [image]}]
    assert read_prompt(turns, "prompt", images) == turns[:1]
    assert images == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "  ",
        5,
        {"role": "user"},
        [],
        ["x"],
        [{"content": "x"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": " "}],
        [{"role": "assistant", "content": "x"}],
        [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a"},
            {"role": "assistant", "content": "b"},
        ],
        [{"role": "system", "content": "x"}],
        [{"role": "user", "content": [{"type": "audio"}]}],
    ],
)
def test_prompt_that_cannot_be_used(value):
    with pytest.raises(UnusableCellError):
        read_prompt(value, "prompt")


def test_fields_are_json_and_bytes_are_dropped():
    row = {
        "a": 1,
        "b": b"x",
        "c": {"bytes": b"x", "path": "p"},
        "d": (1, float("nan")),
        "e": Decimal("1.5"),
        "f": 2**70,
    }
    assert read_fields(row) == {"a": 1, "c": {"path": "p"}, "d": [1, None], "e": "1.5", "f": str(2**70)}


def test_too_deeply_nested_fields_are_refused():
    value: object = 1
    for _ in range(500):
        value = [value]
    with pytest.raises(UnusableCellError, match="nested too deeply"):
        read_fields({"x": value})


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ('["-1"]', ("-1",)),
        (["a", "b", "a"], ("a", "b")),
        ('["a", "b"]', ('["a", "b"]',)),
        ("[1]", ("[1]",)),
        ('["a"', ('["a"',)),
    ],
)
def test_ground_truth_in_a_json_list_is_unwrapped(value, answers):
    assert read_answers(value, "answer") == answers
