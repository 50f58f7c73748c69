"""Resource limits on real bubblewrap: exceeding one ends only that command."""

from __future__ import annotations

import resource

import psutil
import pytest


def test_process_memory_limit_is_enforced(start):
    sandbox = start(memory_mb=128)
    done = sandbox.execute("python3 -c 'bytearray(10 << 30)'")
    assert (done.returncode, "MemoryError" in done.output) == (1, True)
    assert sandbox.execute("echo next").output == "next\n"


def test_processes_that_take_too_much_memory_together_are_ended(start):
    eat = "python3 -c 'import time; x = bytearray(60 << 20); time.sleep(20)'"
    done = start(memory_mb=128).execute(f"{eat} & {eat} & {eat} & wait", timeout_s=30)
    assert (done.returncode, done.killed_by, done.timed_out) == (137, "memory limit of 128 MiB", False)


def test_memory_that_processes_share_counts_once(start):
    code = "import os, time; x = bytearray(80 << 20); [os.fork() for _ in range(2)]; time.sleep(0.5)"
    done = start(memory_mb=160).execute(f"python3 -c '{code}'")
    assert (done.returncode, done.killed_by) == (0, None)


def test_shared_memory_is_bounded(start):
    done = start(memory_mb=2048).execute("head -c 200M /dev/zero > /dev/shm/x; stat -c %s /dev/shm/x; rm /dev/shm/x")
    assert "No space left on device" in done.output
    assert done.output.splitlines()[-1] == str(64 << 20)


def test_a_fork_bomb_ends_with_its_command(start):
    sandbox = start(processes=40)
    before = len(psutil.pids())
    done = sandbox.execute(":(){ :|:& };: ; sleep 30", timeout_s=1.5)
    assert done.timed_out
    assert "Resource temporarily unavailable" in done.output
    assert len(psutil.pids()) < before + 30
    assert sandbox.execute("echo next").output == "next\n"


def test_no_more_processes_than_allowed_run_at_once(start):
    code = """
import os, time
n = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(9)
        n += 1
except OSError:
    print(n)
"""
    assert int(start(processes=30).execute(f"python3 -c '{code}'").output) in range(26, 31)


def test_processes_of_one_sandbox_do_not_count_for_another(start):
    many = "for i in $(seq 20); do sleep 0.3 & done; wait; echo done"
    first, two = start(processes=25), start(processes=25)
    for _ in range(2):
        assert [first.execute(many).output, two.execute(many).output] == ["done\n", "done\n"]


def test_endless_output_is_bounded_and_keeps_both_ends(start):
    sandbox = start(output_bytes=10_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = sandbox.execute("echo first; yes", timeout_s=1)
    assert (done.timed_out, done.truncated) == (True, True)
    assert done.output.startswith("first\ny\n")
    assert len(done.output) < 10_100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
    done = sandbox.execute("seq 100000; echo last; exit 3")
    assert (done.returncode, done.truncated, done.output[:4], done.output[-5:]) == (3, True, "1\n2\n", "last\n")


def test_processor_time_of_all_children_together_is_bounded(start):
    done = start(cpu_s=1).execute("for i in 1 2 3; do (while :; do :; done) & done; wait", timeout_s=60)
    assert (done.returncode, done.killed_by) == (137, "CPU limit of 1 s")


def test_processor_time_of_children_that_have_ended_counts(start):
    burn = "timeout -s KILL 0.3 python3 -c 'while 1: pass'"
    done = start(cpu_s=0.5).execute(f"for i in $(seq 60); do {burn}; done", timeout_s=60)
    assert done.killed_by == "CPU limit of 0.5 s"


def test_one_file_cannot_be_larger_than_the_disk_limit(start):
    sandbox = start(disk_mb=10)
    done = sandbox.execute("head -c 50M /dev/zero > big; stat -c %s big")
    assert done.output.splitlines()[-1] == str(10 << 20)


def test_many_files_over_the_disk_limit_end_the_command(start):
    fill = "for i in $(seq 400); do head -c 4M /dev/zero > /tmp/f$i; done; sleep 20"
    done = start(disk_mb=100).execute(fill, timeout_s=40)
    assert (done.returncode, done.killed_by) == (137, "disk limit of 100 MiB")


@pytest.mark.parametrize("what", ["setsid sleep 300 &", "(trap '' HUP TERM INT; sleep 300) & disown;"])
def test_detached_process_does_not_delay_the_end(start, what):
    done = start().execute(f"{what} echo over", timeout_s=60)
    assert (done.returncode, done.timed_out) == (0, False)
