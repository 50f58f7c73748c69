"""Token ids and logprobs of a journal's rollouts: an append-only binary file, `0001.tokens` beside `0001.jsonl`.

A record has all model calls of one rollout. Its header is 24 bytes, little-endian: payload length (4), CRC-32 of the
payload (4), hash of (instance_id, sample_id) (8), digest of the rollout's text (8). The payload is msgpack, deflated.

Ids are written once: a call's prompt usually begins with the prompt and completion of the call before, and the rollouts
of one problem share their prompt; both are stored as references. The journal's row names its record by file and byte
offset, see `TokenLocation`.
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
_LARGEST_RECORD = 256 << 20  # bytes, both compressed and decompressed
_MOST_BASES = 16
"""Earlier calls in which a common prefix is searched."""
_LARGEST_OFFSET = 2**62
_CHECKSUMMED_BYTES = 64 << 20
"""The end of a file in which checksums are verified when a journal is opened."""
_KEPT_PROMPTS = 1024
"""Prompts of problems whose offsets are remembered while writing."""
_LEVEL = 6
"""Of zlib's compression."""
_ITEM_BYTES = 4
"""Ids are uint32, logprobs float32."""
_LITTLE: Literal["little"] = "little"


class TokenFileError(Exception):
    """A record that is missing, torn, or belongs to another rollout."""


class RolloutTokens(NamedTuple):
    """The tokens of one rollout: one call for each response of the model in its messages, in order."""

    instance_id: str
    sample_id: int
    calls: Sequence[SampledTokens]
    digest: str = "0" * 16
    """Digest of the journal's row, see `row_digest`: 16 hexadecimal digits."""


class _Call(msgspec.Struct, array_like=True):
    base: int
    """The sequence with which the prompt begins: index of an earlier call in this record, `_PROBLEM`, or `_NOTHING`."""
    shared: int
    """Number of ids that the prompt shares with the beginning of that sequence."""
    prompt: bytes
    """The remaining ids of the prompt, see `_to_planes`."""
    ids: bytes
    """Ids of the completion."""
    logprobs: bytes | None
    """One per id of the completion; None where they were not recorded."""
    source: int
    """Index in the record's `sources`."""


class _Record(msgspec.Struct, array_like=True):
    instance_id: str
    sample_id: int
    prompt_at: int | None
    """Byte offset of an earlier record whose first call has the same prompt; None where the prompt is in this one."""
    sources: list[TokenSource]
    calls: list[_Call]


_PROBLEM, _NOTHING = -1, -2
_decoder = msgspec.msgpack.Decoder(_Record)


class TokenFile:
    """One token file, open for appending by this process alone, which has the journal's lock."""

    def __init__(self, path: Path, *, end: int | None = None) -> None:
        """Open the file and truncate it to `end` bytes: records after that have no line in the journal."""
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
        """Write one record and return its location. Raises `OSError`; the file then ends with the record before."""
        prompt = tokens.calls[0].prompt.tobytes() if tokens.calls else b""
        prompt_at = self._prompts.get(prompt)
        record = _pack(tokens, prompt_at)
        try:
            written = os.pwrite(self.file, record, self._end)
            while written < len(record):  # large writes may be partial
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
        """Flush appended records to disk (fdatasync). Raises `OSError`."""
        if self._unsynced:
            self._unsynced = False
            os.fdatasync(self.file)

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)


class TokenReader:
    """Reads records from the token files of one folder, as journal rows locate them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}
        self._offsets: dict[str, dict[bytes, int]] = {}

    def read(self, location: TokenLocation, instance_id: str, sample_id: int) -> RolloutTokens:
        """Return the tokens of one rollout, or of only those of its calls that the location lists.

        Raises `TokenFileError` where the record is missing, torn, or belongs to another rollout, and `InputError` for a
        file that cannot be opened.
        """
        file = self._open(location.file)
        instance_id, sample_id, offset = self._locate(location, instance_id, sample_id)
        record = _read(file, offset)
        if (record.instance_id, record.sample_id) != (instance_id, sample_id):
            raise TokenFileError(f"{location.file} holds another rollout at byte {offset}")
        problem_prompt = array("I")
        if record.prompt_at is not None:
            # Backwards only, and one step: damaged files can neither loop nor chain.
            if not 0 <= record.prompt_at < offset:
                raise TokenFileError(f"{location.file} refers forward at byte {offset}")
            first = _read(file, record.prompt_at)
            if first.prompt_at is not None or not first.calls:
                raise TokenFileError(f"{location.file} refers to no prompt at byte {offset}")
            problem_prompt = _from_planes("I", first.calls[0].prompt)
        calls = _unpack(record, problem_prompt)
        if location.calls is not None:
            if not all(call < len(calls) for call in location.calls):
                raise TokenFileError(f"{location.file} has {len(calls)} calls of {instance_id}, sample {sample_id}")
            calls = [calls[call] for call in location.calls if call >= -len(calls)]
        digest = os.pread(file, 8, offset + 16).hex()  # the header's last 8 bytes
        return RolloutTokens(instance_id, sample_id, calls, digest)

    def digest(self, location: TokenLocation, instance_id: str, sample_id: int) -> str:
        """Return the digest of the text that the tokens belong to, from the header alone. Raises as `read` does."""
        file = self._open(location.file)
        instance_id, sample_id, offset = self._locate(location, instance_id, sample_id)
        head = os.pread(file, _HEAD_BYTES, offset) if 0 <= offset < _LARGEST_OFFSET else b""
        if len(head) < _HEAD_BYTES or head[8:16] != _key(instance_id, sample_id):
            raise TokenFileError(f"{location.file} holds no tokens of {instance_id}, sample {sample_id}")
        return head[16:].hex()

    def _locate(self, location: TokenLocation, instance_id: str, sample_id: int) -> tuple[str, int, int]:
        """Return instance_id and sample_id of the record, and its byte offset: -1 where it is missing.

        Exported rows may have other ids than the rollout that their tokens were recorded for: the location names it.
        """
        instance_id = instance_id if location.instance_id is None else location.instance_id
        sample_id = sample_id if location.sample_id is None else location.sample_id
        offset = location.offset
        if offset is None:
            offset = self._latest(location.file).get(_key(instance_id, sample_id), -1)
        return instance_id, sample_id, offset

    def _latest(self, name: str) -> dict[bytes, int]:
        """Return the byte offset of each rollout's latest record, by the hash of its ids; only headers are read."""
        if name not in self._offsets:
            offsets, offset, file = dict[bytes, int](), 0, self._open(name)
            while len(head := os.pread(file, _HEAD_BYTES, offset)) == _HEAD_BYTES:
                offsets[head[8:16]] = offset
                offset += _HEAD_BYTES + int.from_bytes(head[:4], _LITTLE)
            self._offsets[name] = offsets
        return self._offsets[name]

    def _open(self, name: str) -> int:
        if name not in self._files:
            path = self._folder / name
            # A row may name any file, even outside the folder. That is safe: only records that name this row's rollout
            # are returned, and no other content of a file is shown.
            if path.suffix != SUFFIX or "\0" in name:
                raise TokenFileError(f"{name!r} is not the name of a token file")
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
    """Checks which records of a token file are complete, while its journal is opened."""

    def __init__(self, path: Path) -> None:
        """Open the file; a file that does not exist is `missing`. Raises `InputError` for one that cannot be opened."""
        self.missing = False
        self.end = 0
        """End of the last complete record that `holds` was called for, in bytes."""
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
        """Return the end of the uninterrupted sequence of complete records from the beginning of the file, in bytes."""
        offset = 0
        while self.holds(offset):
            offset = self.end
        return offset

    def holds(self, offset: int) -> bool:
        """Return whether a complete record begins at a byte offset, and extend `end` to its end."""
        if self._file is None:
            return False
        try:
            # A crash tears records at the end of the file; checksums of all of a large file would take minutes.
            is_near_end = offset > self._size - _CHECKSUMMED_BYTES
            size = len(_payload(self._file, offset)) if is_near_end else _payload_size(self._file, offset)
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
        base, shared = _longest_prefix(tokens.calls, index)
        if index == 0 and prompt_at is not None:
            base, shared = _PROBLEM, len(call.prompt)
        logprobs = None if call.logprobs is None else _to_planes(call.logprobs)
        rest = _to_planes(call.prompt[shared:])
        calls.append(_Call(base, shared, rest, _to_planes(call.ids), logprobs, sources.index(call.source)))
    record = _Record(tokens.instance_id, tokens.sample_id, prompt_at, sources, calls)
    payload = zlib.compress(msgspec.msgpack.encode(record), _LEVEL)
    if len(payload) > _LARGEST_RECORD:
        raise TokenFileError(f"the tokens of {tokens.instance_id}, sample {tokens.sample_id} are too many to keep")
    checksum = zlib.crc32(payload).to_bytes(4, _LITTLE)
    name, digest = _key(tokens.instance_id, tokens.sample_id), bytes.fromhex(tokens.digest)
    return len(payload).to_bytes(4, _LITTLE) + checksum + name + digest + payload


def _key(instance_id: str, sample_id: int) -> bytes:
    return xxhash.xxh3_64_digest(msgspec.msgpack.encode((instance_id, sample_id)))


def _longest_prefix(calls: Sequence[SampledTokens], index: int) -> tuple[int, int]:
    """Return the earlier call with which a call's prompt shares the longest prefix, and the length of that prefix."""
    prompt = calls[index].prompt
    # Prompt and completion of an earlier call: an agent's next prompt usually continues both.
    lengths = {base: _common_prefix(calls[base].sequence, prompt) for base in range(max(0, index - _MOST_BASES), index)}
    best = max(lengths, key=lambda base: (lengths[base], base), default=_NOTHING)
    return (best, lengths[best]) if lengths.get(best) else (_NOTHING, 0)


def _common_prefix(first: array[int], second: array[int]) -> int:
    """Return the length of the common prefix, by bisection: comparing slices is a memory comparison in C."""
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
        return _decoder.decode(_decompress(_payload(file, offset)))
    except (msgspec.MsgspecError, zlib.error) as error:
        raise TokenFileError(f"no token record at byte {offset}: {error}") from error


def _payload(file: int, offset: int) -> bytes:
    """Return the compressed record at a byte offset. Raises `TokenFileError` where it is torn or missing."""
    size = _payload_size(file, offset)
    checksum = os.pread(file, 4, offset + 4)
    payload = os.pread(file, size, offset + _HEAD_BYTES)
    if len(payload) < size or zlib.crc32(payload).to_bytes(4, _LITTLE) != checksum:
        raise TokenFileError(f"no complete token record at byte {offset}")
    return payload


def _payload_size(file: int, offset: int) -> int:
    head = os.pread(file, 4, offset) if 0 <= offset < _LARGEST_OFFSET else b""
    size = int.from_bytes(head, _LITTLE)
    if len(head) < 4 or not 0 < size <= _LARGEST_RECORD:
        raise TokenFileError(f"no complete token record at byte {offset}")
    return size


def _decompress(payload: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    # Bounded: a damaged or forged record cannot expand without limit.
    record = decompressor.decompress(payload, _LARGEST_RECORD)
    if not decompressor.eof:
        raise TokenFileError(f"a token record is larger than {_LARGEST_RECORD >> 20} MB, the most that is written")
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
            raise TokenFileError(f"a call refers to a call that is missing: {call.base}")
        if not 0 <= call.shared <= len(beginning) or not 0 <= call.source < len(record.sources):
            raise TokenFileError("a call refers to ids or to a source that are missing")
        logprobs = None if call.logprobs is None else _from_planes("f", call.logprobs)
        ids = _from_planes("I", call.ids)
        if logprobs is not None and len(logprobs) != len(ids):
            raise TokenFileError(f"{len(ids)} ids have {len(logprobs)} log-probabilities")
        prompt = beginning[: call.shared] + _from_planes("I", call.prompt)
        calls.append(SampledTokens(prompt, ids, logprobs, record.sources[call.source]))
    return calls


def _to_planes(values: array[int] | array[float]) -> bytes:
    """Return 4-byte values as byte planes: the lowest byte of each, then the second of each, and so on.

    Most ids are far below 2**24, and logprobs have few exponents: planes compress better than whole values.
    """
    little = values
    if sys.byteorder == "big":
        little = values[:]
        little.byteswap()
    flat = little.tobytes()
    return b"".join(flat[plane::_ITEM_BYTES] for plane in range(_ITEM_BYTES))


def _from_planes(typecode: Literal["I", "f"], planes: bytes) -> array[Any]:

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
