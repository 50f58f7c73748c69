"""The privileged hint: what pi_t is told and pi_theta is not."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from rollmill.errors import InputError
from rollmill.problems import Prompting, build_messages
from rollmill.problems.cells import MISSING
from rollmill.problems.columns import get
from rollmill.records import Message, Problem

PROMPT, RESPONSE = "prompt", "response"


class Hint(Prompting):
    """A template that may name any column, those of the answer too: pi_t is meant to know it."""

    @classmethod
    def from_flag(cls, text: str) -> Self:
        """Make a hint of a text, a template, or a file of one; the prompt comes after it, unless it says where.

        Raises `InputError` where its braces name no columns.
        """
        try:
            hint = cls.from_flags(text, None, None)
            if PROMPT in hint.columns:
                return hint
            return cls(template=f"{hint.template}\n\n{{{PROMPT}}}")
        except InputError as error:
            raise InputError(f"--hint: {error}") from error

    @model_validator(mode="after")
    def _check_template(self) -> Self:
        self._pieces  # noqa: B018  # raises where it cannot be read
        return self

    @property
    def columns(self) -> list[str]:
        """Return the columns that the template names."""
        return [piece.column for piece in self._pieces if piece.column is not None]

    def messages(self, problem: Problem, response: str | None) -> list[Message]:
        """Return the messages that pi_t sees. Raises `InputError` where the problem lacks a column of the template."""
        offered: dict[str, Any] = {} if response is None else {RESPONSE: response}
        offered |= problem.fields
        missing = [name for name in self.columns if name != PROMPT and get(offered, name) is MISSING]
        if missing:
            raise InputError(
                f"--hint names {{{missing[0]}}}, which {problem.instance_id} does not have: it has "
                f"{', '.join([PROMPT, *offered])}; double the braces if they are meant as text"
            )
        return build_messages(problem.model_copy(update={"fields": offered}), self)
