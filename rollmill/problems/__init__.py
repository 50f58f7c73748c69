"""Problems: loaded from anywhere, checked row by row, and turned into chat messages."""

from typing import TYPE_CHECKING

from rollmill.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from rollmill.problems.chat import build_messages, to_openai
    from rollmill.problems.loading import (
        LoadedProblems,
        ProblemFault,
        load_problems,
        load_problems_again,
        read_problems,
    )
    from rollmill.problems.prompting import Prompting
    from rollmill.problems.source import ProblemSource

__all__ = [
    "LoadedProblems",
    "ProblemFault",
    "ProblemSource",
    "Prompting",
    "build_messages",
    "load_problems",
    "load_problems_again",
    "read_problems",
    "to_openai",
]

# Imported on first use: a command's `--help` needs `source` alone, the other modules import numpy and fsspec.
__getattr__ = lazy_exports(
    __name__,
    {
        "LoadedProblems": "loading",
        "ProblemFault": "loading",
        "ProblemSource": "source",
        "Prompting": "prompting",
        "build_messages": "chat",
        "load_problems": "loading",
        "load_problems_again": "loading",
        "read_problems": "loading",
        "to_openai": "chat",
    },
)
