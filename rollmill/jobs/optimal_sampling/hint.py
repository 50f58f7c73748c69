"""The privileged hint: text in the prompt of pi_t that pi_theta does not see."""

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
    """A prompt template that may name any column, also the answer's, which other prompts must not contain."""

    @classmethod
    def from_flag(cls, text: str) -> Self:
        """Return a hint from a text, a template, or a file of one; without {prompt} in it, the prompt follows it.

        Raises `InputError` where its braces are not names of columns.
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
        self._pieces  # noqa: B018  # raises where the template cannot be parsed
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that the template names."""
        return [piece.column for piece in self._pieces if piece.column is not None]

    def messages(self, problem: Problem, response: str | None) -> list[Message]:
        """Return pi_t's prompt. Raises `InputError` where the problem lacks a column of the template."""
        fields: dict[str, Any] = {} if response is None else {RESPONSE: response}
        fields |= problem.fields
        missing = [name for name in self.columns if name != PROMPT and get(fields, name) is MISSING]
        if missing:
            raise InputError(
                f"--hint names {{{missing[0]}}}, which {problem.instance_id} does not have: it has "
                f"{', '.join([PROMPT, *fields])}; double the braces if they are meant as text"
            )
        return build_messages(problem.model_copy(update={"fields": fields}), self)
