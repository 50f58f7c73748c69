"""Judge code by tests so that neither can forge the outcome.

This process alone knows the key that signs the outcomes. Each case has two more processes: the tester runs the tests,
and the program process runs the code, which the tester calls through pipes. Both are forked before tests and key are
read, so that their memory never contained secrets of others. No process can inspect this one, nor a tester whose tests
are secret. Results of the code cross the pipes as JSON, as literals; all other objects stay in their process and are
represented by handles, so that an object that claims to equal everything cannot pass a test.

Standard input: the number of cases, a line, then JSON `{"key", "cases": [{"prelude", "code", "names", "tests",
"secret", "most", "seconds"}]}`. Standard output: a line `outcomes <keyed BLAKE2b> <JSON>`, the JSON a list of
`{"reason", "failures"}`. Return code `SET_UP_FAILED`: nothing was judged, because of the sandbox.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from typing import Any

from rollmill.environments.code.inside.process import Pipe, describe, fork, set_dumpable
from rollmill.environments.code.inside.program import run_program
from rollmill.environments.code.inside.tester import run_tester

SET_UP_FAILED = 97
"""Return code that code under test cannot produce."""
_NONE = -1


class _Case:
    """The two processes of a case, which wait for their instructions."""

    def __init__(self) -> None:
        code, tests, report, requests, replies = (os.pipe() for _ in range(5))
        of_program = (code[0], requests[0], replies[1])
        of_tester = (tests[0], report[1], replies[0], requests[1])
        self._pids = [
            fork(lambda: run_program(Pipe(code[0], _NONE), Pipe(requests[0], replies[1])), *of_program),
            fork(lambda: run_tester(Pipe(tests[0], report[1]), Pipe(replies[0], requests[1])), *of_tester),
        ]
        # A pipe only ends for its reader when all copies of its writing end are closed.
        for file in (*of_program, *of_tester):
            os.close(file)
        self._program = Pipe(_NONE, code[1])
        self._tester = Pipe(report[0], tests[1])

    def judge(self, case: dict[str, Any]) -> dict[str, Any]:
        """Run the case, end both processes, and return the outcome."""
        deadline = time.monotonic() + case["seconds"]
        try:
            self._tester.send({key: case[key] for key in ("prelude", "names", "tests", "secret", "most")})
            self._program.send({key: case[key] for key in ("prelude", "names", "code")})
            outcome = self._tester.receive(deadline)
            return {"reason": str(outcome["reason"]), "failures": [str(each) for each in outcome["failures"]]}
        except TimeoutError:
            return {"reason": "time", "failures": [f"no end within {case['seconds']:g} s"]}
        except Exception:
            return {"reason": "ended", "failures": ["the process of the tests was ended"]}
        finally:
            for pid in self._pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def main() -> None:
    """Judge all cases of standard input, one after the other."""
    try:
        set_dumpable(False)
        number = b""
        # Byte by byte: a larger read could take tests and key into memory before the processes are forked.
        while not number.endswith(b"\n"):
            number += os.read(0, 1)
        cases = [_Case() for _ in range(int(number))]
        batch = json.loads(sys.stdin.buffer.read())
    except BaseException as error:
        os.write(2, describe(error).encode(errors="replace"))
        os._exit(SET_UP_FAILED)
    outcomes = json.dumps(list(map(_Case.judge, cases, batch["cases"])))
    signed = hashlib.blake2b(outcomes.encode(), key=bytes.fromhex(batch["key"])).hexdigest()
    # A leading newline, since other output may come before it without one.
    line = f"\noutcomes {signed} {outcomes}\n".encode()
    while line:
        line = line[os.write(1, line) :]
    os._exit(0)
