from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from rollmill.grading.clean_copy import CleanCopies, difference
from rollmill.grading.patch import PatchBase
from rollmill.grading.problem import GradedProblem
from rollmill.grading.tree import EXECUTABLE, LINK, REGULAR, Tree, TreeEntry, file_digests
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.sandbox import Limits, SandboxSpec
from tests.grading.repositories import C_FAST

MOST = 1 << 20


def test_built_tree_is_restored_exactly(host: BubblewrapHost, problems: dict[str, GradedProblem]) -> None:
    copies = CleanCopies(host, problems["c"], Limits(), MOST)
    with copies.fresh() as sandbox:
        folder, prefix, commit, tracked, tree = copies.read_start(sandbox)
        assert (folder, prefix, len(commit)) == ("/workspace", "", 40)
        assert sorted(tracked) == sorted(tree)
        assert sandbox.execute("ls -A /tmp").output == ""
        sandbox.execute(
            f"cat > total.c <<'E'\n{C_FAST}\nE\nmake -s; rm worker.c; mkdir worker.c; touch worker.c/x; "
            "ln -s total.h link; printf 1 > $'new\\nline'; printf 2 > $'\\xff'; mkdir empty; chmod +x total.h"
        )
        built = copies.read(sandbox, folder)
    overlay = difference(file_digests(tree), built)
    assert overlay.deleted == [b"worker.c"]
    assert {b"run_worker", b"link", b"new\nline", b"\xff", b"worker.c/x", b"total.h"} <= overlay.files.keys()
    assert b"worker.c" not in overlay.files
    assert overlay.files[b"link"] == TreeEntry(LINK, b"total.h")
    with copies.fresh() as sandbox:
        copies.restore(sandbox, folder, overlay)
        assert copies.read(sandbox, folder) == built
        assert sandbox.execute("ls -A /tmp").output == ""
        assert sandbox.execute("make -q run_test").returncode == 0
        sandbox.execute("touch total.c")
        assert sandbox.execute("make -q run_test").returncode == 1


def test_patch_is_applied_exactly_despite_gitattributes(
    host: BubblewrapHost, problems: dict[str, GradedProblem], images: Path
) -> None:
    image = images / "attributes"
    image.mkdir(exist_ok=True)
    (image / ".gitattributes").write_text("* text=auto eol=crlf ident\n*.dos -text\n")
    (image / "a.txt").write_bytes(b"$Id$\none\r\ntwo\n")
    (image / "b.dos").write_bytes(b"one\r\n")
    copies = CleanCopies(host, problems["py"].model_copy(update={"image_name": "attributes"}), Limits(), MOST)
    with closing(host.start(SandboxSpec(image="attributes"))) as sandbox, TemporaryDirectory() as scratch:
        folder, _, _, tracked, tree = copies.read_start(sandbox)
        after: Tree = {
            **tree,
            b"a.txt": TreeEntry(EXECUTABLE, b"$Id$\none\r\nthree\r\n"),
            b"b.dos": TreeEntry(REGULAR, b"\r\n\n\r"),
            b"c": TreeEntry(REGULAR, b"\0\r\n"),
        }
        patch = PatchBase(tree, tracked, Path(scratch)).take_patch(after)
        copies.apply(sandbox, folder, patch.diff)
        assert copies.read(sandbox, folder) == after
        assert sandbox.execute("ls -A /tmp").output == ""
