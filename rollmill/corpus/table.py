"""The table of rollouts: one row per rollout, with its scalars and the offset of its record.

Messages are not in it: they are large, most questions do not need them, and they stay in their files.
"""

from __future__ import annotations

import polars as pl

SCHEMA: dict[str, pl.DataType] = {
    "row": pl.UInt32(),
    "source": pl.UInt32(),
    "number": pl.UInt32(),
    "offset": pl.UInt64(),
    "length": pl.UInt64(),
    "instance_id": pl.String(),
    "sample_id": pl.Int64(),
    "reward": pl.Float64(),
    "success": pl.Boolean(),
    "claimed_success": pl.Boolean(),
    "status": pl.String(),
    "error_type": pl.String(),
    "answer_error": pl.Float64(),
    "speedup": pl.Float64(),
    "exit_status": pl.String(),
    "finish_reason": pl.String(),
    "truncated": pl.Boolean(),
    "marked": pl.Boolean(),
    "model_calls": pl.Int64(),
    "latency_s": pl.Float64(),
    "prompt_tokens": pl.Int64(),
    "completion_tokens": pl.Int64(),
    "tokens": pl.Int64(),
    "messages": pl.UInt32(),
    "turns": pl.UInt32(),
    "empty": pl.Boolean(),
    "reasoning_only": pl.Boolean(),
    "unanswered_calls": pl.UInt32(),
    "stray_results": pl.UInt32(),
    "completion_hash": pl.UInt64(),
}
"""The columns, all but `row`, `source`, `number`, `instance_id`, `sample_id`, `status` nullable:

- `row`: 0-based position in the reading order of all inputs; the table is sorted by it. `source`: index of the input
  file. `number`: 1-based line, or position in an array or Parquet file. `offset`, `length`: bytes of the record in its
  (decompressed) file; null where it cannot be read by its offset (Parquet).
- `instance_id`, `sample_id`: as recorded; a missing `sample_id` is the rollout's 0-based number within its problem.
- `reward`: as recorded, true as 1; null where there is none, where it is NaN or Infinity, and where the rollout failed
  (`error_type`).
- `success`: the record's `success`, unless its own evaluation denies it: a build or test that failed is no success,
  whatever the agent claimed. Null where the rollout failed or nothing was recorded. `claimed_success`: as recorded.
- `status`: `failed` (has an error outside of the model, and so no verdict), `unparseable` (judged, no answer found
  in it) or `ok` (everything else).
- `error_type`: the kind of error by its type, or the leading word of an error that is text.
- `answer_error`: the verifier's distance to the ground truth. `speedup`: null where it was not measured (recorded as a
  negative number). `latency_s`: seconds.
- `prompt_tokens`, `completion_tokens`: as the server counted them. `tokens`: length of the whole trajectory in tokens:
  counted by a tokenizer where one was named, else the two together where there was one answer only, else null.
- `truncated`: whether the completion was cut off at a limit on tokens, under any name that servers and producers have
  for it. `marked`: whether the row itself excludes it from training.
- `messages`: number of messages of the trajectory, its completion included. `turns`: those of the model.
  `empty`: whether the model wrote nothing but white space in all of them. `reasoning_only`: whether it is empty and has
  reasoning.
- `unanswered_calls`: tool calls without a result, those of the last turn too. `stray_results`: results without a call.
- `completion_hash`: hash of everything that the model wrote, its reasoning and tool calls included; equal for equal
  completions, whatever escapes, order of keys and null fields their files have.
"""

OPTIONAL_COLUMNS: dict[str, pl.DataType] = {
    "signature": pl.List(pl.UInt32()),
    "contaminated_by": pl.String(),
}
"""Computed only where a rule needs them: MinHash signature of everything the model wrote (for near-duplicates), and the
benchmark file and item that the rollout shares an n-gram with (null: none)."""


def empty_table() -> pl.DataFrame:
    """Return a table with no rollout."""
    return pl.DataFrame(schema=SCHEMA)
