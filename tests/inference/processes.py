"""Find and watch the processes of a test."""

import random
from contextlib import suppress

import psutil


def living(pids):
    """Return those of `pids` that still run; zombies do not."""
    running = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.append(pid)
    return running


class Tree:
    """A command with a child in its group, one that left the session, and a daemon forked twice; all sleep."""

    def __init__(self, before="", after="wait"):
        self.mark = f"600.{random.SystemRandom().randrange(10**12):012d}"
        sleep = f"sleep {self.mark}"
        self.command = ["bash", "-c", f"{before}{sleep} & setsid {sleep} & (setsid {sleep} &); {after}"]

    def processes(self, name=None):
        """Return the processes whose command line has the mark, of one program or of all, with the supervisor."""
        matching = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = process.info["cmdline"] or []
            marked = any(self.mark in part for part in line) and process.info["status"] != psutil.STATUS_ZOMBIE
            if marked and name in (None, line[0]):
                matching.append(process)
        return matching

    def is_running(self):
        return len(self.processes("sleep")) == 3

    def is_gone(self):
        return not self.processes()
