"""Tools that environments may use: sandboxed Python, verification, search."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from rollmill.records import Problem, Verdict
from rollmill.sandboxes.sandbox import Execution

Tool = Literal["python", "verifier", "search"]


class Document(NamedTuple):
    """One document that a search returned."""

    id: str
    title: str
    text: str
    score: float
    """Greater is better; comparable within one search."""


class PythonRunner(Protocol):
    """Runs untrusted programs, each in a sandbox of its own that ends with it."""

    @property
    def timeout_s(self) -> float:
        """Return the time limit in seconds of a run that names none."""
        ...

    def run(self, program: str, *, stdin: str = "", timeout_s: float | None = None) -> Execution:
        """Run Python source to its end. Raises `SandboxError` where the sandbox failed, never for the program."""
        ...


class Verification(Protocol):
    """Judges answers, in processes that can be stopped."""

    def verify(self, verifier: str, problem: Problem, completion: str) -> Verdict:
        """Return the verdict of a verifier (`math`, `reasoning_gym`) on a completion; see `Verifier`.

        Raises `VerifierFailed` where there is none. Called from an environment's thread.
        """
        ...


class Searcher(Protocol):
    """Finds documents."""

    def search(self, query: str, top_k: int) -> list[Document]:
        """Return the best documents first, at most `top_k`; none for a query without words. Raises `ServingError`."""
        ...


class Tools(NamedTuple):
    """The tools of a run's episodes; None for one that its environment does not need."""

    python: PythonRunner | None = None
    verification: Verification | None = None
    searcher: Searcher | None = None
