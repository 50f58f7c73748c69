"""Recorded tokens of exported rollouts: their location for the rows of a file, or the ids themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson

from rollmill.corpus.message import Message
from rollmill.corpus.raw_json import is_absent
from rollmill.corpus.record import Record
from rollmill.exports.contents import is_blank
from rollmill.exports.conversation import CleanConversation, is_trained_on
from rollmill.exports.origins import Facts
from rollmill.exports.token_references import relocate, token_location
from rollmill.exports.token_sequences import TokenSequence, join_calls
from rollmill.generation.row_digest import row_digest
from rollmill.generation.token_file import TokenFileError, TokenReader
from rollmill.records import TokenLocation

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus

NO_TOKENS = "no_tokens"
"""The reason that drops a row without recorded tokens, where ids are exported."""


class RecordedSequences(NamedTuple):
    """The token sequences of a rollout to train on."""

    sequences: list[TokenSequence]
    tokenizer: str
    """Hash of the tokenizer that the ids belong to."""


class RecordedTokens:
    """Finds the recorded tokens of a corpus's rollouts, for a file in another folder.

    Args:
        corpus: the rollouts.
        folder: that of the written file.
    """

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        self._folders = [corpus.tokens_root(source) for source in range(len(corpus.sources))]
        self._folder = folder
        self._readers: dict[int, TokenReader] = {}

    def location(
        self, facts: Facts, record: Record, conversation: CleanConversation, line: bytes
    ) -> TokenLocation | None:
        """Return the location of the tokens of a row's answers, relative to the written file; None where not recorded.

        Args:
            facts: the table's row.
            record: the rollout.
            conversation: its messages, as they are exported.
            line: the rollout's line in its file, which a user may have edited.
        """
        location = self._location(facts, record, conversation, line)
        if location is None:
            return None
        # The digest of the new row is computed when it is written.
        location = location.model_copy(update={"digest": None})
        return relocate(location, self._folders[facts["source"]], self._folder)

    def sequences(
        self, facts: Facts, record: Record, conversation: CleanConversation, line: bytes
    ) -> RecordedSequences | None:
        """Return the sequences to train on; None where not all tokens of the model's answers are known.

        Args:
            facts: the table's row.
            record: the rollout.
            conversation: its messages, as they are exported.
            line: the rollout's line in its file, which a user may have edited.
        """
        location = self._location(facts, record, conversation, line)
        if location is None or location.other_prompt:
            return None
        try:
            calls = self._reader(facts["source"]).read(location, facts["instance_id"], facts["sample_id"]).calls
        except TokenFileError:
            return None
        answers = [turn for turn in conversation.turns if turn.role == "assistant"][-len(calls) :]
        tokenizers = {call.source.tokenizer for call in calls}
        if len(answers) < len(calls) or not all(call.prompt for call in calls) or len(tokenizers) != 1:
            return None
        tokenizer = tokenizers.pop()
        sequences = join_calls(calls, [_is_trained_on(turn) for turn in answers])
        return RecordedSequences(sequences, tokenizer) if tokenizer and sequences else None

    def _location(
        self, facts: Facts, record: Record, conversation: CleanConversation, line: bytes
    ) -> TokenLocation | None:
        """Return the location of the tokens of exactly this text in the rollout's own file; None where there is none.

        Args:
            facts: the table's row.
            record: the rollout.
            conversation: its messages, as they are exported.
            line: the rollout's line in its file, which a user may have edited.
        """
        recorded = record.recorded_tokens()
        location = None if is_absent(recorded) else token_location(orjson.loads(bytes(recorded)))
        if location is None or conversation.answers is None or self._folders[facts["source"]] is None:
            return None
        try:
            reader = self._reader(facts["source"])
            digest = location.digest or reader.digest(location, facts["instance_id"], facts["sample_id"])
        except TokenFileError:
            return None
        # Edited since: the tokens are those of another text.
        if digest != row_digest(orjson.loads(line)):
            return None
        if conversation.all_answers:
            return location
        if location.calls is not None:  # a part of a rollout: its remaining answers cannot be mapped to calls
            return None
        return location.model_copy(update={"calls": conversation.answers})

    def _reader(self, source: int) -> TokenReader:
        """Return the reader of a source's token files, opened once."""
        if source not in self._readers:
            folder = self._folders[source]
            assert folder is not None
            self._readers[source] = TokenReader(folder)
        return self._readers[source]

    def close(self) -> None:
        """Close the token files."""
        for reader in self._readers.values():
            reader.close()


def _is_trained_on(turn: Message) -> bool:
    """Return whether a turn has text or calls, and is not excluded from training."""
    return is_trained_on(turn) and (not is_absent(turn.tool_calls) or not is_blank(turn.content))
