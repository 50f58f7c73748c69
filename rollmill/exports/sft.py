"""Supervised fine-tuning: each rollout one training row, as messages, or as TRL's prompt and completion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import msgspec
import orjson
import polars as pl

from rollmill.corpus.message import Message
from rollmill.corpus.record import Record, decode_record
from rollmill.errors import InputError
from rollmill.exports.conversation import CleanConversation, clean_conversation, part
from rollmill.exports.export_result import Exported
from rollmill.exports.origins import (
    CONTEXT,
    FACT_COLUMNS,
    REJECTED_SIDE,
    Facts,
    beside,
    is_rejected,
    media_paths,
    rollouts,
    row_metadata,
)
from rollmill.exports.recorded_tokens import NO_TOKENS, RecordedSequences, RecordedTokens
from rollmill.exports.row_format import Arguments, Format
from rollmill.exports.splitting import Split
from rollmill.exports.token_counter import ContextualChat
from rollmill.exports.tool_calls import CallNotes
from rollmill.exports.training_file import Accept, Line, Refused, Sample, SampleStream, or_unreadable, write_samples

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus

Count = Callable[[list[list[dict[str, Any]]]], list[int]]
"""Conversations -> the length of each in tokens, chat template applied."""


class TokenBudget(NamedTuple):
    """Rows longer than `max_tokens` tokens are dropped; `tokenizer` is a hub id or a directory.

    `counter` stands in for that tokenizer's `TokenCounter`.
    """

    tokenizer: str
    max_tokens: int
    counter: Count | None = None

    def accept(self) -> Accept:
        """Return what judges a batch of lines. Raises `InputError` where the tokenizer cannot be loaded."""
        count = self.counter or _counter(self.tokenizer)

        def judge(lines: list[Line]) -> list[str | None]:
            lengths = count([_chat(line) for line in lines])
            return ["over_token_budget" if length > self.max_tokens else None for length in lengths]

        return judge


def export_sft(
    path: Path,
    corpus: Corpus,
    kept: pl.DataFrame,
    *,
    format: Format = "messages",  # noqa: A002  # the flag's name
    budget: TokenBudget | None = None,
    split: Split | None = None,
    origin: Mapping[str, Any] | None = None,
    image_folders: Sequence[str] = (),
    arguments: Arguments = "object",
    keep_truncated: bool = False,
    token_ids: bool = False,
    allow_empty: bool = True,
) -> Exported:
    """Write the rows of `kept` (sorted by `row`), each as `{"messages", "metadata"}`.

    `prompt_completion`: `{"prompt", "completion", "metadata"}`, where the prompt is everything before the first
    assistant turn, the completion the rest. Metadata: `instance_id`, `sample_id`, `seed`, `reward`, `success`,
    `speedup`, `model_calls`, `error` (the answer's distance to the ground truth), `verifier`, then `origin`; nulls are
    left out. Contents have one form in all rows, and image paths, then relative to the file, are listed under
    `images`: see `write_samples`. A late row with a new column comes first: see `TrainingLines`.

    `tools` and `chat_template_kwargs` of a rollout stand beside its messages. Arguments of tool calls are written as
    `arguments` says; those that are no JSON object stay text, and are counted in the notes. Turns that are marked as
    not to be learnt, and earlier ones that were cut off at a limit (whatever `keep_truncated` says: what follows would
    teach that they ended), have `weight` 0. `reasoning_dropped` in the metadata says that later turns did not see the
    thoughts of earlier ones, `sent_arguments` of a message how they saw its calls, where otherwise. A turn that a stop
    text ended has that as `stop_text`, and where it is the last one, the metadata `no_end`.

    Where the tokens of a rollout are recorded, `tokens` in the metadata says where the row finds them. With `token_ids`
    they stand in the row as `input_ids` and `labels`, which TRL trains on as they are, and `tokenizer` in the metadata
    is the hash of theirs; a rollout whose prompts do not go on from one another makes several rows, and one without
    recorded tokens is dropped as `no_tokens`.

    Rows are dropped as `marked_not_for_training`, as `rejected_side_of_a_preference`, for `clean`'s reasons, as
    `truncated` (cut off at the limit on tokens; with `keep_truncated` they are kept, with `truncated` in their
    metadata), `no_prompt` (prompt_completion, and the assistant speaks first),
    `over_token_budget`, `not_unicode` and `image_outside` (see `media_paths`). With a split, the validation rows
    are in `<stem>.validation.jsonl`.
    Raises `InputError` for a path that does not end in `.jsonl`, an unknown format, a tokenizer that cannot be loaded,
    and where nothing is left, unless `allow_empty`.
    """
    if format not in get_args(Format):
        raise InputError(f"unknown format {format!r}: give one of {', '.join(get_args(Format))}")
    media_path_of = media_paths(corpus, path.parent, image_folders)

    notes = CallNotes(arguments)
    recorded = RecordedTokens(corpus, path.parent)

    def samples() -> SampleStream:
        nonlocal notes
        notes = CallNotes(arguments)  # the file may be written more than once
        for facts, line in rollouts(corpus, kept, FACT_COLUMNS):
            made = or_unreadable((facts["row"],), partial(of_rollout, facts, line))
            yield from [made] if isinstance(made, Refused) else made

    def of_rollout(facts: Facts, line: bytes) -> list[Sample | Refused]:
        record = decode_record(line)
        found = _conversation(record, facts, keep_truncated=keep_truncated)
        turns = _turns(found, format, notes) if isinstance(found, CleanConversation) else found
        if isinstance(turns, str):
            return [Refused(((facts["row"], turns),))]
        assert isinstance(found, CleanConversation)
        location = recorded.location(facts, record, found, line)
        metadata = row_metadata(facts, record, origin, location, no_end=len(found.turns[-1].stop_text) > 0)
        sample = Sample(
            (facts["row"],), facts["instance_id"], turns, metadata, media_path_of(facts["source"]), beside(record)
        )
        return list(_with_ids(sample, recorded.sequences(facts, record, found, line))) if token_ids else [sample]

    accept = budget.accept() if budget else None
    try:
        exported = write_samples(path, samples, kept, form=format, split=split, accept=accept, allow_empty=allow_empty)
    finally:
        recorded.close()
    return exported._replace(notes=tuple(notes.lines()))


def _conversation(record: Record, facts: Facts, *, keep_truncated: bool) -> CleanConversation | str:
    """Return a rollout's conversation, or why it is no row."""
    if facts["marked"]:
        return "marked_not_for_training"
    if is_rejected(record):
        return REJECTED_SIDE
    found = clean_conversation(record.conversation())
    if isinstance(found, CleanConversation) and facts["truncated"] and not keep_truncated:
        return "truncated"
    return found


def _turns(found: CleanConversation, form: Format, notes: CallNotes) -> dict[str, list[Message]] | str:
    """Return the messages by column, or why there are none."""
    turns = notes.take(found.turns)
    if form == "messages":
        return {"messages": turns}
    prompt, completion = part(turns)
    return {"prompt": prompt, "completion": completion} if prompt else "no_prompt"


def _with_ids(sample: Sample, recorded: RecordedSequences | None) -> SampleStream:
    """Yield a row for each sequence of a rollout's tokens."""
    if recorded is None:
        yield Refused(tuple((row, NO_TOKENS) for row in sample.rows))
        return
    for sequence in recorded.sequences:
        ids = {"input_ids": sequence.input_ids, "labels": sequence.labels}
        raw = {name: msgspec.Raw(orjson.dumps(values)) for name, values in ids.items()}
        metadata = sample.metadata | {"tokenizer": recorded.tokenizer}
        # The rollout is used by its first row: it must not count twice.
        rows = sample.rows if sequence is recorded.sequences[0] else ()
        yield sample._replace(rows=rows, metadata=metadata, beside=sample.beside | raw)


def _chat(line: Line) -> list[dict[str, Any]]:
    """Return a line's messages, decoded, with what their prompts are rendered with."""
    beside = line.sample.beside
    context: dict[str, Any] = {name: msgspec.json.decode(beside[name]) for name in CONTEXT if name in beside}
    turns = msgspec.json.decode(msgspec.json.encode(line.turns))
    dropped = line.sample.metadata.get("reasoning_dropped") is True
    return ContextualChat(turns, context, reasoning_dropped=dropped)


def _counter(tokenizer: str) -> Count:
    from rollmill.exports.token_counter import TokenCounter

    count: Count = TokenCounter(tokenizer).count
    return count
