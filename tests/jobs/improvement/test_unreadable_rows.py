"""Rows whose contents cannot be read do not end a round: the export drops them with a reason."""

import orjson

from rollmill.corpus.record import decode_record
from rollmill.jobs.improvement.candidate_pool import record_key
from rollmill.jobs.improvement.held_out import user_turns

UNREADABLE = b'{"instance_id": "p", "messages": [{"role": "user", "content": [1e999]}], "completion": "4"}'
"""A number out of range, which is found only when the contents are decoded, not when the table is made."""
READABLE = orjson.dumps({"instance_id": "p", "prompt": "2 + 2?", "completion": "4"})


def test_the_key_of_a_question_that_cannot_be_read():
    assert record_key(decode_record(UNREADABLE)) is None
    assert record_key(decode_record(READABLE))


def test_the_user_turns_of_a_record_that_cannot_be_read():
    assert user_turns(UNREADABLE) == []
    assert [bytes(turn.content) for turn in user_turns(READABLE)] == [b'"2 + 2?"']
