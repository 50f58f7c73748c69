"""Counts what the processes of a Docker sandbox use, from a second container that they cannot reach.

Control groups bound memory and the number of processes. CPU time, files and socket buffers have to be counted, by a
program that the sandbox cannot have replaced, and that sees deleted files and the processes of every user: bash of the
unmodified image, read-only, in the process namespace of the sandbox, with the capabilities to inspect and kill.
"""

from __future__ import annotations

import logging
import math
import os
import select
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files

from rollmill.sandboxes.docker_engine import DockerEngine
from rollmill.sandboxes.followed_process import FollowedProcess
from rollmill.sandboxes.output import CappedOutput
from rollmill.sandboxes.sandbox import Limits, SandboxError

log = logging.getLogger(__name__)

_MIB = 1 << 20
_LONGEST_START_S = 60.0
_LONGEST_ANSWER_S = 20.0
_LONGEST_SILENCE_S = 10.0
_LONGEST_SILENCE_IN_REACH_S = 1.5
"""Of a watch that the sandbox's processes can stop."""
_LONGEST_COUNT_S = 120.0
_LOOK_S = 0.5
_LONGEST_SETTLING_S, _SETTLING_LOOK_S = 10.0, 0.1
_PIECE = 1 << 16
_REFUSED = (
    "in Docker sandboxes CPU time and files are limited for each process and each file alone, and socket buffers not: "
    "a container in the process namespace of the sandbox, with the capability SYS_PTRACE, does not start: %s"
)
_ISOLATION = [
    *("--network", "none", "--read-only", "--log-driver", "none", "--security-opt", "no-new-privileges"),
    *("--memory", "256m", "--pids-limit", "64", "--cpu-shares", "8192"),
    *("--user", "0:0", "--workdir", "/", "--cap-drop", "ALL"),
    # To see other users' files and kill their processes; the last three to become a user that root cannot signal.
    *("--cap-add", "SYS_PTRACE", "--cap-add", "DAC_READ_SEARCH", "--cap-add", "KILL"),
    *("--cap-add", "SETUID", "--cap-add", "SETGID", "--cap-add", "SETPCAP"),
]


class ContainerWatch:
    """Enforces the limits of a container's commands, and kills what they leave; one command at a time.

    Where the engine refuses the second container, a warning says which limits do not hold, and the container is
    restarted to end its processes.
    """

    def __init__(
        self, engine: DockerEngine, container: str, image: str, label: str, limits: Limits, volumes: Sequence[str]
    ) -> None:
        """Start the second container, without waiting for it.

        Args:
            engine: Where the sandbox runs.
            container: The sandbox's container, whose first process has its name as the last argument.
            image: The image of both.
            label: Label of the second container, by which it is removed if this process is killed.
            limits: Limits to enforce.
            volumes: Folders that the image declares as volumes.
        """
        self._engine = engine
        self._container = container
        self._starts = 0
        self._image = image
        self._label = label
        self._limits = limits
        self._volumes = volumes
        self._since = ""
        self._refused = False
        self._over: str | None = None
        self._counting = False
        self._lines: list[str] = []
        self._rest = b""
        self._ready = False
        self._out_of_memory = 0
        self.process_in_reach = 0
        """The number of its process if the sandbox's processes can end it, else 0."""
        self._process = self._start()

    def begin(self) -> None:
        """Count for a new command from now on. Raises `SandboxError` where it cannot."""
        if self._refused:
            return
        if self._ready and (self._over == "lost" or self._process.poll() is not None):
            self._restart()
        self._over, self._counting = None, False
        self._be_ready()
        if not self._refused:
            self._ask("begin", "begun")

    def end(self) -> bool:
        """Kill all processes of the container but the first; return whether one was killed for lack of memory.

        That is since the last call. Raises `SandboxError` where the processes do not end.
        """
        if self._refused:
            self._engine.call("restart", "--time", "0", self._container)
            return False
        try:
            if self._over == "lost":
                raise SandboxError("it is silent", type_="engine")
            words = self._ask("end", "ended")
        except SandboxError:
            # The sandbox has killed or stopped it, or it has been removed with the sandbox.
            self._restart()
            self._be_ready()
            words = self._ask("end", "ended")
        before, self._out_of_memory = self._out_of_memory, int(words[1])
        return self._out_of_memory > before

    def broken(self) -> str | None:
        """Return the limit that the command has exceeded, in words; None where none is."""
        if self._refused:
            return None
        self.read()
        silence = _LONGEST_SILENCE_IN_REACH_S if self.process_in_reach else _LONGEST_SILENCE_S
        if not self._over and time.monotonic() - self._heard > (_LONGEST_COUNT_S if self._counting else silence):
            self._over = "lost"
        limits = self._limits
        return {
            None: None,
            "cpu": f"CPU limit of {limits.cpu_s:g} s",
            "memory": f"memory limit of {limits.memory_mb} MiB",
            "disk": f"disk limit of {limits.disk_mb} MiB",
            "lost": "the end of the process that counts for its limits",
        }[self._over]

    def due_s(self) -> float:
        """Return the seconds after which to call `broken` again; it is waited for, too, by `fileno`."""
        return _LOOK_S

    def cpu_s(self) -> float | None:
        """Return None: the CPU time includes the engine's own for starting the command."""
        return None

    def fileno(self) -> int:
        """Return the file descriptor to wait at; -1 for none."""
        return -1 if self._refused or self._over == "lost" else self._output

    def read(self) -> None:
        """Read what has arrived."""
        while True:
            try:
                piece = os.read(self._output, _PIECE)
            except BlockingIOError:
                break
            if not piece:
                self._over = self._over or "lost"
                break
            self._heard = time.monotonic()
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                self._take(line.decode(errors="replace"))

    def settle(self) -> None:
        """Wait until the second container exists, or has failed: one that is made after its removal would be left."""
        deadline = time.monotonic() + _LONGEST_SETTLING_S
        while not self._ready and self._process.poll() is None and time.monotonic() < deadline:
            with suppress(SandboxError):
                self._engine.call("inspect", "--format", "{{.Id}}", self.name)
                return
            time.sleep(_SETTLING_LOOK_S)

    def kill(self) -> None:
        """End its docker command, and so the second container, without waiting for that."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def _take(self, line: str) -> None:
        self._counting = line == "counting"
        if line.startswith("over "):
            self._over = line.removeprefix("over ")
        elif line not in (".", "counting", ""):
            self._lines.append(line)

    def _restart(self) -> None:
        self.kill()
        self._engine.remove([self.name])
        self._process = self._start()

    @property
    def name(self) -> str:
        """Return the name of the second container."""
        return f"{self._container}-watch{self._starts}"

    def _start(self) -> subprocess.Popen[bytes]:
        self._starts += 1
        limits = self._limits
        numbers = [math.ceil(limits.cpu_s * 1e6), limits.memory_mb * _MIB, limits.disk_mb * _MIB // 512]
        script = files("rollmill.sandboxes").joinpath("docker_watch.bash").read_text()
        settings = ["--rm", "--interactive", "--name", self.name, "--label", self._label, *_ISOLATION]
        settings += ["--pid", f"container:{self._container}", "--entrypoint", "/bin/bash"]
        arguments = ["-c", script, self._container, self._since, *map(str, numbers), *self._volumes]
        process = subprocess.Popen(
            [*self._engine.command, "run", *settings, "--", self._image, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            env=self._engine.environment,
            start_new_session=True,
        )
        assert process.stdout
        self._output = process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._heard = time.monotonic()
        self._lines, self._rest, self._ready, self._over = [], b"", False, None
        return process

    def _be_ready(self) -> None:
        """Wait for its first line. Raises `SandboxError` where it fails, unless it always has."""
        if self._ready:
            return
        try:
            words = self._answer("ready", _LONGEST_START_S)
        except SandboxError as error:
            running = self._engine.call("inspect", "--format", "{{.State.Running}}", self._container)
            if self._since or running != "true":
                raise
            self._refused = True
            if not self._engine.refuses_watch:
                self._engine.refuses_watch = True
                log.warning(_REFUSED, error)
            return
        self._since, self.process_in_reach, self._ready = words[1], int(words[2]), True
        if missing := {"cpu", "memory"} - set(words[3:]):
            log.warning("the engine's containers have no control groups, so their %s is not bounded", sorted(missing))

    def _ask(self, order: str, answer: str) -> list[str]:
        assert self._process.stdin
        with suppress(BrokenPipeError):  # then no answer comes
            self._process.stdin.write(f"{order}\n".encode())
        return self._answer(answer, _LONGEST_ANSWER_S)

    def _answer(self, expected: str, seconds: float) -> list[str]:
        """Return the words of the next line that begins so. Raises `SandboxError` for its end or another line."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        while True:
            while self._lines:
                words = self._lines.pop(0).split()
                if words[0] == expected:
                    return words
                if words[0] not in ("begun", "ended"):
                    raise SandboxError(f"the watch of a container failed: {' '.join(words)}", type_="engine")
            remaining = deadline - time.monotonic()
            if remaining <= 0 or (self._over == "lost" and self._process.poll() is not None):
                raise SandboxError(f"the watch of container {self._container} ended", type_="engine")
            poll.poll(min(remaining, 0.5) * 1000)
            self.read()

    def _close_pipes(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        with suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()


class WatchedExec(FollowedProcess):
    """A command in a container, with the watch of its limits."""

    def __init__(
        self, command: Sequence[str], engine: DockerEngine, watch: ContainerWatch, *, errors: CappedOutput | None = None
    ) -> None:
        """Start the command.

        Args:
            command: The docker command with its arguments.
            engine: Where the container runs.
            watch: The container's, which `begin` has prepared.
            errors: Collects its standard error, as in `FollowedProcess`; None for one pipe of output and errors.
        """
        super().__init__(command, env=engine.environment, errors=errors)
        self._limits = watch
        self._limits_file = watch.fileno()
        if self._limits_file >= 0:
            self._watch(self._limits_file)

    def _ready(self, file: int) -> None:
        if file == self._limits_file:
            self._limits.read()
            if self._limits.fileno() < 0:
                self._forget(file)
