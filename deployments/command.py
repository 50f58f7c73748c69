"""The command `rollmill`: each of its commands runs a module in the way in which `python -m` runs it.

Only the module that the first words name is imported, so that help answers at once.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import NamedTuple, NoReturn

from rollmill.terminal.program import name_program

PROG = "rollmill"


class ModuleCommand(NamedTuple):
    """A command that runs a module."""

    module: str
    description: str
    module_command: str = ""
    """The module's own command that it is, where the module has several."""


class CommandGroup(NamedTuple):
    """Commands under one word."""

    commands: Mapping[str, ModuleCommand]
    description: str


SERVICES = {
    "sandbox": ModuleCommand("rollmill.services.sandbox", "start sandboxes, and run commands in them for clients"),
    "evaluation": ModuleCommand("rollmill.services.evaluation", "grade what agents left in the sandboxes"),
}
COMMANDS: Mapping[str, ModuleCommand | CommandGroup] = {
    "sample": ModuleCommand("flows.reject_sampling", "rejection sampling: N completions per prompt, each scored"),
    "agents": ModuleCommand("flows.agent_rollouts", "a coding agent in sandboxes, graded by tests and speed"),
    "episodes": ModuleCommand("flows.collect_episodes", "episodes of one or several agents in an environment"),
    "optimal-sampling": ModuleCommand("flows.optimal_sampling", "samples of q*, between a policy and a target model"),
    "curate": ModuleCommand("flows.curate", "look at rollouts, filter them, export rows for SFT and DPO"),
    "train": ModuleCommand("flows.train_lora", "LoRA training, evaluated before and after on held-out problems"),
    "improve": ModuleCommand("flows.improve", "the loop: rounds of rollouts, training and evaluation"),
    "services": CommandGroup(SERVICES, "sandboxes and grading over HTTP"),
    "up": ModuleCommand("deployments.local", "start a Prefect server and a worker on this machine", "up"),
    "down": ModuleCommand("deployments.local", "end what `up` started", "down"),
    "completion": ModuleCommand("deployments.completion", "completion of these commands and their flags in a shell"),
}


def main() -> None:
    """Run the command that the arguments of this process name."""
    _search_working_directory()
    arguments = sys.argv[1:]
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    if arguments[:1] == ["--version"]:
        from importlib.metadata import version

        _write(f"{PROG} {version('rollmill')}\n")
    _run_command(PROG, COMMANDS, arguments)


def _search_working_directory() -> None:
    """Let imports search the working directory first, as with `python -m`: verifiers of users are in it."""
    for package in ("blocks", "flows", "tasks"):  # first, or folders of these names there would hide the packages
        import_module(package)
    if not sys.flags.safe_path:
        with suppress(OSError):  # the directory was removed
            sys.path[0] = os.getcwd()  # noqa: PTH109 - as `python -m` writes it


def _run_command(prog: str, commands: Mapping[str, ModuleCommand | CommandGroup], arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in {"-h", "--help"}:
        _write(_list_commands(prog, commands), status=0 if arguments else 2)
    name = arguments[0].replace("_", "-")
    command = commands.get(name)
    if command is None:
        _fail(prog, f"{_quoted(arguments[0])} is not a command: {_hint(name, commands)}")
    if isinstance(command, CommandGroup):
        _run_command(f"{prog} {name}", command.commands, arguments[1:])
    elif command.module_command:
        _run_module(prog, command.module, [command.module_command, *arguments[1:]])
    else:
        _run_module(f"{prog} {name}", command.module, arguments[1:])


def _run_module(prog: str, module: str, arguments: Sequence[str]) -> None:
    name_program(prog, module)
    sys.argv[1:] = arguments
    # The module becomes `__main__`, as with `python -m`: processes that multiprocessing spawns import it by its name.
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _list_commands(prog: str, commands: Mapping[str, ModuleCommand | CommandGroup]) -> str:
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {command.description}\n" for name, command in commands.items()]
    return f"usage: {prog} COMMAND [flags]\n\n{''.join(lines)}\n{prog} COMMAND --help lists a command's flags.\n"


def _hint(name: str, commands: Mapping[str, ModuleCommand | CommandGroup]) -> str:
    """Return what to type instead: the command of the nearest name, its module's counting as one, and all commands."""
    import difflib

    names = {name: name for name in commands}
    for command_name, command in commands.items():
        if isinstance(command, ModuleCommand) and not command.module_command:
            names[command.module.rpartition(".")[2].replace("_", "-")] = command_name
    close = difflib.get_close_matches(name, names, n=1)
    nearest = f"did you mean {names[close[0]]}? " if close else ""
    return f"{nearest}The commands are {', '.join(commands)}"


def _quoted(text: str) -> str:
    from rollmill.terminal.escapes import visible_line

    text = repr(visible_line(text))
    return text if len(text) <= 100 else f"{text[:97]}..."


def _write(text: str, *, status: int = 0) -> NoReturn:
    # Not at the top: pydantic is imported for a tenth of a second, in which Ctrl-C would show a traceback.
    from rollmill.config.command_line import report_errors

    with report_errors(PROG):
        sys.stdout.write(text)
    raise SystemExit(status)


def _fail(prog: str, message: str) -> NoReturn:
    sys.stderr.write(f"{prog}: {message}\n")
    raise SystemExit(2)


if __name__ == "__main__":
    main()
