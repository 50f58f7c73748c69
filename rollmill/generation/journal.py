"""The append-only journal of rollouts: one JSON object a line, never rewritten, repaired when torn."""

from __future__ import annotations

import errno
import logging
import os
from array import array
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson
from pydantic import ValidationError
from typing_extensions import TypeVar

from rollmill.errors import InputError, RunStoppedError, file_error
from rollmill.files.regular import require_regular
from rollmill.generation.lock import LOCK, lock_file
from rollmill.generation.ownership import RUN_IDENTITY, Ownership
from rollmill.generation.tally import RolloutOutcome, Tally
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
        """Notes a row; whether it is the first of its sample."""
        while len(self.offsets) <= sample_id:
            self.offsets.append(_NOWHERE)
            self.states.append(0)
            self.attempts.append(0)
            self.max_tokens.append(0)
        first = self.offsets[sample_id] == _NOWHERE
        self.offsets[sample_id] = offset
        self.states[sample_id] = (1 if outcome.failed else 0) | (2 if outcome.truncated else 0)
        self.attempts[sample_id] = min(outcome.attempt, 255)
        self.max_tokens[sample_id] = outcome.max_tokens
        return first


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
        """Brings everything to disk and closes the file; raises as `sync` does."""
        try:
            self.sync()
        finally:
            os.close(self._file)

    def _read(self) -> None:
        offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    self.repaired_bytes = len(line)
                    break
                self._note_line(number, offset, line)
                offset += len(line)
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
        self._end = offset

    def _note_line(self, number: int, offset: int, line: bytes) -> None:
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
        self._note(instance_id, sample_id, offset, outcome)

    def _note(self, instance_id: str, sample_id: int, offset: int, outcome: RolloutOutcome) -> None:
        group = self._groups.get(instance_id)
        if group is None:
            group = self._groups[instance_id] = _Group()
        if group.put(sample_id, offset, outcome):
            self.tally.add(outcome)

    def append(self, instance_id: str, sample_id: int, line: bytes, outcome: RolloutOutcome) -> None:
        """Writes one row, `line` with its newline: when this returns, SIGKILL of this process cannot lose it.

        The row gets the run's identity. Raises `RunStoppedError` when the disk is full or fails; the file then ends
        with the row before.
        """
        line = self.owner.stamp(line)
        try:
            written = os.write(self._file, line)
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            os.ftruncate(self._file, self._end)
            why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
            raise RunStoppedError(
                f"cannot write {self.path}: {why}; make room, and the same command continues"
            ) from error
        self._note(instance_id, sample_id, self._end, outcome)
        self._end += len(line)
        self._unsynced = True

    def sync(self) -> None:
        """Brings what was appended to disk (fdatasync), for the case that the machine fails.

        Raises `RunStoppedError` when the disk fails, and as `check_place` does.
        """
        if self._unsynced:
            self._unsynced = False
            try:
                os.fdatasync(self._file)
            except OSError as error:
                raise RunStoppedError(f"cannot bring {self.path} to disk: {error}") from error
            self.check_place()

    def check_place(self) -> None:
        """Raise `RunStoppedError` where the file does not have its name any more.

        Results would go to another folder than the rollouts, or the rollouts nowhere.
        """
        try:
            in_place = os.path.samestat(self.path.stat(), os.fstat(self._file))
        except OSError:
            in_place = False
        if not in_place:
            raise RunStoppedError(
                f"{self.path} was moved, replaced or deleted while the run wrote it: put it back, then run the same "
                "command again to continue"
            )

    def attempt_for(self, instance_id: str, sample_id: int, *, retry: str | None, max_tokens: int) -> int | None:
        """The attempt number under which a rollout is to be made now; None when it is journaled and stays.

        `retry="failed"` redoes those with an error, with the same seed (attempt). `retry="truncated"` redoes those cut
        off at the token limit: with the same seed when the limit was raised since, else with another. Those cut off
        at a limit lower than `max_tokens` are always redone: they are what a run with the raised limit still misses.
        """
        group = self._groups.get(instance_id)
        if group is None or sample_id >= len(group.offsets) or group.offsets[sample_id] == _NOWHERE:
            return 0
        failed, truncated = group.states[sample_id] & 1, group.states[sample_id] & 2
        attempt = group.attempts[sample_id]
        if failed and retry == "failed":
            return attempt
        if truncated and group.max_tokens[sample_id] < max_tokens:
            return attempt
        if truncated and retry == "truncated":
            return attempt + 1
        return None

    def size(self, instance_id: str) -> int:
        """One more than the highest journaled sample_id of a problem."""
        group = self._groups.get(instance_id)
        return len(group.offsets) if group else 0

    def group(
        self,
        instance_id: str,
        num_rollout: int,
        kind: type[RolloutT] = Rollout,  # type: ignore[assignment]
    ) -> list[RolloutT | None]:
        """A problem's rollouts by sample_id, None where there is none; read from the file.

        Raises `InputError` for a row that looks like a rollout and is none.
        """
        group = self._groups.get(instance_id)
        offsets = list(group.offsets[:num_rollout]) if group else []
        offsets += [_NOWHERE] * (num_rollout - len(offsets))
        return [None if offset == _NOWHERE else self._rollout_at(offset, instance_id, kind) for offset in offsets]

    def _rollout_at(self, offset: int, instance_id: str, kind: type[RolloutT]) -> RolloutT:
        line = os.pread(self._file, 65536, offset)
        while b"\n" not in line and (more := os.pread(self._file, max(65536, len(line)), offset + len(line))):
            line += more
        try:
            return kind.model_validate_json(line.partition(b"\n")[0])
        except ValidationError as error:
            first = error.errors()[0]
            where = f"{self.path}: a row of {instance_id}, at byte {offset}, is not a rollout"
            raise InputError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
