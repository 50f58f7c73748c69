"""The interface of sandboxes: start from an image, run commands, leave nothing behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

from rollmill.errors import RollmillError

TIMED_OUT = 124
"""Return code of a command that exceeded its time limit, as that of `timeout(1)`."""


class SandboxError(RollmillError):
    """The sandbox itself failed, not the code in it. `type`: category for statistics, such as `start`."""

    def __init__(self, message: str, *, type_: str = "sandbox", details: str = "") -> None:
        super().__init__(message, details=details)
        self.type = type_


class Limits(BaseModel):
    """Limits of all commands of one sandbox together."""

    model_config = ConfigDict(frozen=True)

    memory_mb: int = Field(default=2048, ge=16)
    """Resident memory of all processes together, in MiB, including /tmp if that is in memory."""
    processes: int = Field(default=256, ge=1)
    cpu_s: float = Field(default=600.0, gt=0)
    """CPU seconds of one command and all its children."""
    disk_mb: int = Field(default=2048, ge=1)
    """Work tree and /tmp together, in MiB; checked periodically, so it can be exceeded briefly."""
    output_bytes: int = Field(default=1_000_000, ge=1000)
    """Bytes kept of one command's output: its beginning and its end."""


class SandboxSpec(BaseModel):
    """Image and limits of a sandbox."""

    model_config = ConfigDict(frozen=True)

    image: str
    """A subfolder of the image folder for bubblewrap, an image's name for Docker."""
    cwd: str = ""
    """Folder that commands run in; empty for the image's work tree."""
    env: dict[str, str] = Field(default_factory=dict)
    timeout_s: float = Field(default=60.0, gt=0)
    """Default time limit of a command, in seconds."""
    limits: Limits = Limits()


class Execution(BaseModel):
    """The result of a command."""

    model_config = ConfigDict(frozen=True)

    output: str
    """Standard output and error, interleaved as written; bytes that are not UTF-8 are replaced."""
    returncode: int
    timed_out: bool = False
    """Whether it exceeded its time limit: then `returncode` is 124, and its processes were killed."""
    truncated: bool = False
    """Whether `output` is incomplete."""
    killed_by: str | None = None
    """The limit that ended the command, in words; None for none."""
    seconds: float = 0.0
    """Wall time of the command, without the start of its sandbox where that is known."""


class CaseTime(BaseModel):
    """The seconds that one case took, by the clock of the sandbox's host."""

    model_config = ConfigDict(frozen=True)

    decode_s: float
    """From sending the case to `ready`; of the first case from the start of the program."""
    answer_s: float
    """From `go` to `done`."""
    encode_s: float
    """From `done` to the end of the output."""


class CaseAnswers(BaseModel):
    """The outputs of a program, and its times. There are fewer than cases where it failed: then `fault` says why."""

    model_config = ConfigDict(frozen=True)

    outputs: list[str] = Field(default_factory=list)
    times: list[CaseTime] = Field(default_factory=list)
    fault: str | None = None
    """What the program did wrong in the first case without an output, in words."""
    errors: str = ""
    """Its standard error; the middle is left out of a long one."""
    returncode: int = 0
    """Its return code where it ended too early, 124 beyond its time limit, 137 where a limit ended it; 0 otherwise."""
    cpu_s: float | None = None
    """CPU seconds of all its processes; None where the sandbox does not know them."""

    @property
    def answer_s(self) -> float:
        """The seconds of the calls of the code under test."""
        return sum(time.answer_s for time in self.times)

    @property
    def seconds(self) -> float:
        """The wall time from the program's start to the last output."""
        return sum(time.decode_s + time.answer_s + time.encode_s for time in self.times)


class CommandRunner(Protocol):
    """Runs commands in a sandbox."""

    def execute(
        self,
        command: str,
        *,
        cwd: str = "",
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Execution:
        """Run a bash command to its end. Raises `SandboxError` where the sandbox failed, never for the command.

        Args:
            command: Text for `bash -c`.
            cwd: Folder to run in; the work tree if empty.
            timeout_s: Time limit in seconds; None for the sandbox's own.
            env: More environment variables.
        """
        ...


class Sandbox(CommandRunner, Protocol):
    """One sandbox. Its work tree and /tmp stay from command to command; its processes do not."""

    @property
    def id(self) -> str:
        """Return an id that is unique on its host."""
        ...

    def answer_cases(
        self, command: str, cases: Sequence[str], *, timeout_s: float, most_bytes: int, env: Mapping[str, str]
    ) -> CaseAnswers:
        """Run a program in the work tree that answers cases one at a time; see `case_answers`.

        Raises `SandboxError` where the sandbox failed, never for the program.

        Args:
            command: Text for `bash -c`.
            cases: One line each, without its end.
            timeout_s: Time limit in seconds, of all cases together.
            most_bytes: Maximum of all outputs together.
            env: More environment variables.
        """
        ...

    def close(self) -> None:
        """Close the sandbox: all processes and files of it are removed. May be called again."""
        ...


class SandboxHost(Protocol):
    """Starts sandboxes."""

    def start(self, spec: SandboxSpec) -> Sandbox:
        """Start a sandbox. Raises `InputError` for an image that does not exist, `SandboxError` for other failures."""
        ...

    def find(self, sandbox_id: str) -> Sandbox:
        """Return an open sandbox that was started here. Raises `SandboxError` (type `unknown_sandbox`)."""
        ...

    def close(self) -> None:
        """Close all open sandboxes."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...
