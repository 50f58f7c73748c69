"""Loading: rows from a source become `problems.jsonl`, and what cannot be used becomes `quarantine.jsonl`."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError

from rollmill.errors import InputError
from rollmill.files.atomic import atomic_write
from rollmill.files.rows import BadRow, Row, dump_line, raw_json_lines, read_json_lines
from rollmill.problems import gym
from rollmill.problems.columns import choose_columns
from rollmill.problems.data_files import folder_of, is_data_file, read_data_file
from rollmill.problems.hub import hub_folders, read_directory, read_hub, snapshot_folders, unpacked_folders
from rollmill.problems.images import ImageStore
from rollmill.problems.mapping import RowMapper, show
from rollmill.problems.source import ProblemSource
from rollmill.records import Problem

HEAD_ROWS = 20
"""Readable rows from which the columns are chosen."""
_MOST_BAD_AT_FIRST = 1000
"""Unreadable rows before the first readable one, after which the rest is not looked at."""

ProblemFault = Callable[[Problem], str | None]
_Outcomes = Iterator[tuple[int, Problem | BadRow]]
_Rows = Iterator[tuple[int, Row | BadRow]]


class LoadedProblems(BaseModel):
    """What `load_problems` left behind."""

    model_config = ConfigDict(frozen=True)

    path: Path
    """`problems.jsonl`, one `Problem` a line."""
    sha256: str
    """Of `problems.jsonl`, which names images by their own hash."""
    count: int
    quarantined: int
    quarantine_path: Path | None
    """`quarantine.jsonl`, one `{"row", "field", "reason", "raw"}` a line; None where nothing was rejected."""
    fields: dict[str, str]
    """Which column was taken for `prompt`, `answer`, `id`, `images`."""
    reasons: dict[str, int]
    """Rejected rows by reason, most frequent first."""


class _TooManyBadError(InputError):
    """The rows were read, and too few can be used."""


class _Opened(NamedTuple):
    fields: dict[str, str]
    outcomes: _Outcomes


def load_problems(
    source: ProblemSource,
    folder: Path,
    *,
    problem_fault: ProblemFault | None = None,
    quarantine_path: Path | None = None,
) -> LoadedProblems:
    """Streams a source's rows into `folder`: `problems.jsonl`, `quarantine.jsonl`, `images/<sha256>.<ext>`.

    The quarantine goes to `quarantine_path` where that is given.

    `problem_fault` says why a problem that reads well cannot be used all the same (its verifier cannot parse the
    answer, say), or None. Both files appear whole or not at all. Raises `InputError` where the source cannot be
    read, its columns cannot be told, no row can be used, or more than `max_bad_share` cannot; in the last two cases
    the quarantine is written, the problems are not.
    """
    folder = folder.resolve()
    problems_path = folder / "problems.jsonl"
    quarantine_path = quarantine_path or folder / "quarantine.jsonl"
    refusal: InputError | None = None
    with atomic_write(quarantine_path) as rejected:
        try:
            with atomic_write(problems_path) as usable:
                opened = _open(source, folder / "images")
                sieve = _Sieve(usable, rejected, problem_fault)
                with closing(opened.outcomes) as outcomes:  # type: ignore[type-var]  # they are all generators
                    sieve.take_all(outcomes, source.max_problems)
                _check_share(source, sieve, quarantine_path)
        except _TooManyBadError as error:
            refusal = error
    if refusal:
        raise refusal
    if not sieve.quarantined:
        quarantine_path.unlink()
    return LoadedProblems(
        path=problems_path,
        sha256=sieve.digest.hexdigest(),
        count=sieve.count,
        quarantined=sieve.quarantined,
        quarantine_path=quarantine_path if sieve.quarantined else None,
        fields=opened.fields,
        reasons=dict(sieve.reasons.most_common()),
    )


def read_problems(path: Path) -> Iterator[Problem]:
    """Yields the problems of a `problems.jsonl`. Raises `InputError` where a line is not a problem."""
    for number, row in read_json_lines(str(path)):
        if isinstance(row, BadRow):
            raise InputError(f"{path} line {number}: {row.reason}")
        try:
            yield Problem.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(f"{path} line {number} is not a problem: {where}: {first['msg']}") from error


class _Identified(msgspec.Struct):
    instance_id: str


def read_instance_ids(path: Path) -> list[str]:
    """Only the ids of a `problems.jsonl`, in order. Raises `InputError` where a line is not a problem."""
    decoder = msgspec.json.Decoder(_Identified)
    found = []
    for number, line, _ in raw_json_lines(str(path)):
        try:
            found.append(decoder.decode(line).instance_id)
        except msgspec.DecodeError as error:
            raise InputError(f"{path} line {number} is not a problem: {error}") from error
    return found


class _Sieve:
    """Takes outcomes one by one: problems to one file, bad rows to the other, and counts."""

    def __init__(self, usable: BinaryIO, rejected: BinaryIO, fault: ProblemFault | None) -> None:
        self._usable = usable
        self._rejected = rejected
        self._fault = fault
        self._first_at: dict[str, int] = {}
        self.digest = hashlib.sha256()
        self.quarantined = 0
        self.reasons: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """Usable problems so far."""
        return len(self._first_at)

    def take_all(self, outcomes: _Outcomes, max_problems: int | None) -> None:
        """Takes outcomes until they end or there are enough problems."""
        for number, outcome in outcomes:
            bad = outcome if isinstance(outcome, BadRow) else self._take(number, outcome)
            if bad:
                self._reject(bad)
            elif self.count == max_problems:
                return

    def _take(self, number: int, problem: Problem) -> BadRow | None:
        row = problem.model_dump()
        first_at = self._first_at.get(problem.instance_id)
        if first_at is not None:
            return BadRow(number, "instance_id", f"duplicate id, first at row {first_at}", show(row))
        fault = self._fault(problem) if self._fault else None
        if fault is not None:
            return BadRow(number, None, fault, show(row))
        try:
            line = dump_line(row)
        except TypeError as error:  # a lone surrogate that some other reader let through
            return BadRow(number, None, f"cannot be written as JSON: {error}", show(row))
        self._first_at[problem.instance_id] = number
        self._usable.write(line)
        self.digest.update(line)
        return None

    def _reject(self, row: BadRow) -> None:
        self.quarantined += 1
        reason = re.split(r"[:,]", row.reason, maxsplit=1)[0]
        self.reasons[f"{row.field}: {reason}" if row.field else reason] += 1
        self._rejected.write(dump_line(row.to_json()))


def _open(source: ProblemSource, image_folder: Path) -> _Opened:
    dataset = source.dataset
    if dataset.startswith(gym.PREFIX):
        return _open_gym(source)
    further = _image_folders(source)
    if Path(dataset).expanduser().is_dir():
        folder = Path(dataset).expanduser().resolve()
        rows = read_directory(folder, source.split)
        further += [*snapshot_folders(folder), *unpacked_folders(folder)]
        return _open_rows(source, rows, ImageStore(image_folder, folder, further))
    if is_data_file(dataset):
        rows = read_data_file(dataset)
        # A snapshot's file is a link to where files have hashes for names: those that rows give are beside the link.
        beside = Path(dataset).expanduser().absolute().parent
        if blobs := snapshot_folders(beside):
            return _open_rows(source, rows, ImageStore(image_folder, beside, [*further, *blobs]))
        return _open_rows(source, rows, ImageStore(image_folder, folder_of(dataset), further))
    if dataset.startswith((".", "/", "~")):
        raise InputError(f"{dataset} does not exist")
    hint = ""
    if "/" not in dataset:
        name = dataset.partition("?")[0]
        if name in gym.known_names():
            return _open_gym(source)
        close = gym.close_names(name)
        hint = f" (of reasoning-gym's data sets, {', '.join(close)} come close)" if close else ""
    rows = read_hub(dataset, source.split, hint)
    return _open_rows(source, rows, ImageStore(image_folder, None, [*further, *hub_folders(dataset)]))


def _image_folders(source: ProblemSource) -> list[Path]:
    """Return the further folders of images. Raises `InputError` for one that is not there."""
    folders = [Path(folder).expanduser() for folder in source.image_folders]
    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is not None:
        raise InputError(f"--image_folders {str(missing)!r}: there is no such folder")
    return folders


def _open_gym(source: ProblemSource) -> _Opened:
    outcomes = gym.read_problems(source.dataset, source.max_problems)
    return _Opened({"prompt": "question", "answer": "answer"}, outcomes)


def _open_rows(source: ProblemSource, rows: _Rows, images: ImageStore) -> _Opened:
    head: list[tuple[int, Row | BadRow]] = []
    readable: list[Row] = []
    while len(readable) < HEAD_ROWS and (readable or len(head) < _MOST_BAD_AT_FIRST):
        item = next(rows, None)
        if item is None:
            break
        head.append(item)
        if not isinstance(item[1], BadRow):
            readable.append(item[1])
    if not readable:
        return _Opened({}, ((number, row) for number, row in head if isinstance(row, BadRow)))
    columns = choose_columns(source, readable)
    return _Opened(columns.to_fields(), _map_rows(chain(head, rows), RowMapper(columns, images)))


def _map_rows(rows: _Rows, mapper: RowMapper) -> _Outcomes:
    for position, (number, row) in enumerate(rows):
        yield number, row if isinstance(row, BadRow) else mapper.map(number, position, row)


def _check_share(source: ProblemSource, sieve: _Sieve, quarantine_path: Path) -> None:
    seen = sieve.count + sieve.quarantined
    if not seen:
        raise InputError(f"{source.dataset} holds no rows")
    if sieve.count and sieve.quarantined <= source.max_bad_share * seen:
        return
    worst = "; ".join(f"{count} x {reason}" for reason, count in sieve.reasons.most_common(3))
    limit = f"more than the share of {source.max_bad_share:g} allowed" if sieve.count else "so none is left"
    raise _TooManyBadError(
        f"{sieve.quarantined} of {seen} rows of {source.dataset} cannot be used, {limit}: {worst}; "
        f"each is in {quarantine_path} with its reason"
    )
