"""Request and result of one sample."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SampleRequest:
    """One answer to sample. The same prompts and seed give the same answer, with any other samples in the batch.

    Its uniforms are float64, one for each token, from a `torch.Generator` on the CPU with `seed`.
    """

    key: Hashable
    prompt_ids_theta: Sequence[int]
    prompt_ids_t: Sequence[int]
    seed: int

    @property
    def longer_prompt(self) -> int:
        """Number of tokens of the longer prompt."""
        return max(len(self.prompt_ids_theta), len(self.prompt_ids_t))

    def refusal(self, context_length: int | None) -> str | None:
        """Return the reason why models with this context length, in tokens, cannot answer it; None where they can."""
        if not self.prompt_ids_theta or not self.prompt_ids_t:
            return "has no tokens: give it a word, or leave it out"
        if context_length is not None and self.longer_prompt >= context_length:
            return (
                f"has {self.longer_prompt:,} tokens, and the models take {context_length:,} with the answer: "
                "shorten it, or leave it out"
            )
        return None


@dataclass(frozen=True)
class Decoded:
    """One sampled answer."""

    key: Hashable
    """The request's key."""
    token_ids: list[int]
    """Token ids up to and including the end token."""
    finish_reason: str
    """`stop`: an end token of either model; `length`: the token limit, or the end of the context."""
    diagnostics: dict[str, list[float]]
    """Values for each token by name in `FIELDS`; `alpha` alone without diagnostics."""
    logprobs: list[float]
    """Log-probability of each token under the distribution that it was drawn from."""
