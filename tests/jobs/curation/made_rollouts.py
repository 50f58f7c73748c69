"""Hand-made tables of rollouts: only the columns that a test needs, others null."""

import polars as pl

from rollmill.corpus.table import SCHEMA


def made_table(*rows):
    """One row per dict; problems are "a" and rollouts are ok by default."""
    full = [
        {"row": index, "source": 0, "number": index + 1, "instance_id": "a", "sample_id": index, "status": "ok", **row}
        for index, row in enumerate(rows)
    ]
    return pl.DataFrame([{name: row.get(name) for name in SCHEMA} for row in full], schema=SCHEMA)
