"""Ctrl-C while a main thread waits, after the corpus was imported."""

import subprocess
import sys

import pytest

WAIT = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
__import__(sys.argv[1])
lock = threading.Lock()
lock.acquire()
for seconds, then in ((0.5, lambda: os.kill(os.getpid(), signal.SIGINT)), (20, lock.release)):
    timer = threading.Timer(seconds, then)
    timer.daemon = True
    timer.start()
try:
    lock.acquire()
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    "module", ["rollmill.corpus.corpus", "rollmill.jobs.rejection_sampling.outcome", "rollmill.jobs.curation.commands"]
)
def test_ctrl_c_interrupts_a_waiting_main_thread(module):
    done = subprocess.run([sys.executable, "-c", WAIT, module], capture_output=True, text=True, timeout=60)
    assert done.stdout == "interrupted\n", done.stderr
