"""Data sources with recorded rollouts."""

import json

from rollmill.jobs.improvement.data_sources import PlannedSource
from rollmill.jobs.improvement.sources.existing import Existing
from rollmill.jobs.rejection_sampling.parameters import RejectSampling


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sampled(folder, name="rollouts", **more):
    """Return a data source whose run is `<folder>/<name>`."""
    custom = {"model_path": "m", "model_name": name, "output_dir": str(folder), "dataset": "d"}
    return PlannedSource(name, "reject_sampling", RejectSampling.model_validate(custom | more))


def existing(path, name="data_2"):
    """Return a data source of existing rollouts."""
    return PlannedSource(name, "data", Existing(input=[str(path)]))


def recorded(instance_id, question, answer="a", **more):
    """Return a rollout of another producer with a successful verdict."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"instance_id": instance_id, "messages": turns, "success": True, "verdict": {"success": True}} | more
