import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.verifiers import frames

messages = st.lists(st.dictionaries(st.text(), st.text() | st.none() | st.integers(0, 100), max_size=3), max_size=4)


@given(messages, st.integers(1, 50))
def test_messages_are_parsed_from_chunks_of_any_size(sent, step):
    stream = b"".join(map(frames.pack, sent))
    buffer, taken = bytearray(), []
    for start in range(0, len(stream), step):
        buffer += stream[start : start + step]
        while (message := frames.take(buffer, 1 << 20)) is not None:
            taken.append(message)
    assert taken == sent
    file = io.BytesIO(stream)
    assert [frames.read(file) for _ in sent] == sent
    assert frames.read(file) is None


@pytest.mark.parametrize("broken", [b"\xff" * 8, (93).to_bytes(8), (2).to_bytes(8) + b"[]", (2).to_bytes(8) + b"xx"])
def test_invalid_message_raises_immediately(broken):
    with pytest.raises(ValueError, match=r"a message of|a message that|unexpected"):
        frames.take(bytearray(broken), 100)


@pytest.mark.parametrize("kept", [0, 3, 8, 12])
def test_truncated_message_is_none(kept):
    assert frames.read(io.BytesIO(frames.pack({"a": "b"})[:kept])) is None
