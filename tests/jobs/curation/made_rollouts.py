"""Hand-made tables of rollouts: only what a test speaks of, all else null."""

import polars as pl

from rollmill.corpus.table import SCHEMA


def made_table(*rows):
    """One row per dict; problems are "a" and rollouts are ok unless said."""
    full = [
        {"row": place, "source": 0, "number": place + 1, "instance_id": "a", "sample_id": place, "status": "ok", **row}
        for place, row in enumerate(rows)
    ]
    return pl.DataFrame([{name: row.get(name) for name in SCHEMA} for row in full], schema=SCHEMA)
