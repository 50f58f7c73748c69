"""Which files a run trains on, and evaluates on: as given, or as the card in an export's folder says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollmill.errors import InputError
from rollmill.exports.card import README, read_sections
from rollmill.exports.splitting import TRAIN, VALIDATION
from rollmill.files.formats import kind_by_name
from rollmill.files.io import open_binary
from rollmill.files.remote import is_remote
from rollmill.files.rows import BadRow, Row, read_json_lines
from rollmill.jobs.training.rows import is_training_row

_BLOCK = 1 << 20


class DataFile(NamedTuple):
    """One file of rows."""

    path: str
    sha256: str
    """Of its content, unpacked."""


class DataFiles(NamedTuple):
    """What is trained on, and what is evaluated on (nothing, perhaps)."""

    train: list[DataFile]
    validation: list[DataFile]


def find_data(train_data: Sequence[str], validation_data: Sequence[str], *, own_validation: bool = True) -> DataFiles:
    """The files behind what the user named, each hashed.

    A folder stands for the export that its card tells of: its train file, and, where no validation data is named and
    `own_validation` holds, its validation file. Raises `InputError` for what is no training data, or given twice.
    """
    train: list[str] = []
    found: list[str] = []
    for given in train_data:
        sides = _sides(given, TRAIN)
        train += sides[TRAIN]
        found += sides.get(VALIDATION, [])
    named = [path for given in validation_data for path in _validation(given)]
    validation = named or (found if own_validation else [])
    seen: set[str] = set()
    for path in [*train, *validation]:
        place = path if is_remote(path) else str(Path(path).resolve())
        if place in seen:
            raise InputError(f"{path} is given twice: its rows would count twice, or be evaluated on what they taught")
        seen.add(place)
    return DataFiles([_hashed(path) for path in train], [_hashed(path) for path in validation])


def _validation(given: str) -> list[str]:
    sides = _sides(given, VALIDATION)
    return sides.get(VALIDATION) or sides[TRAIN]


def _sides(given: str, side: str) -> dict[str, list[str]]:
    if not is_remote(given) and Path(given).is_dir():
        return _in_folder(Path(given))
    if kind_by_name(given) != "lines":
        raise InputError(f"cannot take {given} as {side} data: give a .jsonl file, or the folder of an export")
    if not is_remote(given) and not Path(given).exists():
        raise InputError(f"there is no file {given} for {side} data: check the path")
    return {TRAIN: [given]}


def _in_folder(folder: Path) -> dict[str, list[str]]:
    """The one export in a folder that trains."""
    cards = [folder / README, *sorted(folder.glob("*.card.md"))]
    sections = [section for card in cards if card.is_file() for section in _sections(card)]
    exports = {
        section["name"]: {side: [str(folder / name)] for side, name in section["files"].items()}
        for section in sections
        if section["files"].get(TRAIN) and _trains(folder / section["files"][TRAIN])
    }
    if not exports:
        raise InputError(f"{folder} has no card of an export that trains: name the .jsonl files instead")
    if len(exports) > 1:
        raise InputError(f"{folder} has several exports ({', '.join(exports)}): name the .jsonl file of one")
    (sides,) = exports.values()
    return sides


def _sections(card: Path) -> list[dict[str, Any]]:
    try:
        return [section.config for section in read_sections(card.read_text("utf-8"))]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the card {card}: {error}; name the .jsonl files instead") from error


def _trains(path: Path) -> bool:
    if kind_by_name(str(path)) != "lines" or not path.exists():
        return False
    first: Row | BadRow | None = next((row for _, row in read_json_lines(str(path))), None)
    return first is not None and is_training_row(first)


def _hashed(path: str) -> DataFile:
    digest = hashlib.sha256()
    with open_binary(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return DataFile(path, digest.hexdigest())
