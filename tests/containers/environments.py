"""Builds an image with the test machine's programs instead of the installed environments, without network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.containers.reading import ROOT
from tests.sandboxes.engine import import_image

_PROGRAMS = ("bwrap", "chown", "install", "ln", "prlimit", "readlink", "setpriv", "tini", "useradd")
_IMPORTED = """
import contextlib, os, runpy, sys, sysconfig
sys.argv = ["", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
    runpy.run_module("flows.reject_sampling", run_name="__main__", alter_sys=True)
import packaging.requirements, rollmill.sandboxes.bubblewrap
site = sysconfig.get_path("purelib") + os.sep
files = [module.__file__ or "" for module in list(sys.modules.values()) if hasattr(module, "__file__")]
print(*sorted({file.removeprefix(site).split(os.sep)[0] for file in files if file.startswith(site)}))
"""
"""Prints the packages that the tests' commands import: only these are copied, since the environment has 5 GB."""


def why_no_builder(docker: str) -> str:
    """Return why this client cannot build with BuildKit; empty if it can. From release 23 on it needs a plugin."""
    client = subprocess.run([docker, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    plugin = subprocess.run([docker, "buildx", "version"], capture_output=True, check=False).returncode == 0
    return "" if plugin or int(client.partition(".")[0]) < 23 else f"{docker} {client} has no plugin buildx"


def builder() -> str:
    """Return a client that can build. Raises `RuntimeError` with the reason if there is none."""
    docker_paths = {path for name in ("docker", "/usr/bin/docker") if (path := shutil.which(name))}
    reasons = {path: why_no_builder(path) for path in sorted(docker_paths)}
    for path, why in reasons.items():
        if not why:
            return path
    raise RuntimeError("; ".join(reasons.values()))


def build(docker: str, engine: str, *arguments: str | Path) -> str:
    """Build an image without network; return the engine's output."""
    command = [docker, "-H", engine, "build", "--network=none", "--progress=plain", *map(str, arguments)]
    done = subprocess.run(
        command, env=os.environ | {"DOCKER_BUILDKIT": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def make_environments(docker: str, engine: str, folder: Path, name: str) -> None:
    """Build the image `name` of bash, Python, the programs of the last stage and of the tests, and `.venv`."""
    empty, tree = folder / "empty", folder / "tree"
    empty.mkdir()
    import_image(engine, empty, "rollmill-test-system:1")
    programs = [Path(path) for each in _PROGRAMS if (path := shutil.which(each, path="/usr/bin:/usr/sbin"))]
    for program in programs:
        _copy(program, tree / "usr" / "bin" / program.name)
    python = Path("/usr/bin/python3").resolve().name
    environment = tree / "opt" / "rollmill" / ".venv"
    (environment / "bin").mkdir(parents=True)
    for link in ("python", "python3"):
        (environment / "bin" / link).symlink_to(f"/usr/bin/{python}")
    (environment / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    _copy_packages(environment / "lib" / python / "site-packages")
    loaded = [*programs, *environment.rglob("*.so"), *Path(f"/usr/lib/{python}/lib-dynload").glob("*.so")]
    output = subprocess.run(["ldd", *map(str, loaded)], capture_output=True, text=True, check=True).stdout
    for library in {Path(path) for path in re.findall(r"=> (/(?:usr/)?lib/\S+)", output)}:
        _copy(library, tree / "usr" / "lib" / library.name)
    recipe = folder / "Dockerfile"
    recipe.write_text("FROM rollmill-test-system:1\nCOPY . /\n")
    build(docker, engine, "--file", recipe, "--tag", name, tree)


def _copy_packages(into: Path) -> None:
    site = next(Path(sys.executable).parents[1].glob("lib/python3*/site-packages"))
    done = subprocess.run([sys.executable, "-E", "-c", _IMPORTED], cwd=ROOT, capture_output=True, text=True, check=True)
    for top in done.stdout.split():
        for source in (site / top, site / f"{top}.libs"):
            if source.exists():
                _copy(source, into / source.name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    else:
        shutil.copy2(source, target)
