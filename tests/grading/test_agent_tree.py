"""What an agent left: the allowed part is read, the rest is named, and neither costs more than its limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from rollmill.grading.agent_tree import AgentChange, read_change
from rollmill.grading.clean_copy import CleanCopies
from rollmill.grading.patch import PatchBase
from rollmill.grading.problem import GradedProblem
from rollmill.grading.tree import BadTreeError
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.sandbox import Limits, SandboxSpec
from rollmill.sandboxes.tree_limits import CHANGE, TreeLimits

Left = Callable[..., AgentChange]


@pytest.fixture(scope="module")
def start(
    host: BubblewrapHost, problems: dict[str, GradedProblem], tmp_path_factory: pytest.TempPathFactory
) -> PatchBase:
    copies = CleanCopies(host, problems["py"], Limits(), 1 << 20)
    with copies.fresh() as sandbox:
        _, _, _, tracked, tree = copies.read_start(sandbox)
    return PatchBase(tree, tracked, tmp_path_factory.mktemp("start"))


@pytest.fixture
def left(host: BubblewrapHost, start: PatchBase) -> Iterator[Left]:
    """Run a command in a sandbox of the problem, and read what it changed."""

    def read(command: str, allowed: tuple[str, ...] = ("lib/*",), limits: TreeLimits = CHANGE) -> AgentChange:
        with closing(host.start(SandboxSpec(image="py"))) as sandbox:
            sandbox.execute(command)
            change = read_change(sandbox, "/workspace", start, allowed, limits)
            assert sandbox.execute("ls -A /tmp").output == ""
            return change

    return read


def paths(change: AgentChange) -> list[str]:
    return [file.path for file in change.patch.changes]


def test_allowed_part_is_the_patch_and_the_rest_is_named(left: Left) -> None:
    change = left("echo 1 > lib/new.py; touch reproduce.py x.log; rm bench.py; chmod +x lib/total.py lib/__init__.py")
    assert paths(change) == ["lib/__init__.py", "lib/new.py", "lib/total.py"]
    assert change.ignored == [
        ("bench.py", "bench.py was deleted, and only lib/* may be"),
        ("reproduce.py", "reproduce.py was added, and only lib/* may be"),
    ]
    assert "reproduce" not in change.patch.diff


def test_file_of_the_same_size_with_other_content_is_a_change(left: Left) -> None:
    change = left("sed -i s/numbers/nunbers/ lib/total.py; sed -i s/total/tatol/ bench.py")
    assert paths(change) == ["lib/total.py"]
    assert left("touch lib/total.py bench.py").patch.changes == []


def test_ignored_files_cost_their_names_only(left: Left) -> None:
    command = "truncate -s 1G huge.log; mkdir many; touch many/{1..500}.log; chmod 000 huge.log"
    change = left(command, limits=CHANGE._replace(changed=5, entries=1, content_bytes=10))
    assert (change.patch.changes, change.ignored) == ([], [])


@pytest.mark.parametrize(
    ("command", "limits", "reason"),
    [
        ("touch {1..30}", CHANGE._replace(changed=29), "more than 29 changed files"),
        ("touch lib/{1..30}", CHANGE._replace(entries=29), "more than 29 changed files where"),
        ("mkdir lib/{1..30}", CHANGE._replace(listed=20), "files and folders"),
        ("touch {1..30}.log", CHANGE._replace(listed=20), "files and folders"),
        ("for i in {1..9}; do ln bench.py lib/$i; done", CHANGE._replace(content_bytes=1000), "more than 1000 bytes"),
        ("mkdir -p a/a/a/a/a/a/a/a", CHANGE._replace(depth=5), "more than 5 folders deep"),
        ("touch lib/$(printf %0200d 1)", CHANGE._replace(name_bytes=300), "names take more than 300 bytes"),
    ],
)
def test_change_beyond_a_limit_cannot_be_judged(left: Left, command: str, limits: TreeLimits, reason: str) -> None:
    with pytest.raises(BadTreeError, match=reason):
        left(command, limits=limits)


def test_file_that_is_too_large_is_left_out(left: Left) -> None:
    change = left("truncate -s 1G lib/sparse; echo 1 > lib/one")
    assert paths(change) == ["lib/one"]
    assert change.ignored == [("lib/sparse", f"lib/sparse is larger than {CHANGE.file_bytes} bytes")]


def test_pipes_sockets_links_and_loops_are_no_files(left: Left) -> None:
    change = left("mkfifo lib/pipe pipe; ln -s . lib/loop; ln -s b a; ln -s a b; ln -s /etc/passwd lib/passwd")
    assert change.patch.changes == []
    assert [path for path, _ in change.ignored] == ["a", "b", "lib/loop", "lib/passwd"]


def test_file_in_the_place_of_what_stays_is_left_out(left: Left) -> None:
    change = left("rm bench.py; mkdir bench.py; touch bench.py/x", allowed=("bench.py/*",))
    assert change.patch.changes == []
    assert change.ignored == [
        ("bench.py", "bench.py was deleted, and only bench.py/* may be"),
        ("bench.py/x", "bench.py/x is in the place of files that may not be deleted"),
    ]
    change = left("rm -r tests; touch tests", allowed=("tests",))
    assert change.patch.changes == []
    assert [path for path, _ in change.ignored] == ["tests", "tests/__init__.py", "tests/test_total.py"]


def test_folder_that_replaces_a_file_is_a_change_where_both_are_allowed(left: Left) -> None:
    change = left("rm bench.py; mkdir bench.py; echo 1 > bench.py/x", allowed=("bench.py", "bench.py/*"))
    assert [(file.status, file.path) for file in change.patch.changes] == [("D", "bench.py"), ("A", "bench.py/x")]


def test_gitignore_replaced_by_a_folder_does_no_harm(left: Left) -> None:
    change = left("rm .gitignore; mkdir .gitignore; touch .gitignore/x lib/a.log")
    assert change.patch.changes == []
    assert [path for path, _ in change.ignored] == [".gitignore", ".gitignore/x"]


def test_long_names_are_read(left: Left) -> None:
    name = "n" * 250
    change = left(f"mkdir -p lib/{name}/{name}; echo 1 > lib/{name}/{name}/{name}", allowed=("lib/",))
    assert paths(change) == [f"lib/{name}/{name}/{name}"]
