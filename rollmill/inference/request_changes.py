"""Changes of request fields for servers that do not accept all of them, and the messages by which they refuse."""

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
    """Fields of every request that are renamed or left out."""

    model_config = ConfigDict(frozen=True)

    renamed: dict[str, str] = Field(default={}, exclude_if=_is_empty)
    """The server's name of a field, by its usual name."""
    left_out: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)
    model: str | None = Field(default=None, exclude_if=_is_empty)
    """The model's name on a server that lists no models, as determined by a trial request."""

    def __bool__(self) -> bool:
        return bool(self.renamed or self.left_out)

    @property
    def differs(self) -> bool:
        """Return whether there is anything to record: changes, or the model's name."""
        return bool(self or self.model)

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.renamed.items())), self.left_out, self.model))

    def apply(self, body: bytes) -> bytes:
        """Return a request's JSON with the changes."""
        fields = orjson.loads(body)
        return orjson.dumps(
            {self.renamed.get(name, name): value for name, value in fields.items() if name not in self.left_out}
        )

    @property
    def of_sampling(self) -> tuple[str, ...]:
        """Return the fields left out that change the sampled distribution."""
        return tuple(name for name in self.left_out if name not in (SEED, "stream"))

    def notes(self) -> list[str]:
        """Return notes on the changes, for users."""
        notes = [f"the server accepts {new} for {old}: renamed in every request" for old, new in self.renamed.items()]
        if SEED in self.left_out:
            notes.append(
                "the server accepts no seed: it is left out, and the command makes other completions each time"
            )
        if self.of_sampling:
            notes.append(
                f"the server does not accept {', '.join(self.of_sampling)}: left out of every request (--drop_params), "
                "so that the server's defaults apply"
            )
        return notes

    def changed_for(self, name: str, message: str) -> RequestChanges | None:
        """Return the changes with one more, for a refused field; None where nothing can be changed.

        Args:
            name: The field, as it was sent.
            message: The server's error message.
        """
        usual = next((old for old, new in self.renamed.items() if new == name), name)
        if usual in _OTHER_NAMES:
            if usual in self.renamed or not _UNKNOWN.search(message):
                return None
            return self.model_copy(update={"renamed": self.renamed | {usual: _OTHER_NAMES[usual]}})
        return self.model_copy(update={"left_out": (*self.left_out, name)})


NO_CHANGES = RequestChanges()


def refused_parameter(fields: Mapping[str, Any], named: Collection[str], message: str) -> str | None:
    """Return the field of a request that a server refuses; None where the error does not identify it.

    Args:
        fields: The request's fields, without model and messages.
        named: Fields that the error names in fields of its own, see `FailedAnswerError`.
        message: The error message, in which other servers name the field.
    """
    # In order of reliability: the error's own field, a quoted name in the message, a bare word.
    first = next((name for name in named if name in fields), None)
    quoted = [name for name in fields if re.search(rf"[`'\"\[]{re.escape(name)}[`'\"\]]", message)]
    bare = [name for name in fields if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message)]
    return first or _likeliest(quoted, fields) or _likeliest(bare, fields)


_NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": -1}


def _likeliest(names: Collection[str], fields: Mapping[str, Any]) -> str | None:
    """Return one of several names in a message, preferring one whose value has no effect, such as top_p 1."""
    neutral = [name for name in names if name in _NEUTRAL and fields[name] == _NEUTRAL[name]]
    return next(iter(neutral or names), None)
