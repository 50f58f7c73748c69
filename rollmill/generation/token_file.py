"""The tokens of a journal's rollouts: an append-only binary file beside the journal, `0001.tokens` of `0001.jsonl`.

A record holds the calls of one rollout, packed: msgpack, deflated, behind a head of its length, its CRC-32, a hash of
the rollout's name, and a digest of the rollout's text. Ids that are there
already are not written again: most of a call's prompt is what the call before was given and wrote, and the rollouts of
one problem share their prompt. The journal's row names its record by file and offset, see `TokenLocation`.
"""

from __future__ import annotations

import os
import sys
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import msgspec
import xxhash

from rollmill.errors import InputError, file_error
from rollmill.files.regular import require_regular
from rollmill.inference.sampled_tokens import SampledTokens, TokenSource
from rollmill.records import TokenLocation

SUFFIX = ".tokens"

_HEAD_BYTES = 24
_LARGEST_RECORD = 256 << 20  # bytes, packed and unpacked
_MOST_BASES = 16
_LARGEST_OFFSET = 2**62
_LOOKED_THROUGH = 64 << 20
_KEPT_PROMPTS = 1024
_LEVEL = 6
_ITEM_BYTES = 4
_LITTLE: Literal["little"] = "little"


class TokenFileError(Exception):
    """A record that is not there, torn, or another rollout's."""


class RolloutTokens(NamedTuple):
    """The tokens of one rollout: one call for each answer of the model that its messages hold, in their order."""

    instance_id: str
    sample_id: int
    calls: Sequence[SampledTokens]
    digest: str = "0" * 16
    """Of the journal's row, see `row_digest`: hexadecimal digits."""


class _Call(msgspec.Struct, array_like=True):
    base: int
    """Whose ids the prompt begins with: a call of this record by its index, `_PROBLEM`, or `_NOTHING`."""
    shared: int
    """How many of them."""
    prompt: bytes
    """The rest of the prompt."""
    ids: bytes
    logprobs: bytes | None
    source: int


class _Record(msgspec.Struct, array_like=True):
    instance_id: str
    sample_id: int
    prompt_at: int | None
    """Offset of an earlier record that writes out the prompt with which the first call begins."""
    sources: list[TokenSource]
    calls: list[_Call]


_PROBLEM, _NOTHING = -1, -2
_decoder = msgspec.msgpack.Decoder(_Record)


class TokenFile:
    """One file of tokens, open for appending by this process alone, which holds the journal's lock."""

    def __init__(self, path: Path, *, end: int | None = None) -> None:
        """Open the file, cut off behind `end`: what stands there has no line in the journal."""
        self.path = path
        try:
            require_regular(path)
            self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            """The file's descriptor."""
            self._end = os.fstat(self.file).st_size if end is None else end
            os.ftruncate(self.file, self._end)
        except OSError as error:
            raise file_error(error, path) or error from error
        self._prompts: OrderedDict[bytes, int] = OrderedDict()
        self._unsynced = False

    def append(self, tokens: RolloutTokens) -> TokenLocation:
        """Write one record and return where it is. Raises `OSError`; the file then ends with the record before."""
        prompt = tokens.calls[0].prompt.tobytes() if tokens.calls else b""
        prompt_at = self._prompts.get(prompt)
        record = _pack(tokens, prompt_at)
        try:
            written = os.pwrite(self.file, record, self._end)
            while written < len(record):
                written += os.pwrite(self.file, record[written:], self._end + written)
        except OSError:
            os.ftruncate(self.file, self._end)
            raise
        location = TokenLocation(file=self.path.name, offset=self._end)
        if prompt and prompt_at is None:
            self._prompts[prompt] = self._end
            if len(self._prompts) > _KEPT_PROMPTS:
                self._prompts.popitem(last=False)
        self._end += len(record)
        self._unsynced = True
        return location

    def sync(self) -> None:
        """Bring what was appended to disk (fdatasync). Raises `OSError`."""
        if self._unsynced:
            self._unsynced = False
            os.fdatasync(self.file)

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)


class TokenReader:
    """Reads records of the files that rows of one folder name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}
        self._offsets: dict[str, dict[bytes, int]] = {}

    def read(self, location: TokenLocation, instance_id: str, sample_id: int) -> RolloutTokens:
        """Return the tokens of one rollout, or of those of its calls that the location names.

        Raises `TokenFileError` where they are not there, torn, or another rollout's, and `InputError` for a file that
        cannot be opened.
        """
        file = self._opened(location.file)
        instance_id, sample_id, offset = self._place(location, instance_id, sample_id)
        record = _read(file, offset)
        if (record.instance_id, record.sample_id) != (instance_id, sample_id):
            raise TokenFileError(f"{location.file} holds another rollout at byte {offset}")
        problem_prompt = array("I")
        if record.prompt_at is not None:
            if not 0 <= record.prompt_at < offset:
                raise TokenFileError(f"{location.file} refers forward at byte {offset}")
            first = _read(file, record.prompt_at)
            if first.prompt_at is not None or not first.calls:
                raise TokenFileError(f"{location.file} refers to no prompt at byte {offset}")
            problem_prompt = _array("I", first.calls[0].prompt)
        calls = _unpack(record, problem_prompt)
        if location.calls is not None:
            if not all(call < len(calls) for call in location.calls):
                raise TokenFileError(f"{location.file} has {len(calls)} calls of {instance_id}, sample {sample_id}")
            calls = [calls[call] for call in location.calls if call >= -len(calls)]
        digest = os.pread(file, 8, offset + 16).hex()
        return RolloutTokens(instance_id, sample_id, calls, digest)

    def digest(self, location: TokenLocation, instance_id: str, sample_id: int) -> str:
        """Return the digest of the text that the tokens are of, without reading them. Raises as `read` does."""
        file = self._opened(location.file)
        instance_id, sample_id, offset = self._place(location, instance_id, sample_id)
        head = os.pread(file, _HEAD_BYTES, offset) if 0 <= offset < _LARGEST_OFFSET else b""
        if len(head) < _HEAD_BYTES or head[8:16] != _key(instance_id, sample_id):
            raise TokenFileError(f"{location.file} holds no tokens of {instance_id}, sample {sample_id}")
        return head[16:].hex()

    def _place(self, location: TokenLocation, instance_id: str, sample_id: int) -> tuple[str, int, int]:
        """Return whose record it is, by its name in the journal, and where it begins: -1 where it is not there."""
        instance_id = instance_id if location.instance_id is None else location.instance_id
        sample_id = sample_id if location.sample_id is None else location.sample_id
        offset = location.offset
        if offset is None:
            offset = self._latest(location.file).get(_key(instance_id, sample_id), -1)
        return instance_id, sample_id, offset

    def _latest(self, name: str) -> dict[bytes, int]:
        """Return where each rollout's latest record begins, by the hash of its name; only heads are read."""
        if name not in self._offsets:
            offsets, offset, file = dict[bytes, int](), 0, self._opened(name)
            while len(head := os.pread(file, _HEAD_BYTES, offset)) == _HEAD_BYTES:
                offsets[head[8:16]] = offset
                offset += _HEAD_BYTES + int.from_bytes(head[:4], _LITTLE)
            self._offsets[name] = offsets
        return self._offsets[name]

    def _opened(self, name: str) -> int:
        if name not in self._files:
            path = self._folder / name
            # A row may name any file: records say by themselves whose they are, and nothing else is shown of a file.
            if path.suffix != SUFFIX or "\0" in name:
                raise TokenFileError(f"{name!r} is no name of a file of tokens")
            try:
                require_regular(path)
                self._files[name] = os.open(path, os.O_RDONLY)
            except (OSError, InputError) as error:
                raise TokenFileError(f"{path} cannot be read: {error}") from error
        return self._files[name]

    def close(self) -> None:
        """Close all files."""
        while self._files:
            os.close(self._files.popitem()[1])


class WrittenTokens:
    """What of a file of tokens is whole when its journal is opened: where records end, looked up by offset."""

    def __init__(self, path: Path) -> None:
        """Look at the file. Raises `InputError` for one that cannot be opened; none at all is `missing`."""
        self.missing = False
        self.end = 0
        """Behind the last whole record that was asked for."""
        self._file: int | None = None
        try:
            require_regular(path)
            self._file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            self.missing = True
        except OSError as error:
            raise file_error(error, path) or error from error
        self._size = 0 if self._file is None else os.fstat(self._file).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)

    def whole_end(self) -> int:
        """Return where the last whole record ends, from the beginning of the file on."""
        offset = 0
        while self.holds(offset):
            offset = self.end
        return offset

    def holds(self, offset: int) -> bool:
        """Tell whether a whole record begins at an offset; note its end."""
        if self._file is None:
            return False
        try:
            # What a failure of the machine tore stands at the end; to sum up all of a large file would take minutes.
            at_the_end = offset > self._size - _LOOKED_THROUGH
            size = len(_payload(self._file, offset)) if at_the_end else _payload_size(self._file, offset)
        except TokenFileError:
            return False
        end = offset + _HEAD_BYTES + size
        if end > self._size:
            return False
        self.end = max(self.end, end)
        return True


def _pack(tokens: RolloutTokens, prompt_at: int | None) -> bytes:
    sources = list(dict.fromkeys(call.source for call in tokens.calls))
    calls = list[_Call]()
    for index, call in enumerate(tokens.calls):
        base, shared = _base(tokens.calls, index)
        if index == 0 and prompt_at is not None:
            base, shared = _PROBLEM, len(call.prompt)
        logprobs = None if call.logprobs is None else _bytes(call.logprobs)
        rest = _bytes(call.prompt[shared:])
        calls.append(_Call(base, shared, rest, _bytes(call.ids), logprobs, sources.index(call.source)))
    record = _Record(tokens.instance_id, tokens.sample_id, prompt_at, sources, calls)
    payload = zlib.compress(msgspec.msgpack.encode(record), _LEVEL)
    if len(payload) > _LARGEST_RECORD:
        raise TokenFileError(f"the tokens of {tokens.instance_id}, sample {tokens.sample_id} are too many to keep")
    checksum = zlib.crc32(payload).to_bytes(4, _LITTLE)
    name, digest = _key(tokens.instance_id, tokens.sample_id), bytes.fromhex(tokens.digest)
    return len(payload).to_bytes(4, _LITTLE) + checksum + name + digest + payload


def _key(instance_id: str, sample_id: int) -> bytes:
    return xxhash.xxh3_64_digest(msgspec.msgpack.encode((instance_id, sample_id)))


def _base(calls: Sequence[SampledTokens], index: int) -> tuple[int, int]:
    """Return the earlier call whose sequence the prompt has most of as its beginning, and how many ids it has of it."""
    prompt = calls[index].prompt
    lengths = {base: _common(calls[base].sequence, prompt) for base in range(max(0, index - _MOST_BASES), index)}
    best = max(lengths, key=lambda base: (lengths[base], base), default=_NOTHING)
    return (best, lengths[best]) if lengths.get(best) else (_NOTHING, 0)


def _common(first: array[int], second: array[int]) -> int:
    """Return how many ids two sequences begin with alike, by bisection: slices compare at the speed of memory."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _read(file: int, offset: int) -> _Record:
    try:
        return _decoder.decode(_unpacked(_payload(file, offset)))
    except (msgspec.MsgspecError, zlib.error) as error:
        raise TokenFileError(f"no record of tokens at byte {offset}: {error}") from error


def _payload(file: int, offset: int) -> bytes:
    """Return the packed record at an offset. Raises `TokenFileError` where it is torn, or nothing is there."""
    size = _payload_size(file, offset)
    checksum = os.pread(file, 4, offset + 4)
    payload = os.pread(file, size, offset + _HEAD_BYTES)
    if len(payload) < size or zlib.crc32(payload).to_bytes(4, _LITTLE) != checksum:
        raise TokenFileError(f"no whole record of tokens at byte {offset}")
    return payload


def _payload_size(file: int, offset: int) -> int:
    head = os.pread(file, 4, offset) if 0 <= offset < _LARGEST_OFFSET else b""
    size = int.from_bytes(head, _LITTLE)
    if len(head) < 4 or not 0 < size <= _LARGEST_RECORD:
        raise TokenFileError(f"no whole record of tokens at byte {offset}")
    return size


def _unpacked(payload: bytes) -> bytes:
    inflating = zlib.decompressobj()
    record = inflating.decompress(payload, _LARGEST_RECORD)
    if not inflating.eof:
        raise TokenFileError("a record of tokens is larger than any that is written")
    return record


def _unpack(record: _Record, problem_prompt: array[int]) -> list[SampledTokens]:
    calls = list[SampledTokens]()
    for call in record.calls:
        if call.base == _NOTHING:
            beginning = array("I")
        elif call.base == _PROBLEM:
            beginning = problem_prompt
        elif 0 <= call.base < len(calls):
            beginning = calls[call.base].sequence
        else:
            raise TokenFileError(f"a call begins with one that is not there: {call.base}")
        if not 0 <= call.shared <= len(beginning) or not 0 <= call.source < len(record.sources):
            raise TokenFileError("a call refers to what is not there")
        logprobs = None if call.logprobs is None else _array("f", call.logprobs)
        ids = _array("I", call.ids)
        if logprobs is not None and len(logprobs) != len(ids):
            raise TokenFileError(f"{len(ids)} ids have {len(logprobs)} log-probabilities")
        prompt = beginning[: call.shared] + _array("I", call.prompt)
        calls.append(SampledTokens(prompt, ids, logprobs, record.sources[call.source]))
    return calls


def _bytes(values: array[int] | array[float]) -> bytes:
    """Return the values as little-endian bytes, in planes: the first byte of each, then the second.

    Most ids are far below 2**24, and log-probabilities have few exponents: planes deflate better than values.
    """
    little = values
    if sys.byteorder == "big":
        little = values[:]
        little.byteswap()
    flat = little.tobytes()
    return b"".join(flat[plane::_ITEM_BYTES] for plane in range(_ITEM_BYTES))


def _array(typecode: Literal["I", "f"], planes: bytes) -> array[Any]:
    if len(planes) % _ITEM_BYTES:
        raise TokenFileError("a record's values are cut off")
    size = len(planes) // _ITEM_BYTES
    flat = bytearray(len(planes))
    for plane in range(_ITEM_BYTES):
        flat[plane::_ITEM_BYTES] = planes[plane * size : (plane + 1) * size]
    values = array(typecode, bytes(flat))
    if sys.byteorder == "big":
        values.byteswap()
    return values
