"""What servers want otherwise in a request than jobs write it, and what they say of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

SEED = "seed"
_OTHER_NAMES = {"max_tokens": "max_completion_tokens"}
_UNKNOWN = re.compile(
    r"unsupported|not supported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|extra|"
    r"max_completion_tokens|deprecated|no such|cannot find",
    re.IGNORECASE,
)


def _is_empty(value: object) -> bool:
    return not value


class RequestChanges(BaseModel):
    """What of every request is renamed, and what is left out."""

    model_config = ConfigDict(frozen=True)

    renamed: dict[str, str] = Field(default={}, exclude_if=_is_empty)
    """The server's name for a parameter by the usual one."""
    left_out: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)
    model: str | None = Field(default=None, exclude_if=_is_empty)
    """The name by which a server that lists none knows the model, where that was found out."""

    def __bool__(self) -> bool:
        return bool(self.renamed or self.left_out)

    @property
    def differs(self) -> bool:
        """Tell whether anything is known of the servers."""
        return bool(self or self.model)

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.renamed.items())), self.left_out, self.model))

    def apply(self, body: bytes) -> bytes:
        """Return a request's JSON as the server takes it."""
        fields = orjson.loads(body)
        return orjson.dumps(
            {self.renamed.get(name, name): value for name, value in fields.items() if name not in self.left_out}
        )

    @property
    def of_sampling(self) -> tuple[str, ...]:
        """Return what is left out of what makes the distribution that is sampled from."""
        return tuple(name for name in self.left_out if name not in (SEED, "stream"))

    def notes(self) -> list[str]:
        """Return what a user should know of them."""
        notes = [f"the server takes {new} for {old}: renamed in every request" for old, new in self.renamed.items()]
        if SEED in self.left_out:
            notes.append("the server takes no seed: it is left out, and the same command again makes other completions")
        if self.of_sampling:
            notes.append(
                f"the server does not take {', '.join(self.of_sampling)}: left out of every request (--drop_params), "
                "which the server then decides by itself"
            )
        return notes

    def changed_for(self, name: str, words: str) -> RequestChanges | None:
        """Return the changes with one more, for a refused parameter; None where nothing can be changed.

        Args:
            name: The parameter.
            words: What the server says of it.
        """
        usual = next((old for old, new in self.renamed.items() if new == name), name)
        if usual in _OTHER_NAMES:
            if usual in self.renamed or not _UNKNOWN.search(words):
                return None
            return self.model_copy(update={"renamed": self.renamed | {usual: _OTHER_NAMES[usual]}})
        return self.model_copy(update={"left_out": (*self.left_out, name)})


NO_CHANGES = RequestChanges()


def refused_parameter(fields: Mapping[str, Any], named: Collection[str], words: str) -> str | None:
    """Return which field of a request a server refuses; None where that cannot be told.

    Args:
        fields: The request's, but for model and messages.
        named: What the error names by itself, see `FailedAnswerError`.
        words: The error's message, in which others name it.
    """
    first = next((name for name in named if name in fields), None)
    quoted = [name for name in fields if re.search(rf"[`'\"\[]{re.escape(name)}[`'\"\]]", words)]
    bare = [name for name in fields if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", words)]
    return first or _likeliest(quoted, fields) or _likeliest(bare, fields)


_NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": -1}


def _likeliest(names: Collection[str], fields: Mapping[str, Any]) -> str | None:
    """Return one of several names in a message: one whose value changes nothing, as top_p 1 beside a temperature."""
    neutral = [name for name in names if name in _NEUTRAL and fields[name] == _NEUTRAL[name]]
    return next(iter(neutral or names), None)
