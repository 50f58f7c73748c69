"""The parameter of jobs that selects an environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from rollmill.config.parameter import parameter
from rollmill.environments.registry import ENVIRONMENTS

EnvironmentName = Annotated[str, AfterValidator(ENVIRONMENTS.check_name)]
"""A name of `ENVIRONMENTS`, or the path of a class; a path is not imported yet."""

ENVIRONMENT = parameter(
    "code_env",
    "Environment",
    "Environment",
    f"{ENVIRONMENTS.described}, or a class of your own as package.module:Name.",
    metavar="NAME",
)
