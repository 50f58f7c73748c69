"""Finds the files of training and validation data: as named, or by the card in an export's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rollmill.corpus.inputs import find_sources
from rollmill.errors import InputError
from rollmill.exports.card import README, read_sections
from rollmill.exports.splitting import TRAIN, VALIDATION
from rollmill.files.formats import kind_by_name
from rollmill.files.io import open_binary
from rollmill.files.remote import is_remote
from rollmill.files.rows import BadRow, Row, read_json_lines
from rollmill.generation.manifest import read_manifest
from rollmill.jobs.training.rows import is_training_row

_BLOCK = 1 << 20


class DataFile(NamedTuple):
    """One file of rows."""

    path: str
    sha256: str
    """Hash of the decompressed content."""


class DataFiles(NamedTuple):
    """Files to train on, and files to evaluate on (which may be none)."""

    train: list[DataFile]
    validation: list[DataFile]


def find_data(train_data: Sequence[str], validation_data: Sequence[str], *, own_validation: bool = True) -> DataFiles:
    """Return the files of what the user named, each hashed.

    A folder stands for the export that its card describes: its train file, and, where no validation data is named and
    `own_validation` is set, its validation file. Raises `InputError` for what is no training data, or named twice.
    """
    train: list[str] = []
    export_validation: list[str] = []
    for name in train_data:
        sides = _files_by_side(name, TRAIN)
        train += sides[TRAIN]
        export_validation += sides.get(VALIDATION, [])
    named = [path for name in validation_data for path in _validation_files(name)]
    validation = named or (export_validation if own_validation else [])
    seen: set[str] = set()
    for path in [*train, *validation]:
        resolved = path if is_remote(path) else str(Path(path).resolve())
        if resolved in seen:
            raise InputError(
                f"{path} is given twice: its rows would count twice, or be both trained on and evaluated on"
            )
        seen.add(resolved)
    return DataFiles([_hash_file(path) for path in train], [_hash_file(path) for path in validation])


def _validation_files(name: str) -> list[str]:
    sides = _files_by_side(name, VALIDATION)
    return sides.get(VALIDATION) or sides[TRAIN]


def _files_by_side(name: str, side: str) -> dict[str, list[str]]:
    if not is_remote(name) and Path(name).is_dir():
        return _export_files(Path(name))
    if not is_remote(name) and not Path(name).exists():
        raise InputError(f"there is no file {name} for {side} data: check the path")
    find_sources([name])
    return {TRAIN: [name]}


def _export_files(folder: Path) -> dict[str, list[str]]:
    """Return the files of the one export in a folder that has training rows; for a run's directory its journal."""
    if (manifest := read_manifest(folder)) is not None:
        return {TRAIN: [str(folder / manifest.journal)]}
    cards = [folder / README, *sorted(folder.glob("*.card.md"))]
    sections = [section for card in cards if card.is_file() for section in _read_card(card)]
    exports = {
        section["name"]: {side: [str(folder / name)] for side, name in section["files"].items()}
        for section in sections
        if section["files"].get(TRAIN) and _holds_training_rows(folder / section["files"][TRAIN])
    }
    if not exports:
        raise InputError(f"{folder} has no card of an export that trains: name the .jsonl files instead")
    if len(exports) > 1:
        raise InputError(f"{folder} has several exports ({', '.join(exports)}): name the .jsonl file of one")
    (sides,) = exports.values()
    return sides


def _read_card(card: Path) -> list[dict[str, Any]]:
    try:
        return [section.config for section in read_sections(card.read_text("utf-8"))]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the card {card}: {error}; name the .jsonl files instead") from error


def _holds_training_rows(path: Path) -> bool:
    if kind_by_name(str(path)) != "lines" or not path.exists():
        return False
    first: Row | BadRow | None = next((row for _, row in read_json_lines(str(path))), None)
    return first is not None and is_training_row(first)


def _hash_file(path: str) -> DataFile:
    digest = hashlib.sha256()
    with open_binary(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return DataFile(path, digest.hexdigest())
