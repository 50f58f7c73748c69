"""Adapter of `datasets`: reads data sets of the Hugging Face hub and local data set directories."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rollmill.errors import InputError
from rollmill.files.arrow_rows import BATCH_ROWS, read_batches
from rollmill.files.formats import kind_by_name
from rollmill.files.rows import BadRow, Row
from rollmill.problems.data_files import LFS_ADVICE, is_lfs_pointer
from rollmill.problems.source import ProblemSource
from rollmill.terminal.escapes import visible_line

_HUB = "https://huggingface.co"
_SPLIT = re.compile(r"[^A-Za-z]")
_SPLIT_NAMES = {"train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval", "dataset"}
_MOST_LOOKED_AT = 1000
"""Files of a folder that are checked for being Git LFS pointers."""


def read_hub(source: ProblemSource, hint: str = "") -> Iterator[tuple[int, Row | BadRow]]:
    """Yield (1-based position, row) of a hub data set, `org/name` or `org/name:config`, with images undecoded.

    Respects `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE`. Raises `InputError` where the hub cannot be
    reached, or has no such data set, config or split; `hint` is appended to its message.
    """
    from datasets import load_dataset

    dataset, split = source.dataset, source.split
    name, _, config = dataset.partition(":")
    try:
        rows = load_dataset(name, config or None, split=split)
        _check_files(dataset, hub_folders(dataset), name, config or None)
    except InputError:
        raise
    except Exception as error:  # its builders raise whatever they meet
        message = f"cannot load {dataset} (split {split}): {_shown(error)}; {_advice(error, source, name)}{hint}"
        raise InputError(message) from error
    return _read(rows)


def split_config(dataset: str) -> tuple[Path, str | None] | None:
    """Split `folder` or `folder:config` into the folder and the config; None if there is no such folder."""
    path = Path(dataset).expanduser()  # a folder's own name may contain a colon
    if path.is_dir():
        return path.resolve(), None
    name, colon, config = dataset.rpartition(":")
    folder = Path(name).expanduser()
    if not colon or "://" in dataset or not name or not config or path.exists() or not folder.is_dir():
        return None
    return folder.resolve(), config


def read_directory(folder: Path, config: str | None, source: ProblemSource) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield (1-based position, row) of a directory: by `save_to_disk`, of data files, or a clone of a hub data set.

    Configs are those of the README.md, or else subfolders with the same splits. Raises `InputError` where the directory
    is none of these, has no such config or split, or has several configs and none is named.
    """
    from datasets import load_dataset

    split, name = source.split, str(folder)
    configs = _folders_of_configs(folder)
    if config in configs and config not in _configs_of_card(folder):
        folder, name, config, configs = folder / config, f"{folder}:{config}", None, []
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _read(_load_saved(folder, source))
    if configs and config is None and not _configs_of_card(folder):
        raise InputError(
            f"{name} has several configs, {', '.join(configs)}: name one, as in {_with_config(source, configs[0])}"
        )
    try:
        _check_files(name, [folder, *unpacked_folders(folder)], str(folder), config)
        rows = load_dataset(str(folder), config, split=split)
    except InputError:
        raise
    except Exception as error:  # its builders raise whatever they meet
        advice = LFS_ADVICE if _has_pointers(folder) else _advice(error, source, "")
        raise InputError(f"cannot load the directory {name} (split {split}): {_shown(error)}; {advice}") from error
    return _read(rows)


def _with_config(source: ProblemSource, config: str) -> str:
    flag, folder = source.flag("dataset"), source.dataset
    return f"{flag} {folder}:{config}" if flag else f"{folder}:{config}"


def _configs_of_card(folder: Path) -> list[str]:
    """Return the configs that a data set's README.md names; empty if it names none or cannot be read."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    try:
        card = DatasetCard.load(folder / "README.md")
        return list(MetadataConfigs.from_dataset_card_data(card.data))
    except Exception:  # the file is untrusted; loading the data set reports what is wrong with it
        return []


def _folders_of_configs(folder: Path) -> list[str]:
    """Return the subfolders that hold the same splits, such as `main/train-*` and `socratic/train-*`.

    `datasets` would mix their rows. A subfolder by `save_to_disk` counts as well.
    """
    splits: dict[str, set[str]] = {}
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            names = {_SPLIT.split(path.name, maxsplit=1)[0] for path in child.iterdir() if _is_data(path)}
            splits[child.name] = names & _SPLIT_NAMES
    if sum(map(bool, splits.values())) < 2 or not set.intersection(*filter(None, splits.values())):
        return []
    return [name for name, names in splits.items() if names]


def _is_data(path: Path) -> bool:
    return path.name == "dataset_dict.json" or (path.is_file() and kind_by_name(path.name) is not None)


def _has_pointers(folder: Path) -> bool:
    return any(is_lfs_pointer(path) for path in islice(folder.rglob("*"), _MOST_LOOKED_AT) if _is_data(path))


def _check_files(dataset: str, folders: Sequence[Path], name: str, config: str | None) -> None:
    """Check that the data set's card, which is untrusted, names no local data file outside of its folders.

    Args:
        dataset: The data set as the user names it, for the message.
        folders: Folders in which its files may lie.
        name: Hub id or folder, as `datasets` takes it.
        config: Name of the config; None for the only or default one.

    Raises `InputError`.
    """
    from datasets import load_dataset_builder

    files = load_dataset_builder(name, config).config.data_files or {}
    for path in chain.from_iterable(files.values()):
        local = path.rpartition("::")[2].removeprefix("file://")  # fsspec chains: `zip://a.json::/data/b.zip`
        if "://" in local:
            continue
        # Not `resolve()`: users' folders and the hub's cache contain links to files elsewhere, which are allowed.
        path = Path(os.path.normpath(local))
        if not any(path.is_relative_to(folder) for folder in folders):
            raise InputError(
                f"{dataset}: its README.md names {visible_line(local)[:200]} as a data file, which lies outside of it: "
                "correct the card, or give that file as the data set"
            )


def hub_folders(dataset: str) -> list[Path]:
    """Return the cache folders that contain the files of a hub data set once it is loaded."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    name = dataset.partition(":")[0]
    folder = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="dataset")
    return [folder, *unpacked_folders(Path(os.path.normpath(folder.absolute())))]  # as `datasets` names archives


def unpacked_folders(folder: Path) -> list[Path]:
    """Return the folders into which `datasets` has unpacked the archives of the data set in `folder`.

    They lie beside those of all other data sets, each named by the hash of the archive's path.
    """
    from datasets import config
    from datasets.utils.file_utils import hash_url_to_filename

    unpacked = Path(config.EXTRACTED_DATASETS_PATH)
    hashes = {path.name for path in unpacked.iterdir()} if unpacked.is_dir() else set()
    if not hashes:
        return []
    files = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)  # noqa: PTH118
    return [unpacked / name for path in files if (name := hash_url_to_filename(path)) in hashes]


def snapshot_folders(folder: Path) -> list[Path]:
    """Return the target folder of the links in `folder`, if it lies in a snapshot of the hub's cache; else no folder.

    `<repo>/snapshots/<revision>` contains links into `<repo>/blobs`. A `blobs` that is itself a link is not trusted.
    """
    for snapshots in folder.parents:
        blobs = snapshots.parent / "blobs"
        if snapshots.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink():
            return [blobs]
    return []


def _load_saved(folder: Path, source: ProblemSource) -> Any:
    from datasets import DatasetDict, load_from_disk

    split, flag = source.split, source.flag("split")
    try:
        saved = load_from_disk(str(folder))
    except Exception as error:  # as above
        raise InputError(f"cannot load the directory {folder}: {error}") from error
    if isinstance(saved, DatasetDict):
        if split not in saved:
            raise InputError(f"{folder} has no split {split!r}: choose one of {', '.join(saved)} with {flag}")
        return saved[split]
    saved_split = str(saved.split or split)
    if saved_split.split("[")[0] != split.split("[")[0]:
        raise InputError(f"{folder} has no split {split!r}: it holds {saved_split!r} alone; choose it with {flag}")
    return saved


def _read(rows: Any) -> Iterator[tuple[int, Row | BadRow]]:
    # The arrow format returns what is stored: images stay bytes and paths, and nothing is decoded.
    return read_batches(rows.with_format("arrow").iter(batch_size=BATCH_ROWS))


def _shown(error: Exception) -> str:
    causes = f"{error} ({error.__cause__})" if error.__cause__ else str(error)
    return causes[:400]


def _advice(error: Exception, source: ProblemSource, name: str) -> str:
    text = str(error)
    if isinstance(error, ConnectionError) or "Couldn't reach" in text:
        hub = os.environ.get("HF_ENDPOINT", _HUB)
        return f"check the network and HF_ENDPOINT ({hub}), or give a local file or directory"
    if "gated" in text or "authenticated" in text:
        return f"ask for access at {os.environ.get('HF_ENDPOINT', _HUB)}/datasets/{name}, then set HF_TOKEN"
    if re.search("(unknown|bad|invalid) split", text, re.IGNORECASE):
        return f"choose one of its splits with {source.flag('split')}"
    if "Config name is missing" in text or "BuilderConfig" in text:
        listed = re.search(r"\['([^']+)'", text)
        plain = source.model_copy(update={"dataset": name or str((split_config(source.dataset) or [""])[0])})
        return f"write the config after the name, as in {_with_config(plain, listed[1] if listed else 'CONFIG')}"
    if isinstance(error, FileNotFoundError) and name:
        return "check the name, and HF_TOKEN where the data set is private, or give a local file or directory"
    return "name a directory of JSON or Parquet files, or of save_to_disk; or give the path of one file in it"
