"""Training sequences from recorded tokens: what the model was given as context, what it sampled as labels."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from rollmill.inference.sampled_tokens import SampledTokens

IGNORED = -100
"""The label of a token that is not learnt: PyTorch's `ignore_index`, which TRL and transformers use too."""


class TokenSequence(NamedTuple):
    """One sequence to train on."""

    input_ids: list[int]
    labels: list[int]
    """As many as `input_ids`: the id itself where the model sampled it and is to learn it, `IGNORED` elsewhere."""
    calls: list[int]
    """Which calls it learns, by index."""


def join_calls(calls: Sequence[SampledTokens], learnt: Sequence[bool] | None = None) -> list[TokenSequence]:
    """Return the fewest sequences that hold every learnt call behind exactly the prompt that it was sampled behind.

    A call goes on in the sequence of the call before where its prompt begins with all of it. Where it does not (the
    template drops earlier thoughts, the agent shortened its history, another agent speaks), a sequence of its own
    begins. A sequence in which nothing is learnt is left out.

    Args:
        calls: The calls of one rollout, in order.
        learnt: Of each call, whether the model is to learn what it sampled; None for all.
    """
    sequences = list[TokenSequence]()
    written: array[int] | None = None
    for index, call in enumerate(calls):
        is_learnt = (learnt is None or learnt[index]) and len(call.ids) > 0
        if written is None or call.prompt[: len(written)] != written:
            sequences.append(TokenSequence([], [], []))
            written = array("I")
        input_ids, labels, learnt_calls = sequences[-1]
        context = call.prompt[len(written) :]
        input_ids += [*context, *call.ids]
        labels += [IGNORED] * len(context)
        labels += call.ids if is_learnt else [IGNORED] * len(call.ids)
        learnt_calls += [index] * is_learnt
        written = call.sequence
    return [sequence for sequence in map(_without_end, sequences) if sequence.calls]


def _without_end(sequence: TokenSequence) -> TokenSequence:
    """Return the sequence up to its last learnt token: what follows costs time and teaches nothing."""
    end = max((place for place, label in enumerate(sequence.labels, start=1) if label != IGNORED), default=0)
    return TokenSequence(sequence.input_ids[:end], sequence.labels[:end], sequence.calls)
