"""Preferences: of one problem's rollouts, the better against the worse, as TRL's DPO trainer reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import polars as pl

from rollmill.corpus.record import Message, decode_record
from rollmill.errors import InputError
from rollmill.exports.contents import shows_images
from rollmill.exports.conversation import clean, part
from rollmill.exports.export_result import Exported
from rollmill.exports.origins import FACT_COLUMNS, Facts, image_places, with_origin
from rollmill.exports.splitting import Split
from rollmill.exports.spool import Spool, open_spool
from rollmill.exports.training_file import Made, Refused, Sample, check_path, write_samples

if TYPE_CHECKING:
    from rollmill.corpus.corpus import Corpus

_ROUNDING = 1e-9
_COLUMNS = ["row", "instance_id", "reward", "success", "status", "messages", "turns", "empty", "completion_hash"]


class Pairing(NamedTuple):
    """`paired`: `row` of each pair's chosen and then its rejected rollout. `dropped`: `row`, `drop_reason`."""

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
) -> Exported:
    """Writes one line per pair: `{"prompt", "chosen", "rejected", "metadata"}`, messages in the first three.

    Metadata: `instance_id`, `chosen_sample_id`, `rejected_sample_id`, `chosen_reward`, `rejected_reward`, `margin`
    (their difference), then `origin`. Problems stand in the order of their first row in `kept`.
    Rows that make no pair are dropped for the reasons of `pair_up` and `clean`, and as `prompts_differ`, `no_prompt`
    (the assistant speaks first), `image_outside` (see `image_places`); a row whose partner is refused has
    `no_contrast`. Raises `InputError` for a path that does not end in `.jsonl`, a negative margin, fewer than one pair.
    """
    _check(min_margin, max_pairs)
    check_path(path)
    pairing = pair_up(kept, min_margin=min_margin, max_pairs=max_pairs)
    paired = pairing.paired.join(kept, on="row", how="left", maintain_order="left")
    places = image_places(corpus, path.parent, image_folders)

    def samples(records: Spool) -> Made:
        yield Refused(tuple(pairing.dropped.iter_rows()))
        facts = paired.select(FACT_COLUMNS).iter_rows(named=True)
        for better, worse in zip(facts, facts, strict=True):
            chosen = clean(decode_record(records.read(better["row"])).conversation())
            rejected = clean(decode_record(records.read(worse["row"])).conversation())
            one_folder = corpus.image_root(better["source"]) == corpus.image_root(worse["source"])
            turns = _contrast(chosen, rejected, better["row"], worse["row"], one_folder=one_folder)
            if isinstance(turns, Refused):
                yield turns
            else:
                metadata = with_origin(_metadata(better, worse), origin)
                rows = (better["row"], worse["row"])
                yield Sample(rows, better["instance_id"], turns, metadata, places(better["source"]))

    with open_spool(corpus, paired.sort("row"), path.parent) as records:
        return write_samples(path, lambda: samples(records), kept, form="preferences", split=split)


def pair_up(kept: pl.DataFrame, *, min_margin: float, max_pairs: int) -> Pairing:
    """Pairs within each problem: the best with the worst, the second best with the second worst, ...

    Chosen are rollouts whose success is not False, rejected those whose success is not True; a pair's rewards differ
    by more than 0 and at least `min_margin`; equal rewards rank in the order of `kept`. Each rollout is in one pair at
    most, and no completion is rejected that earned more elsewhere in the problem. Reasons of the others: `failed`,
    `no_messages`, `no_assistant_turn`, `empty_completion`, `no_reward`, `over_limit` (beyond `max_pairs`),
    `no_contrast`.
    """
    rows = kept.select(_COLUMNS).with_row_index("place")
    rows = rows.with_columns(drop_reason=_unusable(), first=pl.col("place").min().over("instance_id"))
    usable = rows.filter(pl.col("drop_reason").is_null())
    good = usable.filter(pl.col("success").fill_null(True))
    most = good.group_by("instance_id", "completion_hash").agg(most=pl.col("reward").max())
    bad = usable.filter(~pl.col("success").fill_null(False)).join(
        most, on=["instance_id", "completion_hash"], how="left"
    )
    bad = bad.filter(pl.col("most").is_null() | (pl.col("reward") >= pl.col("most")))
    ranked = _ranked(good, descending=True).join(
        _ranked(bad, descending=False), on=["instance_id", "rank"], suffix="_worse"
    )
    margin = pl.col("reward") - pl.col("reward_worse")
    pairs = ranked.filter((margin > 0) & (margin >= min_margin - _ROUNDING)).sort("first", "rank")
    beyond = _rows(pairs.filter(pl.col("rank") >= max_pairs)).with_columns(beyond=pl.lit("over_limit"))
    pairs = pairs.filter(pl.col("rank") < max_pairs)
    rest = rows.join(_rows(pairs), on="row", how="anti", maintain_order="left")
    rest = rest.join(beyond, on="row", how="left", maintain_order="left")
    dropped = rest.select("row", drop_reason=pl.coalesce("drop_reason", "beyond", pl.lit("no_contrast")))
    return Pairing(_rows(pairs), dropped)


def _rows(pairs: pl.DataFrame) -> pl.DataFrame:
    """The rows of pairs, the chosen one of each first."""
    return pairs.select(row=pl.concat_list("row", "row_worse")).explode("row")


def _unusable() -> pl.Expr:
    """Why a row can be in no pair, as far as the table knows."""
    return (
        pl.when(pl.col("status") == "failed")
        .then(pl.lit("failed"))
        .when(pl.col("messages").fill_null(0) == 0)
        .then(pl.lit("no_messages"))
        .when(pl.col("turns").fill_null(0) == 0)
        .then(pl.lit("no_assistant_turn"))
        .when(pl.col("empty").fill_null(False))
        .then(pl.lit("empty_completion"))
        .when(pl.col("reward").is_null())
        .then(pl.lit("no_reward"))
    )


def _ranked(rows: pl.DataFrame, *, descending: bool) -> pl.DataFrame:
    """Rank 0, 1, ... within the problem by reward, the earlier row first among equals."""
    ordered = rows.sort("reward", "place", descending=[descending, False])
    return ordered.select("row", "instance_id", "first", "reward", rank=pl.int_range(pl.len()).over("instance_id"))


def _contrast(
    chosen: list[Message] | str, rejected: list[Message] | str, better: int, worse: int, *, one_folder: bool
) -> dict[str, list[Message]] | Refused:
    """The messages by column, or why the two rows are no pair. `one_folder`: equal image paths are equal images."""
    if isinstance(chosen, str) or isinstance(rejected, str):
        reasons = [turns if isinstance(turns, str) else "no_contrast" for turns in (chosen, rejected)]
        return Refused(((better, reasons[0]), (worse, reasons[1])))
    (prompt, right), (other, wrong) = part(chosen), part(rejected)
    reason = None
    if not _equal(prompt, other) or (not one_folder and shows_images([*chosen, *rejected])):
        reason = "prompts_differ"
    elif not prompt:
        reason = "no_prompt"
    elif _equal(right, wrong):
        reason = "no_contrast"
    if reason:
        return Refused(((better, reason), (worse, reason)))
    return {"prompt": prompt, "chosen": right, "rejected": wrong}


def _equal(one: list[Message], other: list[Message]) -> bool:
    """Whether messages say the same, however their JSON spells it."""
    return one == other or _values(one) == _values(other)


def _values(turns: list[Message]) -> Any:
    return msgspec.json.decode(msgspec.json.encode(turns))


def _metadata(better: Facts, worse: Facts) -> dict[str, Any]:
    return {
        "instance_id": better["instance_id"],
        "chosen_sample_id": better["sample_id"],
        "rejected_sample_id": worse["sample_id"],
        "chosen_reward": better["reward"],
        "rejected_reward": worse["reward"],
        "margin": better["reward"] - worse["reward"],
    }


def _check(min_margin: float, max_pairs: int) -> None:
    if not (math.isfinite(min_margin) and min_margin >= 0):
        raise InputError(f"margin {min_margin} between chosen and rejected rewards: give a number of 0 or more")
    if max_pairs < 1:
        raise InputError(f"{max_pairs} pairs per problem: give 1 or more")
