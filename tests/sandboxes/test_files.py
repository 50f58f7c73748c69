"""Files in and out, on real bubblewrap."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile

import pytest

from rollmill.sandboxes.files import read_file, read_tree, write_file
from rollmill.sandboxes.sandbox import Execution, SandboxError


@pytest.mark.parametrize("size", [0, 1, 89_999, 90_000, 90_001, 540_001, 1_300_000])
def test_written_file_reads_back(start, size):
    sandbox, data = start(), os.urandom(size)
    write_file(sandbox, "/tmp/new folder/it's $x", data)
    assert read_file(sandbox, "/tmp/new folder/it's $x", most=2_000_000) == data
    assert sandbox.execute("ls -A '/tmp/new folder'").output == "it's $x\n"


def test_a_small_output_cap_is_met_with_smaller_pieces(start):
    sandbox, data = start(output_bytes=5000), os.urandom(20_000)
    write_file(sandbox, "/workspace/x", data)
    assert read_file(sandbox, "/workspace/x", most=20_000) == data


def test_missing_and_too_long_files_are_refused(start):
    sandbox = start()
    sandbox.execute(
        "mkfifo /tmp/pipe; head -c 1001 /dev/zero > /tmp/long; ln -s /dev/zero /tmp/endless; touch /tmp/shut"
    )
    sandbox.execute("chmod 000 /tmp/shut")
    for path, why in (
        ("/tmp/pipe", "no regular file"),
        ("/tmp/endless", "no regular file"),
        ("/tmp/absent", "no regular file"),
        ("/workspace", "no regular file"),
        ("/tmp/long", "1001 bytes, 1000 are taken"),
        ("/tmp/shut", "cannot be read"),
    ):
        with pytest.raises(SandboxError, match=why) as caught:
            read_file(sandbox, path, most=1000)
        assert caught.value.type == "contents"


def test_unwritable_file_is_reported(start):
    for path in ("/usr/x", "/workspace/src"):
        with pytest.raises(SandboxError) as caught:
            write_file(start(), path, b"x")
        assert caught.value.type == "contents"


def test_a_tree_comes_without_its_repository(start):
    sandbox = start()
    sandbox.execute("rm run.sh; echo 2 > src/two.py; mkdir src/.git empty; echo x > src/.git/x; ln -s /etc/passwd link")
    with tarfile.open(fileobj=io.BytesIO(read_tree(sandbox, "/workspace", most=1_000_000))) as tar:
        names = sorted(tar.getnames())
        two = tar.extractfile("./src/two.py")
        assert two
        assert two.read() == b"2\n"
        assert tar.getmember("./link").linkname == "/etc/passwd"
    assert names == [
        ".", "./.gitignore", "./empty", "./kept.log", "./link", "./src", "./src/.git", "./src/.git/x",
        "./src/one.py", "./src/two.py",
    ]  # fmt: skip
    assert sandbox.execute("ls -A /tmp").output == ""


def test_oversized_or_unreadable_tree_is_refused(start):
    sandbox = start()
    sandbox.execute("head -c 3M /dev/urandom > big")
    with pytest.raises(SandboxError, match=r"1000001 bytes, 1000000 are taken"):
        read_tree(sandbox, "/workspace", most=1_000_000)
    sandbox.execute("rm big; echo x > shut; chmod 000 shut")
    with pytest.raises(SandboxError, match="Permission denied"):
        read_tree(sandbox, "/workspace", most=1_000_000)
    assert sandbox.execute("ls -A /tmp").output == ""


def test_programs_that_were_replaced_are_not_used(start):
    sandbox = start()
    sandbox.execute(
        "mkdir /tmp/bin; for p in base64 head tail tar wc mv sha256sum tr mkdir dirname rm; do "
        "printf '#!/bin/sh\\necho replaced\\n' > /tmp/bin/$p; chmod +x /tmp/bin/$p; done; "
        "printf 'base64() { echo replaced; }\\n' > ~/.bashrc; cp ~/.bashrc ~/.profile; cp /tmp/bin/* /workspace"
    )
    write_file(sandbox, "/tmp/x", b"right")
    assert read_file(sandbox, "/tmp/x", most=10) == b"right"


def test_forged_answers_only_fail():
    class Hostile:
        """A sandbox whose programs all print the same."""

        id = "hostile"

        def __init__(self, output: str) -> None:
            self.output = output

        def execute(self, command, *, cwd="", timeout_s=None, env=None):
            return Execution(output=self.output, returncode=0)

        def close(self) -> None: ...

    endless = hashlib.sha256(b"AAAA").hexdigest()
    for output in (
        "",
        "1 2 3 4",
        "9" * 5000,
        f"100 {endless} - AAAA",
        f"{10**14} {endless} - AAAA",
        f"-1 {endless} - AAAA",
    ):
        with pytest.raises(SandboxError) as caught:
            read_file(Hostile(output), "/x", most=50)
        assert caught.value.type == "contents"
