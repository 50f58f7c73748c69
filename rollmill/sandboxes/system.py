"""Builds the file system of a bubblewrap sandbox: the host's programs without its users' files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from rollmill.errors import InputError

PYTHON = "/opt/python"
"""Virtual environment in every sandbox, first on PATH: python3 with the packages of `BubblewrapHost`."""
ENVIRONMENT = {
    "PATH": f"{PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",  # noqa: S108
    "USER": "sandbox",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "PYTHONDONTWRITEBYTECODE": "1",  # or `git status` would list __pycache__ folders
}
"""Default environment variables of commands."""

NAMESPACES = [
    *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"),
    *("--hostname", "sandbox", "--uid", "1000", "--gid", "1000", "--clearenv"),
]
_LIBRARIES = ("/lib", "/lib32", "/lib64", "/libx32")
SCRATCH = "/scratch"
"""The only folder of a `python_system` that can be written."""

_SCRATCH_BYTES = 1 << 20
_SHARED_MEMORY_BYTES = 64 << 20
_ETC = {
    "passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nsandbox:x:1000:1000::/tmp:/bin/bash\n"
    "nobody:x:65534:65534::/:/usr/sbin/nologin\n",
    "group": "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "gitconfig": "[user]\n\tname = sandbox\n\temail = sandbox@localhost\n[safe]\n\tdirectory = *\n",
}


def build_system(folder: Path, packages: Sequence[str]) -> list[str]:
    """Make the system files that cannot be mounted from the host in `folder`, and return bubblewrap's settings.

    `packages`: distributions of this Python's environment that `PYTHON` has too, with what they require. Raises
    `InputError` for one that is not installed.
    """
    folder.mkdir(mode=0o755)
    _make_etc(folder / "etc")
    base = _make_python(folder / "python", packages)
    settings = [*NAMESPACES, *_read_only(["/usr", "/bin", "/sbin", *_LIBRARIES])]
    settings += ["--ro-bind", str(folder / "etc"), "/etc", "--ro-bind", str(folder / "python"), PYTHON]
    if base:
        settings += ["--ro-bind", str(base), str(base)]  # its libraries may be linked by absolute path
    settings += ["--proc", "/proc", "--dev", "/dev", "--size", str(_SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108
    # /var/tmp and /dev would be in memory that no limit counts.
    return [*settings, "--symlink", "../tmp", "/var/tmp", "--remount-ro", "/dev", "--chdir", "/"]  # noqa: S108


def python_system(folders: Sequence[Path]) -> list[str]:
    """Return the settings of a system with this process's interpreter, its libraries, and `folders`, all read-only.

    Everything has the same path as on the host. `SCRATCH` holds a few small files, since some packages write to a
    folder when they are imported. There is no /proc, in which processes could read one another, no shell, and no other
    program. It runs as the host's user, without root's rights.
    """
    needed = ["/usr/lib", *(f"/usr{name}" for name in _LIBRARIES[1:]), *_LIBRARIES]
    needed += ["/etc/ld.so.cache", "/etc/alternatives"]
    needed += [str(Path(sys.executable).resolve()), *(str(Path(sys.base_prefix) / name) for name in ("lib", "lib64"))]
    settings = [*NAMESPACES, *_read_only([*needed, *map(str, folders)])]
    settings += ["--dev", "/dev", "--remount-ro", "/dev", "--size", str(_SCRATCH_BYTES), "--tmpfs", SCRATCH]
    return [*settings, "--remount-ro", "/", "--chdir", "/"]


def _read_only(paths: Sequence[str]) -> list[str]:
    """Return the settings that mount the existing paths among these read-only, each once."""
    settings: list[str] = []
    for name in dict.fromkeys(paths):
        if Path(name).is_symlink() and Path(name).parent == Path("/"):
            settings += ["--symlink", str(Path(name).readlink()), name]
        elif Path(name).exists():
            settings += ["--ro-bind", name, name]
    return settings


def as_other_user(uid: int | None) -> list[str]:
    """Return the command that starts another as that user and group, without further groups; empty for None."""
    if uid is None:
        return []
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--"]


def _make_etc(etc: Path) -> None:
    etc.mkdir(mode=0o755)
    for name, text in _ETC.items():
        (etc / name).write_text(text)
        (etc / name).chmod(0o644)
    if Path("/etc/ld.so.cache").exists():
        shutil.copy2("/etc/ld.so.cache", etc)
    if Path("/etc/alternatives").is_dir():  # targets of Debian's /usr/bin/cc, awk and others
        shutil.copytree("/etc/alternatives", etc / "alternatives", symlinks=True)


def _make_python(folder: Path, packages: Sequence[str]) -> Path | None:
    """Build a virtual environment; return the folder of its interpreter where that is not in /usr."""
    executable = _interpreter()
    if executable is None:
        (folder / "bin").mkdir(parents=True)
        return None
    script = "import sys; print(sys.base_prefix, *sys.version_info[:2])"
    arguments = [str(executable), "-I", "-S", "-c", script]
    prefix, major, minor = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.rsplit(
        maxsplit=2
    )
    base = None if Path(prefix).is_relative_to("/usr") else Path(prefix)
    home = executable.parent
    (folder / "bin").mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    name = f"python{major}.{minor}"
    (folder / "bin" / name).symlink_to(f"{home}/{name}")
    for other in ("python3", "python"):
        (folder / "bin" / other).symlink_to(name)
    library = folder / "lib" / name / "site-packages"
    library.mkdir(parents=True)
    for package in _with_requirements(packages):
        _copy_package(package, library, folder / "bin")
    return base


def _interpreter() -> Path | None:
    """Return this process's interpreter where the sandbox's user can reach it, else the system's."""
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    reachable = os.geteuid() != 0 or all(folder.stat().st_mode & 0o001 for folder in base.parents)
    hidden = base.is_relative_to("/tmp") or base.is_relative_to("/var/tmp")  # noqa: S108  beneath the sandbox's own
    for candidate in ([base] if reachable and not hidden else []) + [Path("/usr/bin/python3")]:
        if os.access(candidate, os.X_OK):  # beneath a folder that is closed to this user, `exists` raises
            return candidate
    return None


def _with_requirements(names: Sequence[str]) -> list[Distribution]:
    from packaging.requirements import Requirement

    distributions: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in distributions:
            continue
        try:
            distributions[name] = distribution(name)
        except PackageNotFoundError:
            raise InputError(f"Python package {name!r}, required in sandboxes, is not installed: install it") from None
        required = map(Requirement, distributions[name].requires or [])
        waiting += [each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]
    return list(distributions.values())


def _copy_package(package: Distribution, library: Path, programs: Path) -> None:
    for file in package.files or []:
        source = Path(str(package.locate_file(file)))
        if ".." not in file.parts and source.is_file():
            (library / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, library / file)  # keeps mtimes, so that .pyc files stay valid
    for entry in package.entry_points.select(group="console_scripts"):
        program = programs / entry.name
        call = f"import sys\nfrom {entry.module} import {entry.attr}\nsys.exit({entry.attr}())\n"
        program.write_text(f"#!{PYTHON}/bin/python3\n{call}")
        program.chmod(0o755)
