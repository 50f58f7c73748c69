"""Commands on real bubblewrap: their environment, limits, output and leftovers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from rollmill.errors import InputError
from rollmill.sandboxes.bubblewrap import BubblewrapHost
from rollmill.sandboxes.images import image_commit
from rollmill.sandboxes.sandbox import SandboxError, SandboxSpec
from tests.waiting import wait_until


def test_command_runs_in_a_fresh_repository_as_its_own_user(start, images, tmp_path):
    sandbox = start()
    done = sandbox.execute("pwd; id -un; id -u; hostname; git status --porcelain; git rev-parse HEAD; ./run.sh")
    commit = image_commit(images / "small", tmp_path / "copy")
    assert done.output.splitlines() == ["/workspace", "sandbox", "1000", "sandbox", commit, "ran"]
    assert (done.returncode, done.timed_out, done.truncated, done.killed_by) == (0, False, False, None)


def test_output_streams_keep_their_order_and_return_code_passes(start):
    done = start().execute("echo a; echo b >&2; echo c; printf '\\377'; exit 7")
    assert (done.output, done.returncode) == ("a\nb\nc\n\ufffd", 7)
    assert start().execute("kill -9 $$").returncode == 137


def test_work_tree_and_tmp_stay_from_command_to_command(start):
    sandbox = start()
    sandbox.execute("echo 1 > /tmp/a; echo 2 > b; chmod 600 b")
    assert sandbox.execute("cat /tmp/a b ~/a").output == "1\n2\n1\n"


def test_folder_environment_and_time_of_a_command(host):
    spec = SandboxSpec(image="small", cwd="/workspace/src", env={"A": "1", "B": "2"}, timeout_s=0.5)
    sandbox = host.start(spec)
    assert sandbox.execute("pwd; echo $A$B$C", env={"B": "3", "C": "x\ny"}).output == "/workspace/src\n13x y\n"
    assert sandbox.execute('echo "$C"', env={"C": "x\ny"}, cwd="/tmp").output == "x\ny\n"
    assert sandbox.execute("sleep 9").timed_out
    assert not sandbox.execute("sleep 0.6", timeout_s=9).timed_out
    missing = sandbox.execute("true", cwd="/not/there")
    assert (missing.returncode, missing.output) == (126, "bash: line 1: cd: /not/there: No such file or directory\n")
    sandbox.close()


def test_python_pytest_git_make_and_a_compiler_are_there(start):
    script = """
        printf 'def test_it(): assert 1\\n' > test_it.py && pytest -q -p no:cacheprovider test_it.py | tail -1
        python3 -I -c 'import sys, pytest; print(sys.prefix, len(sys.path))'
        printf 'int main(void) { return 5; }\\n' > five.c
        printf 'five: five.c\\n\\tcc -O2 -o five five.c\\n' > Makefile
        make -s && ./five; echo $?
        git add --all && git commit --quiet --message x && git log --format=%an | head -1
    """
    lines = start().execute(textwrap.dedent(script), timeout_s=120).output.splitlines()
    assert lines[0].startswith("1 passed")
    assert lines[1].startswith("/opt/python ")
    assert lines[2:] == ["5", "sandbox"]


def test_invalid_command_fails_like_in_a_shell(start):
    sandbox = start()
    assert sandbox.execute("echo " + "x" * 200_000).returncode == 126
    assert sandbox.execute("echo a\0b").returncode == 126
    assert sandbox.execute("echo \ud800").output == "?\n"
    longest = "echo " + "x" * 131_000
    assert len(sandbox.execute(longest).output) == 131_001


@pytest.mark.parametrize("name", ["", "a=b", "a\0b"])
def test_an_environment_that_no_process_can_have_is_refused(start, name):
    with pytest.raises(InputError, match="environment variable"):
        start().execute("true", env={name: "1"})


def test_a_variable_cannot_become_a_setting_of_bubblewrap(start):
    with pytest.raises(InputError):
        start().execute("ls /outside", env={"A": "1\0--bind\0/\0/outside"})


@pytest.mark.parametrize("name", ["", "none", "..", "small/../..", "/etc", "small\0"])
def test_missing_image_is_named(host, name):
    with pytest.raises(InputError, match="name one of its subfolders"):
        host.start(SandboxSpec(image=name))


def test_background_processes_end_with_their_command(start):
    sandbox = start()
    mark = f"31{os.getpid()}"
    done = sandbox.execute(f"setsid nohup sleep {mark} & sleep {mark} & (sleep {mark} > /dev/null 2>&1 &) ; echo over")
    assert done.output.endswith("over\n")
    assert running(mark) == []


def test_timed_out_command_ends_with_its_children_keeping_its_output(start):
    sandbox = start()
    mark = f"32{os.getpid()}"
    done = sandbox.execute(f"echo so far; setsid sleep {mark} & trap '' TERM; sleep {mark}", timeout_s=0.5)
    assert (done.output, done.returncode, done.timed_out) == ("so far\n", 124, True)
    assert done.seconds > 0.3
    assert running(mark) == []
    assert sandbox.execute("echo again").output == "again\n"


def test_closing_a_sandbox_ends_its_command_and_forgets_it(host):
    sandbox = host.start(SandboxSpec(image="small"))
    assert host.find(sandbox.id) is sandbox
    mark = f"33{os.getpid()}"
    with ThreadPoolExecutor(1) as pool:
        running_one = pool.submit(sandbox.execute, f"sleep {mark}", timeout_s=60)
        wait_until(lambda: running(mark))
        sandbox.close()
        with pytest.raises(SandboxError, match="was closed under a command"):
            running_one.result(10)
    assert running(mark) == []
    sandbox.close()
    for use in (lambda: host.find(sandbox.id), lambda: sandbox.execute("true")):
        with pytest.raises(SandboxError) as caught:
            use()
        assert caught.value.type == "unknown_sandbox"


def test_commands_are_serial_within_a_sandbox_and_parallel_across(start):
    one_sandbox, other_sandbox = start(), start()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(one_sandbox.execute, "sleep 0.5; echo 1 > f")
        time.sleep(0.1)
        second = pool.submit(one_sandbox.execute, "cat f")
        other = pool.submit(other_sandbox.execute, "cat f 2> /dev/null || echo none")
        assert [each.result().output for each in (first, second, other)] == ["", "1\n", "none\n"]


@pytest.mark.slow
def test_closing_removes_unreadable_and_deeply_nested_folders(images, root):
    with BubblewrapHost(images, root=root) as host:
        sandbox = host.start(SandboxSpec(image="small"))
        hostile = """
            mkdir -p shut/in && touch shut/in/x && chmod 000 shut/in shut
            cd /tmp; for i in $(seq 60); do n=$(printf 'd%.0s' $(seq 200)); mkdir $n && cd $n; done
            mkdir many; cd many; seq 5000 | xargs touch; ln -s /usr out
        """
        assert sandbox.execute(hostile, timeout_s=60).returncode == 0
        [folder] = root.iterdir()
        sandbox.close()
        assert sorted(each.name for each in folder.iterdir()) == ["images", "owner.json", "system"]
    assert list(root.iterdir()) == []
    assert Path("/usr/bin").exists()


@pytest.mark.slow
def test_killed_owner_leaves_no_process_and_the_next_removes_its_files(images, root):
    mark = f"34{os.getpid()}"
    code = f"""
        from pathlib import Path
        from rollmill.sandboxes.bubblewrap import BubblewrapHost
        from rollmill.sandboxes.sandbox import SandboxSpec
        host = BubblewrapHost(Path({str(images)!r}), root=Path({str(root)!r}))
        host.start(SandboxSpec(image="small")).execute("setsid sleep {mark} & sleep {mark}")
    """
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], start_new_session=True)
    wait_until(lambda: len(running(mark)) == 2)
    [left] = root.iterdir()
    with BubblewrapHost(images, root=root):
        assert left.exists()  # its owner lives
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not running(mark))
    assert left.exists()
    with BubblewrapHost(images, root=root):
        assert not left.exists()


def test_closed_host_refuses_starts(images, root):
    with BubblewrapHost(images, root=root) as host:
        sandbox = host.start(SandboxSpec(image="small"))
    with pytest.raises(SandboxError, match="is closed"):
        sandbox.execute("true")
    with pytest.raises(SandboxError, match="is closed"):
        host.start(SandboxSpec(image="small"))
    host.close()


@pytest.fixture
def opt() -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix="rollmill-test-", dir="/opt"))
    except OSError as error:
        pytest.skip(f"an interpreter for a test cannot be put there: {error}")
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_interpreter_outside_usr_is_mounted(images, root, opt, monkeypatch):
    prefix, name = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefix_copy = opt / "own"
    (prefix_copy / "bin").mkdir(parents=True)
    shutil.copy2(prefix / "bin" / name, prefix_copy / "bin" / name)
    left_out = shutil.ignore_patterns("site-packages", "test", "tests", "__pycache__", "config-*", "idlelib", "lib2to3")
    shutil.copytree(prefix / "lib" / name, prefix_copy / "lib" / name, ignore=left_out)
    monkeypatch.setattr(sys, "_base_executable", str(prefix_copy / "bin" / name))
    with BubblewrapHost(images, root=root) as host:
        sandbox = host.start(SandboxSpec(image="small"))
        code = "import json, pytest, sys; print(sys.base_prefix, sys.prefix)"
        done = sandbox.execute(f'python3 -c "{code}"; pytest --version', timeout_s=60)
        assert done.output.splitlines() == [f"{prefix_copy} /opt/python", f"pytest {pytest.__version__}"]
        sandbox.close()


def test_concurrent_sandboxes_are_separate(host):
    def play(number: int) -> str:
        sandbox = host.start(SandboxSpec(image="small"))
        try:
            sandbox.execute(f"echo {number} > n")
            return sandbox.execute("cat n; ls /tmp").output
        finally:
            sandbox.close()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(play, range(24))) == [f"{number}\n" for number in range(24)]
    assert threading.active_count() < 20


def test_missing_bubblewrap_gives_an_error_with_advice(images, root, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="bubblewrap is not installed: install"):
        BubblewrapHost(images, root=root)


def test_forbidden_user_namespaces_give_an_error_with_advice(images, root):
    # Inside a namespace whose further ones are forbidden, as a machine's own may be.
    code = f"""
        from pathlib import Path
        from rollmill.errors import InputError
        from rollmill.sandboxes.bubblewrap import BubblewrapHost
        try:
            BubblewrapHost(Path({str(images)!r}), root=Path({str(root)!r}))
        except InputError as error:
            print(error)
    """
    forbidding = ["bwrap", "--unshare-user", "--disable-userns", "--dev-bind", "/", "/", "--"]
    done = subprocess.run(
        [*forbidding, sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("bubblewrap cannot make a sandbox here (bwrap: ")
    assert "kernel.unprivileged_userns_clone=1" in done.stdout
    assert list(root.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give its sandboxes other users")
def test_a_root_that_sandboxes_users_cannot_reach_is_refused(images, root):
    (root / "closed").mkdir(mode=0o700)
    with pytest.raises(InputError, match="is closed to other users"):
        BubblewrapHost(images, root=root / "closed" / "here")


def test_root_of_another_user_is_refused(images, root, tmp_path):
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="is not this user's own folder"):
        BubblewrapHost(images, root=root / "link")


def test_a_package_that_is_not_installed_is_named(images, root):
    with pytest.raises(InputError, match=r"'no-such-package'.*is not installed"):
        BubblewrapHost(images, root=root, packages=["no-such-package"])
    assert list(root.iterdir()) == []


def running(mark: str) -> list[int]:
    """Return the processes `sleep MARK`."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.cmdline() == ["sleep", mark] and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process.pid)
        except psutil.Error:
            continue
    return processes
