"""Token files: what is written is read again, wherever a file is cut off."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.generation.token_file import RolloutTokens, TokenFile, TokenFileError, TokenReader, WrittenTokens
from rollmill.inference.sampled_tokens import SampledTokens, TokenSource
from rollmill.records import TokenLocation

SOURCE = TokenSource("0123456789abcdef", "processed_logprobs")
ids = st.lists(st.integers(0, 2**32 - 1), max_size=20).map(lambda values: array("I", values))


@st.composite
def sampled(draw, beginning=()):
    written = draw(ids)
    some = st.floats(-100, 0, width=32)
    logprobs = draw(
        st.none() | st.lists(some, min_size=len(written), max_size=len(written)).map(lambda v: array("f", v))
    )
    mode = draw(st.sampled_from(["processed_logprobs", "raw_logprobs", None]))
    prompt = array("I", beginning) + draw(ids)
    return SampledTokens(prompt, written, logprobs, TokenSource(draw(st.none() | st.just("0123")), mode))


@st.composite
def rollouts(draw):
    prompt = draw(ids)
    result = []
    for sample_id in range(draw(st.integers(1, 4))):
        calls = [draw(sampled(prompt))]
        for _ in range(draw(st.integers(0, 3))):
            calls.append(draw(sampled(draw(st.sampled_from(calls)).sequence)))
        result.append(RolloutTokens(draw(st.text(max_size=5)), sample_id, calls))
    return result


def tokens_of(prompt: list[int], written: list[int], sample_id: int = 0) -> RolloutTokens:
    call = SampledTokens(array("I", prompt), array("I", written), array("f", [-0.5] * len(written)), SOURCE)
    return RolloutTokens("p0", sample_id, [call])


@given(rollouts())
def test_tokens_are_read_as_they_were_written(tmp_path_factory, recorded):
    folder = tmp_path_factory.mktemp("tokens")
    file, reader = TokenFile(folder / "0001.tokens"), TokenReader(folder)
    locations = [file.append(tokens) for tokens in recorded]
    for tokens, location in zip(recorded, locations, strict=True):
        assert reader.read(location, tokens.instance_id, tokens.sample_id) == tokens
    file.close()
    reader.close()


def test_a_prompt_that_rollouts_share_is_written_once(tmp_path):
    file = TokenFile(tmp_path / "0001.tokens")
    prompt = [index * 7919 % 50_000 for index in range(2000)]
    first = file.append(tokens_of(prompt, [1, 2, 3]))
    second = file.append(tokens_of(prompt, [4, 5, 6], 1))
    third = file.append(tokens_of(prompt, [7, 8, 9], 2))
    file.close()
    assert third.offset - second.offset < 200 < second.offset - first.offset


def test_the_latest_record_of_a_rollout_is_found_without_an_offset(tmp_path):
    file, reader = TokenFile(tmp_path / "0001.tokens"), TokenReader(tmp_path)
    for sample_id, written in ((0, [3]), (1, [4]), (0, [5])):
        file.append(tokens_of([1, 2], written, sample_id))
    anywhere = TokenLocation(file="0001.tokens")
    assert reader.read(anywhere, "p0", 0) == tokens_of([1, 2], [5])
    assert reader.read(anywhere, "p0", 1) == tokens_of([1, 2], [4], 1)
    with pytest.raises(TokenFileError, match="no complete token record"):
        reader.read(anywhere, "p1", 0)
    file.close()
    reader.close()


def test_what_a_conversation_repeats_is_written_once(tmp_path):
    prompt = array("I", [index * 7919 % 50_000 for index in range(2000)])
    calls = [SampledTokens(prompt, array("I", [5, 6, 7]), None, SOURCE)]
    for _ in range(9):
        longer = calls[-1].sequence + array("I", [1, 2])
        calls.append(SampledTokens(longer, array("I", [5, 6, 7]), None, SOURCE))
    file = TokenFile(tmp_path / "0001.tokens")
    file.append(RolloutTokens("p0", 0, calls))
    file.close()
    assert (tmp_path / "0001.tokens").stat().st_size < 4 * len(prompt) + 300


def test_a_record_of_another_rollout_is_refused(tmp_path):
    file, reader = TokenFile(tmp_path / "0001.tokens"), TokenReader(tmp_path)
    location = file.append(tokens_of([1], [2]))
    with pytest.raises(TokenFileError, match="another rollout"):
        reader.read(location, "p0", 1)
    file.close()
    reader.close()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-3] + b"xyz", lambda data: data[:3]])
def test_a_torn_record_is_refused(tmp_path, damage):
    path = tmp_path / "0001.tokens"
    file = TokenFile(path)
    location = file.append(tokens_of([1], [2]))
    file.close()
    with WrittenTokens(path) as written:
        assert written.holds(location.offset)
        assert written.end == path.stat().st_size
    path.write_bytes(damage(path.read_bytes()))
    with WrittenTokens(path) as written:
        assert not written.holds(location.offset)
        assert written.end == 0
    reader = TokenReader(tmp_path)
    with pytest.raises(TokenFileError, match="no complete token record"):
        reader.read(location, "p0", 0)
    reader.close()


def test_an_opened_file_is_truncated_to_the_given_end(tmp_path):
    file = TokenFile(tmp_path / "0001.tokens")
    kept, lost = file.append(tokens_of([1], [2])), file.append(tokens_of([1], [3], 1))
    file.close()
    file = TokenFile(tmp_path / "0001.tokens", end=lost.offset)
    assert file.append(tokens_of([9], [4], 1)) == lost
    file.close()
    reader = TokenReader(tmp_path)
    assert reader.read(lost, "p0", 1) == tokens_of([9], [4], 1)
    assert reader.read(kept, "p0", 0) == tokens_of([1], [2])
    reader.close()


@pytest.mark.parametrize("name", ["/etc/passwd", "0001.jsonl", "a\0.tokens", "..", ""])
def test_a_location_names_token_files_only(tmp_path, name):
    with pytest.raises(TokenFileError, match="not the name of a token file"):
        TokenReader(tmp_path / "rollouts").read(TokenLocation(file=name, offset=0), "p0", 0)


def test_a_location_may_name_the_rollout_and_some_of_its_calls(tmp_path):
    file, reader = TokenFile(tmp_path / "0001.tokens"), TokenReader(tmp_path / "elsewhere")
    calls = [SampledTokens(array("I", [1]), array("I", [number]), None, SOURCE) for number in range(3)]
    offset = file.append(RolloutTokens("p0", 4, calls)).offset
    file.close()
    location = TokenLocation(
        file=str(tmp_path / "0001.tokens"), offset=offset, instance_id="p0", sample_id=4, calls=(2,)
    )
    assert reader.read(location, "renamed", 0).calls == calls[2:]
    with pytest.raises(TokenFileError, match="has 3 calls"):
        reader.read(location.model_copy(update={"calls": (3,)}), "renamed", 0)
    reader.close()


@pytest.mark.parametrize("offset", [-1, 1, 10**6, 2**62, 2**70])
def test_an_invalid_offset_has_no_record(tmp_path, offset):
    file = TokenFile(tmp_path / "0001.tokens")
    file.append(tokens_of([1], [2]))
    file.close()
    with WrittenTokens(tmp_path / "0001.tokens") as written:
        assert not written.holds(offset)


def test_a_file_that_is_gone_is_said(tmp_path: Path):
    with WrittenTokens(tmp_path / "0001.tokens") as written:
        assert written.missing
    with pytest.raises(TokenFileError, match="cannot be read"):
        TokenReader(tmp_path).read(TokenLocation(file="0001.tokens", offset=0), "p0", 0)
