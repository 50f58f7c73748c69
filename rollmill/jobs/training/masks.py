"""Tokens of a conversation and the labels that its assistant turns are learnt by."""

from __future__ import annotations

from typing import Any, NamedTuple

from rollmill.errors import InputError
from rollmill.jobs.training.rows import TrainingRow
from rollmill.jobs.training.turns import ChatTemplate, RefusedError

IGNORED = -100
"""The label of a token that has no part in the loss (PyTorch's `ignore_index`)."""


OVER_MAX_LENGTH = "over_max_length"
OVER_MODEL_LENGTH = "over_model_length"
"""Reasons to leave a row out: what the user wants, what the model can take."""


class Tokens(NamedTuple):
    """One row, tokenised: both lists have one entry for each token."""

    input_ids: list[int]
    labels: list[int]
    """The token where it is learnt, else `IGNORED`."""

    @property
    def learnt(self) -> int:
        """How many tokens have a part in the loss."""
        return sum(label != IGNORED for label in self.labels)


class Masks:
    """Tokenises conversations with one tokenizer. Raises `InputError` for one without chat template or offsets."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        if not tokenizer.chat_template:
            raise InputError(f"{name} has no chat template: give --model_path an instruction-tuned model")
        if not tokenizer.is_fast:
            raise InputError(f"the tokenizer of {name} cannot say where its tokens stand: it needs a tokenizer.json")
        self._tokenizer = tokenizer
        self._name = name
        self._template = ChatTemplate(tokenizer, name)

    def encode(self, row: TrainingRow, max_length: int, most: int | None = None) -> Tokens:
        """The row's tokens, all of them. Raises `RefusedError` for a row that cannot be learnt or is too long.

        `most` is what the model itself can take.

        A token is learnt when any of its characters is in an assistant turn. The first token of a row never is: nothing
        predicts it.
        """
        written = self._template.write(row)
        encoded = self._tokenizer(written.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids: list[int] = encoded["input_ids"]
        if len(ids) > max_length:
            raise RefusedError(OVER_MAX_LENGTH, f"{len(ids)} tokens, more than --max_length {max_length}")
        if most is not None and len(ids) > most:
            raise RefusedError(OVER_MODEL_LENGTH, f"{len(ids)} tokens, more than the {most} that {self._name} takes")
        labels = [IGNORED] * len(ids)
        turns = iter(written.turns)
        turn = next(turns, None)
        for place, (begin, end) in enumerate(encoded["offset_mapping"]):
            while turn and begin >= turn[1]:
                turn = next(turns, None)
            if turn and begin < end and end > turn[0]:
                labels[place] = ids[place]
        if labels:
            labels[0] = IGNORED
        tokens = Tokens(ids, labels)
        if not tokens.learnt:
            raise RefusedError("nothing_to_learn", "the chat template leaves nothing of the assistant's turns")
        return tokens
