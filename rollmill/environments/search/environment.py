"""Environment of questions that three agents answer by searching a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel

from rollmill.environments.environment import FixedCast
from rollmill.environments.question import question_fault, question_text
from rollmill.environments.search.agents import ANSWERER, DECOMPOSER, SEARCHER, Answerer, Decomposer, SearchAgent
from rollmill.environments.search.corpus import OWN_QUESTIONS, corpus_sha256
from rollmill.environments.search.scoring import normalized
from rollmill.environments.search.settings import SearchSettings
from rollmill.environments.search.state import SearchState
from rollmill.environments.tools import Tool, Tools
from rollmill.errors import InputError
from rollmill.problems import ProblemSource
from rollmill.records import Problem

_LISTS = ("aliases", "supports", "queries")


class SearchEnvironment(FixedCast):
    """A decomposer splits a question, a searcher searches, and an answerer answers or requests more searches.

    An answer ends the episode. It succeeds if the answer equals the ground truth or one of `fields["aliases"]` after
    normalization (see `normalized`); containing it is not enough. `fields["supports"]` names the supporting documents,
    by id or title.

    Rewards: 1.0 for a right answer, 0.0 for a wrong one and for a request for more. The decomposer receives the share
    of the supporting documents that are already found or that its sub-questions find as queries, the searcher the share
    that is found after its searches; both 0.0 if no supporting documents are named. Malformed completions -0.5.
    """

    name: ClassVar[str] = "search_env"
    version: ClassVar[str] = "2"
    Settings: ClassVar[type[BaseModel]] = SearchSettings
    needs: ClassVar[frozenset[Tool]] = frozenset({"search"})

    def __init__(self, state: SearchState) -> None:
        self._state = state
        super().__init__({DECOMPOSER: Decomposer(state), SEARCHER: SearchAgent(state), ANSWERER: Answerer(state)})

    @classmethod
    def agent_names(cls, settings: SearchSettings) -> tuple[str, ...]:
        """See `Environment`."""
        return (DECOMPOSER, SEARCHER, ANSWERER)

    @classmethod
    def identity(cls, settings: SearchSettings) -> dict[str, Any]:
        """Return what determines episodes besides the settings: the hash of the corpus. Raises `InputError`."""
        return {"corpus_sha256": corpus_sha256(settings.corpus)}

    @classmethod
    def source(cls, settings: SearchSettings, folder: Path) -> ProblemSource:
        """Return the built-in questions. Raises `InputError` for another corpus than the built-in one."""
        if settings.corpus:
            raise InputError(
                f"search_env has no questions about the corpus {settings.corpus}: name a data set of your own with "
                "--dataset (question, answer, and maybe aliases and supports)"
            )
        return ProblemSource(dataset=str(OWN_QUESTIONS), prompt_field="question", answer_field="answer", id_field="id")

    @classmethod
    def problem_fault(cls, settings: SearchSettings, problem: Problem) -> str | None:
        """See `Environment`."""
        if fault := question_fault(problem):
            return fault
        if not normalized(problem.answer or ""):
            return "there is no answer" if problem.answer is None else "the answer has no words in it"
        for name in _LISTS:
            values = problem.fields.get(name) or []
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                return f"fields.{name} is no list of texts"
        return None

    @classmethod
    def make(cls, problem: Problem, seed: int, settings: SearchSettings, tools: Tools) -> Self:
        """See `Environment`.

        Args:
            problem: The question.
            seed: Not used, since the environment is deterministic.
            settings: Corpus and limits.
            tools: Needs a searcher.
        """
        if tools.searcher is None:
            raise ValueError("search_env needs something to search in")
        if fault := cls.problem_fault(settings, problem):
            raise ValueError(fault)
        aliases, supports, queries = (problem.fields.get(name) or [] for name in _LISTS)
        question = question_text(problem)
        return cls(
            SearchState(
                question=question,
                accepted=[problem.answer or "", *problem.equivalent_answers, *aliases],
                supports=frozenset(supports),
                queries=queries or [" ".join(question.split())],
                searcher=tools.searcher,
                settings=settings,
            )
        )

    @property
    def done(self) -> bool:
        """Return whether an answer was given."""
        return self._state.answer is not None

    @property
    def success(self) -> bool:
        """Return whether the answer is an accepted one."""
        return self._state.right
