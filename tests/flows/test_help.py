"""What a command line costs before anything runs."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.flows.conftest import ROOT

FLOWS = sorted(path.stem for path in (ROOT / "flows").glob("[a-z]*.py"))
HEAVY = {"aiohttp", "fsspec", "httpx", "matplotlib", "numpy", "polars", "prefect", "pyarrow", "torch", "yaml"}
ALL_HELP = f"""
import contextlib, json, os, runpy, sys
for flow in {FLOWS}:
    sys.argv = [flow, "--help"]
    with contextlib.redirect_stdout(open(os.devnull, "w")), contextlib.suppress(SystemExit):
        runpy.run_module("flows." + flow, run_name="__main__")
print(json.dumps([name for name in sys.modules if "." not in name]))
"""


def test_help_imports_no_heavy_packages():
    done = subprocess.run([sys.executable, "-c", ALL_HELP], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(FLOWS) == 7
    assert set(json.loads(done.stdout)) & HEAVY == set()
