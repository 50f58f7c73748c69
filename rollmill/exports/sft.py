"""Supervised fine-tuning: each rollout one training row, as messages, or as TRL's prompt and completion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import msgspec
import polars as pl

from rollmill.corpus.record import Message, decode_record
from rollmill.errors import InputError
from rollmill.exports.conversation import clean, part
from rollmill.exports.export_result import Exported
from rollmill.exports.origins import FACT_COLUMNS, image_places, rollouts, row_metadata
from rollmill.exports.row_format import Format
from rollmill.exports.splitting import Split
from rollmill.exports.training_file import Accept, Line, Made, Refused, Sample, write_samples

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
        """What judges a batch of lines. Raises `InputError` where the tokenizer cannot be loaded."""
        count = self.counter or _counter(self.tokenizer)

        def judge(lines: list[Line]) -> list[str | None]:
            lengths = count([msgspec.json.decode(msgspec.json.encode(line.turns)) for line in lines])
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
) -> Exported:
    """Writes the rows of `kept` (sorted by `row`), each as `{"messages", "metadata"}`.

    `prompt_completion`: `{"prompt", "completion", "metadata"}`, where the prompt is everything before the first
    assistant turn, the completion the rest. Metadata: `instance_id`, `sample_id`, `seed`, `reward`, `success`,
    `speedup`, `model_calls`, `error` (the answer's distance to the ground truth), `verifier`, then `origin`; nulls are
    left out. Contents have one form in all rows, and image paths, then relative to the file, are listed under
    `images`: see `write_samples`. A late row with a new column comes first: see `TrainingLines`.

    Rows are dropped for `clean`'s reasons, `no_prompt` (prompt_completion, and the assistant speaks first),
    `over_token_budget`, `not_unicode` and `image_outside` (see `image_places`). With a split, the validation rows
    are in `<stem>.validation.jsonl`.
    Raises `InputError` for a path that does not end in `.jsonl`, an unknown format, a tokenizer that cannot be loaded.
    """
    if format not in get_args(Format):
        raise InputError(f"unknown format {format!r}: give one of {', '.join(get_args(Format))}")
    places = image_places(corpus, path.parent, image_folders)

    def samples() -> Made:
        for facts, line in rollouts(corpus, kept, FACT_COLUMNS):
            record = decode_record(line)
            turns = _turns(record.conversation(), format)
            if isinstance(turns, str):
                yield Refused(((facts["row"], turns),))
            else:
                metadata = row_metadata(facts, record, origin)
                yield Sample((facts["row"],), facts["instance_id"], turns, metadata, places(facts["source"]))

    accept = budget.accept() if budget else None
    return write_samples(path, samples, kept, form=format, split=split, accept=accept)


def _turns(conversation: list[Message] | None, form: Format) -> dict[str, list[Message]] | str:
    """The messages by column, or why there are none."""
    turns = clean(conversation)
    if isinstance(turns, str):
        return turns
    if form == "messages":
        return {"messages": turns}
    prompt, completion = part(turns)
    return {"prompt": prompt, "completion": completion} if prompt else "no_prompt"


def _counter(tokenizer: str) -> Count:
    from rollmill.exports.token_counter import TokenCounter

    count: Count = TokenCounter(tokenizer).count
    return count
