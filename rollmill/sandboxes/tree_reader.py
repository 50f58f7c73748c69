"""Lists, hashes and reads chosen files of a folder in any sandbox.

Of files that do not matter, such as ignored ones, only the names are read: a tree costs what is looked at, not what it
holds. All answers are untrusted, and bounded: an agent that replaced `find` or `sha256sum` can hide its own changes,
which then are not graded, and no more.
"""

from __future__ import annotations

import re
import shlex
import uuid
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from rollmill.sandboxes.files import SIGPIPE, read_file, run_clean, write_file
from rollmill.sandboxes.sandbox import Sandbox, SandboxError
from rollmill.sandboxes.timed_sandbox import TimedSandbox
from rollmill.sandboxes.tree_limits import TreeLimits

_HASH_DIGITS = 64
_BLOCK = 512
_RECORD = re.compile(rb"([a-zA-Z?]) ([0-7]{1,4}) ([0-9]{1,15}) ([^/].*?)//(.*)", re.DOTALL)
"""Kind, mode, size, path and target."""


class ListedFile(NamedTuple):
    """An entry of a folder, as its sandbox describes it."""

    kind: str
    """Of `find -printf %y`: `f` for a file, `l` a link, `d` a folder, others for devices, pipes and sockets."""
    executable: bool
    size: int
    path: bytes
    """From the folder, `/` between names."""
    target: bytes
    """Of a symbolic link."""


class TreeReader:
    """Reads one folder; a context manager, which removes its scratch files from the sandbox.

    All methods raise `SandboxError`, of type `contents` for what the commands in the sandbox may have caused: a tree
    beyond its limits, an unreadable folder, a forged answer, a sandbox that answers too slowly.
    """

    def __init__(self, sandbox: Sandbox, folder: str, limits: TreeLimits) -> None:
        self._sandbox = TimedSandbox(sandbox, limits.seconds)
        self._folder = shlex.quote(folder)
        self._limits = limits
        self._listing = f"/tmp/.{uuid.uuid4().hex}"  # noqa: S108  # inside a sandbox
        self._files: list[ListedFile] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        run_clean(self._sandbox.untimed, f"rm -f {self._listing}*")

    def entries(self, *, most: int) -> list[ListedFile]:
        """Return at most `most` entries; `.git` of any folder is left out. Raises `SandboxError` for more."""
        limits, listing = self._limits, self._listing
        # A path has no `//`, so that it ends where a link's target begins. What is too deep is listed one level deep,
        # to be noticed. `head` ends `find` as soon as there is too much.
        find = (
            f"find . -mindepth 1 -maxdepth {limits.depth + 1} -iname .git -prune -o -printf '%y %m %s %P//%l\\0'"
            f" | head -z -n {most + 1} | head -c {limits.name_bytes + 1} > {listing}"
        )
        self._run(f"{find}; s=${{PIPESTATUS[0]}}; [ $s = 0 ] || [ $s = {SIGPIPE} ]")
        try:
            data = read_file(self._sandbox, listing, most=limits.name_bytes)
        except SandboxError as error:
            if "bytes," not in str(error):
                raise
            raise _refusal(f"its names take more than {limits.name_bytes} bytes") from error
        if data.count(b"\0") > most:
            raise _refusal(f"it holds more than {most} files and folders")
        self._files = [self._parse(record) for record in data.split(b"\0")[:-1]]
        return self._files

    def hashes(self, chosen: Sequence[int]) -> list[bytes]:
        """Return the SHA-256 of the content of files, which are indices of the list in ascending order."""
        if not chosen:
            return []
        self._select(chosen, f"xargs -0 -r sha256sum -z -- | cut -z -c1-{_HASH_DIGITS} | tr -d '\\0'")
        digits = read_file(self._sandbox, f"{self._listing}.out", most=_HASH_DIGITS * len(chosen))
        if len(digits) != _HASH_DIGITS * len(chosen):
            raise _refusal("not every file of it can be read")
        try:
            return [
                bytes.fromhex(digits[at : at + _HASH_DIGITS].decode()) for at in range(0, len(digits), _HASH_DIGITS)
            ]
        except ValueError as error:
            raise _refusal("the digests of its files are damaged") from error

    def archive(self, chosen: Collection[int]) -> bytes:
        """Return a tar of files and links, which are indices of the list; their names begin with `./`."""
        if not chosen:
            return bytes(2 * _BLOCK)
        # Longer than a tar of these files: each has a header, and two more with its path where that is long.
        most = 20 * _BLOCK + sum(
            5 * _BLOCK + self._files[index].size + 2 * len(self._files[index].path) for index in chosen
        )
        tar = "tar -cf - --hard-dereference --no-recursion --null -T -"
        self._select(chosen, f"{{ {tar} || [ $? = {SIGPIPE} ]; }} | head -c {most + 1}")
        return read_file(self._sandbox, f"{self._listing}.out", most=most)

    def _select(self, chosen: Collection[int], command: str) -> None:
        """Run a command on the chosen paths, which it reads from its standard input, each ended by a NUL."""
        listing, selected = self._listing, frozenset(chosen)
        flags = "".join("+" if index in selected else "-" for index in range(len(self._files)))
        write_file(self._sandbox, f"{listing}.flags", flags.encode())
        # The flags and the listing have one record per file, in the same order.
        paths = (
            f"fold -w1 < {listing}.flags | tr '\\n' '\\0' | paste -z -d: - {listing}"
            f" | sed -z -n -e 's!//.*!!' -e 's!^+:[^ ]* [^ ]* [^ ]* !./!p'"
        )
        self._run(f"set -o pipefail; {paths} | {command} > {listing}.out")

    def _run(self, command: str) -> None:
        done = run_clean(self._sandbox, f"cd -- {self._folder} && {{ {command}; }}")
        if done.returncode:
            message = done.output.strip()[-200:] or f"return code {done.returncode}"
            raise SandboxError(f"it cannot be read: {message}", type_="contents", details=done.output)

    def _parse(self, record: bytes) -> ListedFile:
        match = _RECORD.fullmatch(record)
        if not match:
            raise _refusal("the list of its files is damaged")
        kind, mode, size, path, target = match.groups()
        if len(path) > self._limits.path_bytes:
            raise _refusal(f"it holds a path of {len(path)} bytes")
        if path.count(b"/") >= self._limits.depth:
            raise _refusal(f"it is more than {self._limits.depth} folders deep")
        return ListedFile(kind.decode(), int(mode, 8) & 0o100 != 0, int(size), path, target)


def _refusal(message: str) -> SandboxError:
    return SandboxError(message, type_="contents")
