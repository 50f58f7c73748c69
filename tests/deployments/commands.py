"""The commands of `rollmill`, and the `--help` output of each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from deployments.command import COMMANDS, CommandGroup, ModuleCommand
from deployments.completion import MODULE_COMMANDS
from tests.flows.conftest import ROOT

ROLLMILL = Path(sys.executable).with_name("rollmill")


class Call(NamedTuple):
    """A command, as words after `rollmill` and as arguments of `python -m`."""

    words: list[str]
    module: str
    arguments: list[str]


def calls() -> list[Call]:
    """Return all commands, including the subcommands of modules."""
    leaves: dict[str, ModuleCommand] = {}
    for name, command in COMMANDS.items():
        if isinstance(command, CommandGroup):
            leaves |= {f"{name} {member}": module_command for member, module_command in command.commands.items()}
        else:
            leaves[name] = command
    result = []
    for words, command in leaves.items():
        own_command = [command.module_command] if command.module_command else []
        result.append(Call(words.split(), command.module, own_command))
        result += [Call([*words.split(), name], command.module, [name]) for name in MODULE_COMMANDS.get(words, ())]
    return result


ALL_HELP = """
import contextlib, io, json, runpy, sys
from deployments import command
from rollmill.terminal.program import name_program

def output_of(run, *argv):
    sys.argv = list(argv)
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.suppress(SystemExit):
        run()
    return output.getvalue()

def run_module(module):
    name_program("", "")
    runpy.run_module(module, run_name="__main__", alter_sys=True)

for words, module, arguments in json.load(sys.stdin):
    by_command = output_of(command.main, "rollmill", *words, "--help")
    by_module = output_of(lambda: run_module(module), module, *arguments, "--help")
    print(json.dumps([" ".join(words), [by_command, by_module]]))
"""


def all_help() -> dict[str, tuple[str, str]]:
    """Return the help of each command, by `rollmill` and by its module; all in one process, to save imports."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_HELP],
        cwd=ROOT,
        input=json.dumps(calls()),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(map(json.loads, done.stdout.splitlines()))
