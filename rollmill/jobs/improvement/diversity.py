"""Limits the rollouts of each problem to those that differ most."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from rollmill.corpus.corpus import Corpus
from rollmill.jobs.curation.rules import LEFT
from rollmill.jobs.curation.signatures import NUM_PERM
from rollmill.jobs.curation.text_features import with_text_features

OVER_LIMIT = "over_limit"


def limit_per_problem(corpus: Corpus, judged: pl.DataFrame, count: int) -> pl.DataFrame:
    """Drop the rollouts of a problem beyond `count`, with the reason `over_limit`; `judged` has a `drop_reason`.

    The first is kept; then, each time, the one that is least similar to the most similar of those kept, the earlier of
    two (farthest-first traversal: Gonzalez, Clustering to minimize the maximum intercluster distance, 1985).
    Similarity is the share of equal positions of MinHash signatures.
    """
    candidates = judged.filter(LEFT)
    crowded = candidates.filter(pl.len().over("instance_id") > count)
    if count > 1 and "signature" not in crowded.columns:
        all_rows = pl.repeat(True, crowded.height, dtype=pl.Boolean, eager=True)
        crowded = with_text_features(corpus, crowded, all_rows, signatures=True)
    over_limit: list[int] = []
    for _, problem in crowded.group_by("instance_id", maintain_order=True):
        kept = farthest_first(_signatures(problem), count) if count > 1 else [0]
        over_limit += np.delete(problem["row"].to_numpy(), kept).tolist()
    dropped = pl.col("row").is_in(over_limit)
    return judged.with_columns(pl.when(dropped).then(pl.lit(OVER_LIMIT)).otherwise("drop_reason").alias("drop_reason"))


def farthest_first(signatures: npt.NDArray[np.uint32], count: int) -> list[int]:
    """Return the indices of `count` rows of `signatures` [rows, positions], ascending; all where there are fewer."""
    chosen = [0]
    # Of each row, the similarity to the most similar row that is chosen.
    nearest = np.full(len(signatures), -1.0)
    while len(chosen) < min(count, len(signatures)):
        nearest = np.maximum(nearest, (signatures == signatures[chosen[-1]]).mean(axis=1))
        nearest[chosen] = 2.0  # above any similarity, so that no row is chosen twice
        chosen.append(int(nearest.argmin()))
    return sorted(chosen)


def _signatures(problem: pl.DataFrame) -> npt.NDArray[np.uint32]:
    """Stack the signatures of a problem's rollouts, [rollouts, positions]; zeros for a rollout without text."""
    rows = [row or [0] * NUM_PERM for row in problem["signature"].to_list()]
    return np.array(rows, dtype=np.uint32)
