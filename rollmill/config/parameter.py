"""The parameters of flows: what the command line, the form and the deployment say of each."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _check_shell_line(line: str) -> str:
    shlex.split(line)
    return line


ShellLine = Annotated[str, AfterValidator(_check_shell_line)]
"""Arguments in one string, as in a shell: quotes are closed."""


class Parameters(BaseModel):
    """Parameters of a flow, or a part of them that several flows share.

    Their validators are built when they are first used: `--help` uses none, and of a command's models only one is.
    """

    model_config = ConfigDict(defer_build=True)


def parameter(
    default: Any,
    group: str,
    title: str,
    description: str,
    *,
    metavar: str | None = None,
    env: bool = False,
    **bounds: Any,
) -> Any:
    """A field of a parameter model: `...` as default for a required one, `bounds` as pydantic's `Field` takes them.

    `group` is its heading in `--help`, `metavar` what its value is called there; with `env` the environment variable
    of its name in capitals sets it, too.
    """
    extra: dict[str, Any] = {"group": group, "env": env}
    if metavar:
        extra["metavar"] = metavar
    return Field(default, title=title, description=description, json_schema_extra=extra, **bounds)
