"""Sandboxes on this machine by bubblewrap: no daemon, no network, each command in its own Linux namespaces."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

from rollmill.errors import InputError
from rollmill.sandboxes.case_answers import ask_cases, ended
from rollmill.sandboxes.images import copy_image, image_folder
from rollmill.sandboxes.namespace import Namespace, installation_fault, sandbox_fault
from rollmill.sandboxes.output import CappedOutput
from rollmill.sandboxes.owned_folder import OwnedFolder, remove_tree
from rollmill.sandboxes.piped_process import PipedProcess
from rollmill.sandboxes.registry import HostSettings, SandboxEntry
from rollmill.sandboxes.sandbox import TIMED_OUT, CaseAnswers, Execution, SandboxError, SandboxSpec
from rollmill.sandboxes.shell import check_environment, find_refusal, shell_arguments
from rollmill.sandboxes.started import StartedSandboxes
from rollmill.sandboxes.system import ENVIRONMENT, as_other_user, build_system
from rollmill.sandboxes.watch import Watch
from rollmill.terminal.stall_watch import TimedStep

ENTRY = SandboxEntry("bubblewrap", "BubblewrapHost", "on this machine", from_folders=True)

WORKSPACE = "/workspace"
"""Mount point of the work tree in the sandbox."""

_KILLED = 137
_LEFT_BYTES = 1000
_USERS_PER_PROCESS = 256


class BubblewrapHost(StartedSandboxes["BubblewrapSandbox"]):
    """Starts sandboxes from directory trees.

    Raises `InputError` where bubblewrap or user namespaces are missing.

    Args:
        images: Folder with a subfolder per image; each is read once.
        root: Folder for the sandboxes' files; by default one of this user's in the system's temporary folder.
        packages: Distributions that Python has in sandboxes (see `system.PYTHON`).
    """

    def __init__(self, images: Path, *, root: Path | None = None, packages: Sequence[str] = ("pytest",)) -> None:
        super().__init__()
        if not images.is_dir():
            raise InputError(f"{images}: no such folder: give the folder that holds the images")
        if missing := installation_fault():
            raise InputError(f"{missing}, or use Docker")
        if root is None:
            root = Path(tempfile.gettempdir()) / f"rollmill-sandboxes-{os.geteuid()}"
        self._images = images.resolve()
        self._folder = OwnedFolder(root)
        self._trees: dict[str, Path] = {}
        self._started = 0
        try:
            _check_reachable(root.resolve())
            self._settings = build_system(self._folder.path / "system", packages)
            (self._folder.path / "images").mkdir(mode=0o700)
            settings = [*self._settings, "--setenv", "PATH", ENVIRONMENT["PATH"]]
            command = ["/bin/bash", "-c", "exit 0"]
            if fault := sandbox_fault(self._folder.path.name, as_other_user(_user_number(0)), settings, command):
                raise InputError(f"{fault}, or use Docker")
        except BaseException:
            self._folder.close()
            raise

    @classmethod
    def from_settings(cls, settings: HostSettings) -> Self:
        """Open a host for images in folders; see `OpenableHost`."""
        if settings.images is None:
            raise InputError("bubblewrap needs the folder that holds the images: give --images")
        return cls(settings.images, packages=settings.packages)

    def start(self, spec: SandboxSpec) -> BubblewrapSandbox:
        """Start a sandbox with a copy of the image's tree at /workspace; see `SandboxHost`."""
        check_environment(spec.env)
        with self._lock:
            self._check_open()
            tree = self._tree(spec.image)
            self._started += 1
            user = _user_number(self._started)
        name = uuid.uuid4().hex
        folder = self._folder.path / name
        try:
            _fill(folder, tree, user)
        except BaseException:
            remove_tree(folder)
            raise
        return self._add(BubblewrapSandbox(name, spec, folder, as_other_user(user), self._settings, self._forget))

    def close(self) -> None:
        """Close all open sandboxes and remove every file of this host."""
        super().close()
        self._folder.close()

    def _tree(self, image: str) -> Path:
        if image not in self._trees:
            into = self._folder.path / "images" / uuid.uuid4().hex
            try:
                copy_image(image_folder(self._images, image), into)
            except BaseException:
                remove_tree(into)
                raise
            self._trees[image] = into
        return self._trees[image]


class BubblewrapSandbox:
    """A work tree and a /tmp in a folder of the host's; runs one command at a time, others wait."""

    def __init__(
        self,
        sandbox_id: str,
        spec: SandboxSpec,
        folder: Path,
        launcher: list[str],
        system: list[str],
        forget: Callable[[str], None],
    ) -> None:
        """Prepare the bwrap settings; nothing is started yet.

        Args:
            sandbox_id: Unique on its host.
            spec: Limits, environment and work folder.
            folder: Has the subfolders `work` and `tmp`.
            launcher: Command that starts bwrap as another user; empty for this one.
            system: bwrap settings that mount the system's files.
            forget: Called with the id when the sandbox is closed.
        """
        self._id = sandbox_id
        self._spec = spec
        self._folder = folder
        self._launcher = launcher
        self._forget = forget
        self._mark = f"{folder.parent.name}/{folder.name}"
        mounts = ["--bind", str(folder / "work"), WORKSPACE, "--bind", str(folder / "tmp"), "/tmp"]  # noqa: S108
        self._settings = [*system, *mounts, "--remount-ro", "/"]
        self._one_at_a_time = threading.Lock()
        self._state = threading.Lock()
        self._running: Namespace | None = None
        self._closed = False

    @property
    def id(self) -> str:
        """Return an id that is unique on its host."""
        return self._id

    def execute(
        self,
        command: str,
        *,
        cwd: str = "",
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Execution:
        """Run a bash command to its end; see `Sandbox`. Raises `InputError` for an invalid `env`.

        Args:
            command: Text for `bash -c`.
            cwd: Folder to run in; the work tree if empty.
            timeout_s: Time limit in seconds; None for the sandbox's default.
            env: More environment variables.
        """
        refusal = find_refusal(command, cwd or self._spec.cwd)
        if refusal:
            return refusal
        with self._one_at_a_time:
            limit_s = self._spec.timeout_s if timeout_s is None else timeout_s
            running = self._start(command, cwd, env)
            try:
                with TimedStep(limit_s):
                    return self._follow(running, limit_s)
            finally:
                self._running = None

    def answer_cases(
        self, command: str, cases: Sequence[str], *, timeout_s: float, most_bytes: int, env: Mapping[str, str]
    ) -> CaseAnswers:
        """Have a program answer cases; see `Sandbox`.

        Args:
            command: Text for `bash -c`.
            cases: One line each.
            timeout_s: Time limit in seconds.
            most_bytes: Maximum of all outputs together.
            env: More environment variables.
        """
        with self.open_process(command, timeout_s=timeout_s, env=env) as process:
            answers = ask_cases(process, cases, most_bytes)
        return ended(answers, process)

    @contextmanager
    def open_process(
        self, command: str, *, cwd: str = "", timeout_s: float, env: Mapping[str, str] | None = None
    ) -> Iterator[PipedProcess]:
        """Run a bash command with its standard input and output in pipes; it is killed at the end of the block.

        Raises `SandboxError` where the sandbox fails, `InputError` for an invalid `env` or command.

        Args:
            command: Text for `bash -c`.
            cwd: Folder to run in; the work tree if empty.
            timeout_s: Time limit in seconds.
            env: More environment variables.
        """
        refusal = find_refusal(command, cwd or self._spec.cwd)
        if refusal:
            raise InputError(refusal.output.strip())
        errors = CappedOutput(self._spec.limits.output_bytes)
        with self._one_at_a_time:
            running = self._start(command, cwd, env, errors)
            process = None
            try:
                with TimedStep(timeout_s), closing(self._limit_watch(running)) as watch:
                    process = PipedProcess(running, watch, errors=errors, timeout_s=timeout_s)
                    try:
                        yield process
                    finally:
                        running.kill()  # at once: closing the watch takes milliseconds
            finally:
                self._running = None
                code = running.finish(CappedOutput(_LEFT_BYTES))
                if process:
                    process.close(code)
        self._require_start(process.ended and code is None, errors)

    def _start(
        self, command: str, cwd: str, env: Mapping[str, str] | None, errors: CappedOutput | None = None
    ) -> Namespace:
        """Start a command, while the lock is held. Raises `SandboxError` where the sandbox is closed.

        Args:
            command: Text for `bash -c`.
            cwd: Folder to run in; the work tree if empty.
            env: More environment variables.
            errors: See `FollowedProcess`.
        """
        variables = check_environment({**ENVIRONMENT, **self._spec.env, **(env or {})})
        setenv = [part for name, value in variables.items() for part in ("--setenv", name, value)]
        arguments = shell_arguments(command, cwd or self._spec.cwd or WORKSPACE)
        with self._state:
            if self._closed:
                raise SandboxError(f"sandbox {self._id} is closed", type_="unknown_sandbox")
            settings = [*self._settings, *setenv]
            limits = self._spec.limits
            self._running = Namespace(self._mark, self._launcher, settings, arguments, limits, errors=errors)
            return self._running

    def _limit_watch(self, running: Namespace) -> Watch:
        return Watch(running.pid, self._spec.limits, [self._folder / "work", self._folder / "tmp"])

    def close(self) -> None:
        """Close the sandbox, a running command included, and remove its files; may be called again."""
        with self._state:
            self._closed = True
            if self._running:
                self._running.kill()
        with self._one_at_a_time:
            if self._folder.exists():
                remove_tree(self._folder)
        self._forget(self._id)

    def _follow(self, running: Namespace, timeout_s: float) -> Execution:
        """Wait for the command and all its children to exit, enforcing the limits."""
        began = time.monotonic()
        output = CappedOutput(self._spec.limits.output_bytes)
        late, broken = False, None
        try:
            with closing(self._limit_watch(running)) as watch:
                while not running.wait(min(watch.due_s(), began + timeout_s - time.monotonic()), output):
                    late = time.monotonic() >= began + timeout_s
                    broken = watch.broken()
                    if late or broken:
                        running.kill()  # at once: closing the watch takes milliseconds
                        break
                late = late and not broken
        finally:
            ended = time.monotonic()
            code = running.finish(output)
        self._require_start(code is None and not late and not broken, output)
        returncode = _KILLED if broken or code is None else code
        return Execution(
            output=output.text(),
            returncode=TIMED_OUT if late else returncode,
            timed_out=late,
            truncated=output.full,
            killed_by=broken,
            seconds=max(ended - running.began, 0.0),
        )

    def _require_start(self, lost: bool, output: CappedOutput) -> None:
        """Raise `SandboxError` where the sandbox was closed, or a command was lost that should have ended by itself."""
        if self._closed:
            raise SandboxError(f"sandbox {self._id} was closed under a command", type_="unknown_sandbox")
        if lost:
            message = output.text().strip()
            last = message.splitlines()[-1:] or ["it was killed"]
            raise SandboxError(f"bubblewrap could not run a command: {last[0]}", type_="start", details=message)


def _fill(folder: Path, tree: Path, user: int | None) -> None:
    try:
        folder.mkdir(mode=0o700)
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o777)
    except OSError as error:
        raise SandboxError(f"a sandbox's files cannot be made: {error}", type_="start") from error
    commands = [["cp", "-a", "--reflink=auto", "--", str(tree), str(folder / "work")]]
    if user is not None:
        commands.append(["chown", "-hR", f"{user}:{user}", str(folder)])
    for command in commands:
        done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            message = done.stderr.decode(errors="replace")
            raise SandboxError(f"a sandbox's files cannot be made: {message.strip()}", type_="start", details=message)


def _user_number(count: int) -> int | None:
    """Return a user id for the `count`th sandbox that no live sandbox of another process has; None for this user's own.

    Only root can give its sandboxes other users, and must: root is exempt from limits on processes, and could write
    every file of the host.
    """
    if os.geteuid() != 0:
        return None
    # The upper half of the mapped ids, away from the system's accounts; 256 per process, by its number.
    mapped = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    span = max(int(length) for first, _, length in mapped if first == "0")
    upper = min(span, 1 << 31) // 2
    if upper < _USERS_PER_PROCESS:
        return None
    return upper + (os.getpid() * _USERS_PER_PROCESS + count % _USERS_PER_PROCESS) % upper


def _check_reachable(root: Path) -> None:
    if _user_number(0) is None:
        return
    for folder in (root, *root.parents):
        if not stat.S_IMODE(folder.stat().st_mode) & 0o001:
            raise InputError(f"{folder} is closed to other users, sandboxes' own included: give a root elsewhere")
