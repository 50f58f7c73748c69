"""What a model server's log says of its end."""

from __future__ import annotations

import re
from pathlib import Path

from rollmill.errors import ServingError

_SEE_ABOVE = "See root cause above"
_OUT_OF_MEMORY = ("out of memory", "OutOfMemory", "No available memory for the cache blocks", "Free memory on device")
_TELLING = re.compile(r"Error|: error: ")
_MESSAGE = re.compile(r"\w*Error: \S|: error: \S")
"""An error and what it says, not a line of code that a traceback quotes."""
_LONGEST = 100_000


class ServerLog:
    """A log from where it ended when this was made: what the server that is started now writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = path.stat().st_size if path.exists() else 0

    def last_lines(self, count: int = 25) -> str:
        """The last lines that it has."""
        if not self.path.exists():
            return ""
        with self.path.open("rb") as file:
            file.seek(max(self._start, self.path.stat().st_size - _LONGEST))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-count:])

    def death(self, code: int | None, when: str) -> ServingError:
        """The error for a server that ended with a code `when` it should not have, with the most telling line."""
        said = [line for line in self.last_lines(400).splitlines() if _TELLING.search(line)]
        messages = [line for line in said if _MESSAGE.search(line)]
        telling = [line for line in messages if _SEE_ABOVE not in line] or messages or said
        why = f": {telling[-1].strip()[-300:]}" if telling else ""
        advice = ""
        if any(sign in line for line in said for sign in _OUT_OF_MEMORY):
            advice = (
                "; out of memory: lower --gpu-memory-utilization or --max-model-len in --vllm_args, or free the device"
            )
        message = f"the server ended with code {code} {when}{why}{advice} (log: {self.path})"
        return ServingError(message, details=self.last_lines())
