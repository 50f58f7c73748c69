"""A user's verifier that obeys the completion."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

from rollmill.records import Problem, Verdict


def _verdict(**fields):
    return Verdict(verifier="unruly@1", status="ok", error=0.0, reward=1.0, success=True, **fields)


class Unruly:
    name = "unruly"
    version = "1"

    def verify(self, problem: Problem, completion: str):
        order, _, argument = completion.partition(" ")
        return getattr(self, order)(argument, problem)

    def fine(self, argument, problem):
        return _verdict(answer=argument)

    def pid(self, argument, problem):
        return _verdict(answer=str(os.getpid()))

    def environment(self, argument, problem):
        return _verdict(answer=os.environ.get(argument))

    def field(self, argument, problem):
        return _verdict(answer=repr(problem.fields[argument]))

    def nap(self, argument, problem):
        began = time.monotonic()
        time.sleep(float(argument))
        return _verdict(answer=f"{began} {time.monotonic()}")

    def raises(self, argument, problem):
        raise KeyError("two\nlines")

    def exits(self, argument, problem):
        sys.exit(3)

    def sleeps(self, argument, problem):
        time.sleep(3600)

    def deaf(self, argument, problem):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        re.fullmatch(r"(a+)+b", "a" * 64)

    def spins(self, argument, problem):
        sum(range(10**12))

    def leaves(self, argument, problem):
        os._exit(7)

    def crashes(self, argument, problem):
        os.kill(os.getpid(), signal.SIGSEGV)

    def swells(self, argument, problem):
        return "x" * 10**15

    def prints(self, argument, problem):
        print("not a frame" * 1000)  # noqa: T201
        os.write(1, b"\x00\x00\x00\x00\x00\x00\x00\x02{}")
        subprocess.run(["echo", "from a child"], check=True)
        assert sys.stdin.read() == ""
        return _verdict(answer="printed")

    def garbles(self, argument, problem):
        """Write to all open file descriptors, including the pipe of replies."""
        for file in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(file, bytes.fromhex(argument))
        return _verdict(answer="garbled")

    def forks(self, argument, problem):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return _verdict(answer="parent" if child else "child")

    def orphans(self, argument, problem):
        """Leave a child in the worker's process group, which keeps its file descriptors open, and die."""
        subprocess.Popen(["sleep", "4242.25"], close_fds=False)
        os._exit(1)

    def text(self, argument, problem):
        return "yes"

    def nothing(self, argument, problem):
        return None

    def broken(self, argument, problem):
        return Verdict.model_construct(
            verifier="unruly@1", status="fine", answer=None, error=None, reason=None, reward=float("nan"), success=True
        )

    def surrogate(self, argument, problem):
        return _verdict(answer="\ud800")


class Tolerant(Unruly):
    def __init__(self, *, accept_error: float) -> None:
        self.version = f"1-{accept_error}"


class NeedsMore(Unruly):
    def __init__(self, what) -> None:
        self.what = what


class NoVersion:
    name = "x"

    def verify(self, problem, completion): ...


class SlowStart(Unruly):
    def prepare(self) -> None:
        time.sleep(1)


class DiesAtStart(Unruly):
    def prepare(self) -> None:
        os._exit(9)


class FailsAtStart(Unruly):
    def prepare(self) -> None:
        raise RuntimeError("no licence")


ready = Unruly()
number = 3
