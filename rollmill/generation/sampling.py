"""How a model's tokens are sampled, and what a chat request says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rollmill.config.parameter import JsonObject
from rollmill.errors import InputError

_MOST_STOPS = 64
_OWN_FLAGS = frozenset(
    [
        "temperature",
        "top_p",
        "max_tokens",
        "seed",
        "top_k",
        "min_p",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "chat_template_kwargs",
        "reasoning_effort",
    ]
)
_DECIDED = frozenset(
    [
        *("model", "messages", "prompt", "n", "best_of", "stream", "stream_options", "max_completion_tokens"),
        *("extra_body", "logprobs", "top_logprobs", "return_token_ids"),
    ]
)

_OF_THE_PROMPT = frozenset(
    [
        "truncate_prompt_tokens",
        "add_special_tokens",
        "chat_template",
        "documents",
        "functions",
        "add_generation_prompt",
        "continue_final_message",
        "echo",
    ]
)

NOT_FOR_TEMPLATES = frozenset(
    [
        *("self", "conversation", "conversations", "messages", "tools", "chat_template", "add_generation_prompt"),
        *("continue_final_message", "tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length"),
        *("return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "kwargs"),
    ]
)
"""What says how a chat template is rendered: parameters of transformers' `apply_chat_template`, and what servers hand
to it. `documents` is handed on to the template, and may be given."""


def _is_unset(value: object) -> bool:
    return value is None or value in ((), {})


def _check_top_k(value: int) -> int:
    if value != -1 and value < 1:
        raise ValueError("must be -1, for all tokens, or at least 1")
    return value


def _check_stops(texts: tuple[str, ...]) -> tuple[str, ...]:
    if len(texts) > _MOST_STOPS:
        raise ValueError(f"{len(texts)} texts are too many: give at most {_MOST_STOPS}")
    if not all(texts):
        raise ValueError("an empty text would end every answer before it begins: leave it out")
    return texts


def _check_extra_body(fields: dict[str, Any]) -> dict[str, Any]:
    for name in fields:
        if name in _OF_THE_PROMPT:
            raise ValueError(f"{name} would make another prompt than the rows record: leave it out")
        if name in _OWN_FLAGS:
            raise ValueError(f"{name} has a flag of its own: give --{name}")
        if name in _DECIDED:
            raise ValueError(f"{name} is decided by the job itself: leave it out")
    return fields


def _check_template_arguments(fields: dict[str, Any]) -> dict[str, Any]:
    for name in fields:
        if name in NOT_FOR_TEMPLATES:
            raise ValueError(f"{name} is decided by the server: leave it out")
    return fields


TopK = Annotated[int, AfterValidator(_check_top_k)]
Stops = Annotated[tuple[str, ...], AfterValidator(_check_stops)]
ExtraBody = Annotated[JsonObject, AfterValidator(_check_extra_body)]
ChatTemplateArguments = Annotated[JsonObject, AfterValidator(_check_template_arguments)]


class Sampling(BaseModel):
    """How the policy samples; part of a run's identity.

    What is unset is in neither the identity nor a request: a server then does what it does by default. vLLM takes the
    model's own `generation_config.json` for it, unless it is started otherwise.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=1024, gt=0)
    seed: int = 0
    top_k: TopK | None = Field(default=None, exclude_if=_is_unset)
    """Only the likeliest tokens; -1 for all."""
    min_p: float | None = Field(default=None, ge=0, le=1, exclude_if=_is_unset)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, exclude_if=_is_unset)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, exclude_if=_is_unset)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10, exclude_if=_is_unset)
    stop: Stops = Field(default=(), exclude_if=_is_unset)
    """Texts that end an answer; they are no part of it."""
    reasoning_effort: str | None = Field(default=None, min_length=1, max_length=64, exclude_if=_is_unset)
    chat_template_kwargs: ChatTemplateArguments = Field(default={}, exclude_if=_is_unset)
    extra_body: ExtraBody = Field(default={}, exclude_if=_is_unset)
    """Anything else that a request says."""

    def request_fields(self) -> dict[str, Any]:
        """Return what a chat request says of sampling, but for its seed, which each request has of its own."""
        return self.model_dump(exclude={"seed", "extra_body"}) | self.extra_body

    def with_recommended(self, recommended: Mapping[str, float], given: Iterable[str]) -> Sampling:
        """Return the sampling with a model's recommendations for all that was not `given`.

        Raises `InputError` for one that no request can say.
        """
        taken = {name: value for name, value in recommended.items() if name not in frozenset(given)}
        try:
            return type(self).model_validate({**self.model_dump(), **taken})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise InputError(
                f"generation_config.json recommends {first['loc'][0]} {first['input']}: {first['msg']}: give "
                f"--{first['loc'][0]}"
            ) from None


OPTIONS = tuple(name for name in Sampling.model_fields if name not in ("temperature", "top_p", "max_tokens", "seed"))
"""What may stay unset."""


def stop_texts(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts that end a request's answer."""
    stop = body.get("stop")
    texts = [stop] if isinstance(stop, str) else stop if isinstance(stop, list | tuple) else ()
    return tuple(text for text in texts if isinstance(text, str))


def request_context(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request's template is given beside the messages, as a rollout's row has it.

    A key is left out where there is nothing: `tools`, and `chat_template_kwargs`, which `reasoning_effort` is a part
    of, as vLLM and SGLang hand it to the template; vLLM also says by it whether the model is to think.
    """
    arguments = dict(body.get("chat_template_kwargs") or {})
    effort = body.get("reasoning_effort")
    if effort is not None:
        arguments = {"enable_thinking": effort != "none", **arguments, "reasoning_effort": effort}
    fields = {"tools": body.get("tools"), "chat_template_kwargs": arguments}
    return {name: value for name, value in fields.items() if value}
