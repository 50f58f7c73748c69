"""Starts fresh sandboxes of a problem's image, and applies patches and built trees in them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import NamedTuple

from rollmill.grading.patch import ATTRIBUTES, CLEAN_GIT
from rollmill.grading.problem import GradedProblem
from rollmill.grading.tree import REGULAR, BadTreeError, Digests, Tree, TreeEntry, read_tar, write_tar
from rollmill.sandboxes.files import read_file, read_tree, write_file
from rollmill.sandboxes.sandbox import Execution, Limits, Sandbox, SandboxError, SandboxHost, SandboxSpec
from rollmill.sandboxes.tree_limits import CHANGE, IMAGE_TREE, TreeLimits

COMMAND_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
"""Environment of every build, test and benchmark: a fixed hash seed makes the order of sets reproducible."""

_APPLY = f"""set -e
git init --quiet --bare --template= "$stage/clean.git"
mkdir "$stage/clean.git/info"
printf '%s' '{ATTRIBUTES}' > "$stage/clean.git/info/attributes"
export GIT_DIR="$stage/clean.git" GIT_WORK_TREE="$PWD"
git -c core.bare=false -c core.autocrlf=false apply --whitespace=nowarn "$input"
"""
# All files get one mtime, so that make finds no target older than its sources.
_RESTORE = """set -e
tar -xf "$input" --no-same-owner -C "$stage"
xargs -0 -r rm -rf -- < "$stage/deleted"
if [ -d "$stage/new" ]; then
    find "$stage/new" -exec touch --no-dereference -d "@$(date +%s.%N)" {} +
    cp -a --no-preserve=ownership --remove-destination "$stage/new/." .
fi
"""
_TRACKED = """set -e
git -c safe.directory='*' rev-parse --show-toplevel --show-prefix HEAD
git -c safe.directory='*' ls-tree -r -z --name-only --full-tree HEAD > "$input"
"""


class ProblemError(SandboxError):
    """The problem itself cannot be graded, whatever the agent did."""

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message, type_="problem", details=details)


class Overlay(NamedTuple):
    """The difference from the start tree to a built one: files to write, and paths to delete."""

    files: Tree
    deleted: list[bytes]


class Start(NamedTuple):
    """The work tree of an image before any change."""

    folder: str
    """The repository's root inside the sandbox."""
    prefix: str
    """Path from there to the folder that commands run in; empty, or ends in `/`."""
    commit: str
    tracked: list[bytes]
    tree: Tree


class CleanCopies:
    """Starts fresh sandboxes of one problem."""

    def __init__(self, host: SandboxHost, problem: GradedProblem, limits: Limits, most_bytes: int) -> None:
        """Prepare the sandboxes' specification.

        Args:
            host: Starts the sandboxes.
            problem: Gives image, work folder and time limit.
            limits: Memory, processes and files of each sandbox.
            most_bytes: Maximum content of a work tree.
        """
        self._host = host
        self._spec = SandboxSpec(
            image=problem.image_name, cwd=problem.workdir, timeout_s=problem.timeout_s, limits=limits
        )
        self._most = most_bytes

    @property
    def change_limits(self) -> TreeLimits:
        """Return the limits on an agent's change, which holds no more than a whole work tree may."""
        return CHANGE._replace(content_bytes=min(CHANGE.content_bytes, self._most))

    @contextmanager
    def fresh(self) -> Iterator[Sandbox]:
        """Start a sandbox of the image that ends with the block."""
        with closing(self._host.start(self._spec)) as sandbox:
            yield sandbox

    def read(self, sandbox: Sandbox, folder: str, limits: TreeLimits = IMAGE_TREE) -> Tree:
        """Read a work tree's files. Raises `BadTreeError` for one that is too large or malformed, `SandboxError`."""
        try:
            # A tar of small files is mostly headers.
            archive = read_tree(sandbox, folder, most=2 * self._most, limits=limits)
        except SandboxError as error:
            if error.type != "contents":
                raise
            raise BadTreeError(str(error)) from error
        return read_tar(archive, most=self._most, limits=limits)

    def read_start(self, sandbox: Sandbox) -> Start:
        """Read the work tree of a fresh sandbox. Raises `ProblemError` if it is no repository with a commit."""
        path = _new_path()
        done = _run(sandbox, _TRACKED, path)
        if done.returncode:
            raise ProblemError(
                f"image {self._spec.image!r} has no git repository with a commit in its work tree", details=done.output
            )
        tracked = read_file(sandbox, path, most=self._most)
        sandbox.execute(f"rm -f {path}")
        folder, prefix, commit = done.output.splitlines()[:3]
        return Start(folder, prefix, commit, tracked.split(b"\0")[:-1], self.read(sandbox, folder))

    def apply(self, sandbox: Sandbox, folder: str, diff: str) -> None:
        """Run `git apply` in a fresh sandbox. Raises `SandboxError` if it fails: the patch was made for this tree."""
        _run_with_input(
            sandbox, folder, diff.encode(), _APPLY, "the patch cannot be applied to a clean copy", CLEAN_GIT
        )

    def restore(self, sandbox: Sandbox, folder: str, overlay: Overlay) -> None:
        """Turn a fresh sandbox's work tree into the built one. Raises `SandboxError`."""
        if not overlay.files and not overlay.deleted:
            return
        # Files that will be written are deleted first, too: a folder may be in the way of a file, or a link.
        removed = [*overlay.deleted, *overlay.files]
        parts: Tree = {b"deleted": TreeEntry(REGULAR, b"".join(b"./%s\0" % path for path in removed))}
        parts |= {b"new/" + path: file for path, file in overlay.files.items()}
        _run_with_input(sandbox, folder, write_tar(parts), _RESTORE, "a built tree cannot be restored", {})


def difference(start: Digests, tree: Tree) -> Overlay:
    """Return the overlay that turns the start tree into `tree`."""
    files = {path: file for path, file in tree.items() if start.get(path) != file.digest}
    return Overlay(files, [path for path in start if path not in tree])


def _run_with_input(
    sandbox: Sandbox, folder: str, content: bytes, script: str, failure: str, env: Mapping[str, str]
) -> None:
    """Run a script that reads `content` from the file `$input`. Raises `SandboxError` if it fails.

    Args:
        sandbox: Where it runs.
        folder: Working directory.
        content: Of the input file.
        script: Of bash.
        failure: Beginning of the error's message.
        env: Environment variables.
    """
    path = _new_path()
    write_file(sandbox, path, content)
    done = _run(sandbox, f"{script} rm -f {path}", path, env, folder)
    if done.returncode:
        raise SandboxError(f"{failure}: return code {done.returncode}", type_="clean_copy", details=done.output)


def _run(sandbox: Sandbox, script: str, path: str, env: Mapping[str, str] | None = None, cwd: str = "") -> Execution:
    """Run a script with the variables `$input`, a file, and `$stage`, a scratch folder that is removed afterwards.

    Args:
        sandbox: Where it runs.
        script: Of bash.
        path: The input file inside the sandbox.
        env: Environment variables; None for no others.
        cwd: Working directory; empty for the sandbox's default.
    """
    begin = f"input={path}; stage={path}.stage; mkdir $stage; trap 'rm -rf $stage' EXIT\n"
    return sandbox.execute(begin + script, env=env, cwd=cwd)


def _new_path() -> str:
    return f"/tmp/{secrets.token_hex(8)}"  # noqa: S108  # inside a sandbox
