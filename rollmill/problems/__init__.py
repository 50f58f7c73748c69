"""Problems: loaded from anywhere, checked row by row, and turned into chat messages."""

from rollmill.problems.chat import build_messages, to_openai
from rollmill.problems.loading import LoadedProblems, load_problems, read_problems
from rollmill.problems.prompting import Prompting
from rollmill.problems.source import ProblemSource

__all__ = [
    "LoadedProblems",
    "ProblemSource",
    "Prompting",
    "build_messages",
    "load_problems",
    "read_problems",
    "to_openai",
]
