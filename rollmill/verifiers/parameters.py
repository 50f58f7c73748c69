"""Parameters of jobs that verify completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, field_validator, model_validator

from rollmill.config.parameter import Parameters, parameter
from rollmill.verifiers.registry import VERIFIERS, check_verifiers, read_verifiers

if TYPE_CHECKING:  # it brings an HTTP client
    from rollmill.verifiers.judge import JudgeConfig


def _join(value: Any) -> Any:
    """Join several values from a command line or file into one text."""
    is_texts = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    return " ".join(value) if is_texts else value


VerifierName = Annotated[str, BeforeValidator(_join), AfterValidator(check_verifiers)]
"""A name of `VERIFIERS`, the path of a function or class, or several with weights. Paths are not imported here."""


class VerificationParameters(Parameters):
    """The verifier of completions, and its options."""

    verifier: VerifierName = parameter(
        "numeric",
        "Verification",
        "Verifier",
        f"What judges completions: {VERIFIERS.described}, or a function or class of your own as package.module:Name. "
        "Several with weights: math=0.8 code=0.2.",
        metavar="NAME",
        several=True,
    )
    accept_error: float = parameter(
        0.0, "Verification", "Accepted error", "A rollout is accepted when its error is at most this.", ge=0
    )
    answer: Literal["last", "first"] = parameter(
        "last",
        "Verification",
        "Answer",
        "Which <answer> pair is judged: the last one after the thoughts that holds an answer, or the first of all.",
    )
    strict_numbers: bool = parameter(
        False,
        "Verification",
        "Strict numbers",
        "numeric takes only a bare number between <answer> tags: no units, separators, fractions, percent signs.",
    )
    judge_base_url: list[str] = parameter(
        [], "Verification", "Judge's base URLs",
        "OpenAI-compatible servers of the model that judges, for the verifier judge; their key is in JUDGE_API_KEY.",
        metavar="URL",
    )  # fmt: skip
    judge_model: str | None = parameter(
        None, "Verification", "Judge's model", "Name of the model that judges.", metavar="NAME"
    )
    judge_rubric: str | None = parameter(
        None, "Verification", "Judge's rubric", "What a good answer is: a text, or a file of it.", metavar="TEXT"
    )
    judge_threshold: float = parameter(
        0.5, "Verification", "Judge's threshold", "The least score, of 0 to 1, that is a success.", ge=0, le=1
    )
    judge_agreement: VerifierName | None = parameter(
        None, "Verification", "Judge's agreement",
        "A second verifier, whose agreement with the judge on a sample of the rollouts is reported.", metavar="NAME",
    )  # fmt: skip

    @property
    def readings(self) -> dict[str, Any]:
        """Return the keyword arguments of `make_verifiers` and `open_verifiers`."""
        return {"accept_error": self.accept_error, "answer": self.answer, "strict_numbers": self.strict_numbers}

    @field_validator("judge_base_url", mode="before")
    @classmethod
    def _one_judge_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("judge_base_url")
    @classmethod
    def _judges_are_http(cls, urls: list[str]) -> list[str]:
        from rollmill.inference.parameters import check_urls

        return check_urls(urls)

    @model_validator(mode="after")
    def _check_judge(self) -> Self:
        flags = [flag for flag in ("judge_base_url", "judge_model", "judge_rubric") if getattr(self, flag)]
        judges = any(each.spec == "judge" for each in read_verifiers(self.verifier))
        if judges and len(flags) < 3:
            raise ValueError("--verifier judge needs --judge_base_url, --judge_model and --judge_rubric")
        if not judges and (flags or self.judge_agreement):
            name = [*flags, "judge_agreement"][0]
            raise ValueError(f"--{name} is for --verifier judge: give that, or leave it out")
        return self

    @property
    def judge(self) -> JudgeConfig | None:
        """Return the judge's configuration; None without a judge. Raises `InputError` for an unreadable rubric."""
        if not (self.judge_base_url and self.judge_model and self.judge_rubric):
            return None
        from rollmill.verifiers.judge import JudgeConfig, read_rubric

        return JudgeConfig(
            base_urls=tuple(self.judge_base_url),
            model=self.judge_model,
            rubric=read_rubric(self.judge_rubric),
            threshold=self.judge_threshold,
        )
