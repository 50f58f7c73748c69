"""The processes of built-in verifiers: an empty environment, in a sandbox where one is available."""

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
"""Of a built-in verifier's process and of each fork of it: memory, and a reply beyond its answer.

Neither starts a process or writes a file, and a fork has CPU time for as long as its verdict may take.
"""

_PACKAGES = ("rollmill", "math_verify", "reasoning_gym")
"""They may be elsewhere than what they require: an editable installation."""
_FIRST_OUT_OF_MEMORY = ["/bin/sh", "-c", 'echo 1000 > /proc/self/oom_score_adj; exec "$@"', "sh"]
_ENVIRONMENT = {"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_IN_SANDBOX = {"MPLCONFIGDIR": SCRATCH}  # matplotlib, which reasoning-gym's requirements import, takes no less
# Packages are found after the standard library, and no .pth file of theirs runs.
_START = "import sys; sys.path += sys.argv[2:]; from rollmill.verifiers.worker import main; main(int(sys.argv[1]))"


@functools.cache
def sandbox_missing() -> str | None:
    """Return why verdicts cannot run in a sandbox here, and what to do; None where they can. Cached."""
    if sys.platform != "linux":
        return "sandboxes need Linux and bubblewrap"
    probe = _command("import sys; sys.path += sys.argv[2:]; import rollmill.verifiers.worker", 1)
    return installation_fault() or sandbox_fault(_mark(), _FIRST_OUT_OF_MEMORY, _settings(_ENVIRONMENT), probe)


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
    """Yield a built-in verifier's process: arguments, environment, and inherited files, open during the block.

    Its environment has none of the user's variables, also without a sandbox.
    """
    variables = {**_ENVIRONMENT, "PYTHONHASHSEED": hash_seed}
    if sandbox_missing():
        yield _command(_START, os.getpid()), variables, []
        return
    # There, the parent of all is the namespace's first process, which dies with the thread that starts it.
    arguments = (_mark(), _FIRST_OUT_OF_MEMORY, _settings(variables), _command(_START, 1))
    with bwrap_arguments(*arguments) as (command, files):
        yield command, BWRAP_ENVIRONMENT, files


def _command(code: str, parent: int) -> list[str]:
    folders = [*_package_folders(), *(package.parent for package in _elsewhere())]
    interpreter = str(Path(sys.executable).resolve())  # not a virtual environment's link, which is not there
    return [interpreter, "-P", "-S", "-c", code, str(parent), *map(str, folders)]


def _mark() -> str:
    return f"verdicts-{uuid.uuid4().hex}"


def _settings(variables: Mapping[str, str]) -> list[str]:
    given = [part for name, value in {**variables, **_IN_SANDBOX}.items() for part in ("--setenv", name, value)]
    return [*python_system([*_package_folders(), *_elsewhere()]), *given]


def _package_folders() -> list[Path]:
    folders = (Path(folder).absolute() for folder in sys.path if folder)
    return [folder for folder in folders if folder.name in {"site-packages", "dist-packages"} and folder.is_dir()]


def _elsewhere() -> list[Path]:
    """Return the folders of packages that are not beside the others."""
    specs = (importlib.util.find_spec(name) for name in _PACKAGES)
    packages = [Path(spec.origin).parent.absolute() for spec in specs if spec and spec.origin]
    return [package for package in packages if package.parent not in _package_folders()]
