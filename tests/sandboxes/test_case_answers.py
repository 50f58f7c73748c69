"""Programs in a sandbox that answer cases, honest ones and others."""

from __future__ import annotations

import json
import threading
import time

import pytest

from rollmill.errors import InputError
from rollmill.sandboxes.piped_process import EndedTalkError
from rollmill.sandboxes.sandbox import SandboxError

ECHO = """\
import sys, time
for line in iter(sys.stdin.readline, ""):
    time.sleep(DECODE)
    print("ready", flush=True)
    assert sys.stdin.readline() == "go\\n"
    time.sleep(WORK)
    print("done", flush=True)
    time.sleep(ENCODE)
    print(line.upper(), end="", flush=True)
print("the end", file=sys.stderr)
"""
SHELL = "read case; echo ready; read go; echo done;"


def program(decode_s: float = 0.0, work_s: float = 0.0, encode_s: float = 0.0) -> str:
    text = ECHO.replace("DECODE", str(decode_s)).replace("WORK", str(work_s)).replace("ENCODE", str(encode_s))
    return f"cat > /tmp/p.py <<'END'\n{text}\nEND\nexec python3 /tmp/p.py"


def answers(sandbox, command, cases=("a", "b"), *, timeout_s=5.0, most_bytes=1 << 20, env=None):
    return sandbox.answer_cases(command, list(cases), timeout_s=timeout_s, most_bytes=most_bytes, env=env or {})


def test_outputs_come_in_the_order_of_the_cases(start):
    cases = ["a", "ä" * 200_000, json.dumps(list(range(99))), " "]
    done = answers(start(), program(), cases)
    assert done.outputs == [case.upper() for case in cases]
    assert (done.fault, done.returncode, len(done.times)) == (None, 0, 4)


def test_parts_of_a_case_are_measured_apart(start):
    done = answers(start(), program(0.05, 0.2, 0.1), ["a", "b"])
    second = done.times[1]
    assert 0.05 <= second.decode_s < 0.2 <= second.answer_s
    assert second.encode_s >= 0.1
    assert done.times[0].decode_s > second.decode_s
    assert done.answer_s == pytest.approx(sum(time.answer_s for time in done.times))


def test_cpu_time_counts_children(start):
    burn = "python3 -c 'import time\nwhile time.process_time() < 0.3: pass'"
    assert answers(start(), f"{burn} & {burn}; wait; {SHELL} echo x; read more", ["a"], timeout_s=60.0).cpu_s > 0.5


def test_environment_and_standard_error(start):
    done = answers(start(), f"{SHELL} echo no >&2; echo $A$PWD", ["a"], env={"A": "1"})
    assert (done.outputs, done.errors) == (["1/workspace"], "no\n")


FAULTS = {
    "nothing": ("exit 3", "it ended: return code 3"),
    "another word": ("echo hello; sleep 9", "it wrote 'hello' where `ready` belongs"),
    "a word without an end": ("head -c 300 /dev/zero; sleep 9", "it wrote a line of more than 100 bytes"),
    "endless words": ("yes", "it wrote 'y' where `ready` belongs"),
    "no answer": (f"{SHELL} exit 0", "it ended: return code 0"),
    "half an answer": (f"{SHELL} printf x", "it ended in the middle of a line: return code 0"),
    "an endless answer": (f"{SHELL} cat /dev/zero", "it wrote a line of more than 1048576 bytes"),
    "no UTF-8": (f"{SHELL} printf '\\377\\n'; sleep 9", "its output is not UTF-8: invalid start byte at byte 0"),
    "too little time": ("sleep 9", "its time of 0.5 s was over"),
    "closed output": ("exec 1>&-; sleep 9", "its time of 0.5 s was over"),
    "killed": (f"{SHELL} kill -9 $$", "it ended: return code 137"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_of_the_program_is_told(start, what):
    command, fault = FAULTS[what]
    done = answers(start(), command, ["a"], timeout_s=0.5)
    assert done.fault == fault
    assert done.outputs == []


def test_answers_before_the_fault_are_kept(start):
    done = answers(start(), f"{SHELL} echo one; exit 7", ["a", "b"])
    assert (done.outputs, done.returncode, done.fault) == (["one"], 7, "it ended: return code 7")


def test_a_program_that_does_not_read_ends_at_its_time_limit(start):
    began = time.monotonic()
    done = answers(start(), "sleep 60", ["x" * (1 << 20)], timeout_s=0.5)
    assert (done.fault, done.returncode) == ("its time of 0.5 s was over", 124)
    assert time.monotonic() - began < 20


def test_a_program_that_writes_while_it_does_not_read_is_stopped(start):
    done = answers(start(), "exec cat /dev/zero", ["x" * (1 << 20)], timeout_s=20)
    assert done.fault == "it writes without being asked"


def test_limits_hold_while_cases_are_answered(start):
    done = answers(start(memory_mb=64), f"{SHELL} exec python3 -c 'x = b\"1\" * (200 << 20); input()'", ["a"])
    assert done.fault in ("it was ended by the memory limit of 64 MiB", "it ended: return code 1")
    assert done.outputs == []


def test_all_outputs_together_are_bounded(start):
    cases = ["x" * 400_000] * 3
    done = answers(start(), program(), cases)
    assert len(done.outputs) == 2
    assert "a line of more than 248576 bytes" in done.fault


def test_no_process_is_left(start):
    sandbox = start()
    answers(sandbox, f"sleep 77 & {SHELL} echo x", ["a"])
    assert "sleep" not in sandbox.execute("cat /proc/*/cmdline | tr '\\0' ' '").output.replace("tr", "")


def test_closing_a_sandbox_ends_its_program(start):
    sandbox = start()
    threading.Timer(0.5, sandbox.close).start()
    with pytest.raises(SandboxError, match="closed"):
        answers(sandbox, "sleep 60", timeout_s=60.0)


def test_a_process_can_be_talked_to(start):
    with start().open_process("cat; echo end >&2; exit 4", timeout_s=1.0) as process:
        process.send(b"one\ntwo\nthr")
        assert [process.read_line(10), process.read_line(10)] == [b"one", b"two"]
        process.send(b"ee\n")
        assert process.read_line(5) == b"three"
        with pytest.raises(EndedTalkError, match="its time of 1"):
            process.read_line(10)
    assert (process.execution.returncode, process.execution.timed_out) == (124, True)


def test_a_command_that_no_process_can_have_is_refused(start):
    with pytest.raises(InputError, match="NUL"):
        answers(start(), "echo \0")
