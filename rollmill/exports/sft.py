"""Export for supervised fine-tuning: each rollout one row, as messages, or as TRL's prompt and completion."""

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
from rollmill.exports.conversation import CleanConversation, clean_conversation, split_prompt
from rollmill.exports.export_result import Exported
from rollmill.exports.origins import (
    CONTEXT_FIELDS,
    FACT_COLUMNS,
    REJECTED_SIDE_REASON,
    Facts,
    is_rejected_side,
    make_media_paths,
    make_row_metadata,
    read_request_context,
    read_rollouts,
)
from rollmill.exports.recorded_tokens import NO_TOKENS, RecordedSequences, RecordedTokens
from rollmill.exports.row_format import Arguments, Format
from rollmill.exports.splitting import Split
from rollmill.exports.token_counter import ContextualChat
from rollmill.exports.tool_calls import CallNotes
from rollmill.exports.training_file import Accept, DroppedRows, Line, Sample, SampleStream, or_unreadable, write_samples

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus

Count = Callable[[list[list[dict[str, Any]]]], list[int]]
"""Maps conversations to their lengths in tokens, with the chat template applied."""


class TokenBudget(NamedTuple):
    """A limit on the tokens of a row; longer rows are dropped.

    `tokenizer` is a hub id or a directory; `counter` replaces that tokenizer's `TokenCounter`.
    """

    tokenizer: str
    max_tokens: int
    counter: Count | None = None

    def accept(self) -> Accept:
        """Return the function that judges batches of lines. Raises `InputError` if the tokenizer cannot be loaded."""
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
    """Write the rows of `kept`, each as `{"messages", "metadata"}`.

    `prompt_completion`: `{"prompt", "completion", "metadata"}`, where the prompt is all messages before the first
    assistant turn, the completion the rest. Metadata: `instance_id`, `sample_id`, `seed`, `reward`, `success`,
    `speedup`, `model_calls`, `error` (the answer's distance to the ground truth), `verifier`, then `origin`; nulls are
    left out. Contents have one form in all rows, and image paths, relative to the file, are listed under `images`: see
    `write_samples`. A late row with a new column is moved to the beginning: see `TrainingLines`.

    `tools` and `chat_template_kwargs` of a rollout are columns beside its messages. Arguments of tool calls that are no
    JSON object stay text, and are counted in the notes. Turns that are excluded from training, and earlier ones that
    were cut off at a limit (also with `keep_truncated`: the message after it would teach the model to stop there), have
    `weight` 0. `reasoning_dropped` in the metadata records that the requests of later turns left out the reasoning of
    earlier ones; `sent_arguments` of a message, the arguments that later requests had in place of its own. A turn that
    a stop string ended has that as `stop_text`, and if it is the last one, the metadata has `no_end`.

    Where the tokens of a rollout are recorded, `tokens` in the metadata is their location. With `token_ids` they are in
    the row as `input_ids` and `labels`, which TRL trains on without tokenizing, and `tokenizer` in the metadata is the
    hash of their tokenizer; a rollout of which a prompt does not continue the one before makes several rows, and one
    without recorded tokens is dropped as `no_tokens`.

    Rows are dropped as `marked_not_for_training`, as `rejected_side_of_a_preference`, for `clean`'s reasons, as
    `truncated` (cut off at the limit on tokens; with `keep_truncated` they are kept, with `truncated` in their
    metadata), `no_prompt` (prompt_completion, and the assistant begins), `over_token_budget`, `not_unicode` and
    `image_outside` (see `make_media_paths`). Raises `InputError` for a path that does not end in `.jsonl`, an unknown
    format, a tokenizer that cannot be loaded, and where no row is left, unless `allow_empty`.

    Args:
        path: the file; with a split, the validation rows are in `<stem>.validation.jsonl` beside it.
        corpus: the rollouts that were read.
        kept: the rows to export, sorted by `row`.
        format: columns of the messages.
        budget: limit on tokens; None: no limit.
        split: the share of problems for validation; None: one file.
        origin: fields that are added to the metadata of every row.
        image_folders: further folders that images may be in.
        arguments: form of the arguments of tool calls.
        keep_truncated: whether to keep rollouts that were cut off.
        token_ids: whether to write recorded token ids.
        allow_empty: whether a file without any row is written.
    """
    if format not in get_args(Format):
        raise InputError(f"unknown format {format!r}: give one of {', '.join(get_args(Format))}")
    media_path_of = make_media_paths(corpus, path.parent, image_folders)

    notes = CallNotes(arguments)
    recorded = RecordedTokens(corpus, path.parent)

    def samples() -> SampleStream:
        nonlocal notes
        notes = CallNotes(arguments)  # the file may be written more than once
        for facts, line in read_rollouts(corpus, kept, FACT_COLUMNS):
            converted = or_unreadable((facts["row"],), partial(of_rollout, facts, line))
            yield from [converted] if isinstance(converted, DroppedRows) else converted

    def of_rollout(facts: Facts, line: bytes) -> list[Sample | DroppedRows]:
        record = decode_record(line)
        conversation = _conversation(record, facts, keep_truncated=keep_truncated)
        turns = _turns(conversation, format, notes) if isinstance(conversation, CleanConversation) else conversation
        if isinstance(turns, str):
            return [DroppedRows(((facts["row"], turns),))]
        assert isinstance(conversation, CleanConversation)
        location = recorded.location(facts, record, conversation, line)
        metadata = make_row_metadata(facts, record, origin, location, no_end=len(conversation.turns[-1].stop_text) > 0)
        sample = Sample(
            (facts["row"],),
            facts["instance_id"],
            turns,
            metadata,
            media_path_of(facts["source"]),
            read_request_context(record),
        )
        return list(_with_ids(sample, recorded.sequences(facts, record, conversation, line))) if token_ids else [sample]

    accept = budget.accept() if budget else None
    try:
        exported = write_samples(path, samples, kept, form=format, split=split, accept=accept, allow_empty=allow_empty)
    finally:
        recorded.close()
    return exported._replace(notes=tuple(notes.lines()))


def _conversation(record: Record, facts: Facts, *, keep_truncated: bool) -> CleanConversation | str:
    """Return a rollout's conversation, or the reason that it makes no row."""
    if facts["marked"]:
        return "marked_not_for_training"
    if is_rejected_side(record):
        return REJECTED_SIDE_REASON
    conversation = clean_conversation(record.conversation())
    if isinstance(conversation, CleanConversation) and facts["truncated"] and not keep_truncated:
        return "truncated"
    return conversation


def _turns(conversation: CleanConversation, form: Format, notes: CallNotes) -> dict[str, list[Message]] | str:
    """Return the messages by column, or the reason that there are none."""
    turns = notes.take(conversation.turns)
    if form == "messages":
        return {"messages": turns}
    prompt, completion = split_prompt(turns)
    return {"prompt": prompt, "completion": completion} if prompt else "no_prompt"


def _with_ids(sample: Sample, recorded: RecordedSequences | None) -> SampleStream:
    """Yield a row for each token sequence of a rollout."""
    if recorded is None:
        yield DroppedRows(tuple((row, NO_TOKENS) for row in sample.rows))
        return
    for sequence in recorded.sequences:
        ids = {"input_ids": sequence.input_ids, "labels": sequence.labels}
        raw = {name: msgspec.Raw(orjson.dumps(values)) for name, values in ids.items()}
        metadata = sample.metadata | {"tokenizer": recorded.tokenizer}
        # Only its first row counts as the use of the rollout: it must not count twice.
        rows = sample.rows if sequence is recorded.sequences[0] else ()
        yield sample._replace(rows=rows, metadata=metadata, extra_columns=sample.extra_columns | raw)


def _chat(line: Line) -> list[dict[str, Any]]:
    """Return a line's messages, decoded, with the other arguments of their chat template."""
    columns = line.sample.extra_columns
    context: dict[str, Any] = {name: msgspec.json.decode(columns[name]) for name in CONTEXT_FIELDS if name in columns}
    turns = msgspec.json.decode(msgspec.json.encode(line.turns))
    dropped = line.sample.metadata.get("reasoning_dropped") is True
    return ContextualChat(turns, context, reasoning_dropped=dropped)


def _counter(tokenizer: str) -> Count:
    from rollmill.exports.token_counter import TokenCounter

    count: Count = TokenCounter(tokenizer).count
    return count
