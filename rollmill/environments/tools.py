"""Interfaces of the tools that environments may use: sandboxed Python, verification, search."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from rollmill.records import Problem, Verdict
from rollmill.sandboxes.sandbox import Execution

Tool = Literal["python", "verifier", "search"]


class Document(NamedTuple):
    """A document returned by a search."""

    id: str
    title: str
    text: str
    score: float
    """Relevance, greater for better documents; comparable within one search only."""


class PythonRunner(Protocol):
    """Runs untrusted programs, each in a fresh sandbox."""

    @property
    def timeout_s(self) -> float:
        """Return the default time limit of a run, in seconds."""
        ...

    def run(self, program: str, *, stdin: str = "", timeout_s: float | None = None) -> Execution:
        """Run Python source to its end. Raises `SandboxError` if the sandbox failed, never because of the program."""
        ...


class Verification(Protocol):
    """Judges answers by verifiers, with a time limit."""

    def verify(self, verifier: str, problem: Problem, completion: str) -> Verdict:
        """Return the verdict of a verifier (`math`, `reasoning_gym`) on a completion; see `Verifier`.

        Raises `VerifierFailed` if there is none. Called from an environment's thread.
        """
        ...


class Searcher(Protocol):
    """Finds documents."""

    def search(self, query: str, top_k: int) -> list[Document]:
        """Return the best documents first, at most `top_k`; none for a query without words. Raises `ServingError`."""
        ...


class Tools(NamedTuple):
    """The tools of a run's episodes; None for a tool that its environment does not need."""

    python: PythonRunner | None = None
    verification: Verification | None = None
    searcher: Searcher | None = None
