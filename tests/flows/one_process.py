"""Runs commands after each other in one process; prints of each its exit code and what it said.

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
        said, code = io.StringIO(), 0
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                code = int(end.code or 0)
        sys.stdout.write(json.dumps([code, said.getvalue()]) + "\n")


if __name__ == "__main__":
    main()
