"""The sandbox service: `python -m rollmill.services.sandbox --images DIR`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, field_validator, model_validator

from rollmill.config.command_line import parse_command_line, report_errors
from rollmill.config.parameter import Parameters, parameter
from rollmill.sandboxes.parameters import LocalSandboxKind
from rollmill.sandboxes.registry import SANDBOXES, HostSettings, open_host
from rollmill.sandboxes.sandbox import Limits
from rollmill.services.protocol import Grants

PROG = "python -m rollmill.services.sandbox"
PORT = 9527
_DEFAULTS = Limits()
_LONGEST_CONTAINER_S = 86400.0
"""Containers end by themselves after a day, in case the service cannot end them; clients may request less."""


class SandboxServiceOptions(Parameters):
    """Starts sandboxes and runs commands in them for HTTP clients."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sandbox: LocalSandboxKind = parameter(
        "bubblewrap", "Sandboxes", "Sandboxes", "What makes sandboxes.", aliases=("backend",)
    )
    images: Path | None = parameter(
        None, "Sandboxes", "Images", "Folder of bubblewrap's images, one folder each.", metavar="DIR"
    )
    max_sandboxes: int = parameter(
        8, "Sandboxes", "Most sandboxes", "Maximum at a time; further starts wait.", ge=1, le=4096
    )
    grading_sandboxes: int = parameter(
        4, "Sandboxes", "Sandboxes for grading", "More, kept for graders: agents that wait for them hold the others.",
        ge=0, le=4096,
    )  # fmt: skip
    queue_s: float = parameter(
        300.0, "Sandboxes", "Queue", "Seconds that a start waits for a free slot before it is refused with 503.", ge=0
    )
    idle_s: float = parameter(
        1800.0, "Sandboxes", "Idle time", "Seconds without a command after which a sandbox is closed.", gt=0
    )
    heartbeat_timeout_s: float = parameter(
        90.0,
        "Sandboxes",
        "Heartbeat time-out",
        "Seconds without a heartbeat after which a client counts as dead, and its sandboxes end.",
        gt=0,
        aliases=("gone_s",),
    )

    memory_mb: int = parameter(_DEFAULTS.memory_mb, "Limits", "Memory", "Of one sandbox, in MiB.", ge=16)
    processes: int = parameter(_DEFAULTS.processes, "Limits", "Processes", "Of one sandbox.", ge=1)
    cpu_s: float = parameter(_DEFAULTS.cpu_s, "Limits", "CPU time", "Seconds of one command.", gt=0)
    disk_mb: int = parameter(_DEFAULTS.disk_mb, "Limits", "Disk", "Of one sandbox, in MiB.", ge=1)
    output_bytes: int = parameter(_DEFAULTS.output_bytes, "Limits", "Output", "Kept of one command's.", ge=1000)

    executable: str = parameter("docker", "Docker", "Executable", "docker, or a command that does the same.")
    docker_host: str | None = parameter(
        None, "Docker", "Engine", "Its address; else what DOCKER_HOST says.", metavar="URL"
    )
    run_args: str = parameter(
        "", "Docker", "Run arguments", "Of every container, as in a shell, in one string; clients may ask for these.",
        metavar="ARGS",
    )  # fmt: skip

    forward_env: list[str] = parameter(
        [], "Clients", "Forwarded variables", "Variables of this environment that clients may ask for.", metavar="NAME"
    )

    host: str = parameter("127.0.0.1", "Address", "Host", "Address to listen at; others than loopback need a token.")
    port: int = parameter(PORT, "Address", "Port", "Port to listen at; 0 for a free one.", ge=0, le=65535)

    @field_validator("run_args")
    @classmethod
    def _arguments_are_a_shell_line(cls, line: str) -> str:
        shlex.split(line)
        return line

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if SANDBOXES[self.sandbox].from_folders and self.images is None:
            raise ValueError(f"--images is required: the folder that holds {self.sandbox}'s images")
        return self

    @property
    def limits(self) -> Limits:
        """Upper limits of a sandbox."""
        return Limits(**{name: getattr(self, name) for name in Limits.model_fields})


def host_settings(parameters: SandboxServiceOptions) -> HostSettings:
    """Build the settings of the sandbox host."""
    return HostSettings(
        images=parameters.images,
        engine=parameters.docker_host,
        executable=parameters.executable,
        run_args=shlex.split(parameters.run_args),
        container_timeout_s=_LONGEST_CONTAINER_S,
    )


def build_grants(parameters: SandboxServiceOptions) -> Grants:
    """Return the limits on clients' requests."""
    containers = SANDBOXES[parameters.sandbox].in_containers
    return Grants(
        limits=parameters.limits,
        forward_env=frozenset(parameters.forward_env),
        executable=parameters.executable if containers else "",
        run_args=frozenset(shlex.split(parameters.run_args) if containers else []),
    )


def main() -> None:
    """Serve until the process is ended; no sandbox outlives it."""
    parameters = parse_command_line(
        SandboxServiceOptions,
        prog=PROG,
        description="Starts sandboxes and runs commands in them for HTTP clients.\n"
        "Clients send the token that ROLLMILL_SANDBOX_TOKEN holds in this process's environment. The slots for\n"
        "grading are open to this user's graders on this machine, and to those with the same ROLLMILL_GRADING_KEY.",
        examples=f"  {PROG} --images examples/performance_problems/images\n"
        f"  {PROG} --sandbox docker --max_sandboxes 32",
    )
    from rollmill.inference.http_service import token_from_environment
    from rollmill.sandboxes.grading_key import service_keys
    from rollmill.sandboxes.remote import TOKEN_VARIABLE
    from rollmill.services.sandbox_app import sandbox_app
    from rollmill.services.sandbox_pool import SandboxPool
    from rollmill.services.serving import listen, serve

    token, keys = token_from_environment(TOKEN_VARIABLE), service_keys()
    with listen(parameters.host, parameters.port, token, TOKEN_VARIABLE) as listening:
        pool = SandboxPool(
            open_host(parameters.sandbox, host_settings(parameters)),
            max_sandboxes=parameters.max_sandboxes,
            grading_sandboxes=parameters.grading_sandboxes,
            queue_s=parameters.queue_s,
            idle_s=parameters.idle_s,
            heartbeat_timeout_s=parameters.heartbeat_timeout_s,
        )
        try:
            app = sandbox_app(pool, build_grants(parameters), kind=parameters.sandbox, token=token, grading_keys=keys)
            serve(app, listening, f"{parameters.sandbox}, {parameters.max_sandboxes} sandboxes", pool.end)
        finally:
            pool.shut_down()


if __name__ == "__main__":
    with report_errors(PROG):
        main()
