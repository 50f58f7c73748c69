import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rollmill.inference.supervised_process import SupervisedProcess
from rollmill.terminal import process_supervisor
from tests.inference.processes import Tree
from tests.waiting import wait_until

OWNER = """
import os, sys, time
from pathlib import Path
from rollmill.inference.supervised_process import SupervisedProcess

kept = SupervisedProcess(sys.argv[3:], log=Path(sys.argv[1]), grace_s=0.5)
if sys.argv[2] == "forks" and os.fork() == 0:
    Path(sys.argv[1] + ".forked").write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture
def tree():
    process_tree = Tree()
    yield process_tree
    left = process_tree.processes()
    for process in left:
        process.kill()
    assert not left


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "command.log"


def owner(tree, log, how="plain"):
    command = [sys.executable, "-c", OWNER, str(log), how, *tree.command]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})


def test_end_ends_the_whole_tree(tree, log):
    kept = SupervisedProcess(tree.command, log=log)
    wait_until(tree.is_running)
    assert kept.returncode is None
    kept.end()
    assert tree.is_gone()
    assert kept.returncode == 143
    kept.end()


def test_a_tree_that_is_ended_while_it_starts(tree, log):
    SupervisedProcess(tree.command, log=log, grace_s=0.2).end()
    assert tree.is_gone()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_tree_ends_with_its_owner(tree, log, number):
    with owner(tree, log) as process:
        wait_until(tree.is_running)
        process.send_signal(number)
    wait_until(tree.is_gone)


def test_forked_child_of_the_owner_does_not_keep_the_tree(tree, log):
    with owner(tree, log, "forks") as process:
        forked = Path(f"{log}.forked")
        wait_until(lambda: tree.is_running() and forked.exists() and forked.read_text())
        process.kill()
    try:
        wait_until(lambda: {p.pid for p in tree.processes()} == {int(forked.read_text())})
    finally:
        os.kill(int(forked.read_text()), signal.SIGKILL)
        wait_until(tree.is_gone)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_tree_ends_when_the_keeper_is_asked_to(tree, log, number):
    kept = SupervisedProcess(tree.command, log=log)
    wait_until(tree.is_running)
    os.kill(kept.pid, number)
    assert kept.wait(10) == 143
    assert tree.is_gone()
    kept.end()


def test_the_tree_ends_when_its_keeper_was_killed(tree, log):
    kept = SupervisedProcess(tree.command, log=log)
    wait_until(tree.is_running)
    os.kill(kept.pid, signal.SIGKILL)
    assert kept.wait(10) == -signal.SIGKILL
    kept.end()
    wait_until(tree.is_gone)


def test_process_ignoring_sigterm_is_killed_after_the_grace(log):
    tree = Tree(before="trap '' TERM; ")
    kept = SupervisedProcess(tree.command, log=log, grace_s=0.5)
    wait_until(tree.is_running)
    kept.end()
    assert tree.is_gone()


def test_process_obeying_sigterm_has_the_grace(log):
    kept = SupervisedProcess(
        ["bash", "-c", "trap 'sleep 0.3; echo goodbye; exit 0' TERM; echo up; sleep 60 & wait"], log=log
    )
    wait_until(lambda: "up" in log.read_text())
    kept.end()
    assert log.read_text() == "up\ngoodbye\n"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_exit_codes_pass_through(log, script, code):
    kept = SupervisedProcess(["bash", "-c", script], log=log)
    assert kept.wait(10) == kept.returncode == code
    kept.end()


def test_a_command_that_ends_by_itself_leaves_no_children(log):
    tree = Tree(after="sleep 0.2; exit 3")
    kept = SupervisedProcess(tree.command, log=log)
    assert kept.wait(10) == 3
    assert tree.is_gone()
    kept.end()


@pytest.mark.parametrize("after_s", [0.03, 0.06, 0.1])
def test_process_born_during_the_end_is_terminated_too(tree, log, after_s):
    kept = SupervisedProcess(tree.command, log=log, grace_s=3600)
    kept.wait(after_s)
    kept.end()  # does not wait for the grace, or the test takes too long
    assert tree.is_gone()


def test_waiting_has_a_limit(tree, log):
    kept = SupervisedProcess(tree.command, log=log)
    assert kept.wait(0.05) is None
    kept.end()


def test_a_command_that_is_not_there(log):
    kept = SupervisedProcess(["/no/such/program"], log=log)
    assert kept.wait(10) not in (None, 0)
    assert "/no/such/program" in log.read_text()
    kept.end()


def test_surroundings_of_the_command(log):
    log.parent.mkdir()
    log.write_text("before\n")
    opened = psutil.Process().num_fds()
    script = 'echo "$THING $HOME"; cat; ls /proc/self/fd | wc -l; ps -o sid= -p $$'
    kept = SupervisedProcess(["bash", "-c", script], log=log, environment={"THING": "thing"})
    assert kept.wait(10) == 0
    kept.end()
    before, message, files, session = log.read_text().splitlines()
    assert (before, message) == ("before", f"thing {os.environ['HOME']}")
    assert int(files) <= 4  # its own three and the folder: no pipe of ours
    assert int(session) == kept.pid
    assert psutil.Process().num_fds() == opened


def test_descendants_of_a_process_with_an_unusual_name(tmp_path):
    program = tmp_path / "we) Z 1 (ird"
    shutil.copy(os.path.realpath(sys.executable), program)
    environment = {**os.environ, "PYTHONHOME": sys.base_prefix}
    script = "import subprocess; subprocess.run(['sleep', '60'])"
    with subprocess.Popen([program, "-c", script], env=environment) as process:
        wait_until(lambda: psutil.Process(process.pid).children())
        (sleep,) = psutil.Process(process.pid).children()
        assert process_supervisor.descendants(process.pid) == {sleep.pid: process.pid}
        assert {process.pid, sleep.pid} <= set(process_supervisor.descendants(os.getpid()))
        process.kill()
        sleep.kill()
