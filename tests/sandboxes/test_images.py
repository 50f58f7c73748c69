from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from rollmill.errors import InputError
from rollmill.sandboxes.images import copy_image, image_commit, image_folder
from rollmill.sandboxes.sandbox import SandboxError


def git(folder, *arguments):
    return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_a_function_of_the_files_alone(images, tmp_path, monkeypatch):
    first = image_commit(images / "small", tmp_path / "first")
    other = tmp_path / "other"
    shutil.copytree(images / "small", other)
    os.utime(other / "run.sh", (1, 1))
    (other / "src").chmod(0o700)
    monkeypatch.setenv("GIT_AUTHOR_NAME", "somebody")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.autocrlf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "input")
    assert image_commit(other, tmp_path / "second") == first == "9a99bc5b10ede007cf5939e37e16872e48fcbeae"


@pytest.mark.parametrize("change", ["content", "mode", "name"])
def test_every_change_of_the_files_is_another_commit(images, tmp_path, change):
    first = image_commit(images / "small", tmp_path / "first")
    other = tmp_path / "other"
    shutil.copytree(images / "small", other)
    if change == "content":
        (other / "kept.log").write_text("other\n")
    elif change == "mode":
        (other / "run.sh").chmod(0o644)
    else:
        (other / "kept.log").rename(other / "moved.log")
    assert image_commit(other, tmp_path / "second") != first


def test_all_files_are_in_it_as_they_are(images, tmp_path):
    image = tmp_path / "image"
    shutil.copytree(images / "small", image)
    (image / "crlf.txt").write_bytes(b"a\r\nb\n")
    (image / "link").symlink_to("src/one.py")
    copy_image(image, tmp_path / "copy")
    assert git(tmp_path / "copy", "status", "--porcelain", "--ignored") == ""
    listed = git(tmp_path / "copy", "ls-tree", "-r", "--format=%(objectmode) %(path)", "HEAD").splitlines()
    assert listed == [
        "100644 .gitignore", "100644 crlf.txt", "100644 kept.log", "120000 link", "100755 run.sh", "100644 src/one.py",
    ]  # fmt: skip
    shown = subprocess.run(["git", "-C", tmp_path / "copy", "show", "HEAD:crlf.txt"], capture_output=True, check=True)
    assert shown.stdout == b"a\r\nb\n"
    assert not (image / ".git").exists()


def test_a_repository_is_copied_as_it_is(images, tmp_path):
    image = tmp_path / "image"
    copy_image(images / "small", image)
    (image / "untracked").write_text("x")
    identity = ["-c", "user.name=a", "-c", "user.email=b"]
    git(image, *identity, "commit", "--allow-empty", "--message", "second")
    copy_image(image, tmp_path / "copy")
    assert git(tmp_path / "copy", "rev-parse", "HEAD") == git(image, "rev-parse", "HEAD")
    assert git(tmp_path / "copy", "status", "--porcelain") == "?? untracked"


def test_an_empty_image_is_an_empty_commit(tmp_path):
    (tmp_path / "empty").mkdir()
    assert len(image_commit(tmp_path / "empty", tmp_path / "copy")) == 40


@pytest.mark.parametrize("name", ["", ".", "/", "..", "../images", "absent", "/etc", "a\0"])
def test_invalid_image_names_are_refused(images, name):
    with pytest.raises(InputError, match="name one of its subfolders"):
        image_folder(images, name)


LETTERS = "e\u0301"
"""Two characters that Unicode composes to one."""


@pytest.mark.parametrize(
    "name",
    [
        "small/../small", "./small", "small/.", "small/", "small//src", "/small", "small\\", "small\n", " small",
        "small ", "SMALL", "alias", "outside", f"im{LETTERS}", "small/src/..", "x" * 300, "small\u200b", "\ud800",
        "small/run.sh",
    ],
)  # fmt: skip
def test_an_image_has_no_second_name(images, tmp_path, name):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    (folder / "im\u00e9").mkdir()
    (folder / f"im{LETTERS}").mkdir()
    (folder / "alias").symlink_to("small")
    (folder / "outside").symlink_to("/usr")
    with pytest.raises(InputError, match="name one of its subfolders") as caught:
        image_folder(folder, name)
    assert str(caught.value).isascii()


@pytest.mark.parametrize("name", ["small", "small/src", "im\u00e9"])
def test_image_is_found_by_its_name(images, tmp_path, name):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    (folder / "im\u00e9").mkdir()
    assert image_folder(folder, name) == folder / name


EVIL = """#!/bin/sh
touch {marker}
"""
HELPERS = ("core.fsmonitor", "diff.external", "core.sshCommand", "core.pager", "core.editor", "gpg.program",
           "filter.x.clean", "filter.x.smudge", "filter.x.process", "diff.x.textconv", "alias.add")  # fmt: skip
HOOKS = ("pre-commit", "post-commit", "commit-msg", "post-index-change", "reference-transaction", "post-checkout")


def hostile_repository(folder, marker):
    """A repository all of whose hooks and helpers make a file on the machine that asks it for anything."""
    folder.mkdir(parents=True, exist_ok=True)
    evil = folder.parent / f"{folder.name}.sh"
    evil.write_text(EVIL.format(marker=marker))
    evil.chmod(0o755)
    git(folder, "init", "-q")
    (folder / "file").write_text("x")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x")
    for helper in HELPERS:
        git(folder, "config", helper, str(evil))
    (folder / ".git/hooks").mkdir(exist_ok=True)
    for hook in HOOKS:
        shutil.copy(evil, folder / ".git/hooks" / hook)
    (folder / ".gitattributes").write_text("* filter=x diff=x\n")
    (folder / "file").write_text("changed")
    return folder


@pytest.mark.parametrize("kind", ["its own", "nested", "submodule", "bare", "names"])
def test_hooks_of_an_image_do_not_run(tmp_path, kind):
    marker = tmp_path / "pwned"
    image = tmp_path / "image"
    image.mkdir()
    (image / "a.py").write_text("x = 1\n")
    if kind == "its own":
        shutil.copytree(hostile_repository(tmp_path / "theirs", marker), image, dirs_exist_ok=True)
    elif kind == "nested":
        hostile_repository(image / "sub", marker)
    elif kind == "submodule":
        hostile_repository(image / "sub", marker)
        (image / ".gitmodules").write_text(
            f'[submodule "s"]\n\tpath = sub\n\turl = ext::touch {marker}\n\tupdate = !touch\n'
        )
    elif kind == "bare":
        theirs = hostile_repository(tmp_path / "theirs", marker)
        shutil.copytree(theirs / ".git", image, dirs_exist_ok=True)
    else:
        for name in ("-rf", "--upload-pack=touch pwned", "a\nb", ":(exclude)*", ":/", "*.py"):
            (image / name.replace("/", "_")).write_text("x")
        (image / ".gitattributes").write_text("* filter=x\n")
    assert len(image_commit(image, tmp_path / "copy")) == 40
    assert not marker.exists()


def test_a_repository_that_leads_elsewhere_is_refused(tmp_path):
    elsewhere = hostile_repository(tmp_path / "elsewhere", tmp_path / "pwned")
    for number, make in enumerate((
        lambda path: path.symlink_to(tmp_path / "outside"),
        lambda path: path.symlink_to(elsewhere / ".git"),
        lambda path: path.write_text(f"gitdir: {elsewhere}/.git\n"),
    )):  # fmt: skip
        image = tmp_path / f"image{number}"
        image.mkdir()
        make(image / ".git")
        with pytest.raises(SandboxError, match=r"its \.git leads elsewhere"):
            copy_image(image, tmp_path / f"copy{number}")
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "pwned").exists()
