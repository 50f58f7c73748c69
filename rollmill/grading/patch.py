"""Builds one patch of all changes since the start commit, with a git that the changed tree cannot influence.

Nothing is unpacked: both trees go to `git fast-import`, so that no symbolic link is followed, no index trusted, and no
hook, filter or attribute of the tree applied. Files that the start commit's `.gitignore` files exclude are no change.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rollmill.grading.tree import LINK, BadTreeError, Digests, Tree, file_digests, show
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

_TIMEOUT_S = 120.0
"""Of one git command: comparing files and matching names takes long for some contents, which an agent may choose."""
_COMMITTER = b"rollmill <rollmill@localhost> 0 +0000\n"
# Git refuses names that macOS or Windows would take for `.git`. Nothing is checked out here, so that they are harmless.
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
    """For `git apply`; empty without changes. Only files that are not UTF-8 are in it as binary patches."""

    @property
    def status(self) -> str:
        """The changes as `git status --porcelain` prints them, with git's quoting of paths."""
        letters = {"A": "??"}
        return "".join(f"{letters.get(change.status, ' ' + change.status)} {change.path}\n" for change in self.changes)


class PatchBase:
    """Makes patches against the tree that agents start from, which it keeps as a repository in a scratch folder.

    `tree` is the work tree at its start, `tracked` the paths of its commit. Untracked files that the start commit's
    `.gitignore` excludes are left out on both sides. Raises `SandboxError` if the git of this machine fails.
    Thread-safe.
    """

    def __init__(self, tree: Tree, tracked: Iterable[bytes], scratch: Path) -> None:
        self._tracked = frozenset(tracked)
        # A work tree of only the `.gitignore` files of the start commit.
        self._gitignores = scratch / "ignoring"
        self._git = scratch / "start.git"
        self._gitignores.mkdir()
        for path, file in tree.items():
            if path.rpartition(b"/")[2] == b".gitignore" and path in self._tracked and file.mode != LINK:
                target = self._gitignores / os.fsdecode(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.content)
        _init(self._git)
        self.digests: Digests = file_digests(tree)
        """Digests of all files at the start, including ignored ones."""
        self.base: Digests = {}
        """Digests of the files at the start that count: of the commit, or not ignored."""
        ignored = self.ignored(tree)
        self.base = {path: digest for path, digest in self.digests.items() if path not in ignored}
        kept: Tree = {path: tree[path] for path in self.base}
        self.sizes = {path: len(file.content) for path, file in kept.items() if file.mode != LINK}
        """Bytes of the files in `base`, without links."""
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
        ignored = self.ignored(after)
        changed = {
            path: file for path, file in after.items() if path not in ignored and self.base.get(path) != file.digest
        }
        return self.patch_of(changed, [path for path in self.base if path not in after])

    def patch_of(self, changed: Tree, deleted: Sequence[bytes]) -> Patch:
        """Return the patch that writes these files and deletes the others.

        Raises `BadTreeError` if no patch in UTF-8 can express it, `SandboxError` if git fails.
        """
        if not changed and not deleted:
            return Patch([], "")
        with TemporaryDirectory(dir=self._git.parent) as folder:
            # A repository of its own per patch, on the start's objects: threads share nothing that they write.
            git = Path(folder) / "patch.git"
            _init(git, alternate=self._git / "objects")
            _import(git, "changed", changed, deleted, self._commit)
            return self._diff(git)

    def ignored(self, paths: Iterable[bytes]) -> set[bytes]:
        """Return which of these files are no change, because the start commit's `.gitignore` files exclude them."""
        candidates = [path for path in paths if path not in self._tracked and path not in self.base]
        if not candidates:
            return set()
        named = b"".join(b"./%s\0" % path for path in candidates)  # a path that begins with `:` would be pathspec magic
        output = _run(self._git, "check-ignore", "--no-index", "-z", "--stdin", tree=self._gitignores, stdin=named)
        return {path.removeprefix(b"./") for path in output.split(b"\0")[:-1]}

    def _diff(self, git: Path) -> Patch:
        sides = (self._commit, "refs/heads/changed")
        raw = _run(git, "diff", "--raw", "-z", "--no-renames", "--no-abbrev", *sides).split(b"\0")
        changes = [_parse_change(meta, path) for meta, path in zip(raw[0:-1:2], raw[1::2], strict=True)]
        command = ("diff", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")
        diff = _run(git, *command, *sides)
        try:
            return Patch(changes, diff.decode())
        except UnicodeDecodeError:  # git calls a file text whatever its encoding, but a binary patch is always ASCII
            (git / "info/attributes").write_text(ATTRIBUTES + "* -diff\n")
        binary = _run(git, *command, *sides)
        # Both have the same files in the same order.
        sections = zip(_split_files(diff), _split_files(binary), strict=True)
        try:
            return Patch(changes, "".join(_decode_first(*section) for section in sections))
        except UnicodeDecodeError as error:  # git shows links' targets as text, whatever the attributes say
            raise BadTreeError("a symbolic link in it points to a name that is no UTF-8") from error


def _parse_change(meta: bytes, path: bytes) -> Change:
    """Parse an entry of `git diff --raw -z`: `:mode mode id id status`, and the path."""
    _, mode, _, _, status = meta.split()
    return Change(status.decode(), show(path), mode.decode())


def _split_files(diff: bytes) -> list[bytes]:
    """Split a patch into those of its files. Lines of content begin with another character than a header's."""
    return re.split(rb"^(?=diff --git )", diff, flags=re.MULTILINE)[1:]


def _decode_first(*patches: bytes) -> str:
    """Decode the first of a file's patches that is UTF-8. Raises `UnicodeDecodeError` as the last one does."""
    *preferred, last = patches
    for patch in preferred:
        with suppress(UnicodeDecodeError):
            return patch.decode()
    return last.decode()


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
    stream = [b"commit refs/heads/%s\ncommitter %sdata 0\n" % (branch.encode(), _COMMITTER)]
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
    quoted = (b"%c" % byte if 32 <= byte < 127 and byte not in b'"\\' else b"\\%03o" % byte for byte in path)
    return b'"' + b"".join(quoted) + b'"'


def _run(git: Path, command: str, *arguments: str, tree: Path | None = None, stdin: bytes | None = None) -> bytes:
    """Run a git command and return its output. Raises `SandboxError` if it fails, `BadTreeError` if it takes too long.

    Args:
        git: The repository.
        command: Git's subcommand.
        arguments: Options and arguments of the subcommand.
        tree: Work tree; None for subcommands that need none.
        stdin: Standard input; None for an empty one.
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
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise BadTreeError(f"git {command} takes more than {_TIMEOUT_S:g} seconds on it") from error
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
