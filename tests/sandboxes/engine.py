"""Starts a Docker engine for tests, with an image built from this machine's programs."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

IMAGE = "rollmill-test:1"
_PROGRAMS = [
    "bash", "base64", "cat", "chmod", "cp", "cut", "date", "dd", "dirname", "env", "find", "fold", "git", "grep",
    "head", "id", "ln", "ls", "mkdir", "mv", "nohup", "paste", "rm", "sed", "setpriv", "setsid", "sh", "sha256sum",
    "sleep", "sort", "stat", "tail", "tar", "touch", "tr", "true", "wc", "xargs", "yes",
]  # fmt: skip
_FLAGS = ["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]


def why_no_engine() -> str:
    """Return why no engine can be started on this machine; empty if one can."""
    if os.geteuid() != 0:
        return "dockerd needs root"
    missing = [name for name in ("dockerd", "docker") if not shutil.which(name)]
    return f"{' and '.join(missing)} not installed (Debian: docker.io)" if missing else ""


_SHARED = pytest.StashKey[str]()


def shared_engine(config: pytest.Config) -> str:
    """The address of this test process's engine, started when it is first asked for. Skips where none can start.

    Who makes images there gives them names of their own, and leaves no containers.
    """
    if why := why_no_engine():
        pytest.skip(why)
    if _SHARED not in config.stash:
        stack = ExitStack()
        try:
            config.stash[_SHARED] = stack.enter_context(running_engine())
        except RuntimeError as error:
            pytest.skip(f"dockerd does not start here: {error}")
        config.add_cleanup(stack.close)
    return config.stash[_SHARED]


@contextmanager
def running_engine() -> Iterator[str]:
    """Yield the address of an engine that ends with the block. Raises `RuntimeError` with the end of its log."""
    folder = Path(tempfile.mkdtemp(prefix="rollmill-engine-"))
    address = f"unix://{folder}/docker.sock"
    options = ["--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"), "-H", address]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            ["dockerd", *_FLAGS, *options, "--pidfile", str(folder / "pid")],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "-H", address, "version"], capture_output=True, check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text()[-300:])
            time.sleep(0.2)
        yield address
    finally:
        daemon.terminate()
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        subprocess.run(f"umount -R {folder}/* 2>/dev/null; rm -rf {folder}", shell=True, check=False)


def import_image(address: str, tree: Path, name: str = IMAGE, *, with_ctypes: bool = False) -> str:
    """Makes an image of bash, git, coreutils and Python, with `tree` at its work directory.

    `with_ctypes`: whether Python can call the C library.
    """
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", dereference=False) as tar:
            _add_system(tar, with_ctypes)
            tar.add(tree, "workspace")
        file.seek(0)
        done = subprocess.run(
            ["docker", "-H", address, "import", "--change", "WORKDIR /workspace", "-", name],
            stdin=file,
            capture_output=True,
            check=False,
        )
    assert done.stdout.startswith(b"sha256:"), done.stderr
    return name


def change_image(address: str, image: str, name: str, command: str, *changes: str) -> str:
    """Makes an image of another by running a bash command as root in a container; `changes`: lines of a Dockerfile."""
    docker = ["docker", "-H", address]
    started = ["run", "--detach", "--network", "none", "--entrypoint", "/bin/bash", image, "-c", command]
    container = subprocess.run([*docker, *started], capture_output=True, text=True, check=True).stdout.strip()
    options = [part for change in changes for part in ("--change", change)]
    for arguments in (["wait", container], ["commit", *options, container, name], ["rm", container]):
        subprocess.run([*docker, *arguments], capture_output=True, check=True)
    return name


def _add_system(tar: tarfile.TarFile, with_ctypes: bool) -> None:
    for folder in ("usr", "usr/bin", "usr/lib", "etc", "tmp", "root"):
        entry = tarfile.TarInfo(folder)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
        tar.addfile(entry)
    python = Path("/usr/bin/python3").resolve()
    links = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib", "usr/bin/python3": python.name}
    for name, target in links.items():
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, target
        tar.addfile(link)
    passwd = b"root:x:0:0:root:/root:/bin/bash\n"
    entry = tarfile.TarInfo("etc/passwd")
    entry.size = len(passwd)
    tar.addfile(entry, io.BytesIO(passwd))
    libraries = _libraries(python)
    if with_ctypes:
        for module in Path(f"/usr/lib/{python.name}/lib-dynload").glob("_ctypes.*.so"):
            libraries |= _libraries(module)
    for program in _PROGRAMS:
        path = shutil.which(program, path="/usr/bin:/bin")
        assert path, program
        tar.add(Path(path).resolve(), f"usr/bin/{program}")
        libraries |= _libraries(Path(path))
    tar.add(python, f"usr/bin/{python.name}")
    tar.add(f"/usr/lib/{python.name}", f"usr/lib/{python.name}", filter=_small)
    for library in sorted(libraries):
        tar.add(Path(library).resolve(), f"usr/lib/{Path(library).name}")


def _libraries(program: Path) -> set[str]:
    output = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(/\S+) \(0x", output))


def _small(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Every container is a copy of the image. Without what is compiled, every Python there would compile it again."""
    left_out = ("/test", "/distutils", "/lib2to3", "/pydoc_data", "/ensurepip", "/idlelib", "/tkinter", "/config-")
    return None if any(part in entry.name for part in left_out) else entry
