"""Marks in decoded rows follow the rules for records in files."""

import orjson
import pytest

from rollmill.corpus.loss_marks import MARKS
from rollmill.corpus.record import decode_record
from rollmill.corpus.training_marks import (
    MESSAGE_MARKS,
    is_cut_off_message,
    is_cut_off_row,
    is_untrained_message,
    is_untrained_row,
)
from rollmill.corpus.truncation import FINISH_FIELDS

VALUES = [True, False, None, 0, 1, 0.0, 1.0, "0", "no", "False", "true", "yes", [{"train": False}], {"train": False}]


@pytest.mark.parametrize("name", sorted(MESSAGE_MARKS))
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("where", ["message", "metadata"])
def test_marks_of_messages(name, value, where):
    fields = {name: value} if where == "message" else {"metadata": {name: value}}
    message = {"role": "assistant", "content": "a"} | fields
    [turn] = decode_record(orjson.dumps({"messages": [message]})).conversation()
    assert is_untrained_message(message) == (len(turn.weight) > 0)


@pytest.mark.parametrize("name", [*MARKS, *FINISH_FIELDS, "status"])
@pytest.mark.parametrize(
    "value", [*VALUES, "length", "incomplete", {"reason": "max_tokens"}, [{"finish_reason": "length"}]]
)
def test_marks_of_rows(name, value):
    for row in ({name: value}, {"metadata": {name: value}}, {"metadata": orjson.dumps({name: value}).decode()}):
        record = decode_record(orjson.dumps(row))
        assert (is_untrained_row(row), is_cut_off_row(row)) == (record.is_marked(), record.is_cut_off())


def test_truncation_is_read_under_any_name():
    assert is_cut_off_row({"metadata": {"finish_reason": "length"}})
    assert is_cut_off_message({"stop_reason": "max_tokens"})
    assert is_cut_off_message({"extra": {"response": {"choices": [{"finish_reason": "length"}]}}})
    assert is_cut_off_message({"finishReason": "MAX_TOKENS"})
    assert is_cut_off_message({"response_metadata": {"finish_reason": "length"}})
    assert is_cut_off_message({"stopReason": "max_tokens"})
    assert is_cut_off_message({"metadata": '{"finish_details": {"type": "max_tokens"}}'})
    assert is_cut_off_row({"meta_info": {"finish_reason": {"type": "length", "length": 5}}})
    assert is_cut_off_row({"candidates": '[{"finishReason": "MAX_TOKENS"}]'})
    assert is_cut_off_row({"stop_type": "limit"})
    assert not is_cut_off_row({"details": {"finish_reason": "stop"}, "stop_type": "eos"})
    assert not is_cut_off_message({"finish_reason": "stop"})


@pytest.mark.parametrize("name", ["ignore", "skip"])
def test_skipped_turns_are_excluded_from_training(name):
    assert is_untrained_message({"role": "assistant", "content": "a", name: True})
    assert not is_untrained_message({"role": "assistant", "content": "a", name: False})
    assert not is_untrained_row({name: True})


def test_marks_in_json_text_count():
    assert is_untrained_message({"role": "assistant", "content": "a", "metadata": '{"train": false}'})


def test_deeply_nested_values_are_no_marks():
    deep = orjson.loads("[" * 900 + "]" * 900)
    assert not is_untrained_message({"weight": deep})
    assert not is_untrained_row({"train": deep, "metadata": {"train": deep}})
    assert not is_cut_off_message({"extra": deep})
