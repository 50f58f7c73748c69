"""State that the agents of one search episode share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rollmill.environments.environment import Step
from rollmill.environments.search.scoring import is_exact_match
from rollmill.environments.search.settings import SearchSettings
from rollmill.environments.tools import Document, Searcher
from rollmill.records import Message

RIGHT = 1.0
WRONG = 0.0
MALFORMED = -0.5
"""Reward of a completion without an action of the required form."""


@dataclass
class SearchState:
    """The state of one episode."""

    question: str
    accepted: Sequence[str]
    """Accepted answers: the ground truth and its aliases."""
    supports: frozenset[str]
    """Ids or titles of the supporting documents; empty if none are named."""
    queries: Sequence[str]
    """Queries that find the supporting documents, for the policy `oracle`."""
    searcher: Searcher
    settings: SearchSettings
    parts: list[str] = field(default_factory=list)
    """The sub-questions."""
    searched: dict[str, int] = field(default_factory=dict)
    """Number of new documents, by query."""
    documents: dict[str, Document] = field(default_factory=dict)
    """Documents by id, in the order in which they were found."""
    missing: str | None = None
    """Missing information, in the answerer's words."""
    answer: str | None = None
    faults: dict[str, str] = field(default_factory=dict)
    """Fault of the last completion, by agent."""

    @property
    def right(self) -> bool:
        """Return whether the answer is an accepted one."""
        return self.answer is not None and is_exact_match(self.answer, self.accepted)

    def support_share(self, also: Sequence[Document] = ()) -> float:
        """Return the share of the supporting documents that are found or in `also`; 0 if none are named."""
        if not self.supports:
            return 0.0
        names = {name for document in (*self.documents.values(), *also) for name in (document.id, document.title)}
        return len(self.supports & names) / len(self.supports)

    def search(self, query: str) -> list[Document]:
        """Search the corpus. Raises `ServingError`."""
        return self.searcher.search(query, self.settings.top_k)

    def refuse(self, agent: str, fault: str) -> Step:
        """Return a malformed step for a completion without an action, and leave the state unchanged."""
        self.faults[agent] = fault
        return Step(MALFORMED, {"fault": fault})

    def shown(self, agent: str, system: str, *parts: str) -> list[Message]:
        """Build a prompt: the question, and the parts of the state that the role needs."""
        fault = self.faults.get(agent)
        texts = [
            f"Question: {self.question}",
            *filter(None, parts),
            *([f"Your last message did not count: {fault}."] if fault else []),
        ]
        return [{"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(texts)}]

    def parts_text(self) -> str:
        """Return the sub-questions, for a prompt."""
        return "Sub-questions:\n" + "\n".join(f"- {part}" for part in self.parts) if self.parts else ""

    def searched_text(self) -> str:
        """Return the searches so far, for a prompt."""
        lines = [f"- {query} ({count} new)" for query, count in self.searched.items()]
        return "Searches so far, with the number of new documents:\n" + "\n".join(lines) if lines else ""

    def missing_text(self) -> str:
        """Return what is missing, for a prompt."""
        return f"Still missing: {self.missing}" if self.missing else ""

    def documents_text(self) -> str:
        """Return the latest documents, shortened, for a prompt."""
        if not self.documents:
            return "Documents found: none"
        shown = list(self.documents.values())[-self.settings.max_documents :]
        texts = [f"[{document.title or document.id}] {self._cut(document.text)}" for document in shown]
        return "Documents found:\n" + "\n\n".join(texts)

    def _cut(self, text: str) -> str:
        most, text = self.settings.document_chars, text.strip()
        return text if len(text) <= most else f"{text[:most]}..."
