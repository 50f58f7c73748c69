"""The append-only journal of rollouts: one JSON object a line, never rewritten, repaired when torn."""

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

_NOWHERE = -1
_MOST_SAMPLES = 2**20


class _Group:
    """Where a problem's rollouts stand in the file, and how each came out; indexed by sample_id."""

    __slots__ = ("attempts", "max_tokens", "offsets", "states")

    def __init__(self) -> None:
        self.offsets = array("q")
        self.states = bytearray()
        self.attempts = bytearray()
        self.max_tokens = array("q")

    def put(self, sample_id: int, offset: int, outcome: RolloutOutcome) -> bool:
        """Note a row; return whether it is the first of its sample."""
        while len(self.offsets) <= sample_id:
            self.offsets.append(_NOWHERE)
            self.states.append(0)
            self.attempts.append(0)
            self.max_tokens.append(0)
        first = self.offsets[sample_id] == _NOWHERE
        self.offsets[sample_id] = offset
        flags = (1 if outcome.failed else 0) | (2 if outcome.truncated else 0) | (4 if outcome.completed else 0)
        self.states[sample_id] = flags
        self.attempts[sample_id] = min(outcome.attempt, 255)
        self.max_tokens[sample_id] = outcome.max_tokens
        return first


class _Row(NamedTuple):
    """A row that counts, and where it stands."""

    instance_id: str
    sample_id: int
    offset: int
    outcome: RolloutOutcome


class _TokenLines:
    """Tells rows whose tokens a failure of the machine tore from those whose tokens were lost otherwise.

    Tokens are written before their line and both in order. So only rows after the last one with whole tokens can be
    torn: these do not count, and their rollouts are made again. Others keep counting, without tokens.
    """

    def __init__(self, written: WrittenTokens) -> None:
        self._written = written
        self._torn: list[_Row] = []
        self._lost = 0
        self._elsewhere = False
        self._named = False

    @property
    def end(self) -> int:
        """Return where the file is cut off: behind the last record with a line.

        A file that no line names stays whole where lines name others: it was renamed with its journal, or belongs to
        rollouts that were scored again.
        """
        return self._written.whole_end() if self._elsewhere and not self._named else self._written.end

    def take(self, location: dict[str, Any] | None, file: str, row: _Row) -> list[_Row]:
        """Return the rows that count now: the row, and those before it of which it shows that they are not torn."""
        if location is None:
            return [row]
        tokens_offset = location.get("offset")
        if location.get("file") != file or type(tokens_offset) is not int:
            self._elsewhere = True
            return [row]
        self._named = True
        if self._written.missing:
            self._lost += 1
            return [row]
        if not self._written.holds(tokens_offset):
            self._torn.append(row)
            return []
        before, self._torn = self._torn, []
        self._lost += len(before)
        return [*before, row]

    def warn(self, path: Path) -> None:
        """Say what was torn, and what was lost."""
        if self._torn:
            count = len(self._torn)
            log.warning("%s: the tokens of the last %d rows are torn: their rollouts are made again", path, count)
        if self._lost:
            log.warning("%s: the tokens of %d rows are not there: they count without them", path, self._lost)


class Journal:
    """One journal file, open for appending by this process alone: it is locked as long as it is open.

    Opening reads the file once: a torn last line is cut off, a line that is no rollout is left where it is and
    passed over; both are said. The latest row of an (instance_id, sample_id) counts. A row of another run is refused
    before anything is changed, see `Ownership.check`.
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
        """Bring everything to disk and close the file; raises as `sync` does."""
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
                if not line.endswith(b"\n"):
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
            log.warning(
                "%s: %d lines are no rollouts and are passed over: %s", self.path, len(self.garbage_lines), shown
            )

    def _note_line(self, number: int, offset: int, line: bytes, lines: _TokenLines) -> None:
        try:
            row = orjson.loads(line)
            outcome = RolloutOutcome.of_row(row)
            outcome.check()
            instance_id, sample_id = row["instance_id"], row["sample_id"]
            if type(instance_id) is not str or type(sample_id) is not int or not 0 <= sample_id < _MOST_SAMPLES:
                raise TypeError("instance_id or sample_id")
        except (LookupError, TypeError, ValueError, AttributeError):  # orjson's own is a ValueError
            self.garbage_lines.append(number)
            return
        self.owner.check(row.get(RUN_IDENTITY), outcome.max_tokens, self.path, number)
        tokens = row.get("tokens")
        location = tokens if isinstance(tokens, dict) else None
        for counted in lines.take(location, self._tokens_path.name, _Row(instance_id, sample_id, offset, outcome)):
            self._note(*counted)

    def _note(self, instance_id: str, sample_id: int, offset: int, outcome: RolloutOutcome) -> None:
        group = self._groups.get(instance_id)
        if group is None:
            group = self._groups[instance_id] = _Group()
        if group.put(sample_id, offset, outcome):
            self.tally.add(outcome)

    def append(self, rollout: CompletedRollout) -> None:
        """Write one row: when this returns, SIGKILL of this process cannot lose it.

        The row gets the run's identity, and the place of its tokens, which are written first. Raises `RunStoppedError`
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
        """Write a rollout's tokens and return its line with their place."""
        if self._tokens is None:
            self._tokens = TokenFile(self._tokens_path, end=self._tokens_end)
        try:
            digest = row_digest(orjson.loads(rollout.line))
            location = self._tokens.append(
                RolloutTokens(rollout.instance_id, rollout.sample_id, rollout.tokens, digest)
            )
        except OSError as error:
            raise _stopped_writing(self._tokens_path, error) from error
        return rollout.line[:-2] + b',"tokens":%s}\n' % orjson.dumps(location.model_dump())

    def sync(self) -> None:
        """Bring what was appended to disk (fdatasync), so that a failure of the machine cannot lose it.

        Raises `RunStoppedError` when the disk fails, and as `check_place` does.
        """
        if self._unsynced:
            self._unsynced = False
            try:
                if self._tokens is not None:  # first: a line on disk implies its tokens
                    self._tokens.sync()
                os.fdatasync(self._file)
            except OSError as error:
                raise RunStoppedError(f"cannot bring {self.path} to disk: {error}") from error
            self.check_place()

    def check_place(self) -> None:
        """Raise `RunStoppedError` where the file does not have its name any more.

        Results would go to another folder than the rollouts, or the rollouts nowhere.
        """
        _check_place(self.path, self._file)
        if self._tokens is not None:
            _check_place(self._tokens_path, self._tokens.file)

    def attempt_for(self, instance_id: str, sample_id: int, *, retry: str | None, max_tokens: int) -> int | None:
        """Return the attempt number under which a rollout is to be made now; None when it is journaled and stays.

        `retry="failed"` redoes those with an error, with the same seed (attempt); one whose completion is there
        is not made again, since it was its verification that failed. `retry="truncated"` redoes those cut
        off at the token limit: with the same seed when the limit was raised since, else with another. Those cut off
        at a limit lower than `max_tokens` are always redone: they are what a run with the raised limit still misses.

        Args:
            instance_id: The problem's.
            sample_id: Number of the rollout among the problem's.
            retry: Which rollouts on disk are made again: `failed`, `truncated`, or None for none.
            max_tokens: The run's limit of a completion's tokens.
        """
        group = self._groups.get(instance_id)
        if group is None or sample_id >= len(group.offsets) or group.offsets[sample_id] == _NOWHERE:
            return 0
        failed, truncated = group.states[sample_id] & 1, group.states[sample_id] & 2
        attempt = group.attempts[sample_id]
        if failed and retry == "failed" and not group.states[sample_id] & 4:
            return attempt
        if truncated and group.max_tokens[sample_id] < max_tokens:
            return attempt
        if truncated and retry == "truncated":
            return attempt + 1
        return None

    def counts(self) -> tuple[int, int, int]:
        """Return how many rollouts are journaled, how many of them failed, and how many of these got no completion."""
        states = Counter(
            state
            for group in self._groups.values()
            for offset, state in zip(group.offsets, group.states, strict=True)
            if offset != _NOWHERE
        )
        failed = sum(count for state, count in states.items() if state & 1)
        return states.total(), failed, sum(count for state, count in states.items() if state & 5 == 1)

    def failures(self) -> Iterator[tuple[str, str]]:
        """Yield type and message of each failed rollout's error, read from the file."""
        for group in self._groups.values():
            for offset, state in zip(group.offsets, group.states, strict=True):
                if offset != _NOWHERE and state & 1:
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
        """Return a problem's rollouts by sample_id, None where there is none; read from the file.

        Raises `InputError` for a row that looks like a rollout and is none.
        """
        group = self._groups.get(instance_id)
        offsets = list(group.offsets[:num_rollout]) if group else []
        offsets += [_NOWHERE] * (num_rollout - len(offsets))
        return [None if offset == _NOWHERE else self._rollout_at(offset, instance_id, kind) for offset in offsets]

    def _line_at(self, offset: int) -> bytes:
        line = os.pread(self._file, 65536, offset)
        while b"\n" not in line and (more := os.pread(self._file, max(65536, len(line)), offset + len(line))):
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
    why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
    return RunStoppedError(f"cannot write {path}: {why}; make room, and the same command continues")


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
