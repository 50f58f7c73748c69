"""Rows with the same conversation have the same digest, however they were written; others have different ones."""

import orjson
import pytest

from rollmill.generation.row_digest import row_digest

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
ROW = {
    "messages": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "reasoning_content": "hm", "tool_calls": [CALL]},
    ],
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "chat_template_kwargs": {"enable_thinking": True},
    "metadata": {"instance_id": "p"},
}


def changed(change):
    row = orjson.loads(orjson.dumps(ROW))
    change(row)
    return row


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row["messages"][0].update(content="Q"),
        lambda row: row["messages"][0].update(role="system"),
        lambda row: row["messages"][1].update(reasoning_content="hmm"),
        lambda row: row["messages"][1]["tool_calls"][0]["function"].update(arguments='{"a":2}'),
        lambda row: row["messages"].pop(),
        lambda row: row.pop("tools"),
        lambda row: row["chat_template_kwargs"].update(enable_thinking=False),
        lambda row: row["metadata"].update(truncated=True),
        lambda row: row.update(completion="a"),
    ],
)
def test_another_text_has_another_digest(change):
    assert row_digest(changed(change)) != row_digest(ROW)


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row["messages"][0].update(tool_calls=None, name=None),
        lambda row: row["messages"][1].update(weight=0, finish_reason="stop"),
        lambda row: row["tools"][0]["function"].update(description=None),
        lambda row: row["metadata"].update(reward=1.0),
        lambda row: row.update(input_ids=[1, 2], reward=0.5, reasoning_content=None),
        lambda row: row["messages"].__setitem__(0, dict(reversed(row["messages"][0].items()))),
    ],
)
def test_the_same_text_has_the_same_digest(change):
    assert row_digest(changed(change)) == row_digest(ROW)


@pytest.mark.parametrize("row", [{}, {"messages": "[]"}, {"messages": [1, None]}, {"completion": [], "metadata": "x"}])
def test_rows_of_any_shape_have_one(row):
    assert len(row_digest(row)) == 16
