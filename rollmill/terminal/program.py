"""The name that this process was started by: usage lines, examples and messages begin with it.

A module that is run as `python -m flows.curate` calls itself `curate`. Where the command `rollmill curate` runs the
same module, its users read `rollmill curate` in place of both.
"""

from __future__ import annotations


class _State:
    name = ""
    """What the user typed, such as `rollmill sample`; empty where the module itself was started."""
    module = ""
    """The module that it runs, such as `flows.reject_sampling`."""


def name_program(name: str, module: str) -> None:
    """Let this process, which runs `module`, be called `name` from here on."""
    _State.name, _State.module = name, module


def program_name(prog: str) -> str:
    """Return the name for usage lines and messages, where the module calls itself `prog`.

    `prog` may end with a command of the module, which stays: `curate analyze` becomes `rollmill curate analyze`.
    """
    if not _State.name:
        return prog
    for original in (_State.module.rpartition(".")[2], f"python -m {_State.module}"):
        if prog == original or prog.startswith(f"{original} "):
            return _State.name + prog.removeprefix(original)
    return prog


def renamed_calls(text: str) -> str:
    """Return examples with calls of the module in the form in which this process was called."""
    return text.replace(f"python -m {_State.module}", _State.name) if _State.name else text
