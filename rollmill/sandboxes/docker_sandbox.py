"""One Docker container as a sandbox: runs commands in it, and reports how they end."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rollmill.errors import InputError
from rollmill.sandboxes.case_answers import ask_cases, ended
from rollmill.sandboxes.docker_engine import DockerEngine
from rollmill.sandboxes.docker_watch import ContainerWatch, WatchedExec
from rollmill.sandboxes.output import CappedOutput
from rollmill.sandboxes.piped_process import PipedProcess
from rollmill.sandboxes.sandbox import TIMED_OUT, CaseAnswers, Execution, SandboxError, SandboxSpec
from rollmill.sandboxes.shell import check_environment, find_refusal, printable, shell_arguments
from rollmill.terminal.stall_watch import TimedStep

_LONGEST_END_S = 10.0
_LONGEST_WAIT_S = 0.5
_SIGNALLED = 128
_KILLED = 137

# Prints a first line, kills what the command has left and it can reach, since that holds the output open, and prints a
# last line with the return code. Without that line the command was killed from outside. The command can forge the last
# line, and root can replace this bash for the next command: both decide about the sandbox's own output and return codes
# alone, since limits are enforced, and all processes killed, from another container. $1 is the process of that
# container if it can be reached from here, and must be spared, or 0.
_AROUND = (
    "exec 2> /dev/null; echo 1000 > /proc/self/oom_score_adj; "
    'mark=$0 watch=$1; shift; echo "$mark"; "$@" 2>&1; code=$?; '
    "if (( watch )); then for each in /proc/[0-9]*; do each=${each#/proc/}; "
    "(( each == 1 || each == watch || each == $$ )) || kill -9 $each; done; else kill -9 -1; fi; "
    'echo "$mark $code"; exit $code'
)

# A process with pipes: no more than the score, since its output has to be its own.
_PIPED = 'echo 1000 2> /dev/null > /proc/self/oom_score_adj; exec "$@"'
_LEFT_BYTES = 1000


class DockerSandbox:
    """One container; runs one command at a time, others wait."""

    def __init__(
        self,
        name: str,
        spec: SandboxSpec,
        user: str,
        engine: DockerEngine,
        watch: ContainerWatch,
        forget: Callable[[str], None],
    ) -> None:
        """Wrap a started container.

        Args:
            name: The container's.
            spec: Limits, environment and work folder.
            user: The user of its commands, which is not that of its first process.
            engine: Where it runs.
            watch: Enforces its limits.
            forget: Called with the name when the sandbox is closed.
        """
        self._name = name
        self._spec = spec
        self._user = user
        self._engine = engine
        self._watch = watch
        self._forget = forget
        self._one_at_a_time = threading.Lock()
        self._closed = False

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
        with self._one_at_a_time:
            if self._closed:
                raise SandboxError(f"sandbox {self._name} is closed", type_="unknown_sandbox")
            self._watch.begin()
            around = ["/bin/bash", "-c", _AROUND, mark, str(self._watch.process_in_reach)]
            arguments = [*self._engine.command, "exec", "--user", self._user, *options, self._name, *around]
            arguments += shell_arguments(command, cwd)
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
        exec_ = [*self._engine.command, "exec", "--interactive", "--user", self._user, *options, self._name]
        errors = CappedOutput(self._spec.limits.output_bytes)
        with self._one_at_a_time, TimedStep(timeout_s):
            if self._closed:
                raise SandboxError(f"sandbox {self._name} is closed", type_="unknown_sandbox")
            self._watch.begin()
            arguments = [*exec_, "/bin/bash", "-c", _PIPED, "bash", *shell_arguments(command, cwd)]
            running = WatchedExec(arguments, self._engine, self._watch, errors=errors)
            process = PipedProcess(running, self._watch, errors=errors, timeout_s=timeout_s)
            try:
                yield process
            finally:
                left = CappedOutput(_LEFT_BYTES)
                try:
                    self._end_processes(running, left)
                finally:
                    running.kill()
                    while not running.wait(1.0, left):
                        pass
                    code = running.finish(left)
                process.close(code if process.ended else None)

    def close(self) -> None:
        """Remove the container, a running command included; may be called again."""
        if not self._closed:
            self._closed = True
            self._watch.settle()
            self._engine.remove([self._name, self._watch.name])
            self._watch.kill()
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
        running = WatchedExec(arguments, self._engine, self._watch)
        late, broken = False, None
        try:
            while not running.wait(min(began + timeout_s - time.monotonic(), _LONGEST_WAIT_S), output):
                late, broken = time.monotonic() >= began + timeout_s, self._watch.broken()
                if late or broken:
                    break
            ended = time.monotonic()
            starved = self._end_processes(running, output)
        finally:
            running.kill()
            while not running.wait(1.0, output):
                pass
            code = running.finish(output)
        text = output.text().removeprefix(f"{mark}\n")
        end = re.search(rf"{mark} (\d+)\n\Z", text)
        written = text[: end.start()] if end else text
        code = int(end[1]) if end else code or 0
        broken = broken or self._watch.broken()
        if not broken and starved and code == _KILLED:
            broken = f"memory limit of {self._spec.limits.memory_mb} MiB"
        late = late and not broken
        if not (end or late or broken):
            self._check_killed_itself(code, written)
        return Execution(
            output=written,
            returncode=TIMED_OUT if late else _KILLED if broken else code,
            timed_out=late,
            truncated=output.full,
            killed_by=broken,
            seconds=ended - began,
        )

    def _end_processes(self, running: WatchedExec, output: CappedOutput) -> bool:
        """Kill what runs in the container, and wait until the engine has reported the end of the command.

        Return whether a process was killed for lack of memory. Raises `SandboxError` where a process does not end.
        """
        if self._closed:
            return False
        deadline = time.monotonic() + _LONGEST_END_S
        starved = self._watch.end()
        while not running.wait(_LONGEST_WAIT_S, output):
            if time.monotonic() > deadline:
                raise SandboxError("processes of a container do not end", type_="end")
            starved |= self._watch.end()  # the engine may have started the command only now
        return starved

    def _check_killed_itself(self, code: int, output: str) -> None:
        """Raise `SandboxError` unless the command itself killed the shell that runs it."""
        running = not self._closed and self._engine.call("inspect", "--format", "{{.State.Running}}", self._name)
        if code <= _SIGNALLED or running != "true":
            last = output.strip().splitlines()[-1:] or ["no output"]
            raise SandboxError(
                f"a command in container {self._name} was lost: {last[0]}", type_="engine", details=output
            )
