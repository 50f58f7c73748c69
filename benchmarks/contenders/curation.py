"""One way to filter a file by reward and success and write messages and metadata to the disk; prints its figures."""

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
    """Return the filter that every contender applies."""
    return bool(row["success"]) and row["reward"] >= LEAST


def sample(row: dict[str, Any]) -> dict[str, Any]:
    """Return what every contender writes."""
    names = ("instance_id", "sample_id", "reward", "speedup", "model_calls")
    return {"messages": row["messages"], "metadata": {name: row[name] for name in names}}


def orjson_loop(source: str, target: Path) -> None:
    """Do the work as the shortest good program does."""
    with Path(source).open("rb") as rows, target.open("wb") as file:
        for line in rows:
            row = orjson.loads(line)
            if kept(row):
                file.write(orjson.dumps(sample(row)) + b"\n")


def json_loop(source: str, target: Path) -> None:
    """Do the same with the standard library."""
    with Path(source).open(encoding="utf-8") as rows, target.open("w", encoding="utf-8") as file:
        for line in rows:
            row = json.loads(line)
            if kept(row):
                file.write(json.dumps(sample(row)) + "\n")


def polars_stream(source: str, target: Path) -> None:
    """Polars from scan to sink."""
    import polars as pl

    metadata = pl.struct("instance_id", "sample_id", "reward", "speedup", "model_calls").alias("metadata")
    rows = pl.scan_ndjson(source).filter(pl.col("success") & (pl.col("reward") >= LEAST))
    rows.select("messages", metadata).sink_ndjson(target)


def datasets_filter(source: str, target: Path) -> None:
    """Hugging Face datasets."""
    import datasets

    datasets.disable_progress_bars()
    rows = datasets.load_dataset("json", data_files=source, split="train", cache_dir=str(target.parent / "cache"))
    rows = rows.filter(lambda success, reward: success and reward >= LEAST, input_columns=["success", "reward"])
    rows.map(sample, remove_columns=[name for name in rows.column_names if name != "messages"]).to_json(target)


def rollmill_export(source: str, target: Path) -> None:
    """`export_sft`: also leaves bookkeeping behind, merges turns, and writes the card and every dropped row's place."""
    from rollmill.corpus.corpus import read_corpus
    from rollmill.jobs.curation.export_job import export_corpus
    from rollmill.jobs.curation.exporters import sft_exporter
    from rollmill.jobs.curation.filter_spec import Filters
    from rollmill.jobs.curation.parameters import Sft

    exporter, filters = sft_exporter(target, Sft(), Filters(min_reward=LEAST, successful_only=True))
    export_corpus(read_corpus([source], hashed=False), filters, exporter)


def rollmill_filter(source: str, target: Path) -> None:
    """`filter_data`: writes whole records, the kept and the dropped."""
    from rollmill.corpus.corpus import read_corpus
    from rollmill.jobs.curation.apply_filters import filter_corpus
    from rollmill.jobs.curation.filter_spec import Filters

    filter_corpus(read_corpus([source], hashed=False), Filters(min_reward=LEAST, successful_only=True), target)


def rollmill_filter_places(source: str, target: Path) -> None:
    """`filter_data --dropped places`: writes whole records of the kept, and where the dropped stand."""
    from rollmill.corpus.corpus import read_corpus
    from rollmill.jobs.curation.apply_filters import filter_corpus
    from rollmill.jobs.curation.filter_spec import Filters

    filter_corpus(
        read_corpus([source], hashed=False), Filters(min_reward=LEAST, successful_only=True), target, "places"
    )


def rollmill_analyze(source: str, target: Path) -> None:
    """`analyze`."""
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
    with options.target.open("rb") as written:  # what rollmill waits for anyway: the others' output is safe, too
        os.fsync(written.fileno())
    print(json.dumps({"seconds": time.perf_counter() - started, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
