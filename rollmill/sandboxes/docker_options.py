"""Arguments of `docker run` for a sandbox: isolation, limits that the kernel enforces, and the first process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files

from rollmill.errors import InputError
from rollmill.sandboxes.sandbox import Limits

_FIRST_USER = "65301:65301"
_MOST_SHARED_MB = 64
_MOST_OPEN_FILES = 4096
_PROCESSES = 3
"""More than the limit: the first process, the shell around a command, and the one by which the engine starts it."""

# Waits, and reaps orphans. It is another user's, so that a command's processes, root's included, can neither signal nor
# trace it. The last argument identifies the container.
_FIRST = "exec {f}<> <(:); while (( SECONDS < $0 )); do read -rt 1 -u $f; done; exit 0"
_OTHER_FILTERS = ("--security-opt", "--privileged", "--cap-add")
_ISOLATION = [
    *("--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--hostname", "sandbox"),
    *("--log-driver", "none"),
]


class ContainerOptions:
    """Arguments of every sandbox's container, with those of the user last."""

    def __init__(self, run_args: Sequence[str], *, filter_calls: bool = True) -> None:
        """Check the arguments. Raises `InputError` for one that shares the processes of the host or other containers.

        All processes that a command leaves are killed, and those would be among them. `filter_calls`: whether the
        engine can filter system calls. Arguments that choose or need another filter replace this one.
        """
        if any(each == "--pid" or each.startswith("--pid=") for each in run_args):
            raise InputError(f"run_args {' '.join(run_args)!a}: --pid is refused: a sandbox has processes of its own")
        self._run_args = list(run_args)
        if filter_calls and not any(each.partition("=")[0] in _OTHER_FILTERS for each in run_args):
            profile = files("rollmill.sandboxes").joinpath("docker_seccomp.json")
            self._run_args += ["--security-opt", f"seccomp={profile}"]
        self.user = _value(run_args, ("--user", "-u"))
        """The user that they set for commands; None for the image's."""

    def settings(self, limits: Limits) -> list[str]:
        """Return all arguments up to the image."""
        entrypoint = ["--user", _FIRST_USER, "--entrypoint", "/bin/bash"]
        return [*_ISOLATION, *_bounds(limits), *self._run_args, *entrypoint]


def first_process(seconds: float, name: str) -> list[str]:
    """Return the arguments of bash, as the first process, that ends after that time."""
    return ["-c", _FIRST, str(math.ceil(seconds)), name]


def quota(limits: Limits) -> list[str]:
    """Return the arguments that give a container's files a quota, where the engine's storage has them.

    It is above the limit, so that in most cases the files are counted before it is reached, and the command's result
    says so.
    """
    return ["--storage-opt", f"size={limits.disk_mb * 6 // 5}m"]


def is_quota_refusal(message: str) -> bool:
    """Return whether an engine refuses a container because its storage has no quotas."""
    return any(word in message.lower() for word in ("storage-opt", "storage opt"))


def _bounds(limits: Limits) -> list[str]:
    memory = f"{limits.memory_mb}m"
    bounds = ["--memory", memory, "--memory-swap", memory, "--pids-limit", str(limits.processes + _PROCESSES)]
    # Files there count as memory, and stay: with more, the next command could not start.
    bounds += ["--shm-size", f"{max(min(_MOST_SHARED_MB, limits.memory_mb // 4), 1)}m"]
    for name, value in (
        ("core", 0),
        ("cpu", math.ceil(limits.cpu_s) + 1),
        ("fsize", limits.disk_mb << 20),
        ("nofile", _MOST_OPEN_FILES),
    ):
        bounds += ["--ulimit", f"{name}={value}"]
    return bounds


def _value(arguments: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the value of the last of these options among the arguments, in any of its forms."""
    value = None
    for index, argument in enumerate(arguments):
        name, equals, text = argument.partition("=")
        if name in names:
            value = text if equals else next(iter(arguments[index + 1 :]), None)
        elif argument[:2] in names and not argument.startswith("--"):
            value = argument[2:]
    return value
