"""Runs commands one after the other in one process; prints the exit code and output of each.

Run as a program, it reads `[[module, argument, ...], ...]` from its input.
"""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys


def main() -> None:
    for module, *arguments in json.load(sys.stdin):
        sys.argv = [module, *arguments]
        output, code = io.StringIO(), 0
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                code = int(end.code or 0)
        sys.stdout.write(json.dumps([code, output.getvalue()]) + "\n")


if __name__ == "__main__":
    main()
