"""Ranks the rollouts of one problem. `rollmill.jobs.curation.rules.beyond_best` does the same in tables."""

from __future__ import annotations

import math

from rollmill.records import Rollout


def rollout_error(rollout: Rollout | None) -> float | None:
    """Return the error of a rollout that is ok; None for any other."""
    return rollout.verdict.distance if rollout and rollout.verdict and rollout.status == "ok" else None


def closeness(rollout: Rollout) -> tuple[float, float, int]:
    """Return a key that sorts a problem's rollouts from best to worst: by error, then reward, then sample id."""
    error = rollout_error(rollout)
    return (math.inf if error is None else error, -(rollout.reward or 0.0), rollout.sample_id)
