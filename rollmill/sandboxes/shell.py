"""Builds the process arguments that run a bash command, the same for every kind of sandbox."""

from __future__ import annotations

from collections.abc import Mapping

from rollmill.errors import InputError
from rollmill.sandboxes.sandbox import Execution

MAX_ARGUMENT_BYTES = (1 << 17) - 1
"""Of one argument of a process (Linux's MAX_ARG_STRLEN without the terminating NUL)."""

MAX_PATH_BYTES = 4095
"""Of a path (Linux's PATH_MAX without the terminating NUL)."""
MAX_ENVIRONMENT_BYTES = 1 << 20
"""Of all variables together: half of what Linux gives a process for its arguments and environment."""

_NOT_EXECUTABLE = 126
_LONGEST_SHOWN = 80
_START = f'cd -- "$2" || exit {_NOT_EXECUTABLE}; unset OLDPWD; exec /bin/bash -c "$1"'


def shell_arguments(command: str, cwd: str) -> list[str]:
    """Return the arguments of a process that runs `command` in `cwd`.

    A missing folder is the command's failure: return code 126.
    """
    return ["/bin/bash", "-c", _START, "bash", printable(command), printable(cwd)]


def find_refusal(command: str, cwd: str) -> Execution | None:
    """Return the failure that a shell would report for arguments that no process can have; None for valid ones."""
    for what, text in (("command", command), ("working directory", cwd)):
        if "\0" in text:
            return Execution(output=f"bash: the {what} has a NUL byte\n", returncode=_NOT_EXECUTABLE)
        if len(printable(text).encode()) > MAX_ARGUMENT_BYTES:
            message = f"bash: Argument list too long: the {what} has more than {MAX_ARGUMENT_BYTES} bytes\n"
            return Execution(output=message, returncode=_NOT_EXECUTABLE)
    if len(printable(cwd).encode()) > MAX_PATH_BYTES:
        return Execution(output="bash: cd: File name too long\n", returncode=_NOT_EXECUTABLE)
    return None


def printable(text: str) -> str:
    """Return the text with lone surrogates, which UTF-8 cannot encode, replaced."""
    return text.encode(errors="replace").decode()


def check_environment(env: Mapping[str, str]) -> Mapping[str, str]:
    """Return the variables unchanged. Raises `InputError` for one that no process can have."""
    total = 0
    for name, value in env.items():
        shown = ascii(name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}...")
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise InputError(f"environment variable {shown}: names have no '=', and neither part has a NUL byte")
        size = len(name.encode(errors="replace")) + len(value.encode(errors="replace")) + 1
        total += size + 1
        if size > MAX_ARGUMENT_BYTES or total > MAX_ENVIRONMENT_BYTES:
            raise InputError(
                f"environment variable {shown}: {size} bytes: one may have {MAX_ARGUMENT_BYTES}, all together "
                f"{MAX_ENVIRONMENT_BYTES}"
            )
    return env
