"""What a model sampled, as ids: the tokens of one answer, their log-probabilities, and the prompt's tokens."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

LogprobsMode = Literal["processed_logprobs", "raw_logprobs"]
"""vLLM's names: of the distribution that is sampled from (after temperature, top-p, ...), or of the one before."""

REQUEST_FIELDS: Mapping[str, Any] = {"return_token_ids": True, "logprobs": True}
"""What asks a server for tokens with an answer: vLLM's own field, and OpenAI's for log-probabilities."""

_LARGEST_ID = 2**32
_LEAST = -1e6
_ROUNDING = 1e-3  # bfloat16 arithmetic gets so far above 0


class TokenSource(NamedTuple):
    """Whose tokens they are."""

    tokenizer: str | None
    """Hash of the tokenizer that the ids belong to, see `tokenizer_hash`; None where it is not known."""
    logprobs_mode: LogprobsMode | None
    """What the log-probabilities are of; None where it is not known."""


UNKNOWN_SOURCE = TokenSource(None, None)


class SampledTokens(NamedTuple):
    """The tokens of one request: what the model was given, and what it sampled."""

    prompt: array[int]
    ids: array[int]
    logprobs: array[float] | None
    """Natural logarithms, one for each of `ids`, in single precision as servers compute them; None where unknown."""
    source: TokenSource = UNKNOWN_SOURCE

    @property
    def sequence(self) -> array[int]:
        """Return prompt and answer as one sequence."""
        return self.prompt + self.ids


NO_TOKENS = SampledTokens(array("I"), array("I"), None)
"""Stands for an answer whose tokens are not known."""


def known_tokens(calls: Iterable[SampledTokens]) -> tuple[SampledTokens, ...]:
    """Return a rollout's calls, or none of them where the tokens of no call are known."""
    calls = tuple(calls)
    return calls if any(call.prompt for call in calls) else ()


def read_sampled_tokens(
    answer: Mapping[str, Any], choice: Mapping[str, Any], source: TokenSource
) -> SampledTokens | None:
    """Return the tokens in a chat completion's JSON, as vLLM answers to `REQUEST_FIELDS`.

    Returns None where there are no ids; the answer itself counts all the same. Log-probabilities that are none, or of
    another number, are left out.

    Args:
        answer: The whole answer; vLLM puts `prompt_token_ids` there.
        choice: Its choice; vLLM puts `token_ids` there.
        source: Whose tokens they are.
    """
    prompt, ids = _ids(answer.get("prompt_token_ids")), _ids(choice.get("token_ids"))
    if not prompt or ids is None:
        return None
    listed = choice.get("logprobs")
    content = listed.get("content") if isinstance(listed, Mapping) else None
    return SampledTokens(prompt, ids, _logprobs(content, len(ids)), source)


def _ids(value: object) -> array[int] | None:
    # `type`, since True is an integer; checked by hand, since an array takes no more than its type holds.
    if not isinstance(value, list) or not all(type(item) is int and 0 <= item < _LARGEST_ID for item in value):
        return None
    return array("I", value)


def _logprobs(content: object, size: int) -> array[float] | None:
    if not isinstance(content, list) or len(content) != size:
        return None
    values: list[Any] = [item.get("logprob") if isinstance(item, Mapping) else None for item in content]
    # vLLM writes -9999 in place of minus infinity, which is no probability of what was sampled.
    numbers = [value for value in values if type(value) in (float, int) and _LEAST <= value <= _ROUNDING]
    return array("f", numbers) if len(numbers) == size else None
