"""Watching processes come and go."""

import random
from contextlib import suppress

import psutil


def living(pids):
    """Those of `pids` that still run: zombies do not."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


class Tree:
    """A command with a child in its group, one that left the session, and a daemon forked twice; all sleep."""

    def __init__(self, before="", after="wait"):
        self.mark = f"600.{random.SystemRandom().randrange(10**12):012d}"
        sleep = f"sleep {self.mark}"
        self.command = ["bash", "-c", f"{before}{sleep} & setsid {sleep} & (setsid {sleep} &); {after}"]

    def processes(self, name=None):
        """Those whose command line has the mark, of one program or of all (keeper included)."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = process.info["cmdline"] or []
            marked = any(self.mark in part for part in line) and process.info["status"] != psutil.STATUS_ZOMBIE
            if marked and name in (None, line[0]):
                found.append(process)
        return found

    def stands(self):
        return len(self.processes("sleep")) == 3

    def is_gone(self):
        return not self.processes()
