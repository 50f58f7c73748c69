"""Worker processes of built-in verifiers: an empty environment, and a sandbox if one is available."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rollmill.errors import InputError
from rollmill.sandboxes.namespace import BWRAP_ENVIRONMENT, bwrap_arguments, installation_fault, sandbox_fault
from rollmill.sandboxes.sandbox import Limits
from rollmill.sandboxes.system import SCRATCH, python_system

log = logging.getLogger(__name__)

LIMITS = Limits(memory_mb=2048, output_bytes=1 << 20)
"""Limits of a built-in verifier's process and of each of its forks: memory, and the size of a reply beyond its answer.

Neither may start a process or write a file. The CPU time of a fork is limited per verdict.
"""

_PACKAGES = ("rollmill", "math_verify", "reasoning_gym")
"""Packages that may lie outside of site-packages, in an editable installation."""
_FIRST_OUT_OF_MEMORY = ["/bin/sh", "-c", 'echo 1000 > /proc/self/oom_score_adj; exec "$@"', "sh"]
_ENVIRONMENT = {"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_IN_SANDBOX = {"MPLCONFIGDIR": SCRATCH}  # matplotlib, a dependency of reasoning-gym, needs a writable folder
# Packages come after the standard library in the path, and their .pth files do not run.
_START = "import sys; sys.path += sys.argv[2:]; from rollmill.verifiers.worker import main; main(int(sys.argv[1]))"


@functools.cache
def sandbox_missing() -> str | None:
    """Return why verdicts cannot run in a sandbox here, and the remedy; None if they can. Cached."""
    if sys.platform != "linux":
        return "sandboxes need Linux and bubblewrap"
    probe = _command("import sys; sys.path += sys.argv[2:]; import rollmill.verifiers.worker", 1)
    return installation_fault() or sandbox_fault(_sandbox_name(), _FIRST_OUT_OF_MEMORY, _settings(_ENVIRONMENT), probe)


def require_sandbox(name: str) -> None:
    """Raise `InputError` where the data set's scorer runs answers as programs and there is no sandbox for it."""
    if fault := sandbox_missing():
        raise InputError(
            f"reasoning_gym {name}: its scorer runs answers as programs, which is done in a sandbox only, and {fault}"
        )


@functools.cache
def warn_unsandboxed() -> None:
    """Warn, once in a process, that verdicts run without a sandbox."""
    if fault := sandbox_missing():
        log.warning("verdicts of math and reasoning_gym are made in processes without a sandbox: %s", fault)


@contextmanager
def built_in_process(hash_seed: str) -> Iterator[tuple[list[str], dict[str, str], list[int]]]:
    """Yield the command of a built-in verifier's process: arguments, environment, and inherited file descriptors.

    The file descriptors are open during the block. The environment has none of the user's variables, also without a
    sandbox.
    """
    variables = {**_ENVIRONMENT, "PYTHONHASHSEED": hash_seed}
    if sandbox_missing():
        yield _command(_START, os.getpid()), variables, []
        return
    # In the sandbox, the worker's parent is the namespace's first process, number 1, which dies with its starter.
    arguments = (_sandbox_name(), _FIRST_OUT_OF_MEMORY, _settings(variables), _command(_START, 1))
    with bwrap_arguments(*arguments, filters=True) as (command, files):
        yield command, BWRAP_ENVIRONMENT, files


def _command(code: str, parent: int) -> list[str]:
    folders = [*_package_folders(), *(package.parent for package in _editable_packages())]
    interpreter = str(Path(sys.executable).resolve())  # a virtual environment's link is not mounted in the sandbox
    return [interpreter, "-P", "-S", "-c", code, str(parent), *map(str, folders)]


def _sandbox_name() -> str:
    return f"verdicts-{uuid.uuid4().hex}"


def _settings(variables: Mapping[str, str]) -> list[str]:
    options = [part for name, value in {**variables, **_IN_SANDBOX}.items() for part in ("--setenv", name, value)]
    return [*python_system([*_package_folders(), *_editable_packages()]), *options]


def _package_folders() -> list[Path]:
    folders = (Path(folder).absolute() for folder in sys.path if folder)
    return [folder for folder in folders if folder.name in {"site-packages", "dist-packages"} and folder.is_dir()]


def _editable_packages() -> list[Path]:
    """Return the folders of packages that lie outside of site-packages."""
    specs = (importlib.util.find_spec(name) for name in _PACKAGES)
    packages = [Path(spec.origin).parent.absolute() for spec in specs if spec and spec.origin]
    return [package for package in packages if package.parent not in _package_folders()]
