"""Judges code by tests so that neither can forge the outcome.

Every case has two processes besides this one, which alone knows the key that signs the outcomes: the tester holds the
tests, and the code is in a process that is called through pipes. Both are forked before tests and key are read, so
that their memory never held what is not theirs; nobody can look into this process, nor into a tester whose tests are
secret. What the code answers crosses as JSON, with the types that literals have: an object that calls itself equal to
everything stays where it is, as a handle.

Standard input: the number of cases, a line, then JSON `{"key", "cases": [{"prelude", "code", "names", "tests",
"secret", "most", "seconds"}]}`. Standard output: a line `outcomes <keyed BLAKE2b> <JSON>`, the JSON a list of
`{"reason", "failures"}`. Return code `SET_UP_FAILED`: nothing was judged, for a reason of the sandbox's.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from typing import Any

from rollmill.environments.code.inside.process import Pipe, fork, set_dumpable, shown
from rollmill.environments.code.inside.program import play_program
from rollmill.environments.code.inside.tester import play_tester

SET_UP_FAILED = 97
"""Return code that code under test cannot produce."""
_NONE = -1


class _Case:
    """The two processes of a case; both wait for instructions."""

    def __init__(self) -> None:
        code, tests, report, asked, answered = (os.pipe() for _ in range(5))
        of_program = (code[0], asked[0], answered[1])
        of_tester = (tests[0], report[1], answered[0], asked[1])
        self._pids = [
            fork(lambda: play_program(Pipe(code[0], _NONE), Pipe(asked[0], answered[1])), *of_program),
            fork(lambda: play_tester(Pipe(tests[0], report[1]), Pipe(answered[0], asked[1])), *of_tester),
        ]
        for file in (*of_program, *of_tester):
            os.close(file)
        self._program = Pipe(_NONE, code[1])
        self._tester = Pipe(report[0], tests[1])

    def judge(self, given: dict[str, Any]) -> dict[str, Any]:
        """Run the case and return its outcome; both processes have ended by then."""
        deadline = time.monotonic() + given["seconds"]
        try:
            self._tester.send({key: given[key] for key in ("prelude", "names", "tests", "secret", "most")})
            self._program.send({key: given[key] for key in ("prelude", "names", "code")})
            outcome = self._tester.receive(deadline)
            return {"reason": str(outcome["reason"]), "failures": [str(each) for each in outcome["failures"]]}
        except TimeoutError:
            return {"reason": "time", "failures": [f"no end within {given['seconds']:g} s"]}
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
        while not number.endswith(b"\n"):
            number += os.read(0, 1)
        cases = [_Case() for _ in range(int(number))]
        given = json.loads(sys.stdin.buffer.read())
    except BaseException as error:
        os.write(2, shown(error).encode(errors="replace"))
        os._exit(SET_UP_FAILED)
    outcomes = json.dumps(list(map(_Case.judge, cases, given["cases"])))
    signed = hashlib.blake2b(outcomes.encode(), key=bytes.fromhex(given["key"])).hexdigest()
    # What others print may stand before it, without an end of line.
    line = f"\noutcomes {signed} {outcomes}\n".encode()
    while line:
        line = line[os.write(1, line) :]
    os._exit(0)
