"""One patch of all that was changed since the start commit, made by a git that the changed tree cannot reach.

Nothing is unpacked: both trees are handed to `git fast-import`, so there is no file to follow, no index to believe and
no hook, filter or attribute of the tree to obey. The start commit's own `.gitignore` files say what is no change.
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
"""For `info/attributes`, which stands above every `.gitattributes`: files are the bytes that they are."""
CLEAN_GIT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
"""Environment of a git that reads no configuration but its repository's."""

_AUTHOR = b"rollmill <rollmill@localhost> 0 +0000\n"
_SETTINGS = ("core.quotepath=true", "core.protectHFS=false", "core.protectNTFS=false", "core.hooksPath=/dev/null")


class Change(NamedTuple):
    """One file that is not as at the start commit."""

    status: str
    """`A` added, `M` content or mode changed, `T` another kind of file now, `D` deleted."""
    path: str
    mode: str
    """After the change, in git's notation; `000000` where the file is gone."""


class Patch(NamedTuple):
    """All changes since the start commit."""

    changes: list[Change]
    diff: str
    """For `git apply`; empty where nothing was changed. Files that are no UTF-8 are in it as binary ones."""

    @property
    def status(self) -> str:
        """As `git status --porcelain` shows them, by paths quoted in git's way where they have to be."""
        marks = {"A": "??"}
        return "".join(f"{marks.get(change.status, ' ' + change.status)} {change.path}\n" for change in self.changes)


class StartTree:
    """The tree that agents start from, kept as a repository in a scratch folder, and the patches against it.

    `tree` is the work tree at its start, `tracked` the paths that its commit holds. Files that are neither tracked nor
    free of the start commit's `.gitignore` are of no interest on either side. Raises `SandboxError` where the git
    of this machine fails. May be used from several threads.
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
        """Of every file at the start, ignored ones too."""
        ignored = self._ignored(tree)
        self._base: Marks = {path: mark for path, mark in self.marks.items() if path not in ignored}
        kept: Tree = {path: tree[path] for path in self._base}
        _import(self._git, "start", kept, [], None)
        self._commit = _run(self._git, "rev-parse", "refs/heads/start").decode().strip()

    @property
    def tracked(self) -> frozenset[bytes]:
        """The paths that the start commit holds."""
        return self._tracked

    def take_patch(self, after: Tree) -> Patch:
        """Return what has to be done to the start tree to get this one.

        Raises `BadTreeError` where no patch in UTF-8 can say it, `SandboxError` where git fails.
        """
        ignored = self._ignored(path for path in after if path not in self._base)
        changed = {
            path: file for path, file in after.items() if path not in ignored and self._base.get(path) != file.mark
        }
        gone = [path for path in self._base if path not in after]
        if not changed and not gone:
            return Patch([], "")
        with TemporaryDirectory(dir=self._git.parent) as folder:
            git = Path(folder) / "patch.git"
            _init(git, alternate=self._git / "objects")
            _import(git, "changed", changed, gone, self._commit)
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


def _import(git: Path, branch: str, files: Tree, gone: Iterable[bytes], parent: str | None) -> None:
    """Make a commit of `files`, and of the parent's that are not `gone`."""
    stream = [b"commit refs/heads/%s\ncommitter %sdata 0\n" % (branch.encode(), _AUTHOR)]
    if parent:
        stream.append(b"from %s\n" % parent.encode())
    stream += [b"D %s\n" % _quoted(path) for path in gone]
    for path, file in files.items():
        stream.append(b"M %s inline %s\ndata %d\n" % (file.mode.encode(), _quoted(path), len(file.content)))
        stream.append(file.content + b"\n")
    stream.append(b"done\n")
    _run(git, "fast-import", "--quiet", "--done", "--date-format=raw", stdin=b"".join(stream))


def _quoted(path: bytes) -> bytes:
    """Return a path in the quotes of C, as fast-import reads them."""
    plain = (b"%c" if 32 <= byte < 127 and byte not in b'"\\' else b"\\%03o" for byte in path)
    return b'"' + b"".join(form % byte for form, byte in zip(plain, path, strict=True)) + b'"'


def _run(git: Path, command: str, *arguments: str, tree: Path | None = None, stdin: bytes | None = None) -> bytes:
    """Run a git command and return its output. Raises `SandboxError` where it fails."""
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
    nothing_ignored = command == "check-ignore" and done.returncode == 1
    if done.returncode and not nothing_ignored:
        raise SandboxError(
            f"git {command} failed here with {done.returncode}",
            type_="git",
            details=done.stderr.decode("utf-8", "replace"),
        )
    return done.stdout
