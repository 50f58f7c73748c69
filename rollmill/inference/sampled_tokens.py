"""Token ids and logprobs of a completion, with the token ids of its prompt, as vLLM returns them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

LogprobsMode = Literal["processed_logprobs", "raw_logprobs"]
"""vLLM's names: logprobs after temperature, top-p, ... (the sampled distribution), or before."""

REQUEST_FIELDS: Mapping[str, Any] = {"return_token_ids": True, "logprobs": True}
"""Request fields that ask for tokens: vLLM's for ids, and OpenAI's for logprobs."""

_LARGEST_ID = 2**32
_LEAST = -1e6
_ROUNDING = 1e-3  # bfloat16 arithmetic may exceed 0 by this much


class TokenSource(NamedTuple):
    """The tokenizer and the kind of logprobs of recorded tokens."""

    tokenizer: str | None
    """Hash of the tokenizer, see `tokenizer_hash`; None where it is not known."""
    logprobs_mode: LogprobsMode | None
    """The distribution that the logprobs belong to; None where it is not known."""


UNKNOWN_SOURCE = TokenSource(None, None)


class SampledTokens(NamedTuple):
    """The tokens of one request: prompt ids, completion ids and logprobs."""

    prompt: array[int]
    """uint32."""
    ids: array[int]
    """Of the completion; uint32."""
    logprobs: array[float] | None
    """Natural logarithms, one for each of `ids`, float32 as servers compute them; None where they are not known."""
    source: TokenSource = UNKNOWN_SOURCE

    @property
    def sequence(self) -> array[int]:
        """Return prompt and completion ids as one sequence."""
        return self.prompt + self.ids


NO_TOKENS = SampledTokens(array("I"), array("I"), None)
"""Placeholder for a completion whose tokens are not known."""


def known_tokens(calls: Iterable[SampledTokens]) -> tuple[SampledTokens, ...]:
    """Return the tokens of a rollout's calls; empty where those of no call are known."""
    calls = tuple(calls)
    return calls if any(call.prompt for call in calls) else ()


def read_sampled_tokens(
    answer: Mapping[str, Any], choice: Mapping[str, Any], source: TokenSource
) -> SampledTokens | None:
    """Return the tokens in a chat completion's JSON, as vLLM returns them for `REQUEST_FIELDS`; None without ids.

    Logprobs that are invalid, or not one per id, are left out.

    Args:
        answer: The response; vLLM puts `prompt_token_ids` there.
        choice: The response's choice; vLLM puts `token_ids` there.
        source: Tokenizer and kind of logprobs.
    """
    prompt, ids = _ids(answer.get("prompt_token_ids")), _ids(choice.get("token_ids"))
    if not prompt or ids is None:
        return None
    listed = choice.get("logprobs")
    content = listed.get("content") if isinstance(listed, Mapping) else None
    return SampledTokens(prompt, ids, _logprobs(content, len(ids)), source)


def _ids(value: object) -> array[int] | None:
    # `type`, not isinstance: True is an int. The range is checked here because array("I") raises OverflowError.
    if not isinstance(value, list) or not all(type(item) is int and 0 <= item < _LARGEST_ID for item in value):
        return None
    return array("I", value)


def _logprobs(content: object, size: int) -> array[float] | None:
    if not isinstance(content, list) or len(content) != size:
        return None
    values: list[Any] = [item.get("logprob") if isinstance(item, Mapping) else None for item in content]
    # vLLM writes -9999 for minus infinity; those remain, but values above 0 or far below are invalid.
    numbers = [value for value in values if type(value) in (float, int) and _LEAST <= value <= _ROUNDING]
    return array("f", numbers) if len(numbers) == size else None
