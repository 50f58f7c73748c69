"""Training rows from rollouts directly: their order, and the codes of those that cannot be used."""

import orjson

from rollmill.exports.rollout_rows import training_rows_of_rollouts
from rollmill.files.rows import BadRow

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def test_unreadable_rows_come_first_and_unusable_ones_in_order(tmp_path):
    rows = [
        {"instance_id": "1", "messages": CHAT, "success": True},
        {"instance_id": "2", "messages": CHAT, "error": {"type": "timeout", "message": ""}},
        {"instance_id": "3", "messages": CHAT, "train": False},
        {"instance_id": "4", "messages": CHAT, "success": True},
    ]
    lines = [*map(orjson.dumps, rows), b'{"instance_id": "5", "messages": 5}']
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    result = list(training_rows_of_rollouts(str(tmp_path / "x.jsonl")))
    assert [number for number, _ in result] == [5, 1, 2, 3, 4]
    codes = [row.field if isinstance(row, BadRow) else row["metadata"]["instance_id"] for _, row in result]
    assert codes == ["messages", "1", "failed", "marked_not_for_training", "4"]
