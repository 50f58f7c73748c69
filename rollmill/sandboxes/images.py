"""Images of bubblewrap sandboxes: directory trees, which become git repositories."""

from __future__ import annotations

import subprocess
import unicodedata
from pathlib import Path

from rollmill.errors import InputError
from rollmill.sandboxes.sandbox import SandboxError

_LONGEST_NAME = 255
_LONGEST_SHOWN = 80
_DATE = "2020-01-01T00:00:00+0000"
_IDENTITY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "rollmill"), ("EMAIL", "rollmill@localhost"), ("DATE", _DATE))
}
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_DEFAULT_HASH": "sha1",
    **_IDENTITY,
}
_SETTINGS = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "protocol.allow=never", "submodule.recurse=false",
             "diff.ignoreSubmodules=all", "gc.auto=0", "maintenance.auto=false")  # fmt: skip
"""Override the configuration of an image's repository, whose hooks and helpers must not run on the host."""


def image_folder(images: Path, name: str) -> Path:
    """Return the folder of an image.

    Raises `InputError` if there is none of exactly that name. Names that differ only in case, Unicode normalization or
    symbolic links are refused, so that each folder has one name.
    """
    why = _why_no_name(name) or _why_no_folder(images, name)
    if why:
        shown = ascii(name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}...")
        raise InputError(f"image {shown}: {why} in {images}: name one of its subfolders")
    return images / name


def _why_no_name(name: str) -> str | None:
    if not unicodedata.is_normalized("NFC", name):
        return "no folder's name (Unicode that is not composed, NFC)"
    if len(name.encode(errors="replace")) > _LONGEST_NAME:
        return f"no folder's name (more than {_LONGEST_NAME} bytes)"
    if "\\" in name or not name.isprintable():
        return "no folder's name (a backslash, or what cannot be shown)"
    if any(part in {"", ".", ".."} or part != part.strip() for part in name.split("/")):
        return "no such folder"
    return None


def _why_no_folder(images: Path, name: str) -> str | None:
    folder = images
    for part in name.split("/"):
        # Compared with the listing, since some file systems ignore case or Unicode normalization in lookups.
        if not folder.is_dir() or all(each.name != part for each in folder.iterdir()):
            return "no such folder"
        folder /= part
        if folder.is_symlink():
            return "a symbolic link, not a folder,"
    return None if folder.is_dir() else "no such folder"


def copy_image(image: Path, into: Path) -> None:
    """Copy an image's tree to `into`, which must not exist yet, as a git repository.

    Without a `.git`, its files become one commit (`commit_tree`); with one, the repository is copied unchanged. Raises
    `SandboxError` where git fails, or its `.git` is a link or a file, which would have git write or read elsewhere.
    """
    _run(["cp", "-a", "--no-preserve=ownership", "--reflink=auto", "--", str(image), str(into)], into.parent)
    into.chmod(0o755)
    repository = into / ".git"
    if repository.is_symlink() or (repository.exists() and not repository.is_dir()):
        raise SandboxError(f"image {image}: its .git leads elsewhere: give it a folder .git, or none", type_="image")
    if not repository.exists():
        commit_tree(into)


def commit_tree(tree: Path) -> str:
    """Make a tree a repository with one commit of all its files, and return the commit's id.

    The id depends on the files' names, contents and executable bits alone: author, committer, date and message are
    fixed, ignore files and the user's configuration are not read. Raises `SandboxError` where git fails.
    """
    _git(tree, "init", "--quiet", "--template=", "--initial-branch=main")
    for name, value in (("core.autocrlf", "false"), ("core.fileMode", "true"), ("core.safecrlf", "false")):
        _git(tree, "config", name, value)
    _git(tree, "add", "--all", "--force", ".")
    _git(tree, "commit", "--quiet", "--allow-empty", "--no-verify", "--no-gpg-sign", "--message=start")
    return _git(tree, "rev-parse", "HEAD").strip()


def image_commit(image: Path, scratch: Path) -> str:
    """Return the id of the commit that an image's sandboxes start from; `scratch` is a new folder for a copy."""
    copy_image(image, scratch)
    return _git(scratch, "rev-parse", "HEAD").strip()


def _git(tree: Path, *arguments: str) -> str:
    settings = (part for setting in _SETTINGS for part in ("-c", setting))
    return _run(["git", *settings, *arguments], tree)


def _run(arguments: list[str], cwd: Path) -> str:
    try:
        done = subprocess.run(
            arguments, cwd=cwd, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise SandboxError(f"{arguments[0]} cannot be run: {error}", type_="image") from error
    message = done.stderr.decode(errors="replace")
    if done.returncode:
        raise SandboxError(f"{arguments[0]} failed on {cwd}: {message.strip()}", type_="image", details=message)
    return done.stdout.decode(errors="replace")
