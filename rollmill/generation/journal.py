"""The append-only journal of rollouts: JSON Lines, never rewritten; a torn last line is cut off when it is opened."""

from __future__ import annotations

import errno
import logging
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson
from pydantic import ValidationError
from typing_extensions import TypeVar

from rollmill.errors import InputError, RunStoppedError, file_error
from rollmill.files.regular import require_regular
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.lock import LOCK, lock_file
from rollmill.generation.ownership import RUN_IDENTITY, Ownership
from rollmill.generation.row_digest import row_digest
from rollmill.generation.tally import RolloutOutcome, Tally
from rollmill.generation.token_file import SUFFIX, RolloutTokens, TokenFile, WrittenTokens
from rollmill.records import Rollout

log = logging.getLogger(__name__)

RolloutT = TypeVar("RolloutT", bound=Rollout, default=Rollout)

_NO_ROW = -1
"""The offset of a rollout that is not in the journal."""
_MOST_SAMPLES = 2**20
_FAILED, _TRUNCATED, _COMPLETED = 1, 2, 4
"""Flags of a rollout's state."""
_READ_BYTES = 65536


class _Group:
    """Byte offsets and states of a problem's rollouts, indexed by sample_id."""

    __slots__ = ("attempts", "max_tokens", "offsets", "states")

    def __init__(self) -> None:
        # Arrays, not objects: 18 bytes per row, so that a journal of millions of rows is indexed in little memory.
        self.offsets = array("q")
        self.states = bytearray()
        self.attempts = bytearray()
        self.max_tokens = array("q")

    def add(self, sample_id: int, offset: int, outcome: RolloutOutcome) -> bool:
        """Index a row; return whether it is the first of its rollout. A later row replaces an earlier one."""
        while len(self.offsets) <= sample_id:
            self.offsets.append(_NO_ROW)
            self.states.append(0)
            self.attempts.append(0)
            self.max_tokens.append(0)
        first = self.offsets[sample_id] == _NO_ROW
        self.offsets[sample_id] = offset
        self.states[sample_id] = (
            (_FAILED if outcome.failed else 0)
            | (_TRUNCATED if outcome.truncated else 0)
            | (_COMPLETED if outcome.completed else 0)
        )
        self.attempts[sample_id] = min(outcome.attempt, 255)
        self.max_tokens[sample_id] = outcome.max_tokens
        return first


class _Row(NamedTuple):
    """A valid row, with its byte offset in the journal."""

    instance_id: str
    sample_id: int
    offset: int
    outcome: RolloutOutcome


class _TokenLines:
    """Separates rows whose token records a crash tore from those whose records were lost in another way.

    A token record is written before its journal line, and both files in order. So only rows after the last one with a
    complete record can be torn: these are ignored, and their rollouts are made again. Other rows without a record still
    count, without tokens.
    """

    def __init__(self, written: WrittenTokens) -> None:
        self._written = written
        self._torn: list[_Row] = []
        """Rows since the last one with a complete record."""
        self._lost = 0
        self._names_other_files = False
        self._names_this_file = False

    @property
    def end(self) -> int:
        """Return the size to which the token file is truncated: the end of the last record that a line names.

        Where lines name only other token files, all complete records are kept: the file was renamed with its journal,
        or belongs to rollouts that were scored again.
        """
        if self._names_other_files and not self._names_this_file:
            return self._written.whole_end()
        return self._written.end

    def take(self, location: dict[str, Any] | None, file: str, row: _Row) -> list[_Row]:
        """Return the rows that are valid now: this one, and those before it that it proves not to be torn.

        `location` is the row's `tokens` field, `file` the name of the journal's own token file.
        """
        if location is None:
            return [row]
        tokens_offset = location.get("offset")
        if location.get("file") != file or type(tokens_offset) is not int:
            self._names_other_files = True
            return [row]
        self._names_this_file = True
        if self._written.missing:
            self._lost += 1
            return [row]
        if not self._written.holds(tokens_offset):
            self._torn.append(row)
            return []
        # A complete record after them: they were not torn by a crash at the end, their records are lost.
        before, self._torn = self._torn, []
        self._lost += len(before)
        return [*before, row]

    def warn(self, path: Path) -> None:
        """Log how many rows have torn token records, and how many lost ones."""
        if self._torn:
            count = len(self._torn)
            log.warning("%s: the tokens of the last %d rows are torn: their rollouts are made again", path, count)
        if self._lost:
            log.warning("%s: the tokens of %d rows are missing: these rows count without them", path, self._lost)


class Journal:
    """One journal file, locked and open for appending by this process alone.

    Opening reads the file once: a torn last line is cut off, a line that is not a rollout is left in the file and
    skipped; both are logged. The latest row of an (instance_id, sample_id) counts. A row of another run raises
    `InputError` before anything is changed, see `Ownership.check`.
    """

    def __init__(self, path: Path, owner: Ownership) -> None:
        self.path = path
        self.owner = owner
        self._groups: dict[str, _Group] = {}
        self.tally = Tally()
        self.garbage_lines: list[int] = []
        self.repaired_bytes = 0
        self._tokens_path = path.with_suffix(SUFFIX)
        self._tokens: TokenFile | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            require_regular(path)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise file_error(error, path) or error from error
        try:
            lock_file(self._file, path, path.resolve().parent.parent / LOCK, owner.flags)
            self._read()
        except OSError as error:
            os.close(self._file)
            raise file_error(error, path) or error from error
        except BaseException:
            os.close(self._file)
            raise
        self._unsynced = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Flush everything to disk and close the file; raises as `sync` does."""
        try:
            self.sync()
        finally:
            os.close(self._file)
            if self._tokens is not None:
                self._tokens.close()

    def _read(self) -> None:
        offset = 0
        with self.path.open("rb") as file, WrittenTokens(self._tokens_path) as written:
            lines = _TokenLines(written)
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):  # only the last line can lack it: the process was killed while writing
                    self.repaired_bytes = len(line)
                    break
                self._note_line(number, offset, line, lines)
                offset += len(line)
            self._tokens_end = lines.end
        self._end = offset
        if not written.missing:
            self._tokens = TokenFile(self._tokens_path, end=self._tokens_end)
        lines.warn(self._tokens_path)
        if self.repaired_bytes:
            os.ftruncate(self._file, offset)
            log.warning(
                "%s: the last line was torn (%d bytes); cut off, its rollout is done again",
                self.path,
                self.repaired_bytes,
            )
        if self.garbage_lines:
            shown = ", ".join(map(str, self.garbage_lines[:5]))
            log.warning("%s: %d lines are not rollouts and are skipped: %s", self.path, len(self.garbage_lines), shown)

    def _note_line(self, number: int, offset: int, line: bytes, lines: _TokenLines) -> None:
        """Parse and index one line.

        Args:
            number: Of the line, counted from 1.
            offset: Byte at which the line begins.
            line: Its bytes, newline included.
            lines: Decides whether the row's token record is complete.
        """
        try:
            row = orjson.loads(line)
            outcome = RolloutOutcome.of_row(row)
            outcome.check()
            instance_id, sample_id = row["instance_id"], row["sample_id"]
            if type(instance_id) is not str or type(sample_id) is not int or not 0 <= sample_id < _MOST_SAMPLES:
                raise TypeError("instance_id or sample_id")
        except (LookupError, TypeError, ValueError, AttributeError):  # orjson.JSONDecodeError is a ValueError
            self.garbage_lines.append(number)
            return
        self.owner.check(row.get(RUN_IDENTITY), outcome.max_tokens, self.path, number)
        tokens = row.get("tokens")
        location = tokens if isinstance(tokens, dict) else None
        for counted in lines.take(location, self._tokens_path.name, _Row(instance_id, sample_id, offset, outcome)):
            self._note(*counted)

    def _note(self, instance_id: str, sample_id: int, offset: int, outcome: RolloutOutcome) -> None:
        """Index one row, and count it where it is the first of its rollout.

        Args:
            instance_id: Identifies the problem.
            sample_id: Index of the rollout among those of the problem.
            offset: Byte at which the row's line begins.
            outcome: The row's numbers.
        """
        group = self._groups.get(instance_id)
        if group is None:
            group = self._groups[instance_id] = _Group()
        if group.add(sample_id, offset, outcome):
            self.tally.add(outcome)

    def append(self, rollout: CompletedRollout) -> None:
        """Write one row: once this returns, a SIGKILL of this process cannot lose it.

        Adds the run's identity, and the location of the row's tokens, which are written first. Raises `RunStoppedError`
        when the disk is full or fails; the file then ends with the row before.
        """
        line = self.owner.stamp(self._with_tokens(rollout) if rollout.tokens else rollout.line)
        try:
            written = os.write(self._file, line)
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise _stopped_writing(self.path, error) from error
        self._note(rollout.instance_id, rollout.sample_id, self._end, rollout.outcome)
        self._end += len(line)
        self._unsynced = True

    def _with_tokens(self, rollout: CompletedRollout) -> bytes:
        """Write a rollout's tokens and return its line with their location."""
        if self._tokens is None:
            self._tokens = TokenFile(self._tokens_path, end=self._tokens_end)
        try:
            digest = row_digest(orjson.loads(rollout.line))
            location = self._tokens.append(
                RolloutTokens(rollout.instance_id, rollout.sample_id, rollout.tokens, digest)
            )
        except OSError as error:
            raise _stopped_writing(self._tokens_path, error) from error
        # Spliced in before the closing brace and the newline: parsing and dumping a long row again would cost more.
        return rollout.line[:-2] + b',"tokens":%s}\n' % orjson.dumps(location.model_dump())

    def sync(self) -> None:
        """Flush appended rows to disk (fdatasync), so that a crash of the machine cannot lose them.

        Raises `RunStoppedError` when the disk fails, and as `check_place` does.
        """
        if self._unsynced:
            self._unsynced = False
            try:
                if self._tokens is not None:  # first: a line on disk implies its tokens
                    self._tokens.sync()
                os.fdatasync(self._file)
            except OSError as error:
                raise RunStoppedError(f"cannot write {self.path} to disk: {error}") from error
            self.check_place()

    def check_place(self) -> None:
        """Raise `RunStoppedError` where the path does not lead to the open file any more: moved, replaced or deleted.

        Otherwise results would be written to another folder than the rollouts, or rollouts to a deleted file.
        """
        _check_place(self.path, self._file)
        if self._tokens is not None:
            _check_place(self._tokens_path, self._tokens.file)

    def attempt_for(self, instance_id: str, sample_id: int, *, retry: str | None, max_tokens: int) -> int | None:
        """Return the attempt number with which a rollout is to be sampled now; None when the journaled one is kept.

        `retry="failed"` samples failed rollouts again with the same seed (attempt), except those with a completion,
        where only the verification failed. `retry="truncated"` samples truncated ones again: with the same seed if the
        limit was raised since, otherwise with another. Rollouts truncated at a lower limit than `max_tokens` are always
        sampled again, since a run with the raised limit does not have them yet.

        Args:
            instance_id: Identifies the problem.
            sample_id: Index of the rollout among those of the problem.
            retry: Which journaled rollouts are sampled again: `failed`, `truncated`, or None for none.
            max_tokens: The run's limit of completion tokens.
        """
        group = self._groups.get(instance_id)
        if group is None or sample_id >= len(group.offsets) or group.offsets[sample_id] == _NO_ROW:
            return 0
        state, attempt = group.states[sample_id], group.attempts[sample_id]
        truncated = state & _TRUNCATED
        if state & _FAILED and retry == "failed" and not state & _COMPLETED:
            return attempt
        if truncated and group.max_tokens[sample_id] < max_tokens:
            return attempt
        if truncated and retry == "truncated":
            return attempt + 1
        return None

    def counts(self) -> tuple[int, int, int]:
        """Return the number of journaled rollouts, of failed ones, and of failed ones without a completion."""
        states = Counter(
            state
            for group in self._groups.values()
            for offset, state in zip(group.offsets, group.states, strict=True)
            if offset != _NO_ROW
        )
        failed = sum(count for state, count in states.items() if state & _FAILED)
        without_completion = sum(count for state, count in states.items() if state & (_FAILED | _COMPLETED) == _FAILED)
        return states.total(), failed, without_completion

    def failures(self) -> Iterator[tuple[str, str]]:
        """Yield type and message of each failed rollout's error, read from the file."""
        for group in self._groups.values():
            for offset, state in zip(group.offsets, group.states, strict=True):
                if offset != _NO_ROW and state & _FAILED:
                    error = orjson.loads(self._line_at(offset))["error"]
                    yield str(error["type"]), str(error["message"])

    def size(self, instance_id: str) -> int:
        """Return the highest journaled sample_id of a problem, plus one."""
        group = self._groups.get(instance_id)
        return len(group.offsets) if group else 0

    def group(
        self,
        instance_id: str,
        num_rollout: int,
        kind: type[RolloutT] = Rollout,  # type: ignore[assignment]
    ) -> list[RolloutT | None]:
        """Read a problem's rollouts from the file, ordered by sample_id; None where one is missing.

        Raises `InputError` for a row that was indexed but is not a valid rollout.
        """
        group = self._groups.get(instance_id)
        offsets = list(group.offsets[:num_rollout]) if group else []
        offsets += [_NO_ROW] * (num_rollout - len(offsets))
        return [None if offset == _NO_ROW else self._rollout_at(offset, instance_id, kind) for offset in offsets]

    def _line_at(self, offset: int) -> bytes:
        line = os.pread(self._file, _READ_BYTES, offset)
        # Reads double in size, so that a line of many megabytes (images, long agent runs) takes few of them.
        while b"\n" not in line and (more := os.pread(self._file, max(_READ_BYTES, len(line)), offset + len(line))):
            line += more
        return line.partition(b"\n")[0]

    def _rollout_at(self, offset: int, instance_id: str, kind: type[RolloutT]) -> RolloutT:
        try:
            return kind.model_validate_json(self._line_at(offset))
        except ValidationError as error:
            first = error.errors()[0]
            where = f"{self.path}: a row of {instance_id}, at byte {offset}, is not a rollout"
            raise InputError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _stopped_writing(path: Path, error: OSError) -> RunStoppedError:
    reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
    return RunStoppedError(
        f"cannot write {path}: {reason}; free some space, then run the same command again to continue"
    )


def _check_place(path: Path, file: int) -> None:
    try:
        in_place = os.path.samestat(path.stat(), os.fstat(file))
    except OSError:
        in_place = False
    if not in_place:
        raise RunStoppedError(
            f"{path} was moved, replaced or deleted while the run wrote it: put it back, then run the same "
            "command again to continue"
        )
