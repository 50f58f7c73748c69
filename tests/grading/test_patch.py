from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollmill.grading.patch import CLEAN_GIT, Change, PatchBase
from rollmill.grading.tree import EXECUTABLE, LINK, REGULAR, BadTreeError, Tree, TreeEntry, read_tar, write_tar

START: Tree = {
    b"README": TreeEntry(REGULAR, b"a\nb\nc\n"),
    b"run": TreeEntry(EXECUTABLE, b"#!/bin/sh\n"),
    b"src/a.py": TreeEntry(REGULAR, b"x = 1\n"),
    b".gitignore": TreeEntry(REGULAR, b"*.o\nbuild/\n!kept.o\n"),
    b".gitattributes": TreeEntry(REGULAR, b"*.py -diff filter=evil\n*.txt text eol=crlf ident\n* export-subst\n"),
    b"forced.o": TreeEntry(REGULAR, b"\0\1"),
}


def git(folder: Path, *arguments: str, stdin: bytes | None = None) -> bytes:
    return subprocess.run(
        ["git", "-c", "core.autocrlf=false", *arguments],
        cwd=folder,
        input=stdin,
        env={**os.environ, **CLEAN_GIT},
        check=True,
        capture_output=True,
    ).stdout


def write_tree(folder: Path, tree: Tree) -> None:
    for path, file in tree.items():
        target = folder / os.fsdecode(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.mode == LINK:
            target.symlink_to(os.fsdecode(file.content))
        else:
            target.write_bytes(file.content)
            target.chmod(0o755 if file.mode == EXECUTABLE else 0o644)


def look(folder: Path) -> Tree:
    tree: Tree = {}
    for target in folder.rglob("*"):
        path = os.fsencode(target.relative_to(folder))
        if path.split(b"/")[0] == b".git":
            continue
        if target.is_symlink():
            tree[path] = TreeEntry(LINK, os.fsencode(target.readlink()))
        elif target.is_file():
            tree[path] = TreeEntry(EXECUTABLE if target.stat().st_mode & 0o100 else REGULAR, target.read_bytes())
    return tree


def applied(start: Tree, diff: str) -> Tree:
    """Return the tree after `git apply` in a clean checkout without its own attributes."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        git(folder, "init", "-q")
        write_tree(folder, start)
        (folder / ".git/info").mkdir(exist_ok=True)
        (folder / ".git/info/attributes").write_text("* -text !eol -filter -ident\n")
        git(folder, "add", "-A", "-f")
        if diff:
            git(folder, "apply", "--whitespace=nowarn", stdin=diff.encode())
        return look(folder)


def test_every_kind_of_change_is_in_one_patch(tmp_path: Path) -> None:
    after = {
        **START,
        b"README": TreeEntry(REGULAR, b"a\nB\nc"),
        b"src/a.py": TreeEntry(EXECUTABLE, b"x = 2\n"),
        b"run": TreeEntry(LINK, b"README"),
        b"new \xc3\xa9.txt": TreeEntry(REGULAR, b"one\r\ntwo\n"),
        b"left.o": TreeEntry(REGULAR, b"object"),
        b"kept.o": TreeEntry(REGULAR, b"object"),
        b"build/out": TreeEntry(REGULAR, b"out"),
        b"latin.txt": TreeEntry(REGULAR, b"caf\xe9\n"),
        b"forced.o": TreeEntry(REGULAR, b"\0\2"),
    }
    del after[b".gitattributes"]
    patch = PatchBase(START, START, tmp_path).take_patch(after)
    assert patch.changes == [
        Change("D", ".gitattributes", "000000"),
        Change("M", "README", "100644"),
        Change("M", "forced.o", "100644"),
        Change("A", "kept.o", "100644"),
        Change("A", "latin.txt", "100644"),
        Change("A", "new é.txt", "100644"),
        Change("T", "run", "120000"),
        Change("M", "src/a.py", "100755"),
    ]
    assert patch.status.splitlines()[:4] == [" D .gitattributes", " M README", " M forced.o", "?? kept.o"]
    expected = {path: file for path, file in after.items() if path not in {b"left.o", b"build/out"}}
    assert applied(START, patch.diff) == expected


def test_patch_is_text_and_ignores_gitattributes(tmp_path: Path) -> None:
    after = {**START, b"src/a.py": TreeEntry(REGULAR, b"x = 2\n")}
    assert PatchBase(START, START, tmp_path).take_patch(after).diff.splitlines()[-2:] == ["-x = 1", "+x = 2"]


def test_only_files_that_are_not_utf8_are_binary_patches(tmp_path: Path) -> None:
    after = {
        **START,
        b"caf\xe9": TreeEntry(REGULAR, b"diff --git a/x b/x\n\ndiff --git a/y b/y"),
        b"latin.txt": TreeEntry(REGULAR, b"caf\xe9\n"),
        b"run": TreeEntry(LINK, b"README"),
        b"src/a.py": TreeEntry(REGULAR, b"x = 2\r\ndiff --git \n"),
    }
    patch = PatchBase(START, START, tmp_path).take_patch(after)
    assert patch.diff.count("GIT binary patch") == 1
    assert patch.diff.endswith("-x = 1\n+x = 2\r\n+diff --git \n")
    assert applied(START, patch.diff) == after


def test_agents_gitignore_is_ignored(tmp_path: Path) -> None:
    after = {**START, b".gitignore": TreeEntry(REGULAR, b"*\n"), b"evil.py": TreeEntry(REGULAR, b"")}
    patch = PatchBase(START, START, tmp_path).take_patch(after)
    assert [change.path for change in patch.changes] == [".gitignore", "evil.py"]


def test_equal_trees_have_no_patch(tmp_path: Path) -> None:
    start = PatchBase(START, START, tmp_path)
    assert start.take_patch(dict(START)) == ([], "")
    assert start.take_patch({**START, b"x.o": TreeEntry(REGULAR, b"")}) == ([], "")


def test_patch_excludes_ignored_files_of_the_image(tmp_path: Path) -> None:
    start = PatchBase({**START, b"old.o": TreeEntry(REGULAR, b"1")}, START, tmp_path)
    assert start.take_patch({**START, b"old.o": TreeEntry(REGULAR, b"2")}) == ([], "")
    assert start.take_patch(dict(START)) == ([], "")


def test_link_to_a_non_utf8_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTreeError, match="no UTF-8"):
        PatchBase(START, START, tmp_path).take_patch({**START, b"a": TreeEntry(LINK, b"\xff")})


NAMES = st.one_of(
    st.sampled_from(
        [b"a", b"b", b"src", b"a b", b"\xc3\xa9", b"-x", b":y", b'q"', b"back\\slash", b"tab\t", b"\xff", b"!"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=5).map(str.encode),
).filter(lambda name: name not in {b".", b".."} and not name.lower().startswith(b".git") and len(name) < 200)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(str.encode),
    st.lists(st.sampled_from([b"one", b"two", b"", b"\r", b"-- "]), max_size=8).map(b"\n".join),
)
FILES = st.one_of(
    st.builds(TreeEntry, st.sampled_from([REGULAR, EXECUTABLE]), CONTENTS),
    st.builds(TreeEntry, st.just(LINK), st.sampled_from([b"a", b"../b", b"/etc/passwd", b"\xc3\xa9", b"no where"])),
)


def settle(tree: Tree) -> Tree:
    """Drop the paths beneath a file."""

    def beneath(path: bytes) -> bool:
        names = path.split(b"/")
        return any(b"/".join(names[:end]) in tree for end in range(1, len(names)))

    return {path: file for path, file in tree.items() if not beneath(path)}


TREES = st.dictionaries(PATHS, FILES, max_size=6).map(settle)


@pytest.mark.slow
@given(TREES, TREES, st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_git_apply_of_the_patch_gives_exactly_the_tree(start: Tree, other: Tree, data: st.DataObject) -> None:
    kept = {path: file for path, file in start.items() if data.draw(st.booleans())}
    moved = {path + b".moved": file for path, file in start.items() if path not in kept and data.draw(st.booleans())}
    after = settle({**moved, **kept, **other})
    with TemporaryDirectory() as scratch:
        patch = PatchBase(start, start, Path(scratch)).take_patch(after)
    assert applied(start, patch.diff) == after
    assert {change.path for change in patch.changes} == {
        path.decode("utf-8", "backslashreplace")
        for path in start.keys() | after.keys()
        if start.get(path) != after.get(path)
    }


@given(TREES)
@settings(max_examples=50, deadline=None)
def test_a_tar_holds_the_tree(tree: Tree) -> None:
    assert read_tar(write_tar(tree), most=10_000) == tree


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


@pytest.mark.parametrize(
    ("archive_bytes", "reason"),
    [
        (archive((member("/etc/passwd"), b"x")), "lies outside"),
        (archive((member("a/../../x"), b"x")), "lies outside"),
        (archive((member("a"), b"x" * 101)), "more than may be looked at"),
        (archive((member("a"), b"x" * 60), (member("b"), b"x" * 60)), "more than may be looked at"),
        (archive((member("a", tarfile.LNKTYPE, "../x"), b"")), "lies outside"),
        (archive((member("a", tarfile.LNKTYPE, "nowhere"), b"")), "hard link"),
        (archive((member("a", tarfile.SYMTYPE, "/etc"), b""), (member("a/passwd"), b"x")), "beneath a file"),
        (archive((member("x" * 4001), b"x")), "path of 4001 bytes"),
        (b"no tar at all" * 100, "cannot be read"),
        (archive((member("a"), b"x" * 50))[:520], "cannot be read|cut off"),
    ],
)
def test_archive_with_outside_paths_is_refused(archive_bytes: bytes, reason: str) -> None:
    with pytest.raises(BadTreeError, match=reason):
        read_tar(archive_bytes, most=100)


@given(st.lists(st.tuples(st.integers(0, 1535), st.integers(0, 255)), max_size=6))
@settings(max_examples=200, deadline=None)
def test_a_damaged_archive_is_refused_or_read(damage: list[tuple[int, int]]) -> None:
    archive_bytes = bytearray(archive((member("a"), b"x" * 60), (member("b", tarfile.SYMTYPE, "a"), b"")))
    for offset, byte in damage:
        archive_bytes[offset] = byte
    for header in (0, 1024):
        archive_bytes[header + 148 : header + 156] = b" " * 8
        archive_bytes[header + 148 : header + 156] = b"%06o\0 " % (
            sum(archive_bytes[header : header + 512]) % 0o1000000
        )
    try:
        tree = read_tar(bytes(archive_bytes), most=5000)
    except BadTreeError:
        return
    assert all(not path.startswith(b"/") and b".." not in path.split(b"/") for path in tree)


def test_devices_folders_and_nested_repositories_are_left_out() -> None:
    archive_bytes = archive(
        (member("./"), b""),
        (member("./pipe", tarfile.FIFOTYPE), b""),
        (member("./disk", tarfile.BLKTYPE), b""),
        (member("./sub/.git/config"), b"x"),
        (member("./sub/file"), b"x"),
        (member("./same", tarfile.LNKTYPE, "./sub/file"), b""),
    )
    assert read_tar(archive_bytes, most=100) == {
        b"sub/file": TreeEntry(REGULAR, b"x"),
        b"same": TreeEntry(REGULAR, b"x"),
    }


def test_git_configuration_of_a_tree_is_not_applied(tmp_path: Path) -> None:
    """Names like options or patterns, attributes with filters, a nested repository: none has an effect."""
    (tmp_path / "home").mkdir()
    marker = tmp_path / "pwned"
    evil = f"#!/bin/sh\ntouch {marker}\n".encode()
    after = {
        **START,
        b"--output=pwned": TreeEntry(REGULAR, b"x"),
        b"-rf": TreeEntry(REGULAR, b"x"),
        b":(top)*": TreeEntry(REGULAR, b"x"),
        b"a\nD README": TreeEntry(REGULAR, b"x"),
        b'q"\\uote': TreeEntry(REGULAR, b"x"),
        b"feature done\n": TreeEntry(REGULAR, b"done\ncommit refs/heads/x\n"),
        b".gitattributes": TreeEntry(REGULAR, b"* filter=x diff=x working-tree-encoding=utf-16 merge=x\n"),
        b".gitmodules": TreeEntry(
            REGULAR, b'[submodule "x"]\n\tpath = x\n\turl = ext::touch pwned\n\tupdate = !touch pwned\n'
        ),
        b"HEAD": TreeEntry(REGULAR, b"ref: refs/heads/x\n"),
        b"config": TreeEntry(REGULAR, b"[core]\n\tfsmonitor = ./hooks/x\n\tworktree = /\n"),
        b"hooks/x": TreeEntry(EXECUTABLE, evil),
        b"objects/info/alternates": TreeEntry(REGULAR, b"/etc\n"),
        b"link": TreeEntry(LINK, b"/etc/passwd"),
    }
    patch = PatchBase(START, START, tmp_path / "home").take_patch(after)
    assert {change.path.encode() for change in patch.changes} == {
        path for path in after if after[path] != START.get(path)
    }
    assert "root:" not in patch.diff
    assert not marker.exists()
    assert not list(tmp_path.rglob("pwned"))
