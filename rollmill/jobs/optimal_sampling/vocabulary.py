"""Checks that two tokenizers have a common vocabulary, and finds the ids that both models have."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from typing import Any, NamedTuple

from rollmill.errors import InputError

_log = logging.getLogger(__name__)

_SHOWN = 5
_UNUSED = re.compile(
    r"[<\[]\W*_*(?:(?:finetune_)?(?:left_|right_)?pad(?:ding)?(?:_token)?(?:_id)?"
    r"|unused(?:_token)?|reserved(?:_special)?(?:_token)?|placeholder(?:_token)?|dummy(?:_token)?|extra)"
    r"[_\W]*\d*\W*[>\]]",
    re.IGNORECASE,
)


class Vocabulary(NamedTuple):
    """The token ids that two tokenizers share: all below `size`, without `excluded`."""

    size: int
    excluded: tuple[int, ...] = ()
    """Ids of padding or reserved tokens that differ between the two."""


def check_vocabularies(theta: Any, t: Any, *, names: tuple[str, str], end_tokens: Collection[int] = ()) -> Vocabulary:
    """Return the ids that the two tokenizers share; they may differ only in padding and reserved tokens.

    Models do not generate these, so that q over the other ids is exact. Raises `InputError` where any other token has
    different ids; it counts the differences and shows the first five.

    Args:
        theta: Tokenizer of the policy.
        t: Tokenizer of the target model.
        names: Names of the models, for messages.
        end_tokens: Ids that end an answer: used tokens, even if their names look reserved.
    """
    ids_theta: dict[str, int] = theta.get_vocab()
    ids_t: dict[str, int] = t.get_vocab()
    if ids_theta == ids_t:
        return Vocabulary(max(ids_theta.values()) + 1)
    differing = {token: (ids_theta.get(token), ids_t.get(token)) for token in {**ids_theta, **ids_t}}
    differing = {token: ids for token, ids in differing.items() if ids[0] != ids[1]}
    used = {token: ids for token, ids in differing.items() if not _is_unused(token, ids, end_tokens)}
    if not used:
        excluded = {number for ids in differing.values() for number in ids if number is not None}
        size = max(set(ids_theta.values()) - excluded, default=-1) + 1
        _log.info("not drawing %s, which pad or are reserved: %s", f"{len(excluded):,} ids", _shown(differing))
        return Vocabulary(size, tuple(sorted(number for number in excluded if number < size)))
    raise InputError(
        f"the vocabularies of {names[0]} ({len(ids_theta):,} tokens) and {names[1]} ({len(ids_t):,}) differ in "
        f"{len(used):,} tokens: {_shown(used)}: give models whose tokenizers agree in every token's id"
    )


def _is_unused(token: str, ids: tuple[int | None, int | None], end_tokens: Collection[int]) -> bool:
    return _UNUSED.fullmatch(token) is not None and not any(number in end_tokens for number in ids)


def _shown(differing: dict[str, tuple[int | None, int | None]]) -> str:
    def order(token: str) -> tuple[int, str]:
        return min(number for number in differing[token] if number is not None), token

    first = sorted(differing, key=order)[:_SHOWN]
    return "; ".join(
        f"{token!r} is {_format_id(differing[token][0])} and {_format_id(differing[token][1])}" for token in first
    )


def common_size(tokens: int, embeddings: dict[str, int]) -> int:
    """Return the number of ids to draw from: those that the tokenizer and all models have. Logs where some have more.

    `tokens` is the tokenizer's number of ids; `embeddings` the number of logits by model, which is often rounded up.
    """
    size = min([tokens, *embeddings.values()])
    others = ", ".join(f"{name} has {count:,}" for name, count in embeddings.items() if count != size)
    if others or size < tokens:
        _log.info("drawing from the first %s ids (the tokenizer has %s; %s)", f"{size:,}", f"{tokens:,}", others)
    return size


def _format_id(number: int | None) -> str:
    return "missing" if number is None else str(number)
