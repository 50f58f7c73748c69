"""A service's life as a process."""

import signal
import subprocess
import sys

import pytest

EARLY = """
import os, signal, sys
import uvicorn
from fastapi import FastAPI
from rollmill.services.serving import listen, serve

load = uvicorn.Config.get_loop_factory

def signalled(config):
    os.kill(os.getpid(), int(sys.argv[1]))
    return load(config)

uvicorn.Config.get_loop_factory = signalled

async def ending():
    print("ended")

with listen("127.0.0.1", 0, None, "TOKEN") as listening:
    serve(FastAPI(), listening, "early", ending)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 0)])
def test_a_signal_before_it_answers_ends_it_in_order(number, status):
    done = subprocess.run(
        [sys.executable, "-c", EARLY, str(int(number))], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status
    assert done.stdout.splitlines()[-1] == "ended"
    assert done.stderr.strip() == ""
