"""Filters a file by reward and success and writes messages and metadata, in one of several ways; prints its figures."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from benchmarks.machine import peak_mb

LEAST = 0.7


def kept(row: dict[str, Any]) -> bool:
    """Return whether a row passes the filter of every contender."""
    return bool(row["success"]) and row["reward"] >= LEAST


def sample(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row that every contender writes."""
    names = ("instance_id", "sample_id", "reward", "speedup", "model_calls")
    return {"messages": row["messages"], "metadata": {name: row[name] for name in names}}


def orjson_loop(source: str, target: Path) -> None:
    """Filter with a loop over orjson."""
    with Path(source).open("rb") as rows, target.open("wb") as file:
        for line in rows:
            row = orjson.loads(line)
            if kept(row):
                file.write(orjson.dumps(sample(row)) + b"\n")


def json_loop(source: str, target: Path) -> None:
    """Filter with a loop over the standard library's json."""
    with Path(source).open(encoding="utf-8") as rows, target.open("w", encoding="utf-8") as file:
        for line in rows:
            row = json.loads(line)
            if kept(row):
                file.write(json.dumps(sample(row)) + "\n")


def polars_stream(source: str, target: Path) -> None:
    """Filter with Polars, streaming from scan to sink."""
    import polars as pl

    metadata = pl.struct("instance_id", "sample_id", "reward", "speedup", "model_calls").alias("metadata")
    rows = pl.scan_ndjson(source).filter(pl.col("success") & (pl.col("reward") >= LEAST))
    rows.select("messages", metadata).sink_ndjson(target)


def datasets_filter(source: str, target: Path) -> None:
    """Filter with Hugging Face datasets."""
    import datasets

    datasets.disable_progress_bars()
    rows = datasets.load_dataset("json", data_files=source, split="train", cache_dir=str(target.parent / "cache"))
    rows = rows.filter(lambda success, reward: success and reward >= LEAST, input_columns=["success", "reward"])
    rows.map(sample, remove_columns=[name for name in rows.column_names if name != "messages"]).to_json(target)


def rollmill_export(source: str, target: Path) -> None:
    """Run `export_sft`, which also writes metadata, merges turns, and writes the card and the dropped rows' lines."""
    from rollmill.corpus.corpus import read_corpus
    from rollmill.jobs.curation.export_job import export_corpus
    from rollmill.jobs.curation.exporters import sft_exporter
    from rollmill.jobs.curation.filter_spec import Filters
    from rollmill.jobs.curation.parameters import Sft

    exporter, filters = sft_exporter(target, Sft(), Filters(min_reward=LEAST, successful_only=True))
    export_corpus(read_corpus([source], hashed=False), filters, exporter)


def rollmill_filter(source: str, target: Path) -> None:
    """Run `filter_data`, which writes complete records, both kept and dropped."""
    from rollmill.corpus.corpus import read_corpus
    from rollmill.jobs.curation.apply_filters import filter_corpus
    from rollmill.jobs.curation.filter_spec import Filters

    filter_corpus(read_corpus([source], hashed=False), Filters(min_reward=LEAST, successful_only=True), target)


def rollmill_filter_places(source: str, target: Path) -> None:
    """Run `filter_data --dropped places`, which writes the kept records, and the line numbers of dropped ones."""
    from rollmill.corpus.corpus import read_corpus
    from rollmill.jobs.curation.apply_filters import filter_corpus
    from rollmill.jobs.curation.filter_spec import Filters

    filter_corpus(
        read_corpus([source], hashed=False), Filters(min_reward=LEAST, successful_only=True), target, "places"
    )


def rollmill_analyze(source: str, target: Path) -> None:
    """Run `analyze`."""
    from rollmill.corpus.corpus import read_corpus
    from rollmill.jobs.curation.analysis import analyse

    target.write_text(analyse(read_corpus([source]).table).model_dump_json())


CONTENDERS: dict[str, Callable[[str, Path], None]] = {
    contender.__name__: contender
    for contender in (
        orjson_loop, json_loop, polars_stream, datasets_filter, rollmill_export, rollmill_filter,
        rollmill_filter_places, rollmill_analyze,
    )
}  # fmt: skip
IMPORTS = {"polars_stream": "polars", "datasets_filter": "datasets", "rollmill": "rollmill.jobs.curation.commands"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("source")
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    for name, module in IMPORTS.items():
        if options.contender.startswith(name):
            __import__(module)
    started = time.perf_counter()
    CONTENDERS[options.contender](options.source, options.target)
    with options.target.open("rb") as written:  # as rollmill does: so the others' output is durable, too
        os.fsync(written.fileno())
    print(json.dumps({"seconds": time.perf_counter() - started, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
