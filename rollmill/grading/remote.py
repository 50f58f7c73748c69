"""Grades by a service that answers `/evaluate_v3`, this project's or another."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import Any, Self, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from rollmill.grading.evaluation import Evaluation, GitPrecheck, SpeedupDetails
from rollmill.grading.problem import GradedProblem
from rollmill.inference.http_service import CallFailedError, ServiceConnection

TOKEN_VARIABLE = "ROLLMILL_EVALUATION_TOKEN"  # noqa: S105 - a name
"""The environment variable that holds an evaluation service's token, at the service and at its clients."""

INFRASTRUCTURE = "infrastructure"
"""The `phase` of an answer without a grade, because grading failed."""

_LOOK_S = 0.25

ModelT = TypeVar("ModelT", bound=BaseModel)

_PHASES = {"precheck": "git_precheck", "build_test": "build", "build_benchmark": "build"}
_READ = frozenset(
    {"instance_id", "success", "reward", "speedup", "reason", "phase", "error", "error_type", "flags", "metadata"}
)
_STEPS = ("build", "test", "benchmark")


class RemoteGrader:
    """Client of an evaluation service; thread-safe.

    A request that did not reach the service is retried up to `max_retries` times, one that was refused because the
    service is full, for up to `timeout_s`; no others are, since grading is expensive and may have begun.
    """

    def __init__(
        self, address: str, *, token: SecretStr | None = None, timeout_s: float = 3600.0, max_retries: int = 5
    ) -> None:
        """Connect lazily, with the first request.

        Args:
            address: `host:port` or a URL.
            token: Bearer token of the service; None for none.
            timeout_s: Of one evaluation, including its wait in the service's queue.
            max_retries: Of a request that did not reach the service.
        """
        self._connection = ServiceConnection(address, token)
        self._timeout_s = timeout_s
        self._max_retries = max_retries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def grade(self, problem: GradedProblem, sandbox_id: str) -> Evaluation:
        """Return the service's grade; see `Grader`.

        A failed request becomes the evaluation's `error`, without a reward. The request contains only the problem's
        `instance_id`: the service has the rest.
        """
        response: Future[Evaluation] = Future()

        def request() -> None:
            try:
                response.set_result(self._request(problem.instance_id, sandbox_id))
            except BaseException as error:  # re-raised in the thread that waits
                response.set_exception(error)

        # In a daemon thread, so that closing the grader does not wait for an evaluation that takes an hour.
        threading.Thread(target=request, name="grading", daemon=True).start()
        while not wait([response], _LOOK_S).done:
            if self._connection.closing:
                return _failed(problem.instance_id, "the grader was closed before the service answered", "closed")
        return response.result()

    def _request(self, instance_id: str, sandbox_id: str) -> Evaluation:
        try:
            answer = self._connection.post_again(
                "/evaluate_v3",
                {"instance_id": instance_id, "container_id": sandbox_id, "mode": "benchmark"},
                timeout_s=self._timeout_s,
                retries=self._max_retries,
                retry_if=lambda failure: not failure.reached or failure.full,
                patience_s=self._timeout_s,
            )
        except CallFailedError as failure:
            return _failed(instance_id, str(failure), failure.type)
        return read_evaluation(instance_id, answer)

    def close(self) -> None:
        """Abandon pending requests, and close the connections."""
        self._connection.close()


def read_evaluation(instance_id: str, answer: Mapping[str, Any]) -> Evaluation:
    """Convert a service's answer to an evaluation.

    A grade is a finite `reward` with a success, or with a reason why it is no success; anything else is a failure of
    the service. Unknown fields are kept in `metadata`.
    """
    reward, reason = _number(answer.get("reward")), _text(answer.get("reason"))
    error, phase = _text(answer.get("error")), _text(answer.get("phase"))
    succeeded = answer.get("success") is True
    if reward is None or phase == INFRASTRUCTURE or not (succeeded or reason or phase):
        message = error or reason or f"no grade in the service's answer ({', '.join(sorted(answer)) or 'empty'})"
        return _failed(instance_id, message, _text(answer.get("error_type")) or "evaluation", _rest(answer))
    details = _valid(SpeedupDetails, answer.get("speedup_details"))
    metadata = _rest(answer)
    if details is None and answer.get("speedup_details") is not None:
        metadata["speedup_details"] = answer["speedup_details"]
    steps: dict[str, Any] = {}
    for step in _STEPS:
        steps[f"{step}_output"] = _text(answer.get(f"{step}_output")) or ""
        steps[f"{step}_returncode"] = _code(answer, step)
    return Evaluation(
        instance_id=instance_id,
        success=succeeded,
        reward=reward,
        speedup=_number(answer.get("speedup")),
        reason=reason or error,
        phase=_PHASES.get(phase, phase) if phase else None,
        git_precheck=_valid(GitPrecheck, answer.get("git_precheck")),
        speedup_details=details,
        flags=_texts(answer.get("flags")),
        metadata=metadata,
        **steps,
    )


def _failed(instance_id: str, error: str, error_type: str, metadata: dict[str, Any] | None = None) -> Evaluation:
    """Return an evaluation without a grade.

    Args:
        instance_id: The problem.
        error: The failure, in words.
        error_type: Its kind, such as `timeout`.
        metadata: The answer's other fields; None for none.
    """
    return Evaluation(
        instance_id=instance_id,
        success=None,
        reward=None,
        error=error,
        error_type=error_type,
        metadata=metadata or {},
    )


def _rest(answer: Mapping[str, Any]) -> dict[str, Any]:
    taken = _READ | {"git_precheck", "speedup_details"}
    taken |= {f"{step}_{what}" for step in _STEPS for what in ("output", "returncode", "exit_code", "success")}
    metadata = answer.get("metadata")
    return {
        **(metadata if isinstance(metadata, dict) else {}),
        **{name: answer[name] for name in answer if name not in taken},
    }


def _code(answer: Mapping[str, Any], step: str) -> int | None:
    for name in ("returncode", "exit_code"):
        code = answer.get(f"{step}_{name}")
        if isinstance(code, int) and not isinstance(code, bool):
            return code
    success = answer.get(f"{step}_success")
    return int(not success) if isinstance(success, bool) else None


def _number(value: object) -> float | None:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fits else None  # type: ignore[arg-type]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _valid(kind: type[ModelT], value: object) -> ModelT | None:
    try:
        return None if value is None else kind.model_validate(value)
    except ValidationError:
        return None
