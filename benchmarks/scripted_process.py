"""Runs the scripted server in a separate process, so that it shares no interpreter with the measured code."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import psutil

from rollmill.inference.scripted import Script

_no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ScriptedProcess:
    """A running scripted server."""

    def __init__(self, pid: int, port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._facts_url = f"http://127.0.0.1:{port}/scripted"
        self._process = psutil.Process(pid)
        self._start_cpu_s = self._cpu_s()

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the server since its start."""
        return self._cpu_s() - self._start_cpu_s

    def facts(self) -> dict[str, Any]:
        """Return counts of the requests so far; see `ScriptedServer.facts`."""
        with _no_proxy.open(self._facts_url, timeout=60) as response:
            return dict(orjson.loads(response.read()))


@contextmanager
def scripted_process(script: Script) -> Iterator[ScriptedProcess]:
    """Run a scripted server while the block runs."""
    command = [sys.executable, "-m", "rollmill.inference.scripted", "--script", script.model_dump_json()]
    with subprocess.Popen(
        [*command, "--served-model-name", script.model], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            if not line.startswith("serving on port "):
                raise RuntimeError(f"the scripted server did not start: {line}{process.stderr.read()}")
            yield ScriptedProcess(process.pid, int(line.rsplit(maxsplit=1)[1]))
        finally:
            process.kill()
