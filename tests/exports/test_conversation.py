"""Conversations as training data: joined turns, removed bookkeeping, refusals."""

import json
from itertools import pairwise

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.corpus.message import Message
from rollmill.corpus.raw_json import NOTHING
from rollmill.corpus.record_text import content_text
from rollmill.exports.contents import is_absent, is_blank
from rollmill.exports.conversation import clean, split_prompt
from tests.exports.sample_corpus import msg

CALL = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]


def messages(*turns):
    return msgspec.json.decode(orjson.dumps(turns), type=list[Message])


def cleaned(*turns):
    result = clean(messages(*turns))
    return result if isinstance(result, str) else orjson.loads(msgspec.json.encode(result))


def short(*turns):
    result = cleaned(*turns)
    return result if isinstance(result, str) else [(turn["role"], turn.get("content")) for turn in result]


def test_bookkeeping_and_what_follows_the_last_answer_are_removed():
    turns = [
        msg("system", "s", extra={"time": 1}),
        msg("user", "q"),
        msg("assistant", "a", extra={"cost": 0.1}),
        msg("user", "observation"),
        msg("exit", "Submitted"),
    ]
    assert cleaned(*turns) == [msg("system", "s"), msg("user", "q"), msg("assistant", "a")]


def test_consecutive_turns_of_one_role_are_joined():
    turns = [
        msg("user", 'a "q"\\'),
        msg("user", "é\n"),
        msg("assistant", "x"),
        msg("assistant", "y"),
    ]
    assert short(*turns) == [("user", 'a "q"\\\n\né\n'), ("assistant", "x\n\ny")]


def test_parts_are_concatenated_and_strings_become_parts_beside_them():
    image = {"type": "image", "image": "images/x.png"}
    turns = [
        msg("user", [image]),
        msg("user", "look"),
        msg("user", ["bare"]),
        msg("assistant", "x"),
    ]
    text = [{"type": "text", "text": "look"}, {"type": "text", "text": "bare"}]
    assert short(*turns)[0] == ("user", [image, *text])


@pytest.mark.parametrize(
    "extra",
    [{"tool_calls": CALL}, {"reasoning_content": "hm"}, {"name": "other"}, {"tool_call_id": "1"}],
)
def test_turns_with_more_than_content_are_not_merged(extra):
    turns = [msg("user", "q"), msg("assistant", "a", **extra), msg("assistant", "b")]
    assert [role for role, _ in short(*turns)] == ["user", "assistant", "assistant"]


def test_tool_turns_are_not_merged():
    turns = [
        msg("assistant", None, tool_calls=CALL),
        msg("tool", "1"),
        msg("tool", "2"),
        msg("assistant", "a"),
    ]
    assert short(*turns) == [("assistant", None), ("tool", "1"), ("tool", "2"), ("assistant", "a")]


def test_empty_fields_are_removed():
    turns = [
        msg("user", "q", name=None),
        msg("assistant", "a", tool_calls=[]),
        msg("assistant", "b", tool_calls=None),
    ]
    assert cleaned(*turns) == [msg("user", "q"), msg("assistant", "a\n\nb")]


def test_empty_answers_are_removed_and_neighbours_merged():
    turns = [
        msg("user", "q"),
        msg("assistant", " \n\u3000"),
        msg("user", "well?"),
        msg("assistant", "a"),
    ]
    assert short(*turns) == [("user", "q\n\nwell?"), ("assistant", "a")]
    assert short(
        msg("user", "q"),
        msg("assistant", "a"),
        msg("user", "o"),
        msg("assistant", ""),
    ) == [
        ("user", "q"),
        ("assistant", "a"),
    ]


def test_a_leading_answer_stays():
    assert short(msg("assistant", "hi"), msg("user", "q"), msg("assistant", "a"))[0] == (
        "assistant",
        "hi",
    )


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "no_messages"),
        ([msg("exit", "Submitted")], "no_messages"),
        ([msg("user", "q")], "no_assistant_turn"),
        ([msg("user", "q"), msg("assistant", " \t\n")], "empty_completion"),
        ([msg("user", "q"), msg("assistant", None)], "empty_completion"),
        ([msg("user", "q"), msg("assistant", [{"type": "text", "text": " "}])], "empty_completion"),
        ([msg("user", "q"), msg("assistant", "", reasoning_content="I think")], "empty_completion"),
        ([msg("human", "q"), msg("assistant", "a")], "unknown_role"),
        ([msg("user", {"text": "q"}), msg("assistant", "a")], "unreadable_content"),
        ([msg("user", [1]), msg("assistant", "a")], "unreadable_content"),
    ],
)
def test_reasons(turns, reason):
    assert short(*turns) == reason


def test_nothing_recorded_is_no_messages():
    assert clean(None) == "no_messages"


def test_input_messages_are_not_modified():
    given_turns = messages(msg("user", "a"), msg("user", "b"), msg("assistant", "c", tool_calls=[]))
    before = msgspec.json.encode(given_turns)
    clean(given_turns)
    assert msgspec.json.encode(given_turns) == before


def test_prompt_ends_before_the_first_answer():
    turns = messages(
        msg("user", "q"),
        msg("assistant", "a"),
        msg("user", "o"),
        msg("assistant", "b"),
    )
    prompt, completion = split_prompt(turns)
    assert [len(prompt), len(completion)] == [1, 3]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.booleans())
def test_blank_is_white_space_in_any_spelling(text, ascii_only):
    written = msgspec.Raw(json.dumps(text, ensure_ascii=ascii_only).encode())
    assert is_blank(written) == (not text.strip())


@given(st.text(alphabet=" \t\n\r\f\v\x1c\x85\xa0\u2003\u3000\\nu0", max_size=6), st.booleans())
def test_blank_with_mostly_white_space(text, ascii_only):
    assert is_blank(msgspec.Raw(json.dumps(text, ensure_ascii=ascii_only).encode())) == (not text.strip())


TEXTS = st.sampled_from(["", " ", "\n", 'x"', "é\\", "\u3000", "y\n"]) | st.text(
    alphabet=st.characters(exclude_categories=["Cs"]), max_size=8
)
PARTS = st.lists(
    TEXTS | TEXTS.map(lambda text: {"type": "text", "text": text}) | st.just({"type": "image", "image": "i"})
)
CONTENTS = st.none() | TEXTS | PARTS
TURNS = st.builds(
    lambda role, content, extras: {"role": role, **({} if content is ... else {"content": content}), **extras},
    st.sampled_from(["system", "developer", "user", "assistant", "assistant", "tool", "exit"]),
    CONTENTS | st.just(...),
    st.fixed_dictionaries(
        {},
        optional={
            "tool_calls": st.sampled_from([None, [], CALL]),
            "reasoning_content": st.none() | TEXTS,
            "name": st.sampled_from([None, "n"]),
            "extra": st.just({"k": 1}),
        },
    ),
)


def _plain(turn):
    return not any(len(getattr(turn, name)) for name in ("tool_calls", "tool_call_id", "name", "reasoning_content"))


def _model_text(turns):
    """Everything that the model wrote, white space aside: joins add some, and blank turns lose theirs."""
    raw = [raw for turn in turns if turn.role == "assistant" for raw in (turn.content, turn.reasoning_content)]
    return "".join("".join(content_text(item) for item in raw if not is_absent(item)).split())


@given(st.lists(TURNS, max_size=8))
def test_invariants(turns):
    recorded = messages(*turns)
    result = clean(recorded)
    if isinstance(result, str):
        assert result in {"no_messages", "no_assistant_turn", "empty_completion"}
        return
    assert result[-1].role == "assistant"
    for before, after in pairwise(result):
        assert not (before.role == after.role != "tool" and _plain(before) and _plain(after))
    assert msgspec.json.encode(clean(result)) == msgspec.json.encode(result)
    assert _model_text(result) == _model_text(recorded)
    assert not any(turn.role == "exit" for turn in result)


def test_a_message_without_content_has_none():
    assert messages({"role": "user"})[0].content == NOTHING
