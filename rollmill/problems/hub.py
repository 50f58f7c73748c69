"""Data sets of the Hugging Face hub and local dataset directories: the one module that knows `datasets`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rollmill.errors import InputError
from rollmill.files.arrow_rows import BATCH_ROWS, read_batches
from rollmill.files.rows import BadRow, Row
from rollmill.terminal.escapes import visible_line

_HUB = "https://huggingface.co"


def read_hub(dataset: str, split: str, hint: str = "") -> Iterator[tuple[int, Row | BadRow]]:
    """Yields (1-based position, row) of a hub data set, `org/name` or `org/name:config`, images undecoded.

    `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE` count as everywhere. Raises `InputError` where the hub
    cannot be reached, or has no such data set, config or split; `hint` ends its message.
    """
    from datasets import load_dataset

    name, _, config = dataset.partition(":")
    try:
        rows = load_dataset(name, config or None, split=split)
        _check_files(dataset, hub_folders(dataset), name, config or None)
    except InputError:
        raise
    except Exception as error:  # its builders raise whatever they meet
        message = f"cannot load {dataset} (split {split}): {_shown(error)}; {_advice(error, name)}{hint}"
        raise InputError(message) from error
    return _read(rows)


def read_directory(folder: Path, split: str) -> Iterator[tuple[int, Row | BadRow]]:
    """Yields (1-based position, row) of a directory that `save_to_disk` made, or one of data files.

    Raises `InputError` where the directory holds neither, or has no such split.
    """
    from datasets import load_dataset

    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _read(_load_saved(folder, split))
    try:
        _check_files(str(folder), [folder, *unpacked_folders(folder)], str(folder), None)
        rows = load_dataset(str(folder), split=split)
    except InputError:
        raise
    except Exception as error:  # its builders raise whatever they meet
        message = f"cannot load the directory {folder} (split {split}): {_shown(error)}; {_advice(error, '')}"
        raise InputError(message) from error
    return _read(rows)


def _check_files(dataset: str, folders: Sequence[Path], name: str, config: str | None) -> None:
    """Raises `InputError` where the data set's own card names data files of this machine outside of its folders."""
    from datasets import load_dataset_builder

    files = load_dataset_builder(name, config).config.data_files or {}
    for path in chain.from_iterable(files.values()):
        local = path.rpartition("::")[2].removeprefix("file://")
        if "://" in local:
            continue
        # Links are followed: a user's own folders, and the hub's cache, have them where the files are elsewhere.
        path = Path(os.path.normpath(local))
        if not any(path.is_relative_to(folder) for folder in folders):
            raise InputError(
                f"{dataset}: its README.md names {visible_line(local)[:200]} as a data file, which lies outside of it: "
                "correct the card, or give that file as the data set"
            )


def hub_folders(dataset: str) -> list[Path]:
    """Return the folders in which the files of a hub data set lie once it is loaded: what its loader names is there."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    name = dataset.partition(":")[0]
    folder = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="dataset")
    return [folder, *unpacked_folders(Path(os.path.normpath(folder.absolute())))]  # as `datasets` names archives


def unpacked_folders(folder: Path) -> list[Path]:
    """Return the folders into which `datasets` has unpacked the archives in `folder`, a data set's own.

    They lie beside those of all other data sets, under the hash of the archive's path.
    """
    from datasets import config
    from datasets.utils.file_utils import hash_url_to_filename

    unpacked = Path(config.EXTRACTED_DATASETS_PATH)
    there = {path.name for path in unpacked.iterdir()} if unpacked.is_dir() else set()
    if not there:
        return []
    files = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)  # noqa: PTH118
    return [unpacked / name for path in files if (name := hash_url_to_filename(path)) in there]


def snapshot_folders(folder: Path) -> list[Path]:
    """Return where the links of `folder` lead, if it lies in a snapshot of the hub's cache: to the files beside it.

    `<repo>/snapshots/<revision>` holds links to `<repo>/blobs`, which is no link itself.
    """
    for snapshots in folder.parents:
        blobs = snapshots.parent / "blobs"
        if snapshots.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink():
            return [blobs]
    return []


def _load_saved(folder: Path, split: str) -> Any:
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(folder))
    except Exception as error:  # as above
        raise InputError(f"cannot load the directory {folder}: {error}") from error
    if isinstance(saved, DatasetDict):
        if split not in saved:
            raise InputError(f"{folder} has no split {split!r}: choose one of {', '.join(saved)} with --split")
        return saved[split]
    own = str(saved.split or split)
    if own.split("[")[0] != split.split("[")[0]:
        raise InputError(f"{folder} has no split {split!r}: it holds {own!r} alone; choose it with --split")
    return saved


def _read(rows: Any) -> Iterator[tuple[int, Row | BadRow]]:
    # The arrow format hands out what is stored: images stay bytes and paths, and nothing is decoded on the way.
    return read_batches(rows.with_format("arrow").iter(batch_size=BATCH_ROWS))


def _shown(error: Exception) -> str:
    causes = f"{error} ({error.__cause__})" if error.__cause__ else str(error)
    return causes[:400]


def _advice(error: Exception, name: str) -> str:
    text = str(error)
    if isinstance(error, ConnectionError) or "Couldn't reach" in text:
        hub = os.environ.get("HF_ENDPOINT", _HUB)
        return f"check the network and HF_ENDPOINT ({hub}), or give a local file or directory"
    if "gated" in text or "authenticated" in text:
        return f"ask for access at {os.environ.get('HF_ENDPOINT', _HUB)}/datasets/{name}, then set HF_TOKEN"
    if re.search("(unknown|bad|invalid) split", text, re.IGNORECASE):
        return "choose one of its splits with --split"
    if "Config name is missing" in text or "BuilderConfig" in text:
        return f"write the config after the name, as in {name}:CONFIG"
    if isinstance(error, FileNotFoundError) and name:
        return "check the name, and HF_TOKEN where the data set is private, or give a local file or directory"
    return "name a directory of JSON or Parquet files, or of save_to_disk; or give the path of one file in it"
