"""Tokenises conversations, with the loss mask of their assistant turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple

from rollmill.errors import InputError
from rollmill.exports.token_sequences import IGNORED
from rollmill.jobs.training.chat_template import ChatTemplate, RefusedError
from rollmill.jobs.training.rows import TrainingRow
from rollmill.jobs.training.turn_renderer import RenderedTurn
from rollmill.jobs.training.turns import render_turns

__all__ = ["IGNORED", "EncodedRow", "Masks", "Tokens"]

OVER_MAX_LENGTH = "over_max_length"
OVER_MODEL_LENGTH = "over_model_length"
"""Reasons to leave a row out: longer than the user wants, longer than the model takes."""
_CONTEXT_TOKENS = 16
"""Tokens of a prompt's end with which the text behind it is decoded."""


class Tokens(NamedTuple):
    """One training text, tokenised: both lists have one entry for each token."""

    input_ids: list[int]
    labels: list[int]
    """The token's id where it carries the loss, else `IGNORED`."""

    @property
    def trained(self) -> int:
        """Number of tokens that carry the loss."""
        return len(self.labels) - self.labels.count(IGNORED)


class EncodedRow(NamedTuple):
    """A row's training texts: several where a template writes earlier turns differently once others follow."""

    texts: list[Tokens]
    ends: Counter[str]
    """The end-of-turn tokens that carry the loss."""
    endless: int
    """Number of turns that are trained on without an end-of-turn token."""
    refused: list[RefusedError]
    """Reasons for which turns are left out."""


class Masks:
    """Tokenises conversations with one tokenizer. Raises `InputError` for one without chat template.

    Args:
        tokenizer: A tokenizer of transformers.
        name: The model's name in messages.
        stops: Tokens, as text, at which the model's generation ends.
    """

    def __init__(self, tokenizer: Any, name: str, stops: Collection[str] = ()) -> None:
        if not tokenizer.chat_template:
            raise InputError(f"{name} has no chat template: give --model_path an instruction-tuned model")
        self._tokenizer = tokenizer
        self._name = name
        self.stops = frozenset(stops)
        self._template = ChatTemplate(tokenizer, name, stops)
        self._newline = self._encode("\n")
        # Tokens that change nothing around them (no stripping, no normalizing): text behind one is encoded on its own.
        self._separators = frozenset(
            str(token)
            for token in tokenizer.added_tokens_decoder.values()
            if tokenizer.is_fast
            and token.special
            and not (token.lstrip or token.rstrip or token.single_word)
            and not token.normalized
        )

    def encode(self, row: TrainingRow, max_length: int, most: int | None = None) -> Tokens:
        """Return the row's training texts joined, as a pack has them. Raises as `encode_all` does."""
        texts = self.encode_all(row, max_length, most).texts
        return Tokens(
            [token for text in texts for token in text.input_ids], [label for text in texts for label in text.labels]
        )

    def encode_all(self, row: TrainingRow, max_length: int, most: int | None = None) -> EncodedRow:
        """Return the row's training texts: each turn once, behind the tokens that a server makes of its prompt.

        Turns share a text where the prompt of the next continues the tokens so far; else it begins another text. A turn
        is tokenised apart from its prompt, since a model generates whole tokens. The first token of a text never
        carries the loss: nothing predicts it. Raises `RefusedError` where nothing of the row can be trained on, or it
        is too long: more than `max_length` tokens, or than the `most` that the model itself takes.
        """
        rendered = render_turns(self._template, row)
        refused = list(rendered.refused)
        texts: list[_Text] = []
        for turn in rendered.turns:
            prompt = self._encode_prompt(turn.prompt, texts[-1] if texts else None)
            # Where a template rewrites earlier turns (drops their thoughts, say), the prompt is not the text so far.
            text = texts[-1] if texts and texts[-1].is_prefix_of(prompt) else _Text()
            generated = self._encode_behind(prompt, turn.text)
            try:
                self._check_length(len(prompt) + len(generated), max_length, most)
            except RefusedError as error:
                refused.append(error)
                continue
            text.add(prompt, generated, turn)
            text.stable = self._is_stable(turn, generated)
            if not texts or texts[-1] is not text:
                texts.append(text)
        kept = [text for text in texts if text.tokens.trained]
        if not kept:
            raise refused[0] if refused else RefusedError("nothing_to_learn", "nothing is predicted of it")
        ends = [turn.end for text in kept for turn in text.turns]
        counted = Counter(end for end in ends if end is not None)
        return EncodedRow([text.tokens for text in kept], counted, ends.count(None), refused)

    def take_ids(self, texts: list[Tokens], max_length: int, most: int | None = None) -> EncodedRow:
        """Return a row whose ids are known, without the texts that are too long.

        The first token of a text never carries the loss: nothing predicts it. Raises `RefusedError` where no text is
        left. Lengths as in `encode_all`.
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
        kept = [text for text in kept if text.trained]
        if not kept:
            raise refused[0] if refused else RefusedError("nothing_to_learn", "nothing is predicted of it")
        # Where the loss mask ends, a turn ends: with an end-of-turn token, or cut off.
        lasts = [text.labels[index] for text in kept for index in _run_ends(text.labels)]
        ends = [str(self._tokenizer.convert_ids_to_tokens(last)) for last in lasts]
        known = [end for end in ends if self._template.is_end(end)]
        return EncodedRow(kept, Counter(known), len(ends) - len(known), refused)

    def behind_prompt(self, row: TrainingRow, sampled: list[int]) -> Tokens | None:
        """Return sampled ids behind the prompt of a row's only turn; None where that prompt is not known."""
        turns = render_turns(self._template, row, allow_special_text=True).turns
        if len(turns) != 1:
            return None
        prompt = self._encode(turns[0].prompt)
        return Tokens([*prompt, *sampled], [IGNORED] * len(prompt) + sampled)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, special tokens included."""
        return self._decode(ids)

    def _check_length(self, length: int, max_length: int, most: int | None) -> None:
        if length > max_length:
            raise RefusedError(OVER_MAX_LENGTH, f"{length} tokens, more than --max_length {max_length}")
        if most is not None and length > most:
            raise RefusedError(OVER_MODEL_LENGTH, f"{length} tokens, more than the {most} that {self._name} takes")

    def _encode_prompt(self, prompt: str, before: _Text | None) -> list[int]:
        """Return the tokens of a prompt; where it continues the text `before`, only what is new is encoded.

        Tokenizers split a text at added tokens before all else, so that what follows one is encoded on its own.
        """
        if before is None or not before.stable or not prompt.startswith(before.string):
            return self._encode(prompt)
        # Encoded behind the last end token, which separates the texts, so that it is tokenised as in the complete one.
        end = before.turns[-1].end or ""
        new = self._encode(end + prompt[len(before.string) :])
        if new[:1] != before.tokens.input_ids[-1:]:
            return self._encode(prompt)
        return before.tokens.input_ids + new[1:]

    def _is_stable(self, turn: RenderedTurn, generated: list[int]) -> bool:
        """Return whether prompt and turn, encoded as one text, have the tokens that they have apart.

        Checked from the prompt's last separator on: what is before it does not change the tokens behind it.
        """
        # Encoding the whole prompt again for every turn would be quadratic in the length of a conversation.
        cut = max((turn.prompt.rfind(token) for token in self._separators), default=-1)
        if turn.end not in self._separators or cut < 0:
            return False
        opening = turn.prompt[cut:]
        return self._encode(opening + turn.text) == self._encode(opening) + generated

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _encode_behind(self, prompt: list[int], text: str) -> list[int]:
        """Return the tokens of a text behind those of its prompt.

        Some tokenizers (SentencePiece) put a space before whatever they encode, but not behind a line break. So the
        text is encoded alone and behind one; the first encoding that decodes to the text is taken.
        """
        behind_newline = self._encode("\n" + text)
        encodings = [self._encode(text)]
        if behind_newline[: len(self._newline)] == self._newline:
            encodings.append(behind_newline[len(self._newline) :])
        context = prompt[-_CONTEXT_TOKENS:]
        before = self._decode(context)
        return next((ids for ids in encodings if self._decode(context + ids) == before + text), encodings[-1])

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)) if ids else ""


def _run_ends(labels: list[int]) -> list[int]:
    """Return the index of the last token of each run of tokens that carry the loss."""
    return [
        index
        for index, label in enumerate(labels)
        if label != IGNORED and (index + 1 == len(labels) or labels[index + 1] == IGNORED)
    ]


class _Text:
    """A training text that grows turn by turn."""

    def __init__(self) -> None:
        self.tokens = Tokens([], [])
        self.turns: list[RenderedTurn] = []
        self.stable = False
        """The text, encoded as a whole, has the same tokens."""

    @property
    def string(self) -> str:
        """The text: the last prompt, and the text generated behind it."""
        return self.turns[-1].prompt + self.turns[-1].text

    def is_prefix_of(self, prompt: list[int]) -> bool:
        """Return whether a prompt begins with the tokens of this text."""
        return prompt[: len(self.tokens.input_ids)] == self.tokens.input_ids

    def add(self, prompt: list[int], generated: list[int], turn: RenderedTurn) -> None:
        """Add what of the prompt is new, masked, and behind it the turn, with the loss."""
        # Lists are extended in place: a text of n turns is not copied n times.
        ids, labels = self.tokens
        new = prompt[len(ids) :]
        ids.extend([*new, *generated])
        labels.extend([IGNORED] * len(new) + generated)
        labels[0] = IGNORED
        self.turns.append(turn)
