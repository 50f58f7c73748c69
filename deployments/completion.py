"""Shell completion of the command `rollmill`, made from the parameter models that its parsers are made from."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping

import shtab
from pydantic import BaseModel, ConfigDict

from deployments import local
from deployments.command import COMMANDS, CommandGroup, ModuleCommand
from rollmill.config.command_line import declare_flags, parse_command, report_errors
from rollmill.environments.registry import ENVIRONMENTS
from rollmill.jobs.agent_rollouts.commands import COMMANDS as AGENT_COMMANDS
from rollmill.jobs.curation.parameters import COMMANDS as CURATION_COMMANDS
from rollmill.jobs.curation.parameters import Curate
from rollmill.jobs.episodes.commands import EpisodesCommand
from rollmill.jobs.evaluation.train_and_evaluate import TrainAndEvaluate
from rollmill.jobs.improvement.parameters import Improve
from rollmill.jobs.optimal_sampling.commands import ANALYZE
from rollmill.jobs.optimal_sampling.parameters import AnalyzeDiagnostics, OptimalSampling
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.services.evaluation import EvaluationServiceOptions
from rollmill.services.sandbox import SandboxServiceOptions
from rollmill.verifiers.registry import VERIFIERS

PROG = "python -m deployments.completion"
DESCRIPTION = """\
Prints the script that completes rollmill's commands, flags, choices and file names in a shell. It holds the flags of
this version: write it again after an update."""
EXAMPLES = """\
  rollmill completion bash > ~/.rollmill.bash    # and `. ~/.rollmill.bash` in ~/.bashrc
  rollmill completion zsh > ~/.zfunc/_rollmill    # and `fpath=(~/.zfunc $fpath)` before compinit in ~/.zshrc
  rollmill completion fish > ~/.config/fish/completions/rollmill.fish
"""


class Shell(BaseModel):
    """A shell that has completion."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Bash(Shell):
    """Print the script for bash."""


class Zsh(Shell):
    """Print the script for zsh."""


class Fish(Shell):
    """Print the script for fish."""


SHELLS: Mapping[str, type[BaseModel]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}

FLAGS: Mapping[str, type[BaseModel]] = {
    "sample": RejectSampling,
    "episodes": EpisodesCommand,
    "optimal-sampling": OptimalSampling,
    "train": TrainAndEvaluate,
    "improve": Improve,
    "services sandbox": SandboxServiceOptions,
    "services evaluation": EvaluationServiceOptions,
    "up": local.Up,
    "down": local.Down,
}
"""The parameters of every command, by its words."""

MODULE_COMMANDS: Mapping[str, Mapping[str, type[BaseModel]]] = {
    "agents": AGENT_COMMANDS,
    "optimal-sampling": {ANALYZE: AnalyzeDiagnostics},
    "curate": {**CURATION_COMMANDS, "run": Curate},
    "completion": SHELLS,
}
"""The parameters of the commands that a module itself has."""

_FILE_METAVARS = {"PATH", "FILE", "FILE.yaml", "FILE.jsonl"}
_FILE_FLAGS = {"dataset", "held_out"}
"""Flags whose value may be a file, or a name that no folder holds."""


def completion_script(shell: str) -> str:
    """Return the completion script for `bash`, `zsh` or `fish`."""
    return str(shtab.complete(completion_parser(), shell)).rstrip() + "\n"


def completion_parser() -> argparse.ArgumentParser:
    """Build a parser that has every command and flag; it is read, and never parses anything."""
    parser = argparse.ArgumentParser(prog="rollmill", description="rollouts, curation and training")
    parser.add_argument("--version", action="version", help="print the version")
    _add_commands(parser, COMMANDS, "")
    return parser


def _add_commands(
    parser: argparse.ArgumentParser, commands: Mapping[str, ModuleCommand | CommandGroup], before: str
) -> None:
    """Add `commands`, whose full names begin with the words `before`."""
    added = parser.add_subparsers()
    for name, command in commands.items():
        words = f"{before}{name}"
        child = added.add_parser(name, help=command.description)
        if isinstance(command, CommandGroup):
            _add_commands(child, command.commands, f"{words} ")
        if words in FLAGS:
            _add_flags(child, FLAGS[words])
        if words in MODULE_COMMANDS:
            module_commands = child.add_subparsers()
            for module_command, model in MODULE_COMMANDS[words].items():
                description = (model.__doc__ or "").strip().partition("\n")[0]
                _add_flags(module_commands.add_parser(module_command, help=description), model)


def _add_flags(parser: argparse.ArgumentParser, model: type[BaseModel]) -> None:
    names: Mapping[str, Iterable[str]] = {"verifier": VERIFIERS, "env_name": ENVIRONMENTS}
    for action in declare_flags(parser, model):
        if action.metavar in _FILE_METAVARS or action.dest in _FILE_FLAGS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.dest in names:
            action.choices = list(names[action.dest])
        action.metavar = None  # zsh's script would take the colon of a metavar such as HOST:PORT for one of its own


def main() -> None:
    """Print the script of the shell that the command line names."""
    shell = parse_command(SHELLS, prog=PROG, description=DESCRIPTION, examples=EXAMPLES)
    sys.stdout.write(completion_script(next(name for name, model in SHELLS.items() if isinstance(shell, model))))


if __name__ == "__main__":
    with report_errors(PROG):
        main()
