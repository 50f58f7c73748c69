"""What is asked of the services: the bodies of their requests, and what of a request for a sandbox is granted."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rollmill.errors import InputError
from rollmill.sandboxes.sandbox import Limits, SandboxSpec
from rollmill.sandboxes.shell import LONGEST, LONGEST_PATH, check_environment
from rollmill.services import bounds

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_DURATION_LENGTH = 32
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
# What every sandbox does anyway: it is gone when it ends.
_HARMLESS = frozenset({"--rm"})


def _check_path(path: str) -> str:
    if len(path.encode()) > LONGEST_PATH:
        raise ValueError(f"more than {LONGEST_PATH} bytes")
    return path


def _check_variables(env: dict[str, str]) -> dict[str, str]:
    try:
        check_environment(env)
    except InputError as error:
        raise ValueError(str(error)) from None
    return env


_Id = Annotated[str, Field(min_length=1, max_length=bounds.ID_LENGTH)]
# Strict: a text that is too long must not be taken as a number instead.
_Duration = (
    Annotated[str, Field(max_length=_DURATION_LENGTH)] | Annotated[float, Field(strict=True, le=bounds.TIMEOUT_S)]
)
_Path = Annotated[str, AfterValidator(_check_path)]
_Seconds = Annotated[float, Field(gt=0, le=bounds.TIMEOUT_S, allow_inf_nan=False)]
_Argument = Annotated[str, Field(max_length=bounds.ARGUMENT_LENGTH)]
_Name = Annotated[str, Field(max_length=bounds.VARIABLE_NAME_LENGTH)]
_Names = Annotated[list[_Name], Field(max_length=bounds.VARIABLES)]
_Value = Annotated[str, Field(max_length=LONGEST)]
_Variables = Annotated[dict[_Name, _Value], Field(max_length=bounds.VARIABLES), AfterValidator(_check_variables)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True)


class StartConfig(_Body):
    """What a client wants of its sandbox, by the names that clients in use have; others are ignored."""

    image: str = Field(min_length=1, max_length=bounds.IMAGE_LENGTH)
    """A folder in `--images`, or a Docker image."""
    cwd: _Path = ""
    """Where commands run; empty for the image's own work tree."""
    env: _Variables = {}
    """Environment variables of all commands."""
    forward_env: _Names = []
    """Names of variables of the service's own environment."""
    timeout: _Seconds = 60.0
    """Seconds of a command that names none."""
    executable: _Argument = ""
    """Empty, or the service's own `--executable`."""
    run_args: list[_Argument] = Field(default=[], max_length=bounds.ARGUMENTS)
    """Arguments of `docker run`: only those of the service's own `--run_args`, and `--rm`."""
    container_timeout: _Duration | None = None
    """How long the sandbox may live: seconds, or as `sleep` takes it: `2h`."""
    pull_timeout: float | None = None
    """Taken and of no effect: images are here, or the start fails."""


class StartRequest(_Body):
    """Of `POST /start`."""

    config: StartConfig
    """The sandbox, see below."""
    request_id: _Id | None = None
    """The same request with the same id is answered with the same sandbox: one whose answer was lost can be sent again.

    Another request with that id is refused as long as the sandbox lives.
    """
    limits: Limits | None = None
    """Of the sandbox; the service's own count where they are lower."""
    client: _Id | None = None
    """Name of the client: one that gives it, and then sends no `/alive` for too long, loses its sandboxes."""
    for_grading: bool = False
    """Without effect, and refused without the key: that opens the places for grading, see `grading_key`."""


class ExecuteRequest(_Body):
    """Of `POST /execute`."""

    container_id: _Id
    """As `/start` answered."""
    command: str
    """Text for `bash -c`."""
    cwd: _Path = ""
    """Folder to run in; empty for that of `config`."""
    timeout: _Seconds | None = None
    """Time limit in seconds; null for that of `config`."""
    timeout_s: _Seconds | None = None
    """The same to a fraction of a second; counts where both are given."""
    env: _Variables = {}
    """More environment variables, for this command."""
    forward_env: _Names = []
    """As in `config`."""
    executable: _Argument = ""
    """As in `config`."""


class CleanupRequest(_Body):
    """Of `POST /cleanup`."""

    container_id: _Id
    """As `/start` answered."""
    executable: _Argument = ""
    """As in `config` of `/start`."""


class AliveRequest(_Body):
    """Of `POST /alive`."""

    client: _Id
    """The name in `/start`."""


class EvaluateRequest(_Body):
    """Of `POST /evaluate_v3`."""

    instance_id: str = Field(min_length=1, max_length=bounds.INSTANCE_LENGTH)
    """A problem of the service's `--dataset`."""
    container_id: _Id
    """The sandbox that holds the change, at the service's `--sandbox_server`."""
    mode: Literal["benchmark"] = "benchmark"
    """Build, test and measure; there is no other."""


@dataclass(frozen=True)
class Grants:
    """What clients may have. What is refused raises `InputError`, so that nobody believes to have got it."""

    limits: Limits = field(default_factory=Limits)
    """The most that a sandbox has."""
    forward_env: frozenset[str] = frozenset()
    """Variables of the service's environment that may be handed on."""
    executable: str = ""
    """What runs containers; empty where nothing does, and then what clients say of it does not matter."""
    run_args: frozenset[str] = frozenset()
    """What every container is started with, so that clients may ask for it."""

    def spec(self, request: StartRequest) -> SandboxSpec:
        """Return the sandbox to start."""
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
            limits=_lower(self.limits, request.limits) if request.limits else self.limits,
        )

    def check_executable(self, executable: str) -> None:
        """Check what a client names to run containers: it may name it, and changes nothing by it."""
        if self.executable and executable not in {"", self.executable}:
            raise InputError(f"executable {executable!r} is refused: this service runs {self.executable}")

    def environment(self, forward_env: list[str], env: dict[str, str]) -> dict[str, str]:
        """Return variables of the service's own that are asked for, granted and set, and over them those given."""
        refused = [name for name in forward_env if name not in self.forward_env]
        if refused:
            raise InputError(f"forward_env {refused[0]!r} is refused: the service hands on what --forward_env names")
        return {name: os.environ[name] for name in forward_env if name in os.environ} | env


def lifetime_s(config: StartConfig) -> float | None:
    """Return seconds that `container_timeout` asks for; None for no end. Raises `InputError`."""
    if config.container_timeout is None:
        return None
    match = _DURATION.fullmatch(str(config.container_timeout).strip())
    if not match or not float(match[1]):
        raise InputError(f"container_timeout {config.container_timeout!r} is no time: give seconds, or 30m, or 2h")
    return float(match[1]) * _UNITS[match[2]]


def _lower(most: Limits, wanted: Limits) -> Limits:
    return Limits(**{name: min(getattr(most, name), getattr(wanted, name)) for name in Limits.model_fields})
