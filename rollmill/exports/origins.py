"""Where a row came from: the metadata of training rows, and the folder that its images' paths start from."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from rollmill.corpus.record import Record
from rollmill.exports.contents import OutsideImageError, Place
from rollmill.files.confined import ConfinedFileError, confined_path

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus

Facts = Mapping[str, Any]
"""One row of the table."""

FACT_COLUMNS = [
    "row",
    "source",
    "instance_id",
    "sample_id",
    "reward",
    "success",
    "speedup",
    "model_calls",
    "answer_error",
]
_LARGEST = 1 << 63
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:data|file):", re.IGNORECASE)


class _Verdict(msgspec.Struct):
    verifier: Any = None


_verdicts = msgspec.json.Decoder(_Verdict)


def rollouts(corpus: Corpus, kept: pl.DataFrame, columns: list[str]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each row of `kept` with its record's bytes. Raises `ValueError` where `kept` is not sorted by `row`."""
    if not kept["row"].is_sorted():
        raise ValueError("rows to export must be sorted by `row`: records are read in that order only")
    return zip(kept.select(columns).iter_rows(named=True), corpus.records(kept), strict=True)


def row_metadata(facts: Facts, record: Record, origin: Mapping[str, Any] | None) -> dict[str, Any]:
    """A training row's metadata: the table's facts, seed and verifier, then `origin`; what is null is left out."""
    own = {
        "instance_id": facts["instance_id"],
        "sample_id": facts["sample_id"],
        "seed": record.seed if type(record.seed) is int and -_LARGEST <= record.seed < _LARGEST else None,
        "reward": facts["reward"],
        "success": facts["success"],
        "speedup": facts["speedup"],
        "model_calls": facts["model_calls"],
        "error": facts["answer_error"],
        "verifier": _verifier(record.verdict),
    }
    return with_origin(own, origin)


def with_origin(own: dict[str, Any], origin: Mapping[str, Any] | None) -> dict[str, Any]:
    """`own`, then `origin`, which says nothing that `own` says already; what is null is left out."""
    found = {key: value for key, value in own.items() if value is not None}
    return found | {key: value for key, value in (origin or {}).items() if value is not None and key not in found}


def _verifier(verdict: msgspec.Raw) -> str | None:
    if bytes(memoryview(verdict)[:1]) != b"{":
        return None
    name = _verdicts.decode(verdict).verifier
    return name if isinstance(name, str) else None


def image_places(corpus: Corpus, folder: Path, further: Sequence[str] = ()) -> Callable[[int], Place]:
    """Return, for the index of a source, how an image path that is relative to its folder reads from `folder`.

    URLs stay, absolute paths too, and so does every relative path of a source that has no local folder. Whoever trains
    on the rows opens the files that they name: a path that leads outside of the source's folder (of a source without
    one: of `folder`) and of those in `further` raises `OutsideImageError`.
    """
    known: dict[int, Place] = {}

    def places(source: int) -> Place:
        if source not in known:
            known[source] = _place(corpus.image_root(source), folder, further)
        return known[source]

    return places


def _place(root: Path | None, folder: Path, further: Sequence[str]) -> Place:
    allowed = [root or folder, *map(Path, further)]

    @lru_cache(1 << 16)  # the rollouts of a problem show the same images
    def place(path: str) -> str:
        if _SCHEME.match(path) and path[:5].lower() != "file:":
            return path
        try:
            found = confined_path(path, allowed)
        except ConfinedFileError as error:
            raise OutsideImageError(str(error)) from None
        if root is None or path.startswith("/") or _SCHEME.match(path):
            return path
        inside = os.path.realpath(root / path) == str(found)
        return os.path.relpath(root / path if inside else found, folder)

    return place
