"""Builds one patch of all changes since the start commit, with a git that the changed tree cannot influence.

Nothing is unpacked: both trees go to `git fast-import`, so that no symbolic link is followed, no index trusted, and no
hook, filter or attribute of the tree applied. Files that the start commit's `.gitignore` files exclude are no change.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rollmill.grading.tree import LINK, BadTreeError, Marks, Tree, marks, show
from rollmill.sandboxes.sandbox import SandboxError

ATTRIBUTES = "* -text !eol -filter -ident -working-tree-encoding !diff !merge -whitespace -export-subst\n"
"""For `info/attributes`, which overrides every `.gitattributes`: content is compared byte by byte."""
CLEAN_GIT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
"""Environment of a git that reads only its repository's configuration."""

_AUTHOR = b"rollmill <rollmill@localhost> 0 +0000\n"
_SETTINGS = ("core.quotepath=true", "core.protectHFS=false", "core.protectNTFS=false", "core.hooksPath=/dev/null")


class Change(NamedTuple):
    """One file that differs from the start commit."""

    status: str
    """`A` added, `M` content or mode changed, `T` type changed, `D` deleted."""
    path: str
    mode: str
    """File mode after the change, in git's notation; `000000` for a deleted file."""


class Patch(NamedTuple):
    """All changes since the start commit."""

    changes: list[Change]
    diff: str
    """For `git apply`; empty without changes. Files that are not UTF-8 are in it as binary patches."""

    @property
    def status(self) -> str:
        """The changes as `git status --porcelain` prints them, with git's quoting of paths."""
        marks = {"A": "??"}
        return "".join(f"{marks.get(change.status, ' ' + change.status)} {change.path}\n" for change in self.changes)


class StartTree:
    """The tree that agents start from, as a repository in a scratch folder; makes patches against it.

    `tree` is the work tree at its start, `tracked` the paths of its commit. Untracked files that the start commit's
    `.gitignore` excludes are left out on both sides. Raises `SandboxError` if the git of this machine fails.
    Thread-safe.
    """

    def __init__(self, tree: Tree, tracked: Iterable[bytes], scratch: Path) -> None:
        self._tracked = frozenset(tracked)
        self._ignoring = scratch / "ignoring"
        self._git = scratch / "start.git"
        self._ignoring.mkdir()
        for path, file in tree.items():
            if path.rpartition(b"/")[2] == b".gitignore" and path in self._tracked and file.mode != LINK:
                target = self._ignoring / os.fsdecode(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.content)
        _init(self._git)
        self.marks: Marks = marks(tree)
        """Digests of all files at the start, including ignored ones."""
        ignored = self._ignored(tree)
        self._base: Marks = {path: mark for path, mark in self.marks.items() if path not in ignored}
        kept: Tree = {path: tree[path] for path in self._base}
        _import(self._git, "start", kept, [], None)
        self._commit = _run(self._git, "rev-parse", "refs/heads/start").decode().strip()

    @property
    def tracked(self) -> frozenset[bytes]:
        """Paths of the start commit."""
        return self._tracked

    def take_patch(self, after: Tree) -> Patch:
        """Return the patch from the start tree to this one.

        Raises `BadTreeError` if no patch in UTF-8 can express it, `SandboxError` if git fails.
        """
        ignored = self._ignored(path for path in after if path not in self._base)
        changed = {
            path: file for path, file in after.items() if path not in ignored and self._base.get(path) != file.mark
        }
        deleted = [path for path in self._base if path not in after]
        if not changed and not deleted:
            return Patch([], "")
        with TemporaryDirectory(dir=self._git.parent) as folder:
            # A repository of its own per patch, on the start's objects: threads share nothing that they write.
            git = Path(folder) / "patch.git"
            _init(git, alternate=self._git / "objects")
            _import(git, "changed", changed, deleted, self._commit)
            return self._diff(git)

    def _diff(self, git: Path) -> Patch:
        sides = (self._commit, "refs/heads/changed")
        raw = _run(git, "diff", "--raw", "-z", "--no-renames", "--no-abbrev", *sides).split(b"\0")
        changes = [
            Change(kind.split()[4].decode(), show(path), kind.split()[1].decode())
            for kind, path in zip(raw[0:-1:2], raw[1::2], strict=True)
        ]
        command = ("diff", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")
        diff = _run(git, *command, *sides)
        try:
            return Patch(changes, diff.decode())
        except UnicodeDecodeError:  # text in another encoding: only as binary files does it stay what it is
            (git / "info/attributes").write_text(ATTRIBUTES + "* -diff\n")
        try:
            return Patch(changes, _run(git, *command, *sides).decode())
        except UnicodeDecodeError as error:
            raise BadTreeError("a symbolic link in it points to a name that is no UTF-8") from error

    def _ignored(self, paths: Iterable[bytes]) -> set[bytes]:
        candidates = [path for path in paths if path not in self._tracked]
        if not candidates:
            return set()
        named = b"".join(b"./%s\0" % path for path in candidates)  # a bare `:x` would be one of git's patterns
        output = _run(self._git, "check-ignore", "--no-index", "-z", "--stdin", tree=self._ignoring, stdin=named)
        return {path.removeprefix(b"./") for path in output.split(b"\0")[:-1]}


def _init(git: Path, *, alternate: Path | None = None) -> None:
    _run(git, "init", "--quiet", "--bare", "--template=")
    (git / "info").mkdir()
    (git / "info/attributes").write_text(ATTRIBUTES)
    if alternate:
        (git / "objects/info").mkdir(exist_ok=True)
        (git / "objects/info/alternates").write_text(f"{alternate}\n")


def _import(git: Path, branch: str, files: Tree, deleted: Iterable[bytes], parent: str | None) -> None:
    """Commit the parent's tree with changes.

    Args:
        git: The repository.
        branch: Gets the commit.
        files: Written over the parent's.
        deleted: Paths of the parent to remove.
        parent: Commit; None for a root commit.
    """
    stream = [b"commit refs/heads/%s\ncommitter %sdata 0\n" % (branch.encode(), _AUTHOR)]
    if parent:
        stream.append(b"from %s\n" % parent.encode())
    stream += [b"D %s\n" % _quoted(path) for path in deleted]
    for path, file in files.items():
        stream.append(b"M %s inline %s\ndata %d\n" % (file.mode.encode(), _quoted(path), len(file.content)))
        stream.append(file.content + b"\n")
    stream.append(b"done\n")
    _run(git, "fast-import", "--quiet", "--done", "--date-format=raw", stdin=b"".join(stream))


def _quoted(path: bytes) -> bytes:
    """Quote a path as a C string, as fast-import reads them."""
    plain = (b"%c" if 32 <= byte < 127 and byte not in b'"\\' else b"\\%03o" for byte in path)
    return b'"' + b"".join(form % byte for form, byte in zip(plain, path, strict=True)) + b'"'


def _run(git: Path, command: str, *arguments: str, tree: Path | None = None, stdin: bytes | None = None) -> bytes:
    """Run a git command and return its output. Raises `SandboxError` if it fails.

    Args:
        git: The repository.
        command: Of git.
        arguments: Of the command.
        tree: Work tree; None for commands without one.
        stdin: Input; None for none.
    """
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    environment: Mapping[str, str] = {"PATH": os.environ.get("PATH", os.defpath), "GIT_DIR": str(git), **CLEAN_GIT}
    if tree:
        environment = {**environment, "GIT_WORK_TREE": str(tree)}
    try:
        done = subprocess.run(
            ["git", *settings, command, *arguments],
            cwd=tree or git.parent,
            env=environment,
            input=stdin or b"",
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise SandboxError(f"git cannot be run here: {error}", type_="git") from error
    # check-ignore exits with 1 if it prints no path.
    nothing_ignored = command == "check-ignore" and done.returncode == 1
    if done.returncode and not nothing_ignored:
        raise SandboxError(
            f"git {command} failed here with {done.returncode}",
            type_="git",
            details=done.stderr.decode("utf-8", "replace"),
        )
    return done.stdout
