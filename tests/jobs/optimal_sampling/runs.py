"""Runs of q* sampling on tiny models, without Prefect."""

from __future__ import annotations

import json
from pathlib import Path

from rollmill.generation.job import opened_run
from rollmill.generation.services import Services
from rollmill.jobs.optimal_sampling.job import OptimalSamplingJob
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling


def write_rows(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def questions(count: int):
    """Prompts in the words of `made`'s models, one of them in several lengths."""
    requested = [f"w{3 + number % 9}" + " w4" * (number % 3) for number in range(count)]
    return [{"question": question, "answer": f"w{number}"} for number, question in enumerate(requested)]


def parameters(folder: Path, rows=None, **options) -> OptimalSampling:
    """Those of a call in a folder: `base` and `other` are its models, `rows` its data set."""
    dataset = str(folder / "rows.jsonl") if rows is None else write_rows(folder / "rows.jsonl", rows)
    custom = {
        "model_theta": str(folder / "base"), "dataset": dataset, "output": str(folder / "out.jsonl"),
        "max_new_tokens": 6, "batch_size": 3, "shard_size": 8, "device": "cpu",
    }  # fmt: skip
    return OptimalSampling.model_validate(custom | options)


def opened(requested: OptimalSampling):
    return opened_run(OptimalSamplingJob.of(requested))


def shards_of(requested: OptimalSampling, run):
    """All that a call draws, as shards."""
    job = OptimalSamplingJob.of(requested)
    scheduler = job.scheduler(run, job.progress(run))
    return list(iter(lambda: scheduler.cut(1), None))


def sample(requested: OptimalSampling, shard, **more):
    """What a worker makes of a shard."""
    return OptimalSamplingJob.of(requested).make_shard(shard, Services, caller="test", **more)


def draw(requested: OptimalSampling, most: int | None = None):
    """What the flow does, in this process; `most` ends it after so many rows, in the middle of a shard."""
    job = OptimalSamplingJob.of(requested)
    with opened_run(job) as run:
        progress = job.progress(run)
        scheduler = job.scheduler(run, progress)
        while shard := scheduler.cut(1):
            samples = sample(requested, shard)
            if most is not None:
                samples = samples._replace(completed=samples.completed[: most - progress.tally.done])
            scheduler.journal_results(shard, samples)
            if progress.tally.done == most:
                return None
        return job.report(run, progress)


def read(path: str | Path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
