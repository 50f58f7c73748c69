"""Sandboxes of a service, by the protocol of `/start`, `/execute` and `/cleanup`."""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from pydantic import SecretStr

from rollmill.errors import InputError
from rollmill.inference.http_service import CallFailedError, ServiceConnection, as_header
from rollmill.sandboxes.grading_key import KEY_HEADER, KEY_VARIABLE, key_for
from rollmill.sandboxes.output import CappedOutput
from rollmill.sandboxes.registry import HostSettings, SandboxEntry
from rollmill.sandboxes.remote_cases import answer_at_service, refusal
from rollmill.sandboxes.sandbox import TIMED_OUT, CaseAnswers, Execution, Limits, SandboxError, SandboxSpec
from rollmill.sandboxes.shell import find_refusal, printable
from rollmill.sandboxes.started import StartedSandboxes
from rollmill.terminal.escapes import visible_line

ENTRY = SandboxEntry("remote", "RemoteHost", "at a service", remote=True)

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "ROLLMILL_SANDBOX_TOKEN"  # noqa: S105 - a name
"""The environment variable that holds a sandbox service's token, at the service and at its clients."""

_CLEANUP_S = 30.0
_ALIVE_S = _STATUS_S = 10.0
_CLEANUP_RETRIES = 2
_CLEANUP_PATIENCE_S = 60.0
_CLEANUPS_AT_A_TIME = 16
_DEFAULT_TIMEOUT_S = 60.0
_USERS_MISTAKES = frozenset({400, 401, 403, 404, 422})
_LONGEST_ID = 200
_SHORTEST_BEAT_S = 0.1
_LONGEST_BEAT_S = 3600.0


class RemoteHost(StartedSandboxes["RemoteSandbox"]):
    """Client of the sandbox service at `host:port` or a URL; thread-safe.

    A start is sent again after connection failures, and while the service is full; a command is sent once.

    Args:
        address: `host:port` or a URL.
        token: Bearer token of the service.
        request_timeout_s: Time limit of one start in seconds, its wait in the service's queue included.
        slack_s: Seconds to wait for a command's answer beyond the command's own limit.
        max_retries: How often a start is sent again after connection failures.
        patience_s: Seconds to keep asking a service that is full.
        start_config: More of `/start`'s `config`, such as `run_args`.
        for_grading: Take the slots that a service reserves for grading, since agents that wait for their grade may hold
            all others; they open with the service's key (see `grading_key`).
    """

    def __init__(
        self,
        address: str,
        *,
        token: SecretStr | None = None,
        request_timeout_s: float = 900.0,
        slack_s: float = 60.0,
        max_retries: int = 5,
        patience_s: float = 3600.0,
        start_config: Mapping[str, Any] | None = None,
        for_grading: bool = False,
    ) -> None:
        super().__init__()
        self._connection = ServiceConnection(address, token)
        self._request_timeout_s = request_timeout_s
        self._slack_s = slack_s
        self._max_retries = max_retries
        self._patience_s = patience_s
        self._start_config = dict(start_config or {})
        self._for_grading = for_grading
        self._name = uuid.uuid4().hex
        self._heartbeat: threading.Thread | None = None
        self._warned_of_grading = False

    @classmethod
    def from_settings(cls, settings: HostSettings) -> Self:
        """Open a host at a service; see `OpenableHost`."""
        if settings.service is None:
            raise InputError("--sandbox remote needs --sandbox_server or --sandbox_block")
        return cls(settings.service.address, token=settings.service.token, start_config=settings.start_config)

    def start(self, spec: SandboxSpec) -> RemoteSandbox:
        """Start a sandbox; see `SandboxHost`. Raises `InputError` where the service refuses image, token or name."""
        config = {"image": spec.image, "env": spec.env, "timeout": math.ceil(spec.timeout_s)}
        if spec.cwd:
            config["cwd"] = spec.cwd
        # The request id makes a retry safe: the service returns the same sandbox. Only `config` is common to all
        # services; fields beside it are ignored by those that do not know them.
        body = {
            "config": {**config, **self._start_config},
            "request_id": uuid.uuid4().hex,
            "limits": spec.limits.model_dump(),
            "client": self._name,
        }
        sandbox_id = self._request_start(body)
        return self._add(RemoteSandbox(sandbox_id, self._connection, spec, self._slack_s, self._forget))

    def find(self, sandbox_id: str) -> RemoteSandbox:
        """Return a handle of a sandbox that any client started; whether it exists shows at its first command."""
        with self._lock:
            sandbox = self._sandboxes.get(sandbox_id)
        return sandbox or RemoteSandbox(sandbox_id, self._connection, None, self._slack_s, self._forget)

    def cases_fault(self) -> str | None:
        """Return why the service's sandboxes cannot answer cases; None where they can, or no service answers yet."""
        try:
            status = self._connection.get("/status", timeout_s=_STATUS_S)
        except CallFailedError as failure:
            return None if failure.status is None else refusal(self._connection)
        return None if status.get("cases") else refusal(self._connection)

    def close(self) -> None:
        """Close all sandboxes that this client started; starts in progress are cancelled."""
        self._connection.stop_waiting()
        left = self._stop_starting()
        if left:
            with ThreadPoolExecutor(min(_CLEANUPS_AT_A_TIME, len(left)), thread_name_prefix="cleanup") as threads:
                list(threads.map(RemoteSandbox.close, left))
        self._connection.close()

    def _refusal(self) -> SandboxError:
        return SandboxError("the sandboxes were closed while one was started", type_="closed")

    def _request_start(self, body: dict[str, Any]) -> str:
        key = key_for(self._connection.url) if self._for_grading else None
        try:
            answer = self._connection.post_again(
                "/start",
                body,
                timeout_s=self._request_timeout_s,
                retries=self._max_retries,
                retry_if=lambda failure: failure.passing,
                patience_s=self._patience_s,
                headers={KEY_HEADER: as_header(key, KEY_VARIABLE)} if key else None,
            )
        except CallFailedError as failure:
            if failure.status not in _USERS_MISTAKES:
                raise SandboxError(str(failure), type_=failure.type) from failure
            hint = f": set {TOKEN_VARIABLE} to its token" if failure.status in {401, 403} else ""
            raise InputError(f"{failure}{hint}") from failure
        sandbox_id = answer.get("container_id")
        if not isinstance(sandbox_id, str) or not 0 < len(sandbox_id) <= _LONGEST_ID:
            raise SandboxError(f"{self._connection.url}/start names no container_id", type_="malformed_answer")
        interval_s = answer.get("beat_s")
        if isinstance(interval_s, (int, float)) and interval_s > 0:
            self._start_heartbeat(min(max(interval_s, _SHORTEST_BEAT_S), _LONGEST_BEAT_S))
        if self._for_grading and answer.get("for_grading") is False and not self._warned_of_grading:
            self._warned_of_grading = True
            log.warning(
                "%s gives none of the slots that it reserves for grading: agents may hold all others until they are "
                "graded. Set %s to the same value here and at the service", self._connection.url, KEY_VARIABLE,
            )  # fmt: skip
        return sandbox_id

    def _start_heartbeat(self, interval_s: float) -> None:
        """Send the service a heartbeat at this interval, since commands may be far apart."""
        with self._lock:
            if self._heartbeat is None:
                self._heartbeat = threading.Thread(
                    target=self._send_heartbeats, args=(interval_s,), name="alive", daemon=True
                )
                self._heartbeat.start()

    def _send_heartbeats(self, interval_s: float) -> None:
        while not self._connection.wait(interval_s):
            try:
                self._connection.post("/alive", {"client": self._name}, timeout_s=_ALIVE_S)
            except CallFailedError as failure:
                log.debug("%s", failure)  # the next heartbeat may succeed


class RemoteSandbox:
    """One sandbox of a service; `RemoteHost` makes it."""

    def __init__(
        self,
        sandbox_id: str,
        connection: ServiceConnection,
        spec: SandboxSpec | None,
        slack_s: float,
        forget: Callable[[str], None],
    ) -> None:
        """Wrap a sandbox that the service has started.

        Args:
            sandbox_id: The service's `container_id`.
            connection: To the service.
            spec: As it was started; None for another client's sandbox.
            slack_s: Seconds to wait for a command's answer beyond the command's limit.
            forget: Called with the id when the sandbox is closed.
        """
        self._id = sandbox_id
        self._connection = connection
        self._cwd = spec.cwd if spec else ""
        self._env = spec.env if spec else {}
        self._timeout_s = spec.timeout_s if spec else _DEFAULT_TIMEOUT_S
        self._limits = spec.limits if spec else Limits()
        self._slack_s = slack_s
        self._forget = forget
        self._closed = False

    @property
    def id(self) -> str:
        """Return the service's `container_id`."""
        return self._id

    def execute(
        self,
        command: str,
        *,
        cwd: str = "",
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Execution:
        """Run a bash command to its end; see `Sandbox`. Raises `SandboxError` for failures of the connection.

        Args:
            command: Text for `bash -c`.
            cwd: Folder to run in; the work tree if empty.
            timeout_s: Time limit in seconds; None for the sandbox's default.
            env: More environment variables.
        """
        if self._closed:
            raise SandboxError(f"sandbox {self._id} is closed", type_="unknown_sandbox")
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        refusal = find_refusal(command, cwd or self._cwd)
        if refusal:
            return refusal
        variables = {printable(name): printable(value) for name, value in {**self._env, **(env or {})}.items()}
        body = {
            "container_id": self._id,
            "command": printable(command),
            "cwd": printable(cwd or self._cwd),
            "timeout": math.ceil(timeout_s),
            "timeout_s": timeout_s,
            "env": variables,
        }
        began = time.monotonic()
        try:
            answer = self._connection.post("/execute", body, timeout_s=timeout_s + self._slack_s)
        except CallFailedError as failure:
            error_type = "unknown_sandbox" if failure.status == 404 else failure.type
            raise SandboxError(str(failure), type_=error_type) from failure
        return self._execution(answer, time.monotonic() - began, timeout_s)

    def answer_cases(
        self, command: str, cases: Sequence[str], *, timeout_s: float, most_bytes: int, env: Mapping[str, str]
    ) -> CaseAnswers:
        """Have a program answer cases at the service; see `Sandbox`.

        Args:
            command: Text for `bash -c`.
            cases: One line each.
            timeout_s: Time limit in seconds.
            most_bytes: Maximum of all outputs together.
            env: More environment variables.
        """
        if self._closed:
            raise SandboxError(f"sandbox {self._id} is closed", type_="unknown_sandbox")
        return answer_at_service(
            self._connection,
            self._id,
            command,
            cases,
            timeout_s=timeout_s,
            slack_s=self._slack_s,
            most_bytes=most_bytes,
            env={**self._env, **env},
        )

    def close(self) -> None:
        """Ask the service to close the sandbox; where that fails, the service closes it when it is idle."""
        if self._closed:
            return
        self._closed = True
        self._forget(self._id)
        try:
            self._connection.post_again(
                "/cleanup",
                {"container_id": self._id},
                timeout_s=_CLEANUP_S,
                retries=_CLEANUP_RETRIES,
                retry_if=lambda failure: failure.passing,
                patience_s=_CLEANUP_PATIENCE_S,
            )
        except CallFailedError as failure:
            if failure.status != 404:
                log.warning("sandbox %s may be left at its service: %s", visible_line(self._id)[:200], failure)

    def _execution(self, answer: Mapping[str, Any], seconds: float, timeout_s: float) -> Execution:
        """Convert an answer to an execution; some services send only `output` and `returncode`."""
        output, code = answer.get("output"), answer.get("returncode")
        if not isinstance(output, str) or not isinstance(code, int) or isinstance(code, bool):
            raise SandboxError("the sandbox service's answer lacks output or returncode", type_="malformed_answer")
        if "truncated" in answer:
            return _complete_execution(answer)
        capped = CappedOutput(self._limits.output_bytes)
        capped.add(output.encode(errors="replace"))
        return Execution(
            output=capped.text(),
            returncode=code,
            timed_out=code == TIMED_OUT and seconds >= timeout_s,
            truncated=capped.full,
            seconds=seconds,
        )


def _complete_execution(answer: Mapping[str, Any]) -> Execution:
    try:
        return Execution.model_validate(answer)
    except ValueError as error:
        raise SandboxError(
            f"the sandbox service's answer is no execution: {error}", type_="malformed_answer"
        ) from error
