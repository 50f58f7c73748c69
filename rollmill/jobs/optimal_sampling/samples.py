"""One answer: as it is asked for, and as it was drawn."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SampleRequest:
    """One answer to draw. The same prompts and seed give the same answer, whatever is drawn beside it.

    Its uniforms are float64, one for each token, from a `torch.Generator` on the CPU with `seed`.
    """

    key: Hashable
    prompt_ids_theta: Sequence[int]
    prompt_ids_t: Sequence[int]
    seed: int

    @property
    def longer(self) -> int:
        """Return how many tokens the longer prompt has."""
        return max(len(self.prompt_ids_theta), len(self.prompt_ids_t))

    def refusal(self, longest: int | None) -> str | None:
        """Return why models that take `longest` tokens in one row have no answer to it; None where there is one."""
        if not self.prompt_ids_theta or not self.prompt_ids_t:
            return "has no tokens: give it a word, or leave it out"
        if longest is not None and self.longer >= longest:
            return (
                f"has {self.longer:,} tokens, and the models take {longest:,} with the answer: "
                "shorten it, or leave it out"
            )
        return None


@dataclass(frozen=True)
class Decoded:
    """One answer."""

    key: Hashable
    token_ids: list[int]
    """Up to and including the end token."""
    finish_reason: str
    """`stop`: one of the models' end tokens; `length`: no room for more."""
    diagnostics: dict[str, list[float]]
    """Name in `FIELDS` -> one number for each token; `alpha` alone where no diagnostics were asked for."""
    logprobs: list[float]
    """One for each token, under the distribution that it was drawn from."""
