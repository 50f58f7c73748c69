"""Rollouts and problems with given states."""

from rollmill.records import Failure, Problem, Rollout, Verdict


def rollout(sample_id, state=0.0, *, instance_id="p0", accept=0.1, completion=None, finish_reason="stop", success=None):
    """`state` is the error of an ok rollout (None: ok without one), "unparseable", or "failed:kind"."""
    verdict = error = None
    if state == "unparseable":
        verdict = Verdict(verifier="numeric@1", status="unparseable", reason="no tags", reward=0.0, success=False)
    elif isinstance(state, str):
        error = Failure(type=state.partition(":")[2] or "timeout", message="m")
    else:
        good = success if success is not None else state is not None and state <= accept
        verdict = Verdict(
            verifier="numeric@1", status="ok", answer=str(state), error=state, reward=float(good), success=good
        )
    return Rollout(
        instance_id=instance_id,
        sample_id=sample_id,
        seed=sample_id,
        messages=[{"role": "user", "content": "q"}],
        completion=None if error else (f"completion {sample_id}" if completion is None else completion),
        reward=verdict.reward if verdict else None,
        success=verdict.success if verdict else None,
        verdict=verdict,
        error=error,
        finish_reason=None if error else finish_reason,
    )


def group(index, states, *, truth="3.0"):
    """Return a problem and its rollouts with these states; "missing" for None."""
    name = f"p{index}"
    rollouts = [None if s == "missing" else rollout(i, s, instance_id=name) for i, s in enumerate(states)]
    return Problem(instance_id=name, prompt="q", answer=truth), rollouts
