"""Fields by which producers exclude a turn or a row from training: masks, weights, and flags of many names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from rollmill.corpus.message import RecordedMessage
from rollmill.corpus.raw_json import NOTHING, decode, is_false, is_true, raw_fields_decoder

MARKS = (
    "weight", "train", "training", "trainable", "is_trainable", "is_train", "loss_mask",
    "masked", "is_masked", "should_train", "do_not_train", "exclude_from_training",
)  # fmt: skip
"""Names of such fields in rows, in messages and in the metadata of both."""
_TURN_MARKS = (
    *MARKS, "train_on_turn", "loss", "loss_weight", "ignore", "skip", "compute_loss", "calculate_loss", "loss_scale",
)  # fmt: skip
"""Names in messages; in a row, `loss` is a measurement, and `skip` may concern something else than training."""
_EXCLUDES_IF_TRUE = frozenset({"masked", "is_masked", "do_not_train", "exclude_from_training", "ignore", "skip"})
"""Marks that exclude a turn by being true; all others exclude it by being false, 0 or less."""
_get_marks, _get_turn_marks = attrgetter(*MARKS), attrgetter(*_TURN_MARKS)
_NO_MARKS, _NO_TURN_MARKS = (NOTHING,) * len(MARKS), (NOTHING,) * len(_TURN_MARKS)
_MARK_NAME = re.compile(rb"train|weight|mask")
"""A part of every name in `MARKS`: objects without it are not decoded."""


def has_mark(row: Any) -> bool:
    """Return whether a row's own fields exclude it from training, under any of the names in `MARKS`."""
    values = _get_marks(row)
    return values != _NO_MARKS and _is_excluded(dict(zip(MARKS, values, strict=True)))


def metadata_has_mark(metadata: msgspec.Raw) -> bool:
    """Return whether an object, such as `metadata`, excludes its row or message from training."""
    text = bytes(metadata)
    return text[:1] == b"{" and _MARK_NAME.search(text) is not None and _is_excluded(raw_fields_decoder.decode(text))


def is_marked(turn: RecordedMessage) -> bool:
    """Return whether a message is excluded from training, under any name that producers have for it."""
    values = _get_turn_marks(turn)
    if values != _NO_TURN_MARKS and _is_excluded(dict(zip(_TURN_MARKS, values, strict=True)), _TURN_MARKS):
        return True
    # `mask: 0` is a loss mask, `mask: true` tells that the turn is masked: both exclude it.
    mask = bytes(turn.mask).lower()
    if mask == b"true" or (mask[:1] in (b"0", b"[") and is_false(turn.mask)):
        return True
    details = decode(turn.train_detail) if len(turn.train_detail) else None
    return isinstance(details, list) and any(isinstance(each, dict) and each.get("train") is False for each in details)


def _is_excluded(fields: Mapping[str, msgspec.Raw], names: Sequence[str] = MARKS) -> bool:
    return any(
        is_true(value) if name in _EXCLUDES_IF_TRUE else is_false(value)
        for name in names
        if (value := fields.get(name)) is not None
    )
