"""Request bodies of the services, and the limits on what clients can request of a sandbox."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rollmill.errors import InputError
from rollmill.sandboxes.sandbox import Limits, SandboxSpec
from rollmill.sandboxes.shell import MAX_ARGUMENT_BYTES, MAX_PATH_BYTES, check_environment
from rollmill.services import bounds

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_DURATION_LENGTH = 32
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
# Every sandbox is removed at its end anyway.
_HARMLESS = frozenset({"--rm"})


def _check_path(path: str) -> str:
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"more than {MAX_PATH_BYTES} bytes")
    return path


def _check_variables(env: dict[str, str]) -> dict[str, str]:
    try:
        check_environment(env)
    except InputError as error:
        raise ValueError(str(error)) from None
    return env


_Id = Annotated[str, Field(min_length=1, max_length=bounds.ID_LENGTH)]
# Strict, since pydantic would otherwise accept an over-long numeric text as the number. The value of a text needs no
# bound: a sandbox without `container_timeout` has no limit either.
_Duration = (
    Annotated[str, Field(max_length=_DURATION_LENGTH)] | Annotated[float, Field(strict=True, le=bounds.TIMEOUT_S)]
)
_Path = Annotated[str, AfterValidator(_check_path)]
_Seconds = Annotated[float, Field(gt=0, le=bounds.TIMEOUT_S, allow_inf_nan=False)]
_Argument = Annotated[str, Field(max_length=bounds.ARGUMENT_LENGTH)]
_Name = Annotated[str, Field(max_length=bounds.VARIABLE_NAME_LENGTH)]
_Names = Annotated[list[_Name], Field(max_length=bounds.VARIABLES)]
_Value = Annotated[str, Field(max_length=MAX_ARGUMENT_BYTES)]
_Variables = Annotated[dict[_Name, _Value], Field(max_length=bounds.VARIABLES), AfterValidator(_check_variables)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True)


class StartConfig(_Body):
    """A client's settings of its sandbox, named as in mini-swe-agent's Docker environment; other fields are ignored."""

    image: str = Field(min_length=1, max_length=bounds.IMAGE_LENGTH)
    """A folder in `--images`, or a Docker image."""
    cwd: _Path = ""
    """Folder that commands run in; empty for the image's work tree."""
    env: _Variables = {}
    """Environment variables of all commands."""
    forward_env: _Names = []
    """Names of the service's environment variables to pass on."""
    timeout: _Seconds = 60.0
    """Default time limit of a command, in seconds."""
    executable: _Argument = ""
    """Container command, such as docker or podman: empty, or the service's own `--executable`."""
    run_args: list[_Argument] = Field(default=[], max_length=bounds.ARGUMENTS)
    """Arguments of `docker run`: only those of the service's own `--run_args`, and `--rm`."""
    container_timeout: _Duration | None = None
    """Maximum lifetime of the sandbox: seconds, or a duration as for `sleep`: `2h`."""
    pull_timeout: float | None = None
    """Accepted and ignored: images are on the service's machine, or the start fails."""


class StartRequest(_Body):
    """Body of `POST /start`."""

    config: StartConfig
    """Settings of the sandbox: `StartConfig`."""
    request_id: _Id | None = None
    """Idempotency key: the same request with the same id returns the same sandbox, so a start can be retried.

    Another request with that id is refused while the sandbox exists.
    """
    limits: Limits | None = None
    """Limits of the sandbox; the service's apply if they are lower."""
    client: _Id | None = None
    """The client's id: sandboxes of a client with an id are closed when its heartbeats end."""
    for_grading: bool = False
    """Asserts that this is a grader's request: refused with 403 without the grading key.

    A request with the key gets a sandbox reserved for grading in any case (`rollmill.sandboxes.grading_key`).
    """


class ExecuteRequest(_Body):
    """Body of `POST /execute`."""

    container_id: _Id
    """As `/start` answered."""
    command: str
    """Text for `bash -c`."""
    cwd: _Path = ""
    """Folder to run in; empty for that of `config`."""
    timeout: _Seconds | None = None
    """Time limit in seconds; null for that of `config`."""
    timeout_s: _Seconds | None = None
    """The same as `timeout`, which older clients send; if both are given, this counts."""
    env: _Variables = {}
    """More environment variables, for this command."""
    forward_env: _Names = []
    """As in `config`."""
    executable: _Argument = ""
    """As in `config`."""


class CasesRequest(_Body):
    """Body of `POST /cases`: a piece of the cases for the next `/answer_cases`.

    The service keeps them outside of the sandbox.
    """

    container_id: _Id
    """As `/start` answered."""
    text: str
    """The next characters: cases in lines, without the end of the last."""
    first: bool = False
    """Whether earlier pieces are to be forgotten."""


class AnswerCasesRequest(_Body):
    """Body of `POST /answer_cases`: a program answers the cases that were sent.

    See `rollmill.sandboxes.case_answers` for what the program does.
    """

    container_id: _Id
    """As `/start` answered."""
    command: str
    """Text for `bash -c`, in the sandbox's folder."""
    timeout_s: _Seconds
    """Time limit of all cases together, in seconds."""
    most_bytes: int = Field(default=bounds.OUTPUT_BYTES, ge=1, le=bounds.OUTPUT_BYTES)
    """Maximum of all outputs together."""
    env: _Variables = {}
    """More environment variables, for this command."""


class CleanupRequest(_Body):
    """Body of `POST /cleanup`."""

    container_id: _Id
    """As `/start` answered."""
    executable: _Argument = ""
    """As in `config` of `/start`."""


class AliveRequest(_Body):
    """Body of `POST /alive`."""

    client: _Id
    """As `client` in `/start`; each of these requests is a heartbeat of that client."""


class EvaluateRequest(_Body):
    """Body of `POST /evaluate_v3`, the path that clients of the earlier services use."""

    instance_id: str = Field(min_length=1, max_length=bounds.INSTANCE_LENGTH)
    """A problem of the service's `--dataset`."""
    container_id: _Id
    """The sandbox that holds the change, at the service's `--sandbox_server`."""
    mode: Literal["benchmark"] = "benchmark"
    """Build, test and measure. The only mode; clients may leave it out."""


@dataclass(frozen=True)
class Grants:
    """Bounds of clients' requests: higher sandbox limits are lowered to these; anything else raises `InputError`."""

    limits: Limits = field(default_factory=Limits)
    """Upper limits of a sandbox."""
    forward_env: frozenset[str] = frozenset()
    """The service's environment variables that clients can request."""
    executable: str = ""
    """The container command; empty for sandboxes without one, where clients' `executable` is ignored."""
    run_args: frozenset[str] = frozenset()
    """Arguments that every container is started with, so clients may repeat them."""

    def spec(self, request: StartRequest) -> SandboxSpec:
        """Return the specification of the sandbox to start."""
        config = request.config
        self.check_executable(config.executable)
        refused = [argument for argument in config.run_args if argument not in _HARMLESS | self.run_args]
        if refused:
            raise InputError(
                f"run_args {refused[0]!r} is refused: sandboxes are started with this service's own --run_args"
            )
        return SandboxSpec(
            image=config.image,
            cwd=config.cwd,
            env=self.environment(config.forward_env, config.env),
            timeout_s=config.timeout,
            limits=_stricter(self.limits, request.limits) if request.limits else self.limits,
        )

    def check_executable(self, executable: str) -> None:
        """Check a client's container command: it must be empty or the service's own."""
        if self.executable and executable not in {"", self.executable}:
            raise InputError(f"executable {executable!r} is refused: this service runs {self.executable}")

    def environment(self, forward_env: list[str], env: dict[str, str]) -> dict[str, str]:
        """Return the requested variables of the service's environment that are set, overridden by `env`."""
        refused = [name for name in forward_env if name not in self.forward_env]
        if refused:
            raise InputError(
                f"forward_env {refused[0]!r} is refused: only variables in the service's --forward_env are passed on"
            )
        return {name: os.environ[name] for name in forward_env if name in os.environ} | env


def parse_lifetime(config: StartConfig) -> float | None:
    """Parse `container_timeout` to seconds; None for no limit. Raises `InputError`."""
    if config.container_timeout is None:
        return None
    match = _DURATION.fullmatch(str(config.container_timeout).strip())
    if not match or not float(match[1]):
        raise InputError(
            f"container_timeout {config.container_timeout!r} is not a duration: give seconds, or 30m, or 2h"
        )
    return float(match[1]) * _UNITS[match[2]]


def _stricter(allowed: Limits, requested: Limits) -> Limits:
    """Return the lower of each limit: all fields of `Limits` are upper bounds."""
    return Limits(**{name: min(getattr(allowed, name), getattr(requested, name)) for name in Limits.model_fields})
