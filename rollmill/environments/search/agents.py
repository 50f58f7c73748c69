"""Agents of the search environment: one splits the question, one searches, one answers."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rollmill.environments.environment import Step
from rollmill.environments.parsing import all_tagged, last_tagged
from rollmill.environments.search.state import RIGHT, WRONG, SearchState
from rollmill.records import Message

DECOMPOSER, SEARCHER, ANSWERER = "decomposer", "searcher", "answerer"

_LONGEST_LINE = 500
_DECOMPOSER = """You split a question into the sub-questions that have to be looked up, in their order. Write one a
line, at most {most}, between <questions> and </questions>. A question that is simple stays as it is.

Example:
<questions>
Who founded the town of Arden?
Where was the founder of Arden born?
</questions>"""
_SEARCHER = """You search a collection of documents for what answers a question. Write each query, a few telling words,
between <search> and </search>, at most {most} of them. Names that you learnt from the documents found lead further.

Example:
<search>Arden town founder</search>
<search>Mina Stone birthplace</search>"""
_ANSWERER = """You answer a question from the documents found, and from nothing else. Where they hold the answer, write
it between <answer> and </answer>: only the name, number or word that is asked for, no sentence. Where they do not, say
between <more> and </more> what is missing.

Example:
<answer>Mina Stone</answer>

Another example:
<more>the birthplace of Mina Stone</more>"""


class Decomposer:
    """States sub-questions; its reward is the share of the supporting documents that they find as queries."""

    def __init__(self, state: SearchState) -> None:
        self._state = state

    def prompt(self) -> list[Message]:
        """See `Agent`."""
        state = self._state
        system = _DECOMPOSER.format(most=state.settings.max_queries)
        return state.shown(DECOMPOSER, system, state.parts_text(), state.searched_text(), state.missing_text())

    def act(self, completion: str) -> Step:
        """See `Agent`. Raises `ServingError`."""
        block = last_tagged(completion, "questions")
        if block is None:
            return self._state.refuse(DECOMPOSER, "it has no <questions>...</questions> with a question in it")
        lines = [line.strip().removeprefix("- ")[:_LONGEST_LINE] for line in block[1].splitlines() if line.strip()]
        most = self._state.settings.max_queries
        self._state.parts = lines[:most]
        self._state.faults.pop(DECOMPOSER, None)
        # These searches only score the sub-questions; their documents are not added to the state.
        hits = [document for part in self._state.parts for document in self._state.search(part)]
        return Step(
            self._state.support_share(hits), {"questions": self._state.parts, "left_out": max(len(lines) - most, 0)}
        )

    def oracle(self) -> str:
        """Return the queries that find the supporting documents."""
        return _questions(self._state.queries)

    def random(self, rng: random.Random) -> str:
        """Return words of the question, shuffled."""
        return _questions([_shuffled(self._state.question, rng)])


class SearchAgent:
    """Searches; its reward is the share of the supporting documents found so far."""

    def __init__(self, state: SearchState) -> None:
        self._state = state

    def prompt(self) -> list[Message]:
        """See `Agent`."""
        state = self._state
        system = _SEARCHER.format(most=state.settings.max_queries)
        parts = (state.parts_text(), state.searched_text(), state.documents_text(), state.missing_text())
        return state.shown(SEARCHER, system, *parts)

    def act(self, completion: str) -> Step:
        """See `Agent`. Raises `ServingError`."""
        queries = all_tagged(completion, "search")
        if not queries:
            return self._state.refuse(SEARCHER, "it has no <search>...</search> with a query in it")
        most = self._state.settings.max_queries
        hits: dict[str, list[str]] = {}
        self._state.faults.pop(SEARCHER, None)
        for query in (query[:_LONGEST_LINE] for query in queries[:most]):
            documents = self._state.search(query)
            new = {document.id: document for document in documents if document.id not in self._state.documents}
            self._state.documents.update(new)
            self._state.searched[query] = len(new)
            hits[query] = [document.id[:_LONGEST_LINE] for document in documents]
        return Step(self._state.support_share(), {"hits": hits, "left_out": max(len(queries) - most, 0)})

    def oracle(self) -> str:
        """Return the queries that find the supporting documents."""
        return "\n".join(f"<search>{query}</search>" for query in self._state.queries)

    def random(self, rng: random.Random) -> str:
        """Return words of the question, shuffled."""
        return f"<search>{_shuffled(self._state.question, rng)}</search>"


class Answerer:
    """Answers, or names the missing information. The reward is 1.0 for a right answer, else 0.0."""

    def __init__(self, state: SearchState) -> None:
        self._state = state

    def prompt(self) -> list[Message]:
        """See `Agent`."""
        state = self._state
        return state.shown(ANSWERER, _ANSWERER, state.parts_text(), state.searched_text(), state.documents_text())

    def act(self, completion: str) -> Step:
        """See `Agent`."""
        block = last_tagged(completion, "answer", "more")
        if block is None:
            return self._state.refuse(ANSWERER, "it has neither <answer>...</answer> nor <more>...</more>")
        tag, text = block
        self._state.faults.pop(ANSWERER, None)
        if tag == "more":
            self._state.missing = text[:_LONGEST_LINE]
            return Step(WRONG, {"more": self._state.missing})
        self._state.answer = text
        right = self._state.right
        return Step(RIGHT if right else WRONG, {"answer": text, "right": right})

    def oracle(self) -> str:
        """Return the answer."""
        return f"<answer>{self._state.accepted[0]}</answer>"

    def random(self, rng: random.Random) -> str:
        """Return two words of the question."""
        words = self._state.question.split()
        return f"<answer>{' '.join(rng.choices(words, k=2))}</answer>"


def _questions(lines: Sequence[str]) -> str:
    return "\n".join(["<questions>", *lines, "</questions>"])


def _shuffled(text: str, rng: random.Random) -> str:
    words = text.split()
    return " ".join(rng.sample(words, min(5, len(words))))
