"""The scan of records: columns of the table, bad rows, hashes."""

import json
import math
import operator

import msgspec
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollmill.corpus.message import RecordedMessage
from rollmill.corpus.record import UNREADABLE_ERRORS, Record, decode_record
from rollmill.corpus.record_facts import compute_facts, compute_typed_facts
from rollmill.corpus.scan import COLUMNS, Scan
from rollmill.corpus.table import SCHEMA
from rollmill.corpus.truncation import FINISH_FIELDS
from rollmill.corpus.typed_record import TYPED_DECODERS
from tests.corpus.sample_records import fault, record, scanned


def scan_row(**fields):
    return scanned(record(**fields))[0]


def test_every_column_of_a_full_record():
    full = record(
        sample=3,
        verdict={"status": "ok", "error": 0.25},
        error=None,
        usage={"prompt_tokens": 3, "completion_tokens": 5},
        latency_s=1.5,
        finish_reason="stop",
        exit_status="Submitted",
        model_calls=2,
        speedup=1.25,
    )
    row = scan_row(**full | {"instance_id": "p", "answer": "x"})
    assert list(row) == list(COLUMNS) == [name for name in SCHEMA if name not in {"row", "source", "tokens"}]
    assert isinstance(row.pop("completion_hash"), int)
    assert row == {
        "number": 1,
        "offset": None,
        "length": None,
        "instance_id": "p",
        "sample_id": 3,
        "reward": 1.0,
        "success": True,
        "claimed_success": True,
        "status": "ok",
        "error_type": None,
        "answer_error": 0.25,
        "speedup": 1.25,
        "exit_status": "Submitted",
        "finish_reason": "stop",
        "truncated": False,
        "marked": False,
        "model_calls": 2,
        "latency_s": 1.5,
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "messages": 2,
        "turns": 1,
        "empty": False,
        "reasoning_only": False,
        "unanswered_calls": 0,
        "stray_results": 0,
    }


def test_record_with_only_an_id():
    row = scanned({"instance_id": "p"})[0]
    known = {name for name, value in row.items() if value is not None}
    assert known == {"number", "instance_id", "status", "truncated", "marked"}
    assert row["status"] == "ok"


@pytest.mark.parametrize(
    ("evaluation", "success"),
    [
        ({"success": False}, False),
        ({"meta": {"success": False}}, False),
        ({"response": {"json": {"success": False, "log": "x"}}}, False),
        ({"success": True, "meta": {"success": True}, "response": {"json": {"success": False}}}, False),
        ({"success": False, "meta": "none", "response": {"json": [1]}}, False),
        ({"meta": 7, "response": {"json": {"success": False}}}, False),
        ({"meta": {"success": False}, "response": "502"}, False),
        ({"success": True}, True),
        ({"success": None, "meta": None, "response": None}, True),
        ({"success": "false"}, True),
        ({"response": {"json": None}}, True),
        ({"response": [1]}, True),
        ({}, True),
        ([], True),
        ([{"success": False}], True),
        ("false", True),
        (None, True),
    ],
)
def test_success_denied_by_the_evaluation_is_false(evaluation, success):
    row = scan_row(evaluation_info=evaluation)
    assert (row["success"], row["claimed_success"]) == (success, True)
    row = scan_row(evaluation_info=evaluation, success=False)
    assert (row["success"], row["claimed_success"]) == (False, False)
    row = scan_row(evaluation_info=evaluation, success=None)
    assert (row["success"], row["claimed_success"]) == (None, None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("RetryError[<Future at 0x7f state=finished>]", "RetryError"),
        ("requests.exceptions.Timeout: 30 s", "requests.exceptions.Timeout"),
        ("  *** Killed", "Killed"),
        ("502", "error"),
        ("x" * 80, "x" * 60),
        ({"type": "timeout", "message": "m"}, "timeout"),
        ({"type": 502}, "502"),
        ({"message": "m"}, "error"),
        (["x"], "error"),
        (True, "error"),
    ],
)
def test_a_failed_rollout_has_neither_reward_nor_success(error, kind):
    row = scan_row(error=error, verdict={"status": "unparseable"})
    assert (row["status"], row["error_type"]) == ("failed", kind)
    assert (row["reward"], row["success"], row["claimed_success"]) == (None, None, True)


@pytest.mark.parametrize("error", ["", None, {}, [], False, 0])
def test_no_error(error):
    row = scan_row(error=error)
    assert (row["status"], row["error_type"], row["reward"], row["success"]) == ("ok", None, 1.0, True)


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("instance_id", 17, "17"),
        ("instance_id", 2**70, str(2**70)),
        ("sample_id", 2.0, 2),
        ("sample_id", None, None),
        ("sample_id", 2**63 - 1, 2**63 - 1),
        ("reward", 2, 2.0),
        ("reward", True, 1.0),
        ("reward", -0.5, -0.5),
        ("reward", 1e308, 1e308),
        ("reward", 10**30, 1e30),
        ("reward", None, None),
        ("success", 1, True),
        ("success", 0.0, False),
        ("speedup", -1.0, None),
        ("speedup", 0, 0.0),
        ("speedup", None, None),
        ("latency_s", "1 s", None),
        ("latency_s", True, None),
        ("latency_s", 10**400, None),
        ("exit_status", 1, "1"),
        ("exit_status", {"a": True}, '{"a":true}'),
        ("exit_status", "", ""),
        ("finish_reason", None, None),
        ("model_calls", 3.0, 3),
    ],
)
def test_values_of_many_kinds(field, value, read):
    row = scanned(json.dumps(record(**{field: value})).encode())[0]
    assert row[field] == read
    assert type(row[field]) is type(read)


@pytest.mark.parametrize("usage", [None, 7, [], "x", {"prompt_tokens": "3"}, {"prompt_tokens": -1}, {}])
def test_malformed_usage_is_ignored(usage):
    assert scan_row(usage=usage)["prompt_tokens"] is None


@pytest.mark.parametrize("verdict", [None, 7, [1], "ok", {}, {"status": 3, "error": "far"}])
def test_malformed_verdict_is_ignored(verdict):
    row = scan_row(verdict=verdict)
    assert (row["status"], row["answer_error"]) == ("ok", None)


def test_an_answer_that_cannot_be_parsed():
    row = scan_row(verdict={"status": "unparseable", "error": None}, reward=0.0, success=False)
    assert (row["status"], row["reward"], row["success"]) == ("unparseable", 0.0, False)


def test_fields_are_read_from_metadata():
    metadata = {"instance_id": "p", "sample_id": 4, "reward": 0.5, "success": True, "speedup": 2.0, "model_calls": 3}
    row = scanned({"messages": [], "metadata": metadata})[0]
    assert {name: row[name] for name in metadata} == metadata
    row = scanned({"instance_id": "mine", "sample_id": 1, "metadata": metadata})[0]
    assert (row["instance_id"], row["sample_id"], row["reward"]) == ("mine", 1, 0.5)
    row = scanned({"instance_id": "mine", "reward": 0.0, "metadata": metadata})[0]
    assert (row["reward"], row["success"], row["sample_id"]) == (0.0, None, None)


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"messages": [{"role": "user", "content": "q"}]}, (1, 0, True)),
        ({"messages": []}, (0, 0, True)),
        ({}, (None, None, None)),
        ({"prompt": "q", "completion": "a"}, (2, 1, False)),
        (
            {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
            (2, 1, False),
        ),
        ({"messages": [{"role": "user", "content": "q"}], "completion": "a"}, (2, 1, False)),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "é"}], "completion": "é"},
            (2, 1, False),
        ),
        ({"messages": [{"role": "user", "content": "q"}], "completion": None}, (1, 0, True)),
        ({"completion": ""}, (1, 1, True)),
        ({"trajectory": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, (2, 1, False)),
    ],
)
@pytest.mark.parametrize("dump", [orjson.dumps, lambda value: json.dumps(value).encode()])
def test_forms_of_a_conversation(fields, counts, dump):
    row = scanned(dump({"instance_id": "p", **fields}))[0]
    assert (row["messages"], row["turns"], row["empty"]) == counts


@pytest.mark.parametrize(
    ("message", "empty"),
    [
        ({"content": ""}, True),
        ({"content": " \n\t\r\u00a0\u3000"}, True),
        ({"content": None}, True),
        ({}, True),
        ({"content": []}, True),
        ({"content": [{"type": "text", "text": " "}]}, True),
        ({"content": "", "tool_calls": None}, True),
        ({"content": "", "tool_calls": []}, True),
        ({"content": "\\"}, False),
        ({"content": '"'}, False),
        ({"content": "\u00e9"}, False),
        ({"content": "\n."}, False),
        ({"content": [{"type": "text", "text": "x"}]}, False),
        ({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, False),
        ({"content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}, False),
    ],
)
def test_empty(message, empty):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", **message}]
    assert scan_row(messages=messages)["empty"] is empty
    both = [*messages, {"role": "assistant", "content": " "}]
    assert scan_row(messages=both)["empty"] is empty


def hashes(*messages, dump=orjson.dumps):
    return [
        scanned(dump(record(messages=[{"role": "assistant", **each}] if isinstance(each, dict) else each)))[0][
            "completion_hash"
        ]
        for each in messages
    ]


def test_equal_completions_in_any_spelling_have_one_hash():
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": "é"}'}}
    for message in (
        {"content": 'é "quoted" \x1b \U0001f600 \\u00e9'},
        {"content": "é" * 10_000},
        {"content": "a" * 5000 + "é"},
        {"content": "a" * 5001 + "é"},
        {"content": [{"type": "text", "text": "é"}]},
        {"content": None, "tool_calls": [call]},
        {"content": "a", "reasoning_content": "é"},
    ):
        plain = hashes(message)
        assert hashes(message, dump=lambda value: json.dumps(value).encode()) == plain
        assert hashes(message, dump=lambda value: orjson.dumps(value, option=orjson.OPT_INDENT_2)) == plain
        assert hashes(message | {"name": None, "extra": 1}) == plain
    assert (
        len(set(hashes({"content": "a"}, {"content": "a", "tool_calls": None}, {"content": "a", "tool_calls": []})))
        == 1
    )
    assert len(set(hashes({"content": None}, {}, {"content": ""}))) == 1
    named = [{"content": "", "tool_calls": [call | {"id": id_}]} for id_ in ("call_1", "call_2")]
    assert len(set(hashes(*named))) == 1
    with_nulls = {"content": [{"type": "text", "text": "a", "image_url": None}]}
    assert hashes(with_nulls) == hashes({"content": [{"text": "a", "type": "text"}]})


def test_content_hash_ignores_prompt_and_record_format():
    row = {"instance_id": "p"}
    forms = [
        {"prompt": "q", "completion": "a"},
        {"prompt": "other", "completion": [{"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "assistant", "content": "a"}], "completion": "a"},
    ]
    assert len({result["completion_hash"] for result in scanned(*(row | form for form in forms))}) == 1


def test_other_completions_have_other_hashes():
    two = [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]
    one_text = [{"role": "assistant", "content": "ab"}]
    result = hashes(
        two, one_text, two[::-1], {"content": "a"}, {"content": ""}, {"content": "a", "reasoning_content": "r"},
        {"content": "a", "tool_calls": [{"function": {"name": "f"}}]}, {"content": [{"type": "text", "text": "a"}] * 2},
    )  # fmt: skip
    assert len(set(result)) == len(result)


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("\\u00e9")
@example("\x7f/\b\f")
def test_text_has_one_hash_in_any_form(text):
    message = {"content": text}
    assert hashes(message) == hashes(message, dump=lambda value: json.dumps(value).encode())
    assert scan_row(messages=[{"role": "assistant", **message}])["empty"] is (not text.strip())


@pytest.mark.parametrize("value", [2**70, -(2**64), [[[]]] * 2, "deep"])
@pytest.mark.parametrize("index", ["content", "arguments"])
def test_very_large_or_deep_values_are_hashed(index, value):
    text = (b"[" * 300 + b"]" * 300) if value == "deep" else msgspec.json.encode(value)
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": "VALUE"}}}
    turn = {"role": "assistant", "content": [{"type": "x", "a": "VALUE"}]}
    turn = turn if index == "content" else {"role": "assistant", "content": "", "tool_calls": [call]}
    line = orjson.dumps({"instance_id": "p", "messages": [turn]}).replace(b'"VALUE"', text)
    scan = Scan()
    assert scan.add(1, line, 0) is None
    assert scan.table()["completion_hash"][0] is not None


NO_ID = "missing: `instance_id` identifies the problem of a row; the row has {fields}: name one with --id_field"


@pytest.mark.parametrize(
    ("changed", "field", "reason"),
    [
        ({"instance_id": None}, "instance_id", NO_ID),
        ({"instance_id": ""}, "instance_id", NO_ID),
        ({"instance_id": ...}, "instance_id", NO_ID),
        ({"instance_id": True}, "instance_id", "expected text, found true"),
        ({"instance_id": 1.5}, "instance_id", "expected text, found 1.5"),
        ({"instance_id": ["x" * 100]}, "instance_id", f'expected text, found ["{"x" * 75}...'),
        ({"sample_id": -1}, "sample_id", "expected a whole number from 0 on, or null, found -1"),
        ({"sample_id": 0.5}, "sample_id", "expected a whole number from 0 on, or null, found 0.5"),
        ({"sample_id": 2**63}, "sample_id", f"expected a whole number from 0 on, or null, found {2**63}"),
        ({"sample_id": True}, "sample_id", "expected a whole number from 0 on, or null, found true"),
        ({"reward": "1.0"}, "reward", 'expected a number or null, found "1.0"'),
        ({"reward": {"total": [1]}}, "reward", 'expected a number or null, found {"total":[1]}'),
        ({"speedup": "fast"}, "speedup", 'expected a number or null, found "fast"'),
        ({"success": "true"}, "success", 'expected true, false or null, found "true"'),
        ({"success": 2}, "success", "expected true, false or null, found 2"),
        ({"success": [True]}, "success", "expected true, false or null, found [true]"),
        ({"model_calls": "3"}, "model_calls", 'expected a whole number from 0 on, or null, found "3"'),
        ({"messages": "q"}, "messages", "Expected `array | null`, got `str`"),
        ({"messages": {"role": "user"}}, "messages", "Expected `str | array | null`, got `object`"),
        ({"messages": [{"role": "user"}, 3]}, "messages", "Expected `object`, got `int` at messages[1]"),
        ({"messages": [{"content": "q"}]}, "messages", "Object missing required field `role` at messages[0]"),
        ({"messages": [{"role": None}]}, "messages", "Expected `str`, got `null` at messages[0].role"),
        ({"completion": 3}, "completion", "Expected `str | array | null`, got `int`"),
    ],
)
def test_field_of_a_wrong_type_is_a_bad_row(changed, field, reason):
    result = fault(record(**changed))
    fields = ", ".join(key for key, value in record(**changed).items() if value is not ...)
    assert (result.field, result.reason) == (field, reason.format(fields=fields) if reason is NO_ID else reason)
    assert result.raw[:2000] == orjson.dumps(record(**changed)).decode()


@pytest.mark.parametrize(("recorded", "number"), [("3", 3), ("run-a", None), ("9" * 40, None)])
def test_sample_id_as_text(recorded, number):
    assert scan_row(sample_id=recorded)["sample_id"] == number


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"1e999", "Number out of range"),
        (b"9" * 400, f"expected a number or null, found {'9' * 77}..."),
        (b"9" * 5000, "Integer value out of range"),
    ],
)
def test_reward_beyond_floats_is_a_bad_row(value, reason):
    result = fault(b'{"instance_id": "p", "reward": ' + value + b"}")
    assert (result.field, result.reason) == ("reward", reason)


DEEP = b'{"instance_id": "p", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[1]", "expected a JSON object, found list"),
        (b"7", "expected a JSON object, found int"),
        (b"null", "expected a JSON object, found NoneType"),
        (b'"x"', "expected a JSON object, found str"),
        (b"NaN", "expected a JSON object, found float"),
        (b'{"instance_id": "p"', "not valid JSON in UTF-8: unexpected end of data: line 1 column 20"),
        (b'{"instance_id": "p"} {}', "not valid JSON in UTF-8: unexpected content after document"),
        (
            b'{"instance_id": "p", "x": "\xff"}',
            "not valid JSON in UTF-8: 'utf-8' codec can't decode byte 0xff in position 27",
        ),
        (b'{"instance_id": "p", "x": "\xed\xa0\x80"}', "not valid JSON in UTF-8: 'utf-8' codec can't decode byte 0xed"),
        (b'{"instance_id": "p", "x": "\x00"}', "not valid JSON in UTF-8: unexpected control character in string"),
        (b"\x00\x00\x00", "not valid JSON in UTF-8: unexpected character"),
        (b"\xef\xbb\xbf{}", "not valid JSON in UTF-8: UTF-8 byte order mark"),
        (b'{"instance_id": "p", "x": 01}', "not valid JSON in UTF-8: number with leading zero"),
        (
            b'{"instance_id": "p", "messages": [{"role": "assistant", "content": [1e999]}]}',
            "not valid JSON in UTF-8: number is infinity",
        ),
        (DEEP, "not valid JSON in UTF-8: depth limit exceeded"),
        (b"", "there is no row"),
    ],
)
def test_invalid_record_is_a_fault(text, reason):
    result = fault(text)
    assert result.field is None
    assert result.reason.startswith(reason)
    assert orjson.dumps(result.to_json())


def test_nan_and_infinity_become_null_with_a_note():
    scan = Scan()
    assert scan.add(1, orjson.dumps(record()), 0) is None
    for number, value in ((2, math.nan), (3, math.inf), (4, -math.inf)):
        text = json.dumps(record(reward=value, metadata={"x": value, "say": "NaN"})).encode()
        assert scan.add(number, text, 10) is None
        assert scan.table()["length"][-1] == len(text)
    assert scan.repaired == {2, 3, 4}
    assert scan.table()["reward"].to_list() == [1.0, None, None, None]
    assert scan.add(5, json.dumps(record(problem="", reward=math.nan)).encode(), 0).reason.startswith(
        "missing: `instance_id`"
    )
    assert scan.add(6, json.dumps(record(answer="NaN and Infinity")).encode(), 0) is None
    assert scan.repaired == {2, 3, 4}


def test_last_value_of_a_repeated_key_counts():
    row = scanned(b'{"instance_id": "a", "reward": 1, "instance_id": "b", "reward": 2}')[0]
    assert (row["instance_id"], row["reward"]) == ("b", 2.0)


def test_unicode_and_escapes_in_an_id():
    assert [row["instance_id"] for row in scanned(record("é\U0001f600\0\n"), b'{"instance_id": "\\u00e9"}')] == [
        "é\U0001f600\0\n",
        "é",
    ]


def test_many_rows_come_in_their_order():
    scan = Scan()
    text = orjson.dumps(record())
    for number in range(1, 60_001):
        scan.add(number, text, None)
    assert scan.table()["number"].to_list() == list(range(1, 60_001))
    assert scan.table().height == 60_000
    scan.add(60_001, text, None)
    assert scan.table()["number"][-1] == 60_001


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2**64),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
)
NAMES = [*Record.__struct_encode_fields__, *FINISH_FIELDS, "other"]
TELLING = st.sampled_from([0, False, True, "no", "length", "incomplete", "end_turn", "thoughts", {"reason": "length"}])
ODD = st.dictionaries(st.sampled_from(NAMES), TELLING | VALUES, max_size=1)
"""Further fields of a row or its metadata, some of which tell how its answer ended, or exclude it from training."""
ODD_OF_MESSAGE = st.dictionaries(
    st.sampled_from([*RecordedMessage.__struct_encode_fields__, "other"]), TELLING | VALUES, max_size=1
)
KNOWN = st.fixed_dictionaries(
    {},
    optional={
        "sample_id": st.integers(0, 5),
        "reward": st.floats(0, 1) | st.none(),
        "success": st.booleans() | st.none(),
        "error": st.none() | st.text(max_size=5) | st.fixed_dictionaries({"type": st.text(max_size=5)}),
        "verdict": st.none()
        | st.fixed_dictionaries({"status": st.sampled_from(["ok", "unparseable"]), "error": SCALARS}),
        "evaluation_info": st.fixed_dictionaries({}, optional={"success": SCALARS, "meta": VALUES, "response": VALUES}),
        "usage": st.fixed_dictionaries({"prompt_tokens": SCALARS}),
        "metadata": st.none()
        | st.builds(operator.or_, st.fixed_dictionaries({}, optional={"reward": SCALARS, "sample_id": SCALARS}), ODD),
        "messages": st.lists(
            st.builds(
                operator.or_,
                st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": VALUES}),
                ODD_OF_MESSAGE,
            )
        ),
        "completion": st.text(max_size=5),
    },
)
RECORDS = st.builds(
    lambda known, odd: {"instance_id": "p"} | known | odd,
    KNOWN,
    st.dictionaries(st.sampled_from(NAMES), TELLING | VALUES, max_size=2),
)
IN_FULL = msgspec.json.Decoder(Record)


@pytest.mark.parametrize("decoder", TYPED_DECODERS)
@given(built=RECORDS)
def test_typed_facts_equal_record_facts(decoder, built):
    text = json.dumps(built).encode()
    try:
        short = compute_typed_facts(decoder.decode(text))
    except msgspec.DecodeError:
        return
    assert short == compute_facts(IN_FULL.decode(text))
    assert short == compute_facts(decode_record(text))


@given(RECORDS)
def test_plain_messages_normalize_like_full_ones(built):
    text = json.dumps(built).encode()
    assert formed(decode_record, text) == formed(IN_FULL.decode, text)


def formed(decode, text):
    """Return a record's messages in the one form, or what is wrong with them."""
    try:
        return [msgspec.json.encode(turn) for turn in decode(text).conversation() or []]
    except UNREADABLE_ERRORS as error:
        return str(error)


MARKED = [{"weight": 0}, {"do_not_train": True}, {"masked": True}, {"loss_mask": [0, 0]}, {"is_train": False}]
CUT = [{"stopReason": "max_tokens"}, {"done_reason": "length"}, {"choices": [{"finish_reason": "length"}]}]


@pytest.mark.parametrize("metadata", MARKED)
def test_marks_in_metadata_beside_an_outcome_are_read(metadata):
    assert scanned(record(success=True, metadata=metadata))[0]["marked"] is True


@pytest.mark.parametrize("metadata", CUT)
def test_truncation_in_metadata_beside_an_outcome_is_read(metadata):
    assert scanned(record(success=True, metadata=metadata))[0]["truncated"] is True


@pytest.mark.parametrize("metadata", [{"reasoning_content": "so"}, {"thinking": "so"}])
def test_thoughts_in_metadata_change_the_hash(metadata):
    rows = scanned(record(completion="4", metadata=metadata), record(completion="4", metadata={}))
    assert rows[0]["completion_hash"] != rows[1]["completion_hash"]


def test_alternating_plain_and_full_messages():
    few = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    many = [few[0], few[1] | {"reasoning": "so", "refusal": None}]
    rows = scanned(*(record(messages=messages) for messages in (few, many, few, many)))
    hashes = [row["completion_hash"] for row in rows]
    assert hashes[:2] == hashes[2:]
    assert hashes[0] != hashes[1]


@given(st.one_of(st.binary(), RECORDS.map(lambda built: json.dumps(built).encode())), st.data())
def test_any_line_is_a_row_or_a_reason(text, data):
    """Also a valid record with some bytes changed, taken out, or put in."""
    if text and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.binary(max_size=3)) + text[at + data.draw(st.integers(0, 3)) :]
    scan = Scan()
    bad = scan.add(1, text, 0)
    assert scan.table().height == (0 if bad else 1)
    assert scan.table().schema == COLUMNS
    if bad:
        assert bad.reason
        assert orjson.dumps(bad.to_json())
    elif not scan.repaired:
        assert isinstance(json.loads(text), dict)  # takes numbers beyond a float, in fields that are not read


@given(
    st.lists(
        st.sampled_from(['"a"', '" \\n"', '"\\u0020"', "null", '[{"type": "text", "text": " "}]', '"\\u00e9"']),
        max_size=3,
    )
)
def test_scan_without_hashes_has_the_same_other_columns(contents):
    turns = "".join(f', {{"role": "assistant", "content": {content}}}' for content in contents)
    line = f'{{"instance_id": "p", "reward": 1, "messages": [{{"role": "user", "content": "q"}}{turns}]}}'
    hashed, unhashed = Scan(), Scan(hashed=False)
    assert hashed.add(1, line.encode(), 0) is None
    assert unhashed.add(1, line.encode(), 0) is None
    assert unhashed.table()["completion_hash"].to_list() == [None]
    paired = ["completion_hash", "unanswered_calls", "stray_results"]
    assert unhashed.table().drop(paired).equals(hashed.table().drop(paired))
