"""Whether two tokenizers mean the same by every token id, and how many ids both models know."""

from __future__ import annotations

import logging
from typing import Any

from rollmill.errors import InputError

_log = logging.getLogger(__name__)

_SHOWN = 5


def check_vocabularies(theta: Any, t: Any, *, names: tuple[str, str]) -> int:
    """The number of ids that the two tokenizers share: the highest id + 1.

    Raises `InputError` where a token has not the same id in both; it counts the differences and shows the first five.
    """
    one: dict[str, int] = theta.get_vocab()
    other: dict[str, int] = t.get_vocab()
    if one == other:
        return max(one.values()) + 1
    differing = {token: (one.get(token), other.get(token)) for token in {**one, **other}}
    differing = {token: ids for token, ids in differing.items() if ids[0] != ids[1]}
    first = sorted(
        differing, key=lambda token: (min(number for number in differing[token] if number is not None), token)
    )[:_SHOWN]
    shown = "; ".join(f"{token!r} is {_said(differing[token][0])} and {_said(differing[token][1])}" for token in first)
    raise InputError(
        f"the vocabularies of {names[0]} ({len(one):,} tokens) and {names[1]} ({len(other):,}) differ in "
        f"{len(differing):,} tokens: {shown}: give models whose tokenizers agree in every token's id"
    )


def common_size(tokens: int, embeddings: dict[str, int]) -> int:
    """The ids to draw from: those that the tokenizer and every model know. Says it where a model has others.

    `embeddings`: name -> the number of ids that the model gives logits for, often rounded up.
    """
    size = min([tokens, *embeddings.values()])
    others = ", ".join(f"{name} has {count:,}" for name, count in embeddings.items() if count != size)
    if others or size < tokens:
        _log.info("drawing from the first %s ids (the tokenizer has %s; %s)", f"{size:,}", f"{tokens:,}", others)
    return size


def _said(number: int | None) -> str:
    return "missing" if number is None else str(number)
