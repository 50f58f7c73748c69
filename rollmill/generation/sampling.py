"""Sampling parameters, and the fields of a chat request that they become."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rollmill.config.parameter import JsonObject
from rollmill.errors import InputError

_MAX_STOPS = 64
"""More are taken for a mistake, such as the characters of one text."""
_FIELDS_WITH_FLAG = frozenset(
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
"""Request fields that have a flag of their own."""
_FIXED_BY_JOB = frozenset(
    [
        *("model", "messages", "prompt", "n", "best_of", "stream", "stream_options", "max_completion_tokens"),
        *("extra_body", "logprobs", "top_logprobs", "return_token_ids"),
    ]
)
"""Request fields that a job sets itself, or that would change the response's form."""
_CHANGE_THE_PROMPT = frozenset(
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
"""Request fields with which the server would render another prompt than the rows record."""
NOT_FOR_TEMPLATES = frozenset(
    [
        *("self", "conversation", "conversations", "messages", "tools", "chat_template", "add_generation_prompt"),
        *("continue_final_message", "tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length"),
        *("return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "kwargs"),
    ]
)
"""Names that `chat_template_kwargs` must not have: parameters of transformers' `apply_chat_template`, and variables
that the server itself sets (`messages`, `tools`). `documents` is allowed: it is passed on to the template."""


def _is_unset(value: object) -> bool:
    return value is None or value in ((), {})


def _check_top_k(value: int) -> int:
    # vLLM takes 0 as "all", too, other servers refuse it: -1 means the same everywhere.
    if value != -1 and value < 1:
        raise ValueError("must be -1, for all tokens, or at least 1")
    return value


def _check_stops(texts: tuple[str, ...]) -> tuple[str, ...]:
    if len(texts) > _MAX_STOPS:
        raise ValueError(f"{len(texts)} texts are too many: give at most {_MAX_STOPS}")
    if not all(texts):
        raise ValueError("an empty text would end every completion before it begins: leave it out")
    return texts


def _check_extra_body(fields: dict[str, Any]) -> dict[str, Any]:
    for name in fields:
        if name in _CHANGE_THE_PROMPT:
            raise ValueError(f"{name} would make another prompt than the rows record: leave it out")
        if name in _FIELDS_WITH_FLAG:
            raise ValueError(f"{name} has a flag of its own: give --{name}")
        if name in _FIXED_BY_JOB:
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
    """Sampling parameters of a model; part of a run's identity.

    `temperature`, `top_p`, `max_tokens` and the seed are always sent. Other parameters, if they are not set, are in
    neither the identity nor the requests: the server's defaults apply. vLLM's come from the model's
    `generation_config.json`, unless it is started with `--generation-config vllm`.
    """

    # Every command line imports this model: its validator is built when it is first used.
    model_config = ConfigDict(frozen=True, defer_build=True)

    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=1024, gt=0)
    seed: int = 0
    top_k: TopK | None = Field(default=None, exclude_if=_is_unset)
    """Number of most likely tokens to sample from; -1 for all."""
    min_p: float | None = Field(default=None, ge=0, le=1, exclude_if=_is_unset)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, exclude_if=_is_unset)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, exclude_if=_is_unset)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10, exclude_if=_is_unset)
    stop: Stops = Field(default=(), exclude_if=_is_unset)
    """Strings that end a completion; they are not part of it."""
    reasoning_effort: str | None = Field(default=None, min_length=1, max_length=64, exclude_if=_is_unset)
    chat_template_kwargs: ChatTemplateArguments = Field(default={}, exclude_if=_is_unset)
    extra_body: ExtraBody = Field(default={}, exclude_if=_is_unset)
    """Further fields of requests."""

    def request_fields(self) -> dict[str, Any]:
        """Return the sampling fields of a chat request, without the seed, which differs in each request."""
        return self.model_dump(exclude={"seed", "extra_body"}) | self.extra_body

    def with_recommended(self, recommended: Mapping[str, float], set_by_user: Iterable[str]) -> Sampling:
        """Return the sampling with a model's recommended values, except for the parameters that the user has set.

        The server cannot do this: `temperature` and `top_p` are always sent, so its own defaults never apply to them.
        Raises `InputError` for a value that requests cannot have.
        """
        names = frozenset(set_by_user)
        replaced = {name: value for name, value in recommended.items() if name not in names}
        try:
            return type(self).model_validate({**self.model_dump(), **replaced})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise InputError(
                f"generation_config.json recommends {first['loc'][0]} {first['input']}: {first['msg']}: give "
                f"--{first['loc'][0]}"
            ) from None


_ALWAYS_SENT = ("temperature", "top_p", "max_tokens", "seed")
OPTIONAL_FIELDS = tuple(name for name in Sampling.model_fields if name not in _ALWAYS_SENT)
"""The sampling parameters that may stay unset."""


def stop_texts(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the stop strings of a request, which may be of any client: what is not a string is ignored."""
    stop = body.get("stop")
    if isinstance(stop, str):
        return (stop,)
    return tuple(text for text in stop if isinstance(text, str)) if isinstance(stop, list | tuple) else ()


def request_context(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a request's chat template besides the messages, as a rollout's row records them.

    These are `tools` and `chat_template_kwargs`, each left out where it is empty. `reasoning_effort` becomes a template
    argument, as in vLLM and SGLang. vLLM also derives `enable_thinking` from it, which is recorded whatever the server:
    templates without that argument ignore it.
    """
    arguments = dict(body.get("chat_template_kwargs") or {})
    effort = body.get("reasoning_effort")
    if effort is not None:
        # An explicit `enable_thinking` wins over the derived one, the request's own effort over the argument.
        arguments = {"enable_thinking": effort != "none", **arguments, "reasoning_effort": effort}
    fields = {"tools": body.get("tools"), "chat_template_kwargs": arguments}
    return {name: value for name, value in fields.items() if value}
