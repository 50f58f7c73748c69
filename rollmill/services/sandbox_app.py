"""The sandbox service's paths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI, Request, Response
from pydantic import SecretStr

from rollmill.errors import InputError
from rollmill.sandboxes.sandbox import SandboxError
from rollmill.services.held import ClientGoneError, FullError, HeldSandboxes
from rollmill.services.protocol import AliveRequest, CleanupRequest, ExecuteRequest, Grants, StartRequest, lifetime_s
from rollmill.services.serving import failure, guard, json_response, until_gone

_RETRY_AFTER = {"Retry-After": "1"}
_CLIENT_CLOSED_REQUEST = 499


def sandbox_app(held: HeldSandboxes, grants: Grants, *, kind: str, token: SecretStr | None) -> FastAPI:
    """`/start`, `/execute`, `/cleanup`, `/alive`, `/status`, and `/health` for anybody.

    `kind`: what `/status` calls the host.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        expiring = asyncio.create_task(held.expire())
        yield
        expiring.cancel()
        with suppress(asyncio.CancelledError):
            await expiring

    app = FastAPI(title="rollmill sandboxes", lifespan=lifespan, openapi_url=None)
    guard(app, token)
    _answer_errors(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/status")
    async def status() -> dict[str, str | int]:
        return {"service": "sandbox", "backend": kind, **held.counts()}

    @app.post("/start")
    async def start(request: Request, body: StartRequest) -> Response:
        container_id = await held.start(
            grants.spec(body),
            partial(until_gone, request),
            request_id=body.request_id,
            lifetime_s=lifetime_s(body.config),
            for_grading=body.for_grading,
            client=body.client,
        )
        return json_response({"container_id": container_id, "status": "started", "beat_s": held.beat_s})

    @app.post("/alive")
    async def alive(body: AliveRequest) -> Response:
        held.alive(body.client)
        return json_response({"status": "heard"})

    @app.post("/execute")
    async def execute(request: Request, body: ExecuteRequest) -> Response:
        grants.check_executable(body.executable)
        execution = await held.execute(
            body.container_id,
            body.command,
            partial(until_gone, request),
            cwd=body.cwd,
            timeout_s=body.timeout_s or body.timeout,
            env=grants.environment(body.forward_env, body.env),
        )
        return json_response(execution.model_dump())

    @app.post("/cleanup")
    async def cleanup(body: CleanupRequest) -> Response:
        grants.check_executable(body.executable)
        await held.close(body.container_id)
        return json_response({"container_id": body.container_id, "status": "cleaned up"})

    return app


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(InputError)
    def mistake(request: Request, error: InputError) -> Response:
        return failure(400, str(error))

    @app.exception_handler(SandboxError)
    def broken(request: Request, error: SandboxError) -> Response:
        return failure(404 if error.type == "unknown_sandbox" else 500, str(error))

    @app.exception_handler(FullError)
    def full(request: Request, error: FullError) -> Response:
        return failure(503, str(error), _RETRY_AFTER)

    @app.exception_handler(ClientGoneError)
    def gone(request: Request, error: ClientGoneError) -> Response:
        return failure(_CLIENT_CLOSED_REQUEST, str(error))
