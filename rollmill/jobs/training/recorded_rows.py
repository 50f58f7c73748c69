"""Rows that are trained on the very ids that the model sampled, not on their text encoded anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollmill.exports.token_sequences import join_calls
from rollmill.files.remote import is_remote
from rollmill.generation.token_file import TokenFileError, TokenReader
from rollmill.inference.sampled_tokens import SampledTokens
from rollmill.jobs.training.masks import EncodedRow, Masks, Tokens
from rollmill.jobs.training.rows import ASSISTANT, RecordedIds, TrainingRow, says_something
from rollmill.records import TokenLocation

NOT_RECORDED = "not_recorded"
NOT_FOUND = "tokens_not_found"
OTHER_TOKENIZER = "other_tokenizer"
OTHER_TEXT = "tokens_of_another_text"
"""Why a row's text is encoded anew."""


class RecordedRows:
    """Finds the recorded ids of the rows of one file.

    Args:
        path: The file; rows name files of tokens relative to its folder.
        masks: Of the model that is trained.
        tokenizer: The hash of its tokenizer; None where that has none.
    """

    def __init__(self, path: str, masks: Masks, tokenizer: str | None) -> None:
        self._masks = masks
        self._tokenizer = tokenizer
        self._reader = None if is_remote(path) else TokenReader(Path(path).resolve().parent)
        self.used = 0
        """Rows that are trained on recorded ids."""
        self.encoded_anew: Counter[str] = Counter()
        """Other rows, by why not."""

    def encode(self, row: TrainingRow, max_length: int, most: int | None) -> EncodedRow | None:
        """Return a row by its recorded ids; None, counted, where its text is to be encoded.

        Raises `RefusedError` where it is too long.

        Args:
            row: The row.
            max_length: Most tokens of a text.
            most: Most tokens that the model takes.
        """
        texts = self._texts(row)
        if isinstance(texts, str):
            self.encoded_anew[texts] += 1
            return None
        self.used += 1
        return self._masks.take_ids(texts, max_length, most)

    def _texts(self, row: TrainingRow) -> list[Tokens] | str:
        if row.recorded is None:
            return NOT_RECORDED
        if not row.of_its_text:
            return OTHER_TEXT
        if isinstance(row.recorded, RecordedIds):
            same = self._tokenizer is not None and row.recorded.tokenizer == self._tokenizer
            return [Tokens(row.recorded.input_ids, row.recorded.labels)] if same else OTHER_TOKENIZER
        calls = self._calls(row, row.recorded)
        if calls is None:
            return NOT_FOUND
        if self._tokenizer is None or {call.source.tokenizer for call in calls} != {self._tokenizer}:
            return OTHER_TOKENIZER
        answers = [number for number, message in enumerate(row.messages) if message["role"] == ASSISTANT][-len(calls) :]
        if len(answers) < len(calls) or not self._spell(row, answers, calls):
            return OTHER_TEXT
        if row.recorded.other_prompt:
            text = self._masks.behind_prompt(row, list(calls[0].ids)) if len(calls) == 1 else None
            return [text] if text else OTHER_TEXT
        learnt = [number in row.learnt and says_something(row.messages[number]) for number in answers]
        return [Tokens(sequence.input_ids, sequence.labels) for sequence in join_calls(calls, learnt)]

    def _calls(self, row: TrainingRow, location: TokenLocation) -> Sequence[SampledTokens] | None:
        if self._reader is None:
            return None
        try:
            calls = self._reader.read(location, row.problem, row.sample_id).calls
        except TokenFileError:
            return None
        return calls if calls and all(call.prompt for call in calls) else None

    def _spell(self, row: TrainingRow, answers: list[int], calls: Sequence[SampledTokens]) -> bool:
        """Tell whether ids spell the answers here: a server may be started with another tokenizer than its model's."""
        for number, call in zip(answers, calls, strict=True):
            # What a server leaves out of a text: bytes of a character that was cut off, blanks at its ends.
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
    """Return the line that says by which ids rows are trained; nothing where no row has recorded ones."""
    if not recorded and set(encoded_anew) <= {NOT_RECORDED}:
        return ""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in encoded_anew.items())
    others = f"; the text of the others is encoded anew, to ids that may differ ({reasons})" if reasons else ""
    return f"{recorded:,} rows are trained on the ids that were sampled{others}"
