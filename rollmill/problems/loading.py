"""Load problems: rows of a source are written to `problems.jsonl`, unusable ones to `quarantine.jsonl`."""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError

from rollmill.errors import InputError
from rollmill.files.atomic import atomic_write
from rollmill.files.rows import BadRow, Row, dump_line, raw_json_lines, read_json_lines
from rollmill.problems import gym
from rollmill.problems.columns import MOST_BAD_IDS, choose_columns
from rollmill.problems.data_files import folder_of, is_data_file, read_data_file
from rollmill.problems.hub import (
    hub_folders,
    read_directory,
    read_hub,
    snapshot_folders,
    split_config,
    unpacked_folders,
)
from rollmill.problems.images import ImageStore
from rollmill.problems.mapping import RowMapper, show
from rollmill.problems.source import ProblemSource
from rollmill.records import Problem
from rollmill.terminal.escapes import visible_line

_log = logging.getLogger(__name__)

HEAD_ROWS = 20
"""Number of readable rows from which the columns are chosen."""
_MOST_BAD_AT_FIRST = 1000
"""Reading stops after so many unreadable rows without a readable one."""

_ID = "instance_id"

ProblemFault = Callable[[Problem], str | None]
"""Returns why a problem cannot be used although its row is valid, or None."""
_Outcomes = Iterator[tuple[int, Problem | BadRow]]
_Rows = Iterator[tuple[int, Row | BadRow]]


class LoadedProblems(BaseModel):
    """The result of `load_problems`."""

    model_config = ConfigDict(frozen=True)

    path: Path
    """`problems.jsonl`, one `Problem` a line."""
    sha256: str
    """Hash of `problems.jsonl`, which in turn names images by their hash."""
    count: int
    quarantined: int
    quarantine_path: Path | None
    """`quarantine.jsonl`, one `{"row", "field", "reason", "raw"}` a line; None where no row was rejected."""
    fields: dict[str, str]
    """Column used for each of `prompt`, `answer`, `id`, `images`."""
    reasons: dict[str, int]
    """Rejected rows by reason, most frequent first."""


class _TooManyBadError(InputError):
    """Raised after reading where too few rows can be used; the quarantine is kept."""


class _Opened(NamedTuple):
    """An opened source: problems and bad rows as they are read, and facts that are known after the last row."""

    outcomes: _Outcomes
    fields: Callable[[], dict[str, str]] = dict[str, str]
    """Returns the column used for each role; image columns are known only after all rows are read."""
    lacks_images: Callable[[], bool] = bool
    """Returns whether no row had the image column that the user named."""


class _NotAnIdError(Exception):
    """Raised where a column that was detected as the id turns out not to be unique."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def load_problems(
    source: ProblemSource,
    folder: Path,
    *,
    problem_fault: ProblemFault | None = None,
    quarantine_path: Path | None = None,
) -> LoadedProblems:
    """Stream a source's rows into `folder`: `problems.jsonl`, `quarantine.jsonl`, `images/<sha256>.<ext>`.

    If the detected id column turns out not to be unique (see `MOST_BAD_IDS`), the rows are read again without it. Both
    files are written atomically. Raises `InputError` where the source cannot be read, its columns cannot be detected,
    no row can be used, or a share above `max_bad_share` cannot; in the last two cases the quarantine is written, the
    problems are not.

    Args:
        source: The data set and its columns.
        folder: Output folder; created if missing.
        problem_fault: Returns why a problem cannot be used although its row is valid (for example because its
            verifier cannot parse the answer), or None.
        quarantine_path: File for rejected rows; by default `quarantine.jsonl` in `folder`.
    """
    quarantine_path = quarantine_path or folder.resolve() / "quarantine.jsonl"
    no_ids: list[str] = []
    while True:
        try:
            loaded = _load(source, folder.resolve(), problem_fault, quarantine_path, no_ids)
        except _NotAnIdError as error:
            no_ids.append(error.column)
        else:
            break
    if no_ids:
        ignored = visible_line(", ".join(map(repr, no_ids)))
        _log.warning("%s: %s holds the same value in many rows, and is not taken for ids", source.dataset, ignored)
    return loaded


def _load(
    source: ProblemSource, folder: Path, fault: ProblemFault | None, quarantine_path: Path, no_ids: Collection[str]
) -> LoadedProblems:
    """Load the rows once. Raises as `load_problems` does, and `_NotAnIdError`.

    Args:
        source: The data set and its columns.
        folder: Absolute output folder.
        fault: See `load_problems`.
        quarantine_path: File for rejected rows.
        no_ids: Columns that an earlier pass found not to be unique ids.
    """
    problems_path = folder / "problems.jsonl"
    refusal: InputError | None = None
    with atomic_write(quarantine_path) as rejected:
        try:
            with atomic_write(problems_path) as usable:
                opened = _open(source, folder / "images", no_ids)
                sieve = _Sieve(usable, rejected, fault)
                # Closed at once when there are enough problems: a generator may hold a file or connection open.
                with closing(opened.outcomes) as outcomes:  # type: ignore[type-var]  # they are all generators
                    sieve.take_all(outcomes, source.max_problems)
                fields = opened.fields()
                if source.id_field is None and "id" in fields:
                    sieve.check_ids(fields["id"])
                _check_share(source, sieve, quarantine_path)
                if opened.lacks_images():
                    raise InputError(
                        f"{source.dataset} has no column {source.image_field!r}{source.in_brackets('image')} in any of "
                        f"the {sieve.seen:,} rows that were read"
                    )
        except _TooManyBadError as error:
            # Raised only outside of the outer block, so that the quarantine is kept and the problems are not.
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
        fields=fields,
        reasons=dict(sieve.reasons.most_common()),
    )


def load_problems_again(source: ProblemSource, folder: Path, problems: Path, *, quarantined: int) -> LoadedProblems:
    """Load from the source the problems that an earlier call wrote, without the filter that rejected others then.

    Files and errors are those of `load_problems`, except that no quarantine is kept.

    Args:
        source: The data set and its columns.
        folder: Output folder.
        problems: `problems.jsonl` of the earlier call.
        quarantined: Number of rows that the earlier call rejected; returned in the result.
    """
    earlier_ids = set(read_instance_ids(problems))
    everything = source.model_copy(update={"max_bad_share": 1.0})
    with tempfile.TemporaryDirectory(prefix="rollmill-quarantine-") as rest:
        loaded = load_problems(
            everything,
            folder,
            problem_fault=lambda problem: (
                None if problem.instance_id in earlier_ids else "no problem of the run on disk"
            ),
            quarantine_path=Path(rest) / "quarantine.jsonl",
        )
    return loaded.model_copy(update={"quarantined": quarantined, "quarantine_path": None, "reasons": {}})


def read_problems(path: Path) -> Iterator[Problem]:
    """Yield the problems of a `problems.jsonl`. Raises `InputError` where a line is not a problem."""
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
    """The id of a line; the decoder skips all other keys, which is faster than validating the problem."""

    instance_id: str


def read_instance_ids(path: Path) -> list[str]:
    """Return only the ids of a `problems.jsonl`, in order. Raises `InputError` where a line is not a problem."""
    decoder = msgspec.json.Decoder(_Identified)
    ids = []
    for number, line, _ in raw_json_lines(str(path)):
        try:
            ids.append(decoder.decode(line).instance_id)
        except msgspec.DecodeError as error:
            raise InputError(f"{path} line {number} is not a problem: {error}") from error
    return ids


class _Sieve:
    """Writes problems to one file and bad rows to the other, and counts both."""

    def __init__(self, usable: BinaryIO, rejected: BinaryIO, fault: ProblemFault | None) -> None:
        self._usable = usable
        self._rejected = rejected
        self._fault = fault
        self._first_at: dict[str, int] = {}
        self._bad_fields: Counter[str | None] = Counter()
        self.digest = hashlib.sha256()
        self.quarantined = 0
        self.reasons: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """Return the number of usable problems so far."""
        return len(self._first_at)

    @property
    def seen(self) -> int:
        """Return the number of rows so far, usable or not."""
        return self.count + self.quarantined

    def check_ids(self, column: str) -> None:
        """Check that few rows have a missing or duplicate id in the detected column. Raises `_NotAnIdError`."""
        bad = self._bad_fields[column] + self._bad_fields[_ID]
        if bad > MOST_BAD_IDS * self.seen:
            raise _NotAnIdError(column)

    def take_all(self, outcomes: _Outcomes, max_problems: int | None) -> None:
        """Consume outcomes until they end or there are `max_problems` usable problems."""
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
            return BadRow(number, _ID, f"duplicate id, first at row {first_at}", show(row))
        fault = self._fault(problem) if self._fault else None
        if fault is not None:
            return BadRow(number, None, fault, show(row))
        try:
            line = dump_line(row)
        except TypeError as error:  # a lone surrogate, which UTF-8 cannot encode and not all readers refuse
            return BadRow(number, None, f"cannot be written as JSON: {error}", show(row))
        self._first_at[problem.instance_id] = number
        self._usable.write(line)
        self.digest.update(line)
        return None

    def _reject(self, row: BadRow) -> None:
        self.quarantined += 1
        self._bad_fields[row.field] += 1
        # What follows a colon or comma varies from row to row; reasons are counted without it.
        reason = re.split(r"[:,]", row.reason, maxsplit=1)[0]
        self.reasons[f"{row.field}: {reason}" if row.field else reason] += 1
        self._rejected.write(dump_line(row.to_json()))


def _open(source: ProblemSource, image_folder: Path, no_ids: Collection[str]) -> _Opened:
    """Open a source by its kind: reasoning-gym, a directory, a file, or the hub."""
    dataset = source.dataset
    if dataset.startswith(gym.PREFIX):
        return _open_gym(source)
    further = _image_folders(source)
    store = partial(ImageStore, image_folder, advice=_folder_advice(source))
    if local := split_config(dataset):
        folder, config = local
        rows = read_directory(folder, config, source)
        further += [*snapshot_folders(folder), *unpacked_folders(folder)]
        return _open_rows(source, rows, store(folder, further), no_ids)
    if is_data_file(dataset):
        rows = read_data_file(dataset)
        # A file of a hub snapshot is a link into `blobs`, where files are named by hashes. Relative paths in its rows
        # refer to the folder of the link, so `resolve()` would be wrong here.
        beside = Path(dataset).expanduser().absolute().parent
        if blobs := snapshot_folders(beside):
            return _open_rows(source, rows, store(beside, [*further, *blobs]), no_ids)
        return _open_rows(source, rows, store(folder_of(dataset), further), no_ids)
    if dataset.startswith((".", "/", "~")):
        raise InputError(f"{dataset} does not exist")
    hint = ""
    # A name without an organisation is first a reasoning-gym data set, then one of the hub's old unscoped ones.
    if "/" not in dataset:
        name = dataset.partition("?")[0]
        if name in gym.known_names():
            return _open_gym(source)
        close = gym.close_names(name)
        hint = f" (of reasoning-gym's data sets, {', '.join(close)} come close)" if close else ""
    rows = read_hub(source, hint)
    return _open_rows(source, rows, store(None, [*further, *hub_folders(dataset)]), no_ids)


def _folder_advice(source: ProblemSource) -> str:
    flag = source.flag("image_folders")
    return f" ({flag} names further ones)" if flag else ""


def _image_folders(source: ProblemSource) -> list[Path]:
    """Return the further image folders that the user names. Raises `InputError` for one that does not exist."""
    folders = [Path(folder).expanduser() for folder in source.image_folders]
    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is not None:
        raise InputError(f"{source.flag('image_folders')} {str(missing)!r}: there is no such folder")
    return folders


def _open_gym(source: ProblemSource) -> _Opened:
    return _Opened(
        gym.read_problems(source.dataset, source.max_problems), lambda: {"prompt": "question", "answer": "answer"}
    )


def _open_rows(source: ProblemSource, rows: _Rows, images: ImageStore, no_ids: Collection[str]) -> _Opened:
    """Choose the columns from the first rows, and map all rows with them.

    Args:
        source: The data set, with the columns that the user names.
        rows: Its (number, row), unread.
        images: Store of the rows' images.
        no_ids: Columns that are known not to be unique ids.
    """
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
        return _Opened((number, row) for number, row in head if isinstance(row, BadRow))
    columns = choose_columns(source, readable, no_ids=no_ids)
    mapper = RowMapper(columns, images, source.image_field)
    return _Opened(_map_rows(chain(head, rows), mapper), lambda: mapper.fields, lambda: mapper.lacks_images)


def _map_rows(rows: _Rows, mapper: RowMapper) -> _Outcomes:
    for position, (number, row) in enumerate(rows):
        yield number, row if isinstance(row, BadRow) else mapper.map(number, position, row)


def _check_share(source: ProblemSource, sieve: _Sieve, quarantine_path: Path) -> None:
    seen = sieve.seen
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
