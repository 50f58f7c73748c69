"""The sandbox service's HTTP endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI, Request, Response
from pydantic import SecretStr

from rollmill.errors import InputError
from rollmill.sandboxes.grading_key import KEY_VARIABLE
from rollmill.sandboxes.sandbox import SandboxError
from rollmill.services.guard import failure, guard, is_grader, json_response
from rollmill.services.protocol import (
    AliveRequest,
    AnswerCasesRequest,
    CasesRequest,
    CleanupRequest,
    ExecuteRequest,
    Grants,
    StartRequest,
    parse_lifetime,
)
from rollmill.services.sandbox_pool import ClientDisconnectedError, FullError, ReusedIdError, SandboxPool
from rollmill.services.serving import wait_for_disconnect

_RETRY_AFTER = {"Retry-After": "1"}
_CLIENT_CLOSED_REQUEST = 499


def sandbox_app(
    pool: SandboxPool,
    grants: Grants,
    *,
    kind: str,
    token: SecretStr | None,
    grading_keys: Sequence[SecretStr] = (),
) -> FastAPI:
    """Return the application: `/health`, which needs no token, and the endpoints of `rollmill.services.protocol`.

    Args:
        pool: Has the sandboxes.
        grants: Limits on clients' requests.
        kind: Name of the kind of sandboxes, for `/status`.
        token: Bearer token that clients must send; None for loopback only.
        grading_keys: Keys for the slots that are reserved for grading.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        expiring = asyncio.create_task(pool.expire())
        yield
        expiring.cancel()
        with suppress(asyncio.CancelledError):
            await expiring

    app = FastAPI(title="rollmill sandboxes", lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    guard(app, token, grading_keys)
    _answer_errors(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/status")
    async def status() -> dict[str, str | int]:
        return {"service": "sandbox", "backend": kind, "cases": True, **pool.counts()}

    @app.post("/start")
    async def start(request: Request, body: StartRequest) -> Response:
        for_grading = is_grader(request)
        if body.for_grading and not for_grading:
            return failure(403, f"for_grading: these slots need the service's {KEY_VARIABLE}")
        container_id = await pool.start(
            grants.spec(body),
            partial(wait_for_disconnect, request),
            request_id=body.request_id,
            lifetime_s=parse_lifetime(body.config),
            for_grading=for_grading,
            client=body.client,
            content={**body.config.model_dump(), **body.model_dump(exclude={"config", "request_id"})},
        )
        started = {"container_id": container_id, "status": "started", "for_grading": for_grading}
        return json_response({**started, "beat_s": pool.heartbeat_interval_s})  # the key that existing clients read

    @app.post("/alive")
    async def alive(body: AliveRequest) -> Response:
        pool.alive(body.client)
        return json_response({"status": "heard"})

    @app.post("/execute")
    async def execute(request: Request, body: ExecuteRequest) -> Response:
        grants.check_executable(body.executable)
        execution = await pool.execute(
            body.container_id,
            body.command,
            partial(wait_for_disconnect, request),
            cwd=body.cwd,
            timeout_s=body.timeout_s or body.timeout,
            env=grants.environment(body.forward_env, body.env),
        )
        return json_response(execution.model_dump())

    @app.post("/cases")
    async def cases(body: CasesRequest) -> Response:
        pool.keep_cases(body.container_id, body.text, first=body.first)
        return json_response({"container_id": body.container_id, "status": "kept"})

    @app.post("/answer_cases")
    async def answer_cases(request: Request, body: AnswerCasesRequest) -> Response:
        answers = await pool.answer_cases(
            body.container_id,
            body.command,
            partial(wait_for_disconnect, request),
            timeout_s=body.timeout_s,
            most_bytes=body.most_bytes,
            env=body.env,
        )
        return json_response(answers.model_dump())

    @app.post("/cleanup")
    async def cleanup(body: CleanupRequest) -> Response:
        grants.check_executable(body.executable)
        await pool.close(body.container_id)
        return json_response({"container_id": body.container_id, "status": "cleaned up"})

    return app


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(InputError)
    async def mistake(request: Request, error: InputError) -> Response:
        return failure(400, str(error))

    @app.exception_handler(SandboxError)
    async def sandbox_failed(request: Request, error: SandboxError) -> Response:
        return failure(404 if error.type == "unknown_sandbox" else 500, str(error))

    @app.exception_handler(FullError)
    async def full(request: Request, error: FullError) -> Response:
        return failure(503, str(error), _RETRY_AFTER)

    @app.exception_handler(ReusedIdError)
    async def reused(request: Request, error: ReusedIdError) -> Response:
        return failure(409, str(error))

    @app.exception_handler(ClientDisconnectedError)
    async def disconnected(request: Request, error: ClientDisconnectedError) -> Response:
        return failure(_CLIENT_CLOSED_REQUEST, str(error))
