"""Blocks of messages."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.reports.viewing.blocks import Block, json_text, message_blocks, shorten, split_fences

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def call(name, arguments):
    return [{"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}]


def test_code_and_prose_are_separated():
    text = "First:\n\n```bash\nls -la\n\ncd x\n```\nthen\n~~~\n```\n~~~\n"
    assert list(split_fences(text)) == [
        Block("text", "First:"),
        Block("code", "ls -la\n\ncd x", "bash"),
        Block("text", "then"),
        Block("code", "```", ""),
    ]


def test_fence_is_closed_by_a_bare_fence_as_long():
    assert list(split_fences("````md\n```\n````x\n`````")) == [Block("code", "```\n````x", "md")]


def test_an_open_fence_reaches_to_the_end():
    assert list(split_fences("a\n```py\nb\nc")) == [Block("text", "a"), Block("code", "b\nc", "py")]


def test_inline_backticks_are_prose():
    assert list(split_fences("```not a fence``` `x`")) == [Block("text", "```not a fence``` `x`")]


@given(st.lists(st.sampled_from(["```", "```py", "~~~", "a", "  b", "", "````", "x ```"]), max_size=12))
def test_every_line_is_kept_except_fences_and_blanks(lines):
    shown = [line for block in split_fences("\n".join(lines)) for line in block.text.split("\n")]
    kept = iter(lines)
    assert all(line in kept for line in shown if line.strip())  # a subsequence
    assert [line for line in shown if line.strip() in {"a", "b"}] == [x for x in lines if x.strip() in {"a", "b"}]


@pytest.mark.parametrize(
    ("content", "blocks"),
    [
        (None, []),
        ("", []),
        (" \n", []),
        ("hello", [Block("text", "hello")]),
        ("<returncode>0</returncode>\n```\n", [Block("output", "<returncode>0</returncode>\n```")]),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], [Block("text", "a"), Block("text", "b")]),
        ([{"type": "image", "image": "i/a.png", "media_type": "image/png"}], [Block("image", "[image: i/a.png]")]),
        (
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1000}}],
            [Block("image", "[image: image/png, 1,022 characters of data]")],
        ),
        (
            [{"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}}],
            [Block("image", "[image: image/jpeg, 27 characters of data]")],
        ),
        ([{"type": "thinking", "thinking": "hm"}], [Block("reasoning", "hm")]),
        ([{"type": "tool_use", "name": "sh", "input": {"cmd": "ls"}}], [Block("command", "ls", "sh")]),
        ([{"type": "tool_result", "content": [{"type": "text", "text": "```"}]}], [Block("output", "```")]),
        ({"odd": 1}, [Block("output", '{\n  "odd": 1\n}')]),
        (7, [Block("output", "7")]),
        ("\x1b[2J", [Block("text", "\\x1b[2J")]),
    ],
)
def test_content_of_every_kind(content, blocks):
    assert message_blocks("user", content) == blocks


def test_tool_output_is_shown_unchanged():
    assert message_blocks("tool", "```py\nx") == [Block("output", "```py\nx")]


@pytest.mark.parametrize(
    ("calls", "block"),
    [
        (call("bash", '{"command": "ls\\npwd"}'), Block("command", "ls\npwd", "bash")),
        (call("bash", {"command": "ls"}), Block("command", "ls", "bash")),
        (call("edit", {"path": "a", "text": "b\nc"}), Block("call", "path: a\ntext:\nb\nc", "edit")),
        (call("stop", None), Block("call", "", "stop")),
        (call("bash", '{"command": "l'), Block("call", '{"command": "l', "bash")),
        (call("bash", '["ls"]'), Block("call", '[\n  "ls"\n]', "bash")),
        (call("b\x1b", {"command": "\x1b"}), Block("command", "\\x1b", "b\\x1b")),
        (["odd"], Block("call", "odd")),
    ],
)
def test_tool_calls_are_commands(calls, block):
    assert message_blocks("assistant", None, calls) == [block]


def test_a_message_is_read_in_order():
    blocks = message_blocks("assistant", "doing", call("bash", {"command": "ls"}), "thinking")
    assert [block.kind for block in blocks] == ["reasoning", "text", "command"]


@given(st.text(max_size=10), JSON, JSON, JSON)
def test_no_value_raises(role, content, calls, reasoning):
    blocks = message_blocks(role, content, calls, reasoning)
    json.dumps(blocks, ensure_ascii=False).encode()
    if isinstance(content, str) and content.strip().isalnum():
        assert content.strip() in "".join(block.text for block in blocks)


def test_too_deep_nesting_is_reported():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert json_text(deep) == "(a value that is nested too deeply to be shown)"
    assert message_blocks("user", deep) == [Block("output", "(a value that is nested too deeply to be shown)")]


def test_a_long_message_loses_its_middle():
    blocks = [Block("text", "a" * 500), Block("code", "b" * 500, "py"), Block("text", "c" * 500)]
    assert shorten(blocks, 900) == [
        Block("text", "a" * 500),
        Block("code", "b" * 100, "py"),
        Block("left_out", "600"),
        Block("text", "c" * 300),
    ]
    assert shorten(blocks, 1500) == blocks


def test_cuts_stand_at_the_ends_of_lines():
    text = "\n".join(f"line {number}" for number in range(1000))
    first, cut, last = shorten([Block("text", text)], 300)
    assert first.text.endswith("\nline 25")
    assert last.text.startswith("line 989\n")
    assert cut == Block("left_out", f"{len(text) - len(first.text) - len(last.text):,}")


@given(st.lists(st.text(st.sampled_from("ab\n"), max_size=300), max_size=6), st.integers(3, 500))
def test_kept_and_left_out_make_the_whole(texts, longest):
    blocks = [Block("text", text) for text in texts]
    kept = shorten(blocks, longest)
    left_out = sum(int(block.text.replace(",", "")) for block in kept if block.kind == "left_out")
    length = sum(len(block.text) for block in kept if block.kind != "left_out")
    assert length + left_out == sum(len(text) for text in texts)
    assert length <= longest
    assert bool(left_out) == (sum(len(text) for text in texts) > longest)
