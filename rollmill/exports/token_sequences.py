"""Training sequences from recorded tokens: prompts as context, sampled tokens as labels."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from rollmill.inference.sampled_tokens import SampledTokens

IGNORED = -100
"""The label of a token without loss: PyTorch's `ignore_index`, which TRL and transformers use too."""


class TokenSequence(NamedTuple):
    """One sequence to train on."""

    input_ids: list[int]
    labels: list[int]
    """As many as `input_ids`: the id itself where the model sampled it and is trained on it, `IGNORED` elsewhere."""
    calls: list[int]
    """Indexes of the calls that it trains on."""


def join_calls(calls: Sequence[SampledTokens], trained: Sequence[bool] | None = None) -> list[TokenSequence]:
    """Return the fewest sequences that have every trained call after exactly the prompt that it was sampled with.

    A call continues the sequence of the call before if its prompt begins with all of that. If it does not (the template
    drops earlier reasoning, the agent shortened its history, another agent takes part), a new sequence begins. A
    sequence without any label is left out.

    Args:
        calls: the calls of one rollout, in order.
        trained: for each call, whether to train on its sampled tokens; None: on all.
    """
    sequences = list[TokenSequence]()
    written: array[int] | None = None
    for index, call in enumerate(calls):
        is_trained = (trained is None or trained[index]) and len(call.ids) > 0
        # A prompt that does not begin with the sequence so far was sampled in another context.
        if written is None or call.prompt[: len(written)] != written:
            sequences.append(TokenSequence([], [], []))
            written = array("I")
        input_ids, labels, trained_calls = sequences[-1]
        context = call.prompt[len(written) :]
        input_ids += [*context, *call.ids]
        labels += [IGNORED] * len(context)
        labels += call.ids if is_trained else [IGNORED] * len(call.ids)
        if is_trained:
            trained_calls.append(index)
        written = call.sequence
    return [sequence for sequence in map(_without_end, sequences) if sequence.calls]


def _without_end(sequence: TokenSequence) -> TokenSequence:
    """Return the sequence up to its last label: the tokens after it cost time and have no loss."""
    end = max((position for position, label in enumerate(sequence.labels, start=1) if label != IGNORED), default=0)
    return TokenSequence(sequence.input_ids[:end], sequence.labels[:end], sequence.calls)
