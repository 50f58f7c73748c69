"""Sandboxes on a Docker engine: each a container without network."""

from __future__ import annotations

import logging
import platform
import uuid
from collections.abc import Sequence
from typing import Self

import psutil

from rollmill.sandboxes.docker_engine import DockerEngine
from rollmill.sandboxes.docker_options import ContainerOptions, first_process, is_quota_refusal, quota
from rollmill.sandboxes.docker_sandbox import DockerSandbox
from rollmill.sandboxes.docker_watch import ContainerWatch
from rollmill.sandboxes.registry import HostSettings, SandboxEntry
from rollmill.sandboxes.sandbox import Limits, SandboxError, SandboxSpec
from rollmill.sandboxes.shell import check_environment
from rollmill.sandboxes.started import StartedSandboxes

log = logging.getLogger(__name__)

ENTRY = SandboxEntry("docker", "DockerHost", "containers", in_containers=True)

_LABEL = "rollmill.owner"


class DockerHost(StartedSandboxes[DockerSandbox]):
    """Starts sandboxes from an engine's images, which need bash.

    The engine's control groups enforce `memory_mb` and `processes`; `ContainerWatch` enforces `cpu_s`, `disk_mb`, and
    what memory the groups do not count. Raises `InputError` without the command and for `run_args` that share the
    host's processes, `SandboxError` where the engine does not answer.

    Args:
        docker_host: The engine's address; None for that in DOCKER_HOST.
        executable: The docker command.
        run_args: More arguments of `docker run`.
        container_timeout_s: Seconds after which a container ends by itself.
        pull_timeout_s: Time limit in seconds of pulling a missing image.
        cpus: CPUs of each container; None for all.
    """

    def __init__(
        self,
        *,
        docker_host: str | None = None,
        executable: str = "docker",
        run_args: Sequence[str] = (),
        container_timeout_s: float = 7200.0,
        pull_timeout_s: float = 600.0,
        cpus: float | None = None,
    ) -> None:
        super().__init__()
        self._engine = DockerEngine(docker_host, executable)
        abilities = self._engine.abilities()
        arguments = [*run_args, *(["--cpus", f"{cpus:g}"] if cpus else [])]
        self._options = ContainerOptions(arguments, filter_calls=abilities.filters_calls)
        self._container_timeout_s = container_timeout_s
        self._pull_timeout_s = pull_timeout_s
        self._owner = _owner(psutil.Process())
        self._quota = abilities.may_have_quotas
        if abilities.without_limit:
            log.warning("this Docker engine does not limit %s of its containers", ", ".join(abilities.without_limit))
        self._sweep()

    @classmethod
    def from_settings(cls, settings: HostSettings) -> Self:
        """Open a host at an engine; see `OpenableHost`."""
        return cls(
            docker_host=settings.engine,
            executable=settings.executable,
            run_args=settings.run_args,
            container_timeout_s=settings.container_timeout_s,
        )

    def start(self, spec: SandboxSpec) -> DockerSandbox:
        """Start a container; see `SandboxHost`."""
        check_environment(spec.env)
        self._check_open()
        image = self._engine.provide(spec.image, self._pull_timeout_s)
        name = f"rollmill-{uuid.uuid4().hex}"
        label = f"{_LABEL}={self._owner}"
        settings = ["--detach", "--name", name, "--label", label, *self._options.settings(spec.limits)]
        first = ["--", spec.image, *first_process(self._container_timeout_s, name)]
        try:
            if not (self._quota and self._run_with_quota(name, spec.limits, [*settings, *first])):
                self._engine.call("run", *settings, *first)
            watch = ContainerWatch(self._engine, name, spec.image, label, spec.limits, image.volumes)
        except BaseException:
            self._engine.remove([name])  # it may have been created, but not started
            raise
        user = self._options.user or image.user
        return self._add(DockerSandbox(name, spec, user, self._engine, watch, self._forget))

    def _run_with_quota(self, name: str, limits: Limits, arguments: Sequence[str]) -> bool:
        """Start a container whose files have a quota; return False, and do not try again, where the engine has none."""
        try:
            self._engine.call("run", *quota(limits), *arguments)
        except SandboxError as error:
            if not is_quota_refusal(error.details):
                raise
            self._quota = False
            self._engine.remove([name])
        return self._quota

    def _sweep(self) -> None:
        """Remove the containers of this machine's processes that have ended."""
        form = f'{{{{.ID}}}} {{{{.Label "{_LABEL}"}}}}'
        listed = self._engine.call("ps", "--all", "--filter", f"label={_LABEL}", "--format", form)
        owned = [line.split(None, 1) for line in listed.splitlines()]
        self._engine.remove([each[0] for each in owned if len(each) == 2 and _has_ended(each[1])])


def _owner(process: psutil.Process) -> str:
    return f"{platform.node()}/{process.pid}/{process.create_time():.2f}"


def _has_ended(owner: str) -> bool:
    node, _, process = owner.partition("/")
    if node != platform.node():
        return False
    try:
        return _owner(psutil.Process(int(process.partition("/")[0]))) != owner
    except (psutil.NoSuchProcess, ValueError):
        return True
