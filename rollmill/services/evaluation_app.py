"""The evaluation service's HTTP endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import SecretStr

from rollmill.grading.evaluation import Evaluation, Grader
from rollmill.grading.problem import GradedProblem
from rollmill.grading.remote import INFRASTRUCTURE
from rollmill.services.guard import failure, guard, json_response
from rollmill.services.protocol import EvaluateRequest

_CLIENT_CLOSED_REQUEST = 499


class Evaluations:
    """Queue of evaluations: `concurrency` at a time, first come, first served."""

    def __init__(self, grader: Grader, concurrency: int) -> None:
        self._grader = grader
        self._concurrency = concurrency
        self._capacity = asyncio.Semaphore(concurrency)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="evaluation")
        self._received = 0
        self._done = 0

    async def grade(self, request: Request, problem: GradedProblem, sandbox_id: str) -> Evaluation | None:
        """Return the evaluation; None if the client disconnected before it began."""
        self._received += 1
        try:
            async with self._capacity:
                if await request.is_disconnected():
                    return None
                running = asyncio.get_running_loop().run_in_executor(
                    self._threads, self._grader.grade, problem, sandbox_id
                )
                return await asyncio.shield(running)
        finally:
            self._done += 1

    def counts(self) -> dict[str, int]:
        """Return the numbers of running, waiting and finished evaluations."""
        under_way = self._received - self._done
        return {
            "workers": self._concurrency,
            "running": min(under_way, self._concurrency),
            "waiting": max(under_way - self._concurrency, 0),
            "done": self._done,
        }

    def shut_down(self) -> None:
        """Wait for running evaluations. Call it after the event loop's end, with grader and sandboxes closed."""
        self._threads.shutdown(cancel_futures=True)


def evaluation_app(
    evaluations: Evaluations, problems: Mapping[str, GradedProblem], *, token: SecretStr | None
) -> FastAPI:
    """Return the application: `/evaluate_v3`, `/status`, and `/health` without a token.

    `problems` are those that clients can have graded, by `instance_id`.
    """
    app = FastAPI(title="rollmill evaluation", openapi_url=None, redirect_slashes=False)
    guard(app, token)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/status")
    async def status() -> dict[str, str | int]:
        return {"service": "evaluation", "problems": len(problems), **evaluations.counts()}

    @app.post("/evaluate_v3")
    async def evaluate(request: Request, body: EvaluateRequest) -> Response:
        problem = problems.get(body.instance_id)
        if problem is None:
            return failure(404, f"there is no problem {body.instance_id!r} in this service's data set")
        evaluation = await evaluations.grade(request, problem, body.container_id)
        if evaluation is None:
            return failure(_CLIENT_CLOSED_REQUEST, "the client disconnected")
        return json_response(answer(evaluation, body.container_id))

    return app


def answer(evaluation: Evaluation, container_id: str) -> dict[str, Any]:
    """Return an evaluation's fields, with those that existing clients read in addition.

    `success` is true or false, `error` the reason if false. Without a grade, `reward` is null and `phase` is
    `infrastructure`.
    """
    fields = evaluation.model_dump(mode="json")
    for phase in ("build", "test", "benchmark"):
        code = fields[f"{phase}_returncode"]
        if code is not None:
            fields |= {f"{phase}_success": code == 0, f"{phase}_exit_code": code}
    failed = evaluation.error is not None
    return fields | {
        "container_id": container_id,
        "success": evaluation.success is True,
        "phase": INFRASTRUCTURE if failed else evaluation.phase,
        "error": evaluation.error if failed or evaluation.success else evaluation.reason,
    }
