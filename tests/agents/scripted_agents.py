"""A sandbox of this machine's own shell, a client that waits, and a problem."""

import asyncio
import json
import subprocess
import threading
import time

from rollmill.agents.config import read_agent_config
from rollmill.agents.playing import play
from rollmill.grading.problem import GradedProblem
from rollmill.inference.client import ChatClient, ClientConfig
from rollmill.inference.endpoints import Endpoint, EndpointPool
from rollmill.sandboxes.sandbox import TIMED_OUT, Execution, SandboxError

PROBLEM = GradedProblem(instance_id="p", problem_statement="make it fast", image_name="p", path_in_repo="a.py")
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"


class ShellSandbox:
    """Runs commands in a folder, without isolation; dies at its `dies_at`-th command."""

    def __init__(self, folder, *, dies_at=None):
        self.id = str(folder)
        self.folder = folder
        self.commands = []
        self._dies_at = dies_at

    def execute(self, command, *, cwd="", timeout_s=None, env=None):
        self.commands.append((command, cwd, timeout_s, env))
        if len(self.commands) == self._dies_at:
            raise SandboxError("the sandbox is gone", type_="sandbox_gone")
        started = time.monotonic()
        where = self.folder / cwd
        variables = {"PATH": "/usr/bin:/bin"} | dict(env or {})
        try:
            done = subprocess.run(
                ["bash", "-c", command], cwd=where, env=variables, timeout=timeout_s,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            return Execution(output=(late.output or b"").decode(), returncode=TIMED_OUT, timed_out=True)
        seconds = time.monotonic() - started
        return Execution(output=done.stdout.decode("utf-8", "replace"), returncode=done.returncode, seconds=seconds)

    def close(self):
        pass


class WaitingClient:
    """Synchronous client over a `ChatClient` on its own event loop."""

    def __init__(self, *urls, **config):
        self._pool = EndpointPool([Endpoint(url) for url in urls])
        self._config = ClientConfig(**config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self):
        self._thread.start()
        self._client = self._wait(self._open())
        return self

    def __exit__(self, *_):
        self._wait(self._client.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self):
        return await ChatClient(self._pool, self._config).__aenter__()

    def _wait(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def complete(self, body):
        return self._wait(self._client.complete(body))


def text_settings(**update):
    return read_agent_config("mini_textbased").model_copy(update=update)


def tool_settings(**update):
    return read_agent_config("mini").model_copy(update=update)


def bash(command):
    """An answer in text mode."""
    return f"THOUGHT: go on\n\n```mswea_bash_command\n{command}\n```"


def call(*commands, content="", ids=True, **answer):
    """An answer in tool mode; a command that is a dict is the whole function."""
    calls = []
    for number, command in enumerate(commands):
        function = command if isinstance(command, dict) else {"name": "bash", "arguments": arguments(command)}
        calls.append({"type": "function", "function": function} | ({"id": f"id{number}"} if ids else {}))
    return {"content": content, "tool_calls": calls, "finish_reason": "tool_calls"} | answer


def arguments(command):
    return json.dumps({"command": command})


def play_on(server, sandbox, settings, *, problem=PROBLEM, seed=7, stop=None, max_retries=0, **config):
    """Run one rollout with a scripted server."""
    with WaitingClient(server.base_url, max_retries=max_retries, **config) as client:
        return play(
            problem, sandbox=sandbox, client=client, model="scripted", settings=settings, seed=seed, stop=stop
        )  # fmt: skip
