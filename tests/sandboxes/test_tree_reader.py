"""Lists, digests and chosen files of a folder, on real bubblewrap."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import time

import pytest

from rollmill.sandboxes.files import read_tree
from rollmill.sandboxes.sandbox import Execution, SandboxError
from rollmill.sandboxes.timed_sandbox import TimedSandbox
from rollmill.sandboxes.tree_limits import TreeLimits
from rollmill.sandboxes.tree_reader import TreeReader

ODD = (
    r"rm -rf *; ln -s a//b l; ln -s $'x\ny' m; printf 1 > $'new\nline'; printf 2 > $'\xff'; mkdir -p empty d/.GIT/x;"
    r"mkfifo pipe; printf 4 > run; chmod +x run; touch -- -n 'c:d' ' s ' d/.GIT/y; printf 3 > $'a\\b'; touch d/e"
)
FILES = {
    b"new\nline": b"1",
    b"\xff": b"2",
    b"run": b"4",
    b"-n": b"",
    b"c:d": b"",
    b" s ": b"",
    b"a\\b": b"3",
    b"d/e": b"",
}


def test_odd_names_are_listed_digested_and_read(start):
    sandbox = start()
    sandbox.execute(ODD)
    with TreeReader(sandbox, "/workspace", TreeLimits()) as reader:
        listed = reader.entries(most=100)
        files = [index for index, file in enumerate(listed) if file.path in FILES]
        digests = reader.hashes(files)
        with tarfile.open(fileobj=io.BytesIO(reader.archive(files)), errors="surrogateescape") as tar:
            names = tar.getnames()
    assert {listed[index].path for index in files} == FILES.keys()
    assert {file.path: file.target for file in listed if file.kind == "l"} == {b"l": b"a//b", b"m": b"x\ny"}
    assert [file.path for file in listed if file.kind == "p"] == [b"pipe"]
    assert not any(b".GIT" in file.path for file in listed)
    assert [file.path for file in listed if file.executable and file.kind == "f"] == [b"run"]
    assert digests == [hashlib.sha256(FILES[listed[index].path]).digest() for index in files]
    assert sorted(names) == sorted("./" + path.decode("utf-8", "surrogateescape") for path in FILES)
    assert sandbox.execute("ls -A /tmp").output == ""


@pytest.mark.parametrize(
    ("command", "limits", "reason"),
    [
        ("touch {1..20}", TreeLimits(), "more than 19 files and folders"),
        ("mkdir {1..20}", TreeLimits(), "more than 19 files and folders"),
        ("touch a-long-name", TreeLimits(name_bytes=20), "names take more than 20 bytes"),
        ("ln -s /a/long/target a", TreeLimits(name_bytes=20), "names take more than 20 bytes"),
        ("mkdir -p a/b/c/d/e", TreeLimits(depth=3), "more than 3 folders deep"),
        ("touch a-long-name", TreeLimits(path_bytes=10), "path of 11 bytes"),
        ("mkdir shut; touch shut/x; chmod 000 shut", TreeLimits(), "Permission denied"),
    ],
)
def test_list_beyond_a_limit_is_refused(start, command, limits, reason):
    sandbox = start()
    sandbox.execute(f"rm -rf * .git*; {command}")
    with pytest.raises(SandboxError, match=reason) as caught, TreeReader(sandbox, "/workspace", limits) as reader:
        reader.entries(most=19)
    assert caught.value.type == "contents"
    assert sandbox.execute("ls -A /tmp").output == ""


def test_file_that_grew_or_went_since_it_was_listed_is_refused(start):
    sandbox = start()
    with TreeReader(sandbox, "/workspace", TreeLimits()) as reader:
        listed = reader.entries(most=100)
        run = next(index for index, file in enumerate(listed) if file.path == b"run.sh")
        sandbox.execute("head -c 100000 /dev/zero > run.sh")
        with pytest.raises(SandboxError, match="bytes"):
            reader.archive([run])
        sandbox.execute("rm run.sh")
        for read in (reader.archive, reader.hashes):
            with pytest.raises(SandboxError, match="No such file"):
                read([run])


def test_archive_of_a_tree_beyond_its_limits_is_not_written(start):
    sandbox = start()
    sandbox.execute("mkdir -p a/b/c/d; touch a/{1..20}")
    for limits, reason in (
        (TreeLimits(entries=20), "more than 20 files and folders"),
        (TreeLimits(depth=3), "more than 3 folders deep"),
    ):
        with pytest.raises(SandboxError, match=reason):
            read_tree(sandbox, "/workspace", most=1_000_000, limits=limits)
    assert sandbox.execute("ls -A /tmp").output == ""


class Hostile:
    """A sandbox whose commands all take some time, and print the same."""

    id = "hostile"

    def __init__(self, output: bytes, seconds: float = 0.0) -> None:
        self._output, self._seconds = output, seconds

    def execute(self, command, *, cwd="", timeout_s=None, env=None):
        time.sleep(min(self._seconds, timeout_s or 60))
        return Execution(output=self._output.decode("utf-8", "replace"), returncode=0)

    def close(self) -> None: ...


def answer(content: bytes) -> bytes:
    """Return what a program that forges a listing of this content prints."""
    text = base64.b64encode(content)
    return b"%d %s - %s" % (len(content), hashlib.sha256(text).hexdigest().encode(), text)


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"garbage",
        *(
            answer(record + b"\0")
            for record in (
                b"f 644 0 /etc//", b"f 644 0 //", b"f 999 0 a//", b"f 644 -1 a//", b"f 644 0 a", b"ff 644 0 a//",
                b"f 644 " + b"9" * 16 + b" a//", b"", b"f 0644444 0 a//",
            )
        ),
    ],
)  # fmt: skip
def test_forged_list_is_refused(output):
    reader = TreeReader(Hostile(output), "/workspace", TreeLimits())
    with pytest.raises(SandboxError) as caught:
        reader.entries(most=10)
    assert caught.value.type == "contents"


def test_commands_that_take_too_long_together_are_given_up():
    timed = TimedSandbox(Hostile(b"x", seconds=0.2), 0.3)
    assert timed.execute("true").output == "x"
    timed.execute("true")
    with pytest.raises(SandboxError, match=r"more than 0\.3 seconds"):
        timed.execute("true")
