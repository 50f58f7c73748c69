"""Tokens of a conversation and the labels that its assistant turns are learnt by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple

from rollmill.errors import InputError
from rollmill.exports.token_sequences import IGNORED
from rollmill.jobs.training.rows import TrainingRow
from rollmill.jobs.training.turns import ChatTemplate, RefusedError, WrittenTurn

__all__ = ["IGNORED", "EncodedRow", "Masks", "Tokens"]

OVER_MAX_LENGTH = "over_max_length"
OVER_MODEL_LENGTH = "over_model_length"
"""Reasons to leave a row out: what the user wants, what the model can take."""
_TAIL = 16
"""Tokens of a prompt that what follows it is decoded with."""


class Tokens(NamedTuple):
    """One training text, tokenised: both lists have one entry for each token."""

    input_ids: list[int]
    labels: list[int]
    """The token where it is learnt, else `IGNORED`."""

    @property
    def learnt(self) -> int:
        """How many tokens have a part in the loss."""
        return sum(label != IGNORED for label in self.labels)


class EncodedRow(NamedTuple):
    """A row's training texts: several where a template writes earlier turns in another way once others follow."""

    texts: list[Tokens]
    ends: Counter[str]
    """The end-of-turn tokens that are learnt."""
    endless: int
    """Turns that are learnt without an end."""
    refused: list[RefusedError]
    """Why turns are left out."""


class Masks:
    """Tokenises conversations with one tokenizer. Raises `InputError` for one without chat template.

    Args:
        tokenizer: A tokenizer of transformers.
        name: What messages call the model.
        stops: Tokens, as text, that the model's generation ends at.
    """

    def __init__(self, tokenizer: Any, name: str, stops: Collection[str] = ()) -> None:
        if not tokenizer.chat_template:
            raise InputError(f"{name} has no chat template: give --model_path an instruction-tuned model")
        self._tokenizer = tokenizer
        self._name = name
        self.stops = frozenset(stops)
        self._template = ChatTemplate(tokenizer, name, stops)
        self._newline = self._encode("\n")
        self._separators = frozenset(
            str(token)
            for token in tokenizer.added_tokens_decoder.values()
            if tokenizer.is_fast
            and token.special
            and not (token.lstrip or token.rstrip or token.single_word)
            and not token.normalized
        )
        """Tokens that split a text into parts that are encoded each on its own."""

    def encode(self, row: TrainingRow, max_length: int, most: int | None = None) -> Tokens:
        """Return the row's training texts one behind the other, as a pack has them. Raises as `encode_all` does."""
        texts = self.encode_all(row, max_length, most).texts
        return Tokens(
            [token for text in texts for token in text.input_ids], [label for text in texts for label in text.labels]
        )

    def encode_all(self, row: TrainingRow, max_length: int, most: int | None = None) -> EncodedRow:
        """Return the row's training texts: each turn once, behind the tokens that a server makes of its prompt.

        Turns share a text where the prompt of the next goes on from the tokens so far; else it begins another. A turn
        is tokenised apart from its prompt, since a model writes whole tokens. `most` is what the model itself can take.
        The first token of a text is never learnt: nothing predicts it. Raises `RefusedError` where nothing of the row
        can be learnt, or it is too long.
        """
        found = self._template.turns(row)
        refused = list(found.refused)
        texts: list[_Text] = []
        for turn in found.turns:
            prompt = self._encode_prompt(turn.prompt, texts[-1] if texts else None)
            text = texts[-1] if texts and texts[-1].goes_on(prompt) else _Text()
            written = self._encode_behind(prompt, turn.text)
            try:
                self._check_length(len(prompt) + len(written), max_length, most)
            except RefusedError as error:
                refused.append(error)
                continue
            text.add(prompt, written, turn)
            text.stable = self._is_stable(turn, written)
            if not texts or texts[-1] is not text:
                texts.append(text)
        made = [text for text in texts if text.tokens.learnt]
        if not made:
            raise refused[0] if refused else RefusedError("nothing_to_learn", "nothing is predicted of it")
        ends = [turn.end for text in made for turn in text.turns]
        counted = Counter(end for end in ends if end is not None)
        return EncodedRow([text.tokens for text in made], counted, ends.count(None), refused)

    def take_ids(self, texts: list[Tokens], max_length: int, most: int | None = None) -> EncodedRow:
        """Return a row whose ids are known, of which those texts are left out that are too long.

        The first token of a text is never learnt: nothing predicts it. Raises `RefusedError` where nothing is left.
        """
        refused: list[RefusedError] = []
        kept: list[Tokens] = []
        for text in texts:
            try:
                self._check_length(len(text.input_ids), max_length, most)
            except RefusedError as error:
                refused.append(error)
                continue
            kept.append(Tokens(text.input_ids, [IGNORED, *text.labels[1:]]))
        kept = [text for text in kept if text.learnt]
        if not kept:
            raise refused[0] if refused else RefusedError("nothing_to_learn", "nothing is predicted of it")
        lasts = [text.labels[place] for text in kept for place in _ends_of_runs(text.labels)]
        ends = [str(self._tokenizer.convert_ids_to_tokens(last)) for last in lasts]
        known = [end for end in ends if self._template.is_end(end)]
        return EncodedRow(kept, Counter(known), len(ends) - len(known), refused)

    def behind_prompt(self, row: TrainingRow, written: list[int]) -> Tokens | None:
        """Return sampled ids behind the prompt of a row's only turn; None where that prompt is not known."""
        turns = self._template.turns(row, text_is_learnt=False).turns
        if len(turns) != 1:
            return None
        prompt = self._encode(turns[0].prompt)
        return Tokens([*prompt, *written], [IGNORED] * len(prompt) + written)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, special tokens included."""
        return self._decode(ids)

    def _check_length(self, length: int, max_length: int, most: int | None) -> None:
        if length > max_length:
            raise RefusedError(OVER_MAX_LENGTH, f"{length} tokens, more than --max_length {max_length}")
        if most is not None and length > most:
            raise RefusedError(OVER_MODEL_LENGTH, f"{length} tokens, more than the {most} that {self._name} takes")

    def _encode_prompt(self, prompt: str, before: _Text | None) -> list[int]:
        """Return the tokens of a prompt, of which only what is new is encoded where it goes on from a text.

        Added tokens are cut out of a text before all else, so that what follows one is encoded on its own.
        """
        if before is None or not before.stable or not prompt.startswith(before.string):
            return self._encode(prompt)
        end = before.turns[-1].end or ""
        new = self._encode(end + prompt[len(before.string) :])
        if new[:1] != before.tokens.input_ids[-1:]:
            return self._encode(prompt)
        return before.tokens.input_ids + new[1:]

    def _is_stable(self, turn: WrittenTurn, written: list[int]) -> bool:
        """Return whether prompt and turn, encoded as one text, have the tokens of both."""
        cut = max((turn.prompt.rfind(token) for token in self._separators), default=-1)
        if turn.end not in self._separators or cut < 0:
            return False
        opening = turn.prompt[cut:]
        return self._encode(opening + turn.text) == self._encode(opening) + written

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _encode_behind(self, prompt: list[int], text: str) -> list[int]:
        """Return the tokens of a text behind those of its prompt.

        Some tokenizers put a space before whatever they encode; behind a line break they do not. The first way whose
        tokens read as the text is taken.
        """
        behind_newline = self._encode("\n" + text)
        ways = [self._encode(text)]
        if behind_newline[: len(self._newline)] == self._newline:
            ways.append(behind_newline[len(self._newline) :])
        context = prompt[-_TAIL:]
        before = self._decode(context)
        return next((way for way in ways if self._decode(context + way) == before + text), ways[-1])

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)) if ids else ""


def _ends_of_runs(labels: list[int]) -> list[int]:
    """Return the places at which what is learnt ends."""
    return [
        place
        for place, label in enumerate(labels)
        if label != IGNORED and (place + 1 == len(labels) or labels[place + 1] == IGNORED)
    ]


class _Text:
    """A training text as it grows, turn by turn."""

    def __init__(self) -> None:
        self.tokens = Tokens([], [])
        self.turns: list[WrittenTurn] = []
        self.stable = False
        """Whether its tokens are those of its text, encoded as one."""

    @property
    def string(self) -> str:
        """The text: what the model was shown last, and what it wrote."""
        return self.turns[-1].prompt + self.turns[-1].text

    def goes_on(self, prompt: list[int]) -> bool:
        """Return whether a prompt begins with the text."""
        return prompt[: len(self.tokens.input_ids)] == self.tokens.input_ids

    def add(self, prompt: list[int], written: list[int], turn: WrittenTurn) -> None:
        """Add what of the prompt is new, and the turn behind it, learnt."""
        ids, labels = self.tokens
        new = prompt[len(ids) :]
        ids.extend([*new, *written])
        labels.extend([IGNORED] * len(new) + written)
        labels[0] = IGNORED
        self.turns.append(turn)
