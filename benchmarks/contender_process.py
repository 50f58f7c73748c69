"""Runs a contender in a separate process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson

ROOT = Path(__file__).parent.parent
OPTIONAL_PYTHON = ROOT / ".venv-benchmarks/bin/python"
LONGEST_S = 900.0
"""A contender that takes longer is killed."""


class Contender(NamedTuple):
    """A program that makes the requests in its own way."""

    name: str
    module: str
    flags: tuple[str, ...] = ()
    optional: bool = False
    """Whether it is installed in `.venv-benchmarks`."""

    @property
    def python(self) -> Path:
        """The interpreter that runs it."""
        return OPTIONAL_PYTHON if self.optional else Path(sys.executable)

    @property
    def installed(self) -> bool:
        """Return whether its interpreter exists."""
        return self.python.exists()


BARE = Contender("bare aiohttp (the limit)", "bare_aiohttp")
ENGINE = Contender("rollmill engine", "engine")
SESSION = Contender("rollmill session, in shards", "engine", ("--via", "session"))
BARE_WITH_TOKENS = Contender("bare aiohttp, with tokens", "bare_aiohttp", ("--tokens",))
ENGINE_WITH_TOKENS = Contender("rollmill engine, with tokens", "engine", ("--tokens",))
BARRIER = Contender("a barrier after every batch", "engine", ("--via", "barrier"))
OTHERS = (
    Contender("openai SDK on aiohttp", "openai_sdk", ("--transport", "aiohttp"), optional=True),
    Contender("openai SDK as it comes (httpx)", "openai_sdk", ("--transport", "httpx"), optional=True),
    Contender("bespokelabs-curator", "curator_llm", optional=True),
    Contender("distilabel", "distilabel_pipeline", optional=True),
)


def run_contender(
    contender: Contender, base_url: str, *, requests: int, in_flight: int, flags: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Run a contender; return the figures that it reports. Raises `RuntimeError` with the end of its output.

    Args:
        contender: The program.
        base_url: Of the scripted server.
        requests: Number of requests, in whole problems.
        in_flight: Concurrent requests.
        flags: More arguments.
    """
    with scratch_folder() as folder:
        command = [str(contender.python), "-m", f"benchmarks.contenders.{contender.module}"]
        command += ["--base_url", base_url, "--requests", str(requests), "--in_flight", str(in_flight)]
        command += ["--folder", str(folder), *contender.flags, *flags]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
    figures = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not figures:
        raise RuntimeError(f"{contender.name} ended with code {done.returncode}: {done.stderr[-2000:]}")
    return dict(orjson.loads(figures[-1]))


def environment(folder: Path) -> dict[str, str]:
    """Return an environment with caches in the folder, without telemetry and network."""
    return os.environ | {
        "HOME": str(folder),
        "HF_HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "CURATOR_DISABLE_CACHE": "1",
        "CURATOR_CACHE_DIR": str(folder),
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "TELEMETRY_ENABLED": "0",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_API_KEY": "none",
        "NO_PROXY": "127.0.0.1,localhost",
        "MPLBACKEND": "Agg",
    }


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder on the disk of the checkout: writing a journal to memory would cost nothing."""
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="benchmark-", dir=ROOT / "build"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
