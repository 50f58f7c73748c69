"""Runs of q* sampling on tiny models, without Prefect."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

from rollmill.jobs.optimal_sampling.outcome import write_samples
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.jobs.optimal_sampling.progress import sampling_progress
from rollmill.jobs.optimal_sampling.run import hold, journal_samples, open_sampling
from rollmill.jobs.optimal_sampling.sampler import SamplerSettings, sample_shard
from rollmill.jobs.optimal_sampling.shards import shards


def write_rows(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def questions(count: int):
    """Prompts in the words of `made`'s models, one of them in several lengths."""
    asked = [f"w{3 + number % 9}" + " w4" * (number % 3) for number in range(count)]
    return [{"question": question, "answer": f"w{number}"} for number, question in enumerate(asked)]


def parameters(folder: Path, rows=None, **given) -> OptimalSampling:
    """Those of a call in a folder: `base` and `other` are its models, `rows` its data set."""
    dataset = str(folder / "rows.jsonl") if rows is None else write_rows(folder / "rows.jsonl", rows)
    own = {
        "model_theta": str(folder / "base"), "dataset": dataset, "output": str(folder / "out.jsonl"),
        "max_new_tokens": 6, "batch_size": 3, "shard_size": 8, "device": "cpu",
    }  # fmt: skip
    return OptimalSampling.model_validate(own | given)


@contextmanager
def opened(asked: OptimalSampling):
    with hold(asked), open_sampling(asked) as run:
        yield run


def draw(asked: OptimalSampling, most: int | None = None):
    """What the flow does, in this process; `most` ends it after so many rows, in the middle of a shard."""
    with opened(asked) as run:
        progress = sampling_progress(run, asked)
        for shard in shards(run, asked):
            samples = sample_shard(SamplerSettings.of(asked), shard, run.directory)
            if most is not None:
                samples = samples._replace(rows=samples.rows[: most - progress.made])
            journal_samples(run, samples, progress)
            if progress.made == most:
                return None
        return write_samples(run, asked, progress)


def read(path: str | Path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
