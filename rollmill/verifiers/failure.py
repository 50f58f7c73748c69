"""A verification that gave no verdict."""

from __future__ import annotations

import traceback
from typing import Literal

FailureType = Literal["verifier_raised", "verifier_timeout", "verifier_died"]


class VerifierFailed(Exception):  # noqa: N818 - reads as what happened, beside Failure, the record made of it
    """One verification gave no verdict; `type` and `message` (one line) are what a `Failure` holds."""

    def __init__(self, type: FailureType, message: str) -> None:  # noqa: A002
        self.type: FailureType = type
        self.message = " ".join(message.split())
        super().__init__(f"{type}: {self.message}")


def describe(error: BaseException, limit: int = 500) -> str:
    """The error's type and message on one line, for any error, even one whose own `str` fails."""
    line = " ".join("".join(traceback.format_exception_only(error)).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
