"""Builders of rollouts, journal rows and runs for tests."""

import subprocess
from contextlib import contextmanager

import orjson
import pytest

from rollmill.files.rows import dump_line
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.identity import Identity
from rollmill.generation.journal import Journal
from rollmill.generation.ownership import Ownership
from rollmill.generation.run import loading_folder, open_run
from rollmill.generation.tally import RolloutOutcome
from rollmill.problems import ProblemSource, Prompting, load_problems
from rollmill.records import Failure, Rollout, Usage, Verdict

PLAIN = Prompting()


def rollout(
    instance_id="p", sample_id=0, *, state="ok", error=0.0, finish_reason="stop", attempt=0, max_tokens=100, **fields
):
    """`state` is `ok`, `unparseable`, or `failed:type`."""
    verdict = failure = None
    if state.startswith("failed"):
        failure = Failure(type=state.partition(":")[2] or "timeout", message="m")
    else:
        good = state == "ok" and error == 0
        details = {"answer": "1", "error": error} if state == "ok" else {"reason": "no tags"}
        verdict = Verdict(verifier="numeric@1", status=state, reward=float(good), success=good, **details)
    return Rollout.model_validate(
        {
            "instance_id": instance_id,
            "sample_id": sample_id,
            "seed": sample_id,
            "messages": [{"role": "user", "content": "q"}],
            "completion": None if failure else f"<answer>{sample_id}</answer>",
            "reward": verdict.reward if verdict else None,
            "success": verdict.success if verdict else None,
            "verdict": verdict,
            "error": failure,
            "usage": Usage(prompt_tokens=3, completion_tokens=5),
            "latency_s": None if failure else 0.5,
            "finish_reason": None if failure else finish_reason,
            "model_calls": 1,
            "metadata": {"attempt": attempt, "max_tokens": max_tokens},
        }
        | fields
    )


def journaled(*where, **fields):
    """Return a rollout as it is read from a journal."""
    return rollout(*where, run_identity=identity().row_key, **fields)


def completed_rollout(*where, **fields):
    """Return a rollout as an engine's attempt returns it."""
    row = rollout(*where, **fields).model_dump(mode="json")
    failure = row["error"]["message"] if row["error"] else None
    return CompletedRollout(row["instance_id"], row["sample_id"], dump_line(row), RolloutOutcome.of_row(row), failure)


def append(journal, *where, **fields):
    """Append a rollout to a journal; return its line in the file."""
    completed = completed_rollout(*where, **fields)
    journal.append(completed)
    return journal.owner.stamp(completed.line)


def identity(*, model="m", max_tokens=100, verifier="numeric@1", **generation):
    """Return a run's identity."""
    sampling = {"temperature": 1.0, "max_tokens": max_tokens}
    return Identity(
        generation={"model": model, "sampling": sampling} | generation,
        verification={"verifier": verifier, "accept_error": 0.0},
    )


@contextmanager
def mounted(*how):
    """For the time of the block, what `mount` mounts at its last argument."""
    done = subprocess.run(["mount", *how], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", how[-1]], check=True)


def owner(same=None, **how):
    """Whose rows are in a journal, which takes rows without an identity, too."""
    return Ownership(same or identity(), **({"has_manifest": True, "older_rows": True} | how))


def open_journal(path, same=None, **how):
    """A journal of one's own."""
    return Journal(path, owner(same, **how))


@contextmanager
def opened(directory, *, rows=3, num_rollout=2, expected=None, same=None, **settings):
    """An open run in `directory`; `rows` is a number of problems, or their rows."""
    if isinstance(rows, int):
        rows = [{"id": f"p{index}", "prompt": f"question {index}", "answer": str(index)} for index in range(rows)]
    directory.mkdir(exist_ok=True)
    data = directory / "data.jsonl"
    data.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    with loading_folder(directory) as fresh:
        loaded = load_problems(ProblemSource(dataset=str(data)), fresh)
        with open_run(
            directory,
            job="test",
            identity=same or identity(),
            parameters={"a": 1},
            seed=0,
            loaded=loaded,
            expected=loaded.count * num_rollout if expected is None else expected,
            **settings,
        ) as run:
            yield run
