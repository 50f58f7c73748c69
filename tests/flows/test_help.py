"""The imports of `--help`, which must be cheap."""

from __future__ import annotations

import json
import subprocess
import sys

from deployments.command import COMMANDS
from tests.flows.conftest import ROOT

FLOWS = sorted(path.stem for path in (ROOT / "flows").glob("[a-z]*.py"))
HEAVY = {"aiohttp", "fsspec", "httpx", "matplotlib", "numpy", "polars", "prefect", "pyarrow", "torch", "yaml"}
JOBS = [name for name, command in COMMANDS.items() if getattr(command, "module", "").startswith("flows.")]
ALL_HELP = f"""
import contextlib, json, os, runpy, sys
for flow in {FLOWS}:
    sys.argv = [flow, "--help"]
    with contextlib.redirect_stdout(open(os.devnull, "w")), contextlib.suppress(SystemExit):
        runpy.run_module("flows." + flow, run_name="__main__")
print(json.dumps([name for name in sys.modules if "." not in name]))
"""
COMMAND_HELP = f"""
import contextlib, json, os, sys
from deployments.command import main
before = set(sys.modules)
for words in ["", "--help", "sampel", "services", "--version", *(f"{{name}} --help" for name in {JOBS})]:
    sys.argv = ["rollmill", *words.split()]
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        with contextlib.suppress(SystemExit):
            main()
print(json.dumps([sorted(before), [name for name in sys.modules if "." not in name]]))
"""


def test_help_imports_no_heavy_packages():
    done = subprocess.run([sys.executable, "-c", ALL_HELP], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(FLOWS) == 7
    assert set(json.loads(done.stdout)) & HEAVY == set()


def test_command_imports_no_heavy_packages():
    done = subprocess.run([sys.executable, "-c", COMMAND_HELP], cwd=ROOT, capture_output=True, text=True, check=True)
    at_start, at_end = json.loads(done.stdout)
    assert "pydantic" not in at_start  # the module that a command runs handles signals before it imports anything
    assert set(at_end) & HEAVY == set()
