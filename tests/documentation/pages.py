"""Reads the documentation's pages, their code blocks and the commands in these."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from deployments.command import COMMANDS, PROG, CommandGroup, ModuleCommand

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]

_BLOCK = re.compile(
    r'^(?:<!-- leaves (?P<leaves>.*?) -->\n)?```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n'
    r"(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SOURCE = re.compile(r"^<!-- source (\S+) -->$", re.MULTILINE)
_OURS = re.compile(r"(?:[A-Z_]+=\S+ )*python -m (?:flows|rollmill\.services)\.\w+(?: .*)?")
_VARIABLE = re.compile(r"[A-Z_]+=.*", re.DOTALL)
_DASK_WORKER = "dask worker tcp://scheduler:8786 --nthreads 4 --resources GPU=1"
ELSEWHERE = {
    "make setup": ".ci/run",
    "make check": ".ci/run",
    "make test": ".ci/run",
    "make demo": "tests/flows/test_vllm.py",
    "make improve": "tests/flows/test_improve.py",
    "make up": "tests/deployments/test_local.py",
    "make up 'UP=--gpu_runs 2'": "tests/deployments/test_local.py",
    "make down": "tests/deployments/test_local.py",
    "python -m deployments.local up --gpu_runs 2 --cpu_runs 8": "tests/deployments/test_team.py",
    "python -m deployments.local up --notify slack-webhook/team": "tests/deployments/test_team.py",
    "scripts/documentation": "tests/documentation/test_build.py",
    "python -m pytest tests/jobs/curation -m 'not slow' -q": ".ci/run",
    "prefect deployment run reject-sampling/reject-sampling-quick": "tests/deployments/test_team.py",
    "dask scheduler --port 8786": "tests/flows/test_cluster.py",
    f"CUDA_VISIBLE_DEVICES=0 {_DASK_WORKER}": "tests/flows/test_cluster.py",
    f"CUDA_VISIBLE_DEVICES=1 {_DASK_WORKER}": "tests/flows/test_cluster.py",
    "docker compose --file containers/compose.yaml up --build --detach": "tests/containers/test_files.py",
}
"""Commands that no test of a page runs, with the file that runs them."""


class Block(NamedTuple):
    """A fenced block."""

    page: Path
    language: str
    title: str | None
    """The name of the file that it shows."""
    code: str
    leaves: list[str]
    """Files that the block must create, from the mark before it: `<!-- leaves a b -->`."""

    def lines(self) -> list[str]:
        """Return the command lines, with continued lines joined."""
        complete = self.code.replace("\\\n", " ").splitlines()
        return [line for line in complete if line.strip() and not line.strip().startswith("#")]


def blocks(page: Path) -> list[Block]:
    """Return all blocks of a page in order, included Python files as well."""
    return [
        Block(page, match["language"], match["title"], match["code"], (match["leaves"] or "").split())
        for match in _BLOCK.finditer(with_sources(page.read_text()))
    ]


def with_sources(text: str) -> str:
    """Return a page's text with the Python files that it shows in the place of their marks; see docs/hooks."""
    return _SOURCE.sub(lambda mark: f'```python title="{Path(mark[1]).name}"\n{(ROOT / mark[1]).read_text()}```', text)


def commands(page: Path) -> list[str]:
    """Return all command lines of a page."""
    return [line for block in blocks(page) if block.language == "bash" for line in block.lines()]


def plain(line: str) -> str:
    """Return a command line in its normal form.

    Without comments, its words one space apart, and `rollmill sample` as `python -m flows.reject_sampling`.
    """
    words = shlex.split(line, comments=True)
    start = next((number for number, word in enumerate(words) if not _VARIABLE.fullmatch(word)), 0)
    if words[start : start + 1] == [PROG]:
        words[start:] = _module_call(words[start + 1 :], COMMANDS) or words[start:]
    return shlex.join(words)


def _module_call(words: list[str], commands: Mapping[str, ModuleCommand | CommandGroup]) -> list[str]:
    """Return the `python -m` command of these words after `rollmill`; empty if they name no command."""
    command = commands.get(words[0]) if words else None
    if isinstance(command, CommandGroup):
        return _module_call(words[1:], command.commands)
    if command is None:
        return []
    own_command = [command.module_command] if command.module_command else []
    return ["python", "-m", command.module, *own_command, *words[1:]]


ELSEWHERE |= {
    plain(line): "tests/deployments/test_command.py" for line in commands(ROOT / "docs/reference/rollmill.md")
}


def service(line: str) -> str:
    """Return the service that a command line starts, such as `sandbox`; empty for other commands."""
    match = re.search(r"python -m rollmill\.services\.(\w+)", plain(line))
    return match[1] if match else ""


def is_ours(line: str) -> bool:
    """Return whether a command line starts a flow or a service, which the tests of pages run."""
    return _OURS.fullmatch(plain(line)) is not None


def name(page: Path) -> str:
    """Return a page's path as its test id."""
    return str(page.relative_to(ROOT))


_RUN = [page for page in PAGES if any(map(is_ours, commands(page)))]
TRAIN = [
    page
    for page in _RUN
    if re.search(r"(flows\.train_lora|flows\.improve|rollmill train|rollmill improve)\b", page.read_text())
]
GENERATE = [page for page in _RUN if page not in TRAIN]
"""Two groups of pages, for two test files that run in parallel."""
