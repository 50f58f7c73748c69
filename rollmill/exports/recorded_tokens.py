"""The recorded tokens of rollouts that are exported: where rows find them, or the ids themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson

from rollmill.corpus.message import Message
from rollmill.corpus.raw_json import is_absent
from rollmill.corpus.record import Record
from rollmill.exports.contents import is_blank
from rollmill.exports.conversation import CleanConversation, is_learnt
from rollmill.exports.origins import Facts
from rollmill.exports.token_references import moved, token_location
from rollmill.exports.token_sequences import TokenSequence, join_calls
from rollmill.generation.row_digest import row_digest
from rollmill.generation.token_file import TokenFileError, TokenReader
from rollmill.records import TokenLocation

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus

NO_TOKENS = "no_tokens"
"""The reason that drops a row whose ids were asked for and are not known."""


class RecordedSequences(NamedTuple):
    """What a rollout's tokens are to be trained on."""

    sequences: list[TokenSequence]
    tokenizer: str
    """The hash of the tokenizer that the ids belong to."""


class RecordedTokens:
    """Finds the tokens of a corpus's records for a file of another folder."""

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        self._folders = [corpus.tokens_root(source) for source in range(len(corpus.sources))]
        self._folder = folder
        self._readers: dict[int, TokenReader] = {}

    def location(self, facts: Facts, record: Record, found: CleanConversation, line: bytes) -> TokenLocation | None:
        """Return where a row of the file finds the tokens of its answers; None where they are not recorded.

        Args:
            facts: The table's row.
            record: The rollout.
            found: Its conversation, as it is exported.
            line: The rollout as it stands in its file, where somebody may have changed it.
        """
        location = self._location(facts, record, found, line)
        if location is None:
            return None
        location = location.model_copy(update={"digest": None})  # that of the new row is known once it is written
        return moved(location, self._folders[facts["source"]], self._folder)

    def sequences(
        self, facts: Facts, record: Record, found: CleanConversation, line: bytes
    ) -> RecordedSequences | None:
        """Return the sequences to train on; None where not all tokens of the model's answers are known.

        Args:
            facts: The table's row.
            record: The rollout.
            found: Its conversation, as it is exported.
            line: The rollout as it stands in its file.
        """
        location = self._location(facts, record, found, line)
        if location is None or location.other_prompt:
            return None
        try:
            calls = self._reader(facts["source"]).read(location, facts["instance_id"], facts["sample_id"]).calls
        except TokenFileError:
            return None
        answers = [turn for turn in found.turns if turn.role == "assistant"][-len(calls) :]
        tokenizers = {call.source.tokenizer for call in calls}
        if len(answers) < len(calls) or not all(call.prompt for call in calls) or len(tokenizers) != 1:
            return None
        tokenizer = tokenizers.pop()
        sequences = join_calls(calls, [_is_learnt(turn) for turn in answers])
        return RecordedSequences(sequences, tokenizer) if tokenizer and sequences else None

    def _location(self, facts: Facts, record: Record, found: CleanConversation, line: bytes) -> TokenLocation | None:
        """Return where the rollout's own file has the tokens of just this text; None where it has none."""
        recorded = record.recorded_tokens()
        location = None if is_absent(recorded) else token_location(orjson.loads(bytes(recorded)))
        if location is None or found.answers is None or self._folders[facts["source"]] is None:
            return None
        try:
            reader = self._reader(facts["source"])
            digest = location.digest or reader.digest(location, facts["instance_id"], facts["sample_id"])
        except TokenFileError:
            return None
        if digest != row_digest(orjson.loads(line)):
            return None
        if found.all_answers:
            return location
        if location.calls is not None:  # of a part of a rollout: which of its answers are left is not known
            return None
        return location.model_copy(update={"calls": found.answers})

    def _reader(self, source: int) -> TokenReader:
        if source not in self._readers:
            folder = self._folders[source]
            assert folder is not None
            self._readers[source] = TokenReader(folder)
        return self._readers[source]

    def close(self) -> None:
        """Close the files that were read."""
        for reader in self._readers.values():
            reader.close()


def _is_learnt(turn: Message) -> bool:
    """Return whether a turn says or does something, and nothing marks it as not to be learnt."""
    return is_learnt(turn) and (not is_absent(turn.tool_calls) or not is_blank(turn.content))
