"""Export of preferences: the better against the worse rollouts of a problem, in the format of TRL's DPO trainer."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgspec
import polars as pl

from rollmill.corpus.message import Message
from rollmill.corpus.record import decode_record
from rollmill.errors import InputError
from rollmill.exports.contents import has_images
from rollmill.exports.conversation import clean, split_prompt
from rollmill.exports.export_result import Exported
from rollmill.exports.origins import (
    FACT_COLUMNS,
    Facts,
    make_media_paths,
    read_request_context,
    read_rollouts,
    with_origin,
)
from rollmill.exports.row_format import Arguments
from rollmill.exports.splitting import Split
from rollmill.exports.tool_calls import CallNotes
from rollmill.exports.training_file import DroppedRows, Sample, SampleStream, check_path, or_unreadable, write_samples

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus

_ROUNDING = 1e-9
"""Tolerance of margins: a difference of rewards is rounded."""
_COLUMNS = [
    "row",
    "instance_id",
    "reward",
    "success",
    "status",
    "messages",
    "turns",
    "empty",
    "completion_hash",
    "truncated",
    "marked",
]


class Pairing(NamedTuple):
    """Pairs of rollouts, and the rollouts that are in none.

    `paired` has the `row` of each pair's chosen and then its rejected rollout, `dropped` has `row` and `drop_reason`.
    """

    paired: pl.DataFrame
    dropped: pl.DataFrame


def export_preferences(
    path: Path,
    corpus: Corpus,
    kept: pl.DataFrame,
    *,
    min_margin: float = 0.0,
    max_pairs: int = 4,
    split: Split | None = None,
    origin: Mapping[str, Any] | None = None,
    image_folders: Sequence[str] = (),
    arguments: Arguments = "object",
    keep_truncated: bool = False,
    allow_empty: bool = True,
) -> Exported:
    """Write one line per pair: `{"prompt", "chosen", "rejected", "metadata"}`, messages in the first three.

    Metadata: `instance_id`, `chosen_sample_id`, `rejected_sample_id`, `chosen_reward`, `rejected_reward`, `margin`
    (their difference), `chosen_truncated`, `rejected_truncated` where they are, then `origin`. Problems keep the order
    of their first row in `kept`.

    Rows without a pair are dropped for the reasons of `pair_up` and `clean`, and as `prompts_differ`, `no_prompt` (the
    assistant begins), `image_outside` (see `make_media_paths`); a row whose partner is dropped is dropped as
    `no_contrast`.
    Raises `InputError` for a path that does not end in `.jsonl`, a negative margin, fewer than one pair.

    Args:
        path: the file.
        corpus: the rollouts that were read.
        kept: the rows to export; pairs follow their order.
        min_margin: least difference of the rewards of a pair.
        max_pairs: most pairs of one problem.
        split: the share of problems for validation; None: one file.
        origin: fields that are added to the metadata of every row.
        image_folders: further folders that images may be in.
        arguments: form of the arguments of tool calls.
        keep_truncated: whether a completion that was cut off may be chosen.
        allow_empty: whether a file without any row is written.
    """
    _check(min_margin, max_pairs)
    check_path(path)
    pairing = pair_up(kept, min_margin=min_margin, max_pairs=max_pairs, keep_truncated=keep_truncated)
    notes = CallNotes(arguments)
    paired = pairing.paired.join(kept, on="row", how="left", maintain_order="left")
    media_path_of = make_media_paths(corpus, path.parent, image_folders)

    def samples(records: _Spool) -> SampleStream:
        nonlocal notes
        notes = CallNotes(arguments)  # the file may be written more than once
        yield DroppedRows(tuple(pairing.dropped.iter_rows()))
        facts = paired.select(FACT_COLUMNS).iter_rows(named=True)
        for better, worse in zip(facts, facts, strict=True):
            chosen, context = _side(better["row"], records)
            rejected, other_context = _side(worse["row"], records)
            one_folder = corpus.image_root(better["source"]) == corpus.image_root(worse["source"])
            turns = _contrast(chosen, rejected, better["row"], worse["row"], one_folder=one_folder)
            if isinstance(turns, DroppedRows):
                yield turns
            elif _decode(context) != _decode(other_context):
                yield DroppedRows(((better["row"], "prompts_differ"), (worse["row"], "prompts_differ")))
            else:
                turns = {column: notes.take(part) for column, part in turns.items()}
                metadata = with_origin(_metadata(better, worse), origin)
                rows = (better["row"], worse["row"])
                path_of = media_path_of(better["source"])
                yield Sample(rows, better["instance_id"], turns, metadata, path_of, context)

    # The corpus yields records in the order of rows, pairs need them in another: hence the copy on disk.
    with _open_spool(corpus, paired.sort("row"), path.parent) as records:
        exported = write_samples(
            path, lambda: samples(records), kept, form="preferences", split=split, allow_empty=allow_empty
        )
    return exported._replace(notes=tuple(notes.lines()))


def pair_up(kept: pl.DataFrame, *, min_margin: float, max_pairs: int, keep_truncated: bool = False) -> Pairing:
    """Return pairs within each problem: the best with the worst, the second best with the second worst, ...

    Chosen are rollouts whose success is not False and, unless `keep_truncated`, that were not cut off; rejected those
    whose success is not True. Equal rewards rank in the order of `kept`. Each rollout is in at most one pair, and no
    completion is rejected that earned more elsewhere in the problem. Reasons of the other rollouts: `failed`,
    `marked_not_for_training`, `no_messages`, `no_assistant_turn`, `empty_completion`, `no_reward`, `over_limit` (beyond
    `max_pairs`), `truncated` (cut off, and nothing is better), `no_contrast`.

    Args:
        kept: the rows to pair.
        min_margin: the rewards of a pair differ by more than 0, and by at least this.
        max_pairs: most pairs of one problem.
        keep_truncated: whether a completion that was cut off may be chosen.
    """
    rows = kept.select(_COLUMNS).with_row_index("position")
    rows = rows.with_columns(drop_reason=_drop_reason(), first=pl.col("position").min().over("instance_id"))
    usable = rows.filter(pl.col("drop_reason").is_null())
    # A rollout of unknown success may be on either side: its reward decides.
    right = usable.filter(pl.col("success").fill_null(True))
    good = right if keep_truncated else right.filter(~pl.col("truncated").fill_null(False))
    # Equal completions may have different rewards, for their speed or by chance: one that can be chosen for its best
    # reward is not rejected for a lower one.
    most = right.group_by("instance_id", "completion_hash").agg(most=pl.col("reward").max())
    bad = usable.filter(~pl.col("success").fill_null(False)).join(
        most, on=["instance_id", "completion_hash"], how="left"
    )
    bad = bad.filter(pl.col("most").is_null() | (pl.col("reward") >= pl.col("most")))
    ranked = _rank(good, descending=True).join(
        _rank(bad, descending=False), on=["instance_id", "rank"], suffix="_worse"
    )
    margin = pl.col("reward") - pl.col("reward_worse")
    pairs = ranked.filter((margin > 0) & (margin >= min_margin - _ROUNDING)).sort("first", "rank")
    beyond = _rows(pairs.filter(pl.col("rank") >= max_pairs)).with_columns(beyond=pl.lit("over_limit"))
    pairs = pairs.filter(pl.col("rank") < max_pairs)
    rest = rows.join(_rows(pairs), on="row", how="anti", maintain_order="left")
    rest = rest.join(beyond, on="row", how="left", maintain_order="left")
    cut_off = pl.when(pl.col("truncated").fill_null(False) & ~pl.lit(keep_truncated)).then(pl.lit("truncated"))
    dropped = rest.select("row", drop_reason=pl.coalesce("drop_reason", "beyond", cut_off, pl.lit("no_contrast")))
    return Pairing(_rows(pairs), dropped)


def _rows(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of pairs, of each pair first the chosen one."""
    return pairs.select(row=pl.concat_list("row", "row_worse")).explode("row")


def _drop_reason() -> pl.Expr:
    """Return the reason that a row can be in no pair, as far as the table tells; null for others."""
    return (
        pl.when(pl.col("status") == "failed")
        .then(pl.lit("failed"))
        .when(pl.col("marked").fill_null(False))
        .then(pl.lit("marked_not_for_training"))
        .when(pl.col("messages").fill_null(0) == 0)
        .then(pl.lit("no_messages"))
        .when(pl.col("turns").fill_null(0) == 0)
        .then(pl.lit("no_assistant_turn"))
        .when(pl.col("empty").fill_null(False))
        .then(pl.lit("empty_completion"))
        .when(pl.col("reward").is_null())
        .then(pl.lit("no_reward"))
    )


def _rank(rows: pl.DataFrame, *, descending: bool) -> pl.DataFrame:
    """Return the rows with their rank from 0 on within the problem by reward; of equals the earlier row is first."""
    ordered = rows.sort("reward", "position", descending=[descending, False])
    return ordered.select("row", "instance_id", "first", "reward", rank=pl.int_range(pl.len()).over("instance_id"))


def _side(row: int, records: _Spool) -> tuple[list[Message] | str, dict[str, msgspec.Raw]]:
    """Return a rollout's conversation, or the reason that there is none, and its tools and template arguments."""

    def read() -> tuple[list[Message] | str, dict[str, msgspec.Raw]]:
        record = decode_record(records.read(row))
        turns, context = clean(record.conversation()), read_request_context(record)
        # Decode everything that will be written: an error that comes later could not be blamed on one of the two rows.
        _decode(context), _values(CallNotes("object").take(turns) if isinstance(turns, list) else [])
        return turns, context

    side = or_unreadable((row,), read)
    return (side.reasons[0][1], {}) if isinstance(side, DroppedRows) else side


def _contrast(
    chosen: list[Message] | str, rejected: list[Message] | str, better: int, worse: int, *, one_folder: bool
) -> dict[str, list[Message]] | DroppedRows:
    """Return the messages by column, or the reasons that the two rows are no pair.

    Args:
        chosen: the better conversation, or the reason that there is none.
        rejected: the worse one.
        better: row of the chosen rollout.
        worse: row of the rejected rollout.
        one_folder: whether both image folders are the same, so that equal paths are equal images.
    """
    if isinstance(chosen, str) or isinstance(rejected, str):
        reasons = [turns if isinstance(turns, str) else "no_contrast" for turns in (chosen, rejected)]
        return DroppedRows(((better, reasons[0]), (worse, reasons[1])))
    (prompt, right), (other, wrong) = split_prompt(chosen), split_prompt(rejected)
    reason = None
    if not _have_equal_values(prompt, other) or (not one_folder and has_images([*chosen, *rejected])):
        reason = "prompts_differ"
    elif not prompt:
        reason = "no_prompt"
    elif _have_equal_values(right, wrong):
        reason = "no_contrast"
    if reason:
        return DroppedRows(((better, reason), (worse, reason)))
    return {"prompt": prompt, "chosen": right, "rejected": wrong}


def _have_equal_values(first: list[Message], second: list[Message]) -> bool:
    """Return whether messages are equal, however their JSON is spelt."""
    return first == second or _values(first) == _values(second)


def _decode(fields: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    return {name: msgspec.json.decode(value) for name, value in fields.items()}


def _values(turns: list[Message]) -> Any:
    return msgspec.json.decode(msgspec.json.encode(turns))


class _Spool:
    """Records in a temporary file, with their offsets: pairs read them in another order than that of the corpus."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._positions: dict[int, tuple[int, int]] = {}
        self._end = 0

    def add(self, row: int, record: bytes) -> None:
        """Write the record of one row of the table."""
        self._positions[row] = (self._end, len(record))
        self._end += self._file.write(record)

    def read(self, row: int) -> bytes:
        """Return a record by the row of the table."""
        offset, length = self._positions[row]
        self._file.seek(offset)
        return self._file.read(length)


@contextmanager
def _open_spool(corpus: Corpus, table: pl.DataFrame, folder: Path) -> Iterator[_Spool]:
    """Spool the records of `table`, which is sorted by `row`, to a file in `folder` until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        spool = _Spool(file)
        for facts, record in read_rollouts(corpus, table, ["row"]):
            spool.add(facts["row"], record)
        yield spool


def _metadata(better: Facts, worse: Facts) -> dict[str, Any]:
    """Return the metadata of a pair."""
    return {
        "instance_id": better["instance_id"],
        "chosen_sample_id": better["sample_id"],
        "rejected_sample_id": worse["sample_id"],
        "chosen_reward": better["reward"],
        "rejected_reward": worse["reward"],
        "margin": better["reward"] - worse["reward"],
        "chosen_truncated": better["truncated"] or None,
        "rejected_truncated": worse["truncated"] or None,
    }


def _check(min_margin: float, max_pairs: int) -> None:
    if not (math.isfinite(min_margin) and min_margin >= 0):
        raise InputError(f"margin {min_margin} between chosen and rejected rewards: give a number of 0 or more")
    if max_pairs < 1:
        raise InputError(f"{max_pairs} pairs per problem: give 1 or more")
