"""Origin of a training row: its metadata, and the folder that its image paths are relative to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import polars as pl

from rollmill.corpus.record import Record
from rollmill.exports.contents import MediaPath, OutsideImageError
from rollmill.files.confined import ConfinedFileError, confined_path
from rollmill.records import PREFERENCE, REJECTED, TokenLocation

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus

Facts = Mapping[str, Any]
"""One row of the corpus table, its columns by name."""

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
    "truncated",
    "marked",
]
CONTEXT_FIELDS: tuple[Literal["tools", "chat_template_kwargs"], ...] = ("tools", "chat_template_kwargs")
"""Fields of a training row that the chat template takes beside the messages."""
REJECTED_SIDE_REASON = "rejected_side_of_a_preference"
"""The reason that drops the rejected answer of a preference, or one with an undesirable label of KTO."""
_LARGEST = 1 << 63
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:data|file):", re.IGNORECASE)


class _Verdict(msgspec.Struct):
    verifier: Any = None


_verdicts = msgspec.json.Decoder(_Verdict)


def read_rollouts(corpus: Corpus, kept: pl.DataFrame, columns: list[str]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield each row of `kept` with its record's JSON. Raises `ValueError` where `kept` is not sorted by `row`."""
    if not kept["row"].is_sorted():
        raise ValueError("rows to export must be sorted by `row`: records are read in that order only")
    return zip(kept.select(columns).iter_rows(named=True), corpus.records(kept), strict=True)


def make_row_metadata(
    facts: Facts,
    record: Record,
    origin: Mapping[str, Any] | None,
    tokens: TokenLocation | None = None,
    *,
    no_end: bool = False,
) -> dict[str, Any]:
    """Return a training row's metadata: facts of the table, seed and verifier, then `origin`; nulls are left out.

    Args:
        facts: the table's row.
        record: the rollout.
        origin: as given to the export.
        tokens: location of the recorded tokens of the row's answers.
        no_end: whether a stop string ended the last answer, so that the model wrote no end-of-turn token.
    """
    metadata = {
        "instance_id": facts["instance_id"],
        "sample_id": facts["sample_id"],
        "seed": record.seed if type(record.seed) is int and -_LARGEST <= record.seed < _LARGEST else None,
        "reward": facts["reward"],
        "success": facts["success"],
        "speedup": facts["speedup"],
        "model_calls": facts["model_calls"],
        "error": facts["answer_error"],
        "verifier": _verifier(record.verdict),
        "truncated": facts["truncated"] or None,
        "no_end": no_end or None,
        "reasoning_dropped": record.drops_reasoning() or None,
        "tokens": tokens.model_dump(mode="json") if tokens else None,
    }
    return with_origin(metadata, origin)


def read_request_context(record: Record) -> dict[str, msgspec.Raw]:
    """Return `tools` and `chat_template_kwargs` of a rollout's requests, where they are known."""
    return {name: value for name in CONTEXT_FIELDS if len(value := record.request_field(name))}


def is_rejected_side(record: Record) -> bool:
    """Return whether a rollout is the rejected side of a preference."""
    if len(record.metadata) <= 2 or PREFERENCE.encode() not in bytes(record.metadata):
        return False
    return bytes(record.metadata_fields().get(PREFERENCE, b"")) == msgspec.json.encode(REJECTED)


def with_origin(metadata: dict[str, Any], origin: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return `metadata` with the fields of `origin` that it has not; nulls are left out."""
    known = {key: value for key, value in metadata.items() if value is not None}
    return known | {key: value for key, value in (origin or {}).items() if value is not None and key not in known}


def _verifier(verdict: msgspec.Raw) -> str | None:
    if bytes(memoryview(verdict)[:1]) != b"{":
        return None
    name = _verdicts.decode(verdict).verifier
    return name if isinstance(name, str) else None


def make_media_paths(corpus: Corpus, folder: Path, further: Sequence[str] = ()) -> Callable[[int], MediaPath]:
    """Return a function that maps the index of a source to its `MediaPath`, for files written to `folder`.

    A `MediaPath` maps an image path that is relative to the source's folder to one that is relative to `folder`. URLs
    and absolute paths stay, and so does every path of a source without a local folder. A trainer opens the files that
    rows name: so a path outside the source's folder (of a source without one: `folder`) and those in `further`
    raises `OutsideImageError`.
    """
    known: dict[int, MediaPath] = {}

    def of_source(source: int) -> MediaPath:
        if source not in known:
            known[source] = _resolver(corpus.image_root(source), folder, further)
        return known[source]

    return of_source


def _resolver(root: Path | None, folder: Path, further: Sequence[str]) -> MediaPath:
    """Return the `MediaPath` of one source; see `make_media_paths`."""
    allowed = [root or folder, *map(Path, further)]

    @lru_cache(1 << 16)  # the rollouts of a problem have the same images
    def media_path(path: str) -> str:
        if _SCHEME.match(path) and path[:5].lower() != "file:":
            return path
        try:
            real_path = confined_path(path, allowed)
        except ConfinedFileError as error:
            raise OutsideImageError(str(error)) from None
        if root is None or path.startswith("/") or _SCHEME.match(path):
            return path
        inside = os.path.realpath(root / path) == str(real_path)
        return os.path.relpath(root / path if inside else real_path, folder)

    return media_path
