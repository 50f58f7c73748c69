"""Implements mini-swe-agent's environment interface on a sandbox."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from rollmill.agents.mini_swe import Submitted
from rollmill.agents.settings import AgentSettings
from rollmill.sandboxes.sandbox import Sandbox
from rollmill.sandboxes.shell import find_refusal, printable

_SENTINELS = frozenset(("COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", "MINI_SWE_AGENT_FINAL_OUTPUT"))
"""First lines of output that submit: of version 2, and of version 1."""
_UNAME = {"system": "s", "node": "n", "release": "r", "version": "v", "machine": "m", "processor": "p"}
_SHORTEST_S = 1.0


class SandboxEnvironment:
    """One rollout's environment. Template variables describe the sandbox, never the host machine."""

    def __init__(self, sandbox: Sandbox, settings: AgentSettings, *, cwd: str, ends_at: float | None) -> None:
        """Read the sandbox's system names. Raises `SandboxError`.

        Args:
            sandbox: A started sandbox.
            settings: Environment variables and the time limit of commands.
            cwd: Folder that commands run in; empty for the sandbox's default.
            ends_at: Deadline of every command, by `time.monotonic`; None for none.
        """
        self.config = settings
        self._sandbox = sandbox
        self._cwd = cwd
        self._ends_at = ends_at
        script = "; ".join(f"uname -{flag} 2>/dev/null || echo" for flag in _UNAME.values())
        lines = sandbox.execute(script).output.splitlines()
        self._system = {name: line.strip() for name, line in zip(_UNAME, [*lines, *[""] * len(_UNAME)], strict=False)}

    def execute(self, action: dict[str, Any], cwd: str = "") -> dict[str, Any]:
        """Run `action["command"]`.

        Return `output`, `returncode` and `exception_info`: why it was ended early, or an empty string.

        Raises `Submitted` if its output begins with the line that submits, and `SandboxError`.
        """
        command, cwd, timeout_s = printable(action["command"]), cwd or self._cwd, self._timeout_s()
        done = find_refusal(command, cwd) or self._sandbox.execute(
            command, cwd=cwd, timeout_s=timeout_s, env=self.config.env or None
        )
        output = printable(done.output)
        if done.timed_out:
            late = str(subprocess.TimeoutExpired(command, round(timeout_s, 1)))
            return _failed_observation(output, -1, late) | {"timed_out": command}
        if done.killed_by:
            return _failed_observation(output, done.returncode, done.killed_by)
        if done.returncode == 0:
            _check_submitted(output)
        return {"output": output, "returncode": done.returncode, "exception_info": ""}

    def _timeout_s(self) -> float:
        if self._ends_at is None:
            return self.config.timeout_s
        return min(self.config.timeout_s, max(_SHORTEST_S, self._ends_at - time.monotonic()))

    def get_template_vars(self, **kwargs: Any) -> dict[str, Any]:
        """Return what `uname` says of the sandbox (`system`, `node`, ...), and `cwd`, `env` and `timeout`."""
        return {**self._system, "cwd": self._cwd, "env": self.config.env, "timeout": self.config.timeout_s, **kwargs}

    def serialize(self) -> dict[str, Any]:
        """Return nothing: the rollout's row and the run's manifest record it."""
        return {}


def _failed_observation(output: str, returncode: int, what: str) -> dict[str, Any]:
    message = f"An error occurred while executing the command: {what}"
    return {"output": output, "returncode": returncode, "exception_info": message}


def _check_submitted(output: str) -> None:
    first, _, rest = output.lstrip().partition("\n")
    if first.strip() in _SENTINELS:
        extra = {"exit_status": "Submitted", "submission": rest}
        raise Submitted({"role": "exit", "content": rest, "extra": extra})
