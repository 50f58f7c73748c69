"""Sandboxes on a Docker engine: each a container without network."""

from __future__ import annotations

import math
import platform
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

import psutil

from rollmill.errors import InputError
from rollmill.sandboxes.case_answers import ask_cases, ended
from rollmill.sandboxes.docker_engine import DockerEngine
from rollmill.sandboxes.followed_process import FollowedProcess
from rollmill.sandboxes.output import CappedOutput
from rollmill.sandboxes.piped_process import PipedProcess
from rollmill.sandboxes.registry import HostSettings, SandboxEntry
from rollmill.sandboxes.sandbox import TIMED_OUT, CaseAnswers, Execution, Limits, SandboxError, SandboxSpec
from rollmill.sandboxes.shell import check_environment, find_refusal, printable, shell_arguments
from rollmill.sandboxes.started import StartedSandboxes
from rollmill.terminal.stall_watch import TimedStep

ENTRY = SandboxEntry("docker", "DockerHost", "containers", in_containers=True)

_LABEL = "rollmill.owner"
_LONGEST_END_S = 10.0
_SIGNALLED = 128
_KILLED = 137

# The first process of a container waits, reaps orphans, and kills all others on SIGUSR1, without starting a process:
# a command may have used up all of them. As process 1 it cannot be killed from inside the container.
_FIRST = 'trap "kill -9 -1" USR1; exec {f}<> <(:); while (( SECONDS < $0 )); do read -rt 0.2 -u $f; done; exit 0'
# Kills the command's remaining processes, then prints a last line with the return code and the count of OOM kills so
# far. Without that line the command was killed from outside.
_OUT_OF_MEMORY = (
    "for f in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do "
    '[ -r $f ] && while read -r k v; do [ "$k" = oom_kill ] && n=$v; done < $f; done'
)
_AROUND = (
    'exec 2> /dev/null; echo 1000 > /proc/self/oom_score_adj; echo "$0"; "$@" 2>&1; code=$?; '
    f'kill -9 -1; {_OUT_OF_MEMORY}; echo "$0 $code ${{n:-0}}"; exit $code'
)


# A process with pipes: no more than the score, since its output has to be its own.
_PIPED = 'echo 1000 2> /dev/null > /proc/self/oom_score_adj; exec "$@"'
_LEFT_BYTES = 1000
_LOOK_S = 0.5


class DockerHost(StartedSandboxes["DockerSandbox"]):
    """Starts sandboxes from an engine's images, which need bash.

    Of `Limits`, Docker enforces `memory_mb` and `processes` for the whole container; `cpu_s` and `disk_mb` for one
    process and one file. Raises `InputError` without the command, `SandboxError` where the engine does not answer.

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
        self._run_args = [*run_args, *(["--cpus", f"{cpus:g}"] if cpus else [])]
        self._container_timeout_s = container_timeout_s
        self._pull_timeout_s = pull_timeout_s
        self._owner = _owner(psutil.Process())
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
        self._engine.provide(spec.image, self._pull_timeout_s)
        name = f"rollmill-{uuid.uuid4().hex}"
        settings = ["--detach", "--name", name, "--label", f"{_LABEL}={self._owner}", "--network", "none"]
        settings += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--hostname", "sandbox"]
        settings += [*_bounds(spec.limits), *self._run_args, "--entrypoint", "/bin/bash"]
        try:
            life = str(math.ceil(self._container_timeout_s))
            self._engine.call("run", *settings, "--", spec.image, "-c", _FIRST, life)
        except BaseException:
            self._engine.remove([name])  # it may have been created, but not started
            raise
        return self._add(DockerSandbox(name, spec, self._engine, self._forget))

    def _sweep(self) -> None:
        """Remove the containers of this machine's processes that have ended."""
        form = f'{{{{.ID}}}} {{{{.Label "{_LABEL}"}}}}'
        listed = self._engine.call("ps", "--all", "--filter", f"label={_LABEL}", "--format", form)
        owned = [line.split(None, 1) for line in listed.splitlines()]
        self._engine.remove([each[0] for each in owned if len(each) == 2 and _has_ended(each[1])])


class DockerSandbox:
    """One container; runs one command at a time, others wait."""

    def __init__(self, name: str, spec: SandboxSpec, engine: DockerEngine, forget: Callable[[str], None]) -> None:
        """Wrap a started container.

        Args:
            name: The container's.
            spec: Limits, environment and work folder.
            engine: Where it runs.
            forget: Called with the name when the sandbox is closed.
        """
        self._name = name
        self._spec = spec
        self._engine = engine
        self._forget = forget
        self._one_at_a_time = threading.Lock()
        self._closed = False
        self._out_of_memory = 0

    @property
    def id(self) -> str:
        """Return the container's name."""
        return self._name

    def execute(
        self,
        command: str,
        *,
        cwd: str = "",
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Execution:
        """Run a bash command to its end; see `Sandbox`. Raises `InputError` for an invalid `env`.

        Args:
            command: Text for `bash -c`.
            cwd: Folder to run in; the image's default if empty.
            timeout_s: Time limit in seconds; None for the sandbox's default.
            env: More environment variables.
        """
        variables = check_environment({**self._spec.env, **(env or {})})
        cwd = cwd or self._spec.cwd
        refusal = find_refusal(command, cwd)
        if refusal:
            return refusal
        mark = uuid.uuid4().hex
        options = [part for name, value in variables.items() for part in ("--env", printable(f"{name}={value}"))]
        around = ["/bin/bash", "-c", _AROUND, mark, *shell_arguments(command, cwd)]
        with self._one_at_a_time:
            if self._closed:
                raise SandboxError(f"sandbox {self._name} is closed", type_="unknown_sandbox")
            arguments = [*self._engine.command, "exec", *options, self._name, *around]
            limit_s = self._spec.timeout_s if timeout_s is None else timeout_s
            with TimedStep(limit_s):
                return self._follow(arguments, mark, limit_s)

    def answer_cases(
        self, command: str, cases: Sequence[str], *, timeout_s: float, most_bytes: int, env: Mapping[str, str]
    ) -> CaseAnswers:
        """Have a program answer cases; see `Sandbox`.

        Args:
            command: Text for `bash -c`.
            cases: One line each.
            timeout_s: Time limit in seconds.
            most_bytes: Maximum of all outputs together.
            env: More environment variables.
        """
        with self.open_process(command, timeout_s=timeout_s, env=env) as process:
            answers = ask_cases(process, cases, most_bytes)
        return ended(answers, process)

    @contextmanager
    def open_process(
        self, command: str, *, cwd: str = "", timeout_s: float, env: Mapping[str, str] | None = None
    ) -> Iterator[PipedProcess]:
        """Run a bash command with its standard input and output in pipes; it is killed at the end of the block.

        Raises `SandboxError` where the container fails, `InputError` for an invalid `env` or command.

        Args:
            command: Text for `bash -c`.
            cwd: Folder to run in; the image's default if empty.
            timeout_s: Time limit in seconds.
            env: More environment variables.
        """
        variables = check_environment({**self._spec.env, **(env or {})})
        cwd = cwd or self._spec.cwd
        if refusal := find_refusal(command, cwd):
            raise InputError(refusal.output.strip())
        options = [part for name, value in variables.items() for part in ("--env", printable(f"{name}={value}"))]
        exec_ = [*self._engine.command, "exec", "--interactive", *options, self._name]
        errors = CappedOutput(self._spec.limits.output_bytes)
        with self._one_at_a_time, TimedStep(timeout_s):
            if self._closed:
                raise SandboxError(f"sandbox {self._name} is closed", type_="unknown_sandbox")
            arguments = [*exec_, "/bin/bash", "-c", _PIPED, "bash", *shell_arguments(command, cwd)]
            running = FollowedProcess(arguments, env=self._engine.environment, errors=errors)
            process = PipedProcess(running, _EngineLimits(), errors=errors, timeout_s=timeout_s)
            try:
                yield process
            finally:
                running.kill()
                left = CappedOutput(_LEFT_BYTES)
                while not running.wait(1.0, left):
                    pass
                code = running.finish(left)
                process.close(code if process.ended else None)
        # Only the engine's client was killed: a command kills what is left in the container at its end.
        self.execute(":")

    def close(self) -> None:
        """Remove the container, a running command included; may be called again."""
        if not self._closed:
            self._closed = True
            self._engine.remove([self._name])
        self._forget(self._name)

    def _follow(self, arguments: list[str], mark: str, timeout_s: float) -> Execution:
        """Wait for the command and all its children to exit, enforcing the limits.

        Args:
            arguments: The docker command with its arguments.
            mark: Random text that frames the command's output.
            timeout_s: Time limit in seconds.
        """
        output = CappedOutput(self._spec.limits.output_bytes)
        began = time.monotonic()
        running = FollowedProcess(arguments, env=self._engine.environment)
        late = False
        try:
            while not late and not running.wait(began + timeout_s - time.monotonic(), output):
                late = time.monotonic() >= began + timeout_s
            ended = time.monotonic()
            if late:
                self._kill_all()
                while not running.wait(ended + _LONGEST_END_S - time.monotonic(), output):
                    if time.monotonic() > ended + _LONGEST_END_S:
                        raise SandboxError("processes of a container do not end", type_="end")
        finally:
            running.kill()
            while not running.wait(1.0, output):
                pass
            code = running.finish(output)
        text = output.text().removeprefix(f"{mark}\n")
        end = re.search(rf"{mark} \d+ (\d+)\n\Z", text)
        written = text[: end.start()] if end else text
        killed_by = None
        if end:
            before, self._out_of_memory = self._out_of_memory, int(end[1])
            if code == _KILLED and self._out_of_memory > before:
                killed_by = f"memory limit of {self._spec.limits.memory_mb} MiB"
        elif not late:
            self._check_killed_itself(code or 0, written)
            self._kill_all()
        return Execution(
            output=written,
            returncode=TIMED_OUT if late else code or 0,
            timed_out=late,
            truncated=output.full,
            killed_by=killed_by,
            seconds=ended - began,
        )

    def _kill_all(self) -> None:
        if not self._closed:
            self._engine.call("kill", "--signal", "USR1", self._name)

    def _check_killed_itself(self, code: int, output: str) -> None:
        """Raise `SandboxError` unless the command itself killed the shell that runs it."""
        running = not self._closed and self._engine.call("inspect", "--format", "{{.State.Running}}", self._name)
        if code <= _SIGNALLED or running != "true":
            last = output.strip().splitlines()[-1:] or ["no output"]
            raise SandboxError(
                f"a command in container {self._name} was lost: {last[0]}", type_="engine", details=output
            )


class _EngineLimits:
    """What `PipedProcess` asks about limits, where the engine enforces them."""

    def due_s(self) -> float:
        return _LOOK_S

    def broken(self) -> str | None:
        return None

    def cpu_s(self) -> float | None:
        return None


def _bounds(limits: Limits) -> list[str]:
    memory = f"{limits.memory_mb}m"
    bounds = ["--memory", memory, "--memory-swap", memory, "--pids-limit", str(limits.processes + 3)]
    for name, value in (
        ("core", 0),
        ("cpu", math.ceil(limits.cpu_s) + 1),
        ("fsize", limits.disk_mb << 20),
    ):
        bounds += ["--ulimit", f"{name}={value}"]
    return bounds


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
