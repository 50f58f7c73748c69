"""Rows that are trained on the token ids that the model sampled, not on their text encoded again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollmill.exports.token_sequences import join_calls
from rollmill.files.remote import is_remote
from rollmill.generation.token_file import TokenFileError, TokenReader
from rollmill.inference.sampled_tokens import SampledTokens
from rollmill.jobs.training.masks import EncodedRow, Masks, Tokens
from rollmill.jobs.training.rows import ASSISTANT, RecordedIds, TrainingRow, has_answer
from rollmill.records import TokenLocation

NOT_RECORDED = "not_recorded"
NOT_FOUND = "tokens_not_found"
OTHER_TOKENIZER = "other_tokenizer"
OTHER_TEXT = "tokens_of_another_text"
"""Reasons to encode a row's text in place of using recorded ids."""


class RecordedRows:
    """Reads the recorded ids of the rows of one file.

    Args:
        path: The file; rows name files of tokens relative to its folder.
        masks: The tokenizer of the model that is trained.
        tokenizer: Hash of that tokenizer; None where it has none, so that no recorded ids are used.
    """

    def __init__(self, path: str, masks: Masks, tokenizer: str | None) -> None:
        self._masks = masks
        self._tokenizer = tokenizer
        self._reader = None if is_remote(path) else TokenReader(Path(path).resolve().parent)
        self.used = 0
        """Number of rows that are trained on recorded ids."""
        self.encoded_anew: Counter[str] = Counter()
        """Number of the other rows, by reason."""

    def encode(self, row: TrainingRow, max_length: int, most: int | None) -> EncodedRow | None:
        """Return a row with its recorded ids; None where its text has to be encoded, which is counted.

        Raises `RefusedError` where it is too long: more than `max_length` tokens, or than the `most` that the model
        takes.
        """
        texts = self._texts(row)
        if isinstance(texts, str):
            self.encoded_anew[texts] += 1
            return None
        self.used += 1
        return self._masks.take_ids(texts, max_length, most)

    def _texts(self, row: TrainingRow) -> list[Tokens] | str:
        """Return the row's training texts by its recorded ids, or the reason why these are not used."""
        if row.recorded is None:
            return NOT_RECORDED
        if not row.ids_match_text:
            return OTHER_TEXT
        if isinstance(row.recorded, RecordedIds):
            same = self._tokenizer is not None and row.recorded.tokenizer == self._tokenizer
            return [Tokens(row.recorded.input_ids, row.recorded.labels)] if same else OTHER_TOKENIZER
        calls = self._calls(row, row.recorded)
        if calls is None:
            return NOT_FOUND
        if self._tokenizer is None or {call.source.tokenizer for call in calls} != {self._tokenizer}:
            return OTHER_TOKENIZER
        # The recorded calls are the last ones: earlier assistant turns may be few-shot examples.
        answers = [number for number, message in enumerate(row.messages) if message["role"] == ASSISTANT][-len(calls) :]
        if len(answers) < len(calls) or not self._decode_to_answers(row, answers, calls):
            return OTHER_TEXT
        if row.recorded.other_prompt:
            # The row's messages are not those that the model was asked with: only what it generated is kept.
            text = self._masks.behind_prompt(row, list(calls[0].ids)) if len(calls) == 1 else None
            return [text] if text else OTHER_TEXT
        trained = [number in row.trained and has_answer(row.messages[number]) for number in answers]
        return [Tokens(sequence.input_ids, sequence.labels) for sequence in join_calls(calls, trained)]

    def _calls(self, row: TrainingRow, location: TokenLocation) -> Sequence[SampledTokens] | None:
        if self._reader is None:
            return None
        try:
            calls = self._reader.read(location, row.problem, row.sample_id).calls
        except TokenFileError:
            return None
        return calls if calls and all(call.prompt for call in calls) else None

    def _decode_to_answers(self, row: TrainingRow, answers: list[int], calls: Sequence[SampledTokens]) -> bool:
        """Return whether the ids of `calls` decode to the messages at the indices `answers`.

        They do not where the server was started with another tokenizer than its model's.
        """
        for number, call in zip(answers, calls, strict=True):
            # Servers strip blanks at the ends of a text, and bytes of a character that was cut off.
            message, written = row.messages[number], self._masks.decode(list(call.ids))
            names = [str(tool_call["function"]["name"]) for tool_call in message.get("tool_calls") or ()]
            if not all(text in written for text in (message["content"].strip().rstrip("\ufffd"), *names)):
                return False
        return True

    def close(self) -> None:
        """Close the files that were read."""
        if self._reader is not None:
            self._reader.close()


def recorded_line(recorded: int, encoded_anew: Mapping[str, int]) -> str:
    """Return how many rows are trained on recorded ids, in one line; an empty text where no row has recorded ids."""
    if not recorded and set(encoded_anew) <= {NOT_RECORDED}:
        return ""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in encoded_anew.items())
    others = f"; the text of the others is encoded again, to ids that may differ ({reasons})" if reasons else ""
    return f"{recorded:,} rows are trained on the ids that were sampled{others}"
