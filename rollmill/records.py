"""The record types that are passed between packages and written to files: problems, verdicts, rollouts.

All of them serialize to valid JSON: a float that is not finite becomes null, with a reason in another field.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION: Literal[1] = 1

Message = dict[str, Any]
"""One chat message: `role`, and `content` as text or as a list of parts (`text`, or `image` with a file's path).

Assistant messages that a model wrote may also have `reasoning_content`; `tool_calls` in OpenAI's format, with each
call's `arguments` as the text that the server sent; `finish_reason` as the server sent it; and `stop_text`, see
`Rollout`.
"""

PREFERENCE, REJECTED = "preference", "rejected"
"""Metadata key of a rollout that is one side of a preference pair, and its value for the rejected side."""


def _is_none(value: object) -> bool:
    return value is None


def _is_empty(value: tuple[object, ...]) -> bool:
    return not value


_CUT_OFF = re.compile(
    r"(finish(ed)?_(reason_)?)?((exceeded_)?(length(_limit|_capped)?|max_length|"
    r"max(imum)?(_(new|output|completion))?_tokens|max_(model|seq)_len|token_limit|"
    r"model_length|((model|max)_)?context_(length|window|limit))(_exceeded|_reached)?|(error_)?limit|truncated|"
    r"incomplete|cut_?off)"
)


def is_cut_off(finish_reason: object) -> bool:
    """Return whether a finish reason means that a token limit cut the completion off, in any server's terms.

    Known names: OpenAI's chat completions, vLLM, SGLang, TGI, DeepSeek `length`; Responses `max_output_tokens`,
    `incomplete`; Anthropic `max_tokens`, `model_context_window_exceeded`; Gemini and Cohere `MAX_TOKENS`, as text of
    an enumeration `FinishReason.MAX_TOKENS`; Mistral `model_length`; llama.cpp `limit`; Azure `TokenLimitReached`;
    Vertex `FINISH_REASON_MAX_TOKENS`; Cohere's `ERROR_LIMIT`; `max_tokens_exceeded`, `length_limit` of gateways.
    """
    if not isinstance(finish_reason, str):
        return False
    name = finish_reason.rpartition(".")[2]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s-]+", "_", name.strip())
    return _CUT_OFF.fullmatch(words.lower()) is not None


class Image(BaseModel):
    """An image in a prompt, stored as a file."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Path relative to the folder of `problems.jsonl` (the run directory), so that a run can be moved."""
    media_type: str
    """`image/png`, `image/jpeg`, ..., detected from the content, not from the file's name."""
    sha256: str


class Problem(BaseModel):
    """One problem: a prompt, with the ground truth that its completions are verified against."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    instance_id: str
    prompt: str | list[Message]
    """The question as text, or as chat messages."""
    answer: str | None = None
    """Ground truth as text; None where the row has none: the verifier may use `fields`."""
    equivalent_answers: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)
    """Further ground truths that are equally right, without `answer`, the first of the row's list. Left out where there
    are none."""
    images: tuple[Image, ...] = ()
    fields: dict[str, Any] = Field(default_factory=dict)
    """The row's other columns, for prompt templates and verifiers."""


class Verdict(BaseModel):
    """A verifier's judgement of one completion."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True)

    verifier: str
    """Name and version, such as `numeric@1`."""
    status: Literal["ok", "unparseable"]
    """`ok`: an answer was found and judged. `unparseable`: the completion contains no answer that can be judged."""
    answer: str | None = None
    """The answer that was extracted from the completion."""
    distance: float | None = Field(
        default=None,
        allow_inf_nan=False,
        validation_alias=AliasChoices("distance", "error"),
        serialization_alias="error",
    )
    """Distance to the ground truth, 0 for a right answer; None where there is none. Its key in files is `error`."""
    reason: str | None = None
    """Why the completion is unparseable, or the verifier's explanation."""
    reward: float = Field(allow_inf_nan=False)
    success: bool
    metadata: dict[str, Any] | None = Field(default=None, exclude_if=lambda value: value is None)
    """Further data of the verifier: of several verifiers each one's verdict, of a judge its response and tokens."""

    @property
    def error(self) -> float | None:
        """Return `distance` by its earlier name, which verifiers of users may read."""
        return self.distance


class Failure(BaseModel):
    """The reason why a rollout has no verdict, which is never the model's fault."""

    model_config = ConfigDict(frozen=True)

    type: str
    """A word by which failures are counted: `timeout`, `http_400`, `malformed_response`, `verifier_raised`, ..."""
    message: str


RolloutError = Failure
"""The earlier name."""


class Usage(BaseModel):
    """Tokens of one rollout as the server counted them."""

    model_config = ConfigDict(frozen=True)

    prompt_tokens: int = 0
    completion_tokens: int = 0


class TokenLocation(BaseModel):
    """The location of a rollout's tokens: a token file next to its journal, and the byte offset of the record.

    Rows derived from a rollout (documents, training rows) have no offset, since it depends on when the rollout was
    finished; the other fields identify the record and the part of it that belongs to the row. A journal's row has file
    and offset only.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    """Relative to the folder of the file that the row is in, or absolute."""
    offset: int | None = Field(default=None, exclude_if=_is_none)
    """None for the latest record of the rollout."""
    instance_id: str | None = Field(default=None, exclude_if=_is_none)
    """The rollout's in its journal, where the row has another one."""
    sample_id: int | None = Field(default=None, exclude_if=_is_none)
    calls: tuple[int, ...] | None = Field(default=None, exclude_if=_is_none)
    """Indices of the calls that the row's last assistant messages come from, negative from the end; None for all.
    Negative ones beyond the first call belong to assistant messages that were part of the prompt."""
    digest: str | None = Field(default=None, exclude_if=_is_none)
    """Digest of the row's text when the location was written, see `row_digest`; None: the record's digest applies."""
    other_prompt: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether the row's prompt differs from the one that the model was given: then only its completions are trained on.
    """


class Rollout(BaseModel):
    """One attempt at one problem: one line of a journal.

    A rollout has either a verdict or an error, or neither where nothing is verified, as in q* sampling. `reward` and
    `success` are the verdict's, and null where there is none: a failure outside the model is not a wrong answer.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    instance_id: str
    sample_id: int
    """Index of the rollout among those of the problem, from 0."""
    seed: int
    messages: list[Message]
    """The prompt as chat messages."""
    completion: str | None
    reasoning_content: str | None = Field(default=None, exclude_if=_is_none)
    """Reasoning before the completion, where the server separates it. Left out where there is none."""
    tool_calls: list[Any] | None = Field(default=None, exclude_if=_is_none)
    """Tool calls of the completion in OpenAI's format, `arguments` as the server sent them. Left out where there are
    none."""
    tools: list[Any] | None = Field(default=None, exclude_if=_is_none)
    """The tools in every request, in OpenAI's format. Left out where there were none."""
    chat_template_kwargs: dict[str, Any] | None = Field(default=None, exclude_if=_is_none)
    """Arguments of the server's chat template, as they were sent. Left out where there were none."""
    tokens: TokenLocation | None = Field(default=None, exclude_if=_is_none)
    """Location of the sampled tokens. Left out where they are not recorded."""
    reward: float | None = Field(allow_inf_nan=False)
    success: bool | None
    verdict: Verdict | None
    error: Failure | None
    usage: Usage = Usage()
    latency_s: float | None = None
    """Seconds from sending the successful request to the end of its response; None where none succeeded."""
    finish_reason: str | None = None
    stop_text: str | None = Field(default=None, exclude_if=_is_none)
    """The stop string that ended the completion, so that there is no end token; empty where stop strings were given and
    the server does not report what ended it. Left out where an end token or the token limit ended it."""
    model_calls: int = 0
    """Requests sent, retries included."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    run_identity: str | None = Field(default=None, exclude=True)
    """The first 16 digits of the identity hash of the run, which the journal appends to each row. None in rows of older
    versions, and outside of journals."""

    @model_validator(mode="before")
    @classmethod
    def _read_older_names(cls, row: Any) -> Any:
        return _move_tool_calls(name_reasoning(row)) if isinstance(row, dict) else row

    @property
    def status(self) -> Literal["ok", "unparseable", "failed"]:
        """Return the verdict's status; without a verdict `failed` for an error, otherwise `ok`."""
        if self.verdict:
            return self.verdict.status
        return "failed" if self.error else "ok"


def _move_tool_calls(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with `tool_calls` where older versions of rejection sampling wrote `metadata.tool_calls`."""
    metadata = row.get("metadata")
    if not (isinstance(metadata, dict) and isinstance(metadata.get("tool_calls"), list)) or "tool_calls" in row:
        return row
    others = {key: value for key, value in metadata.items() if key != "tool_calls"}
    return row | {"tool_calls": metadata["tool_calls"], "metadata": others}


def name_reasoning(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with `reasoning_content` where older versions wrote other keys; the argument is not changed.

    Rejection sampling wrote `metadata.reasoning`, episodes `reasoning` in the assistant's messages.
    """
    metadata, messages = row.get("metadata"), row.get("messages")
    if isinstance(metadata, dict) and isinstance(metadata.get("reasoning"), str) and "reasoning_content" not in row:
        others = {key: value for key, value in metadata.items() if key != "reasoning"}
        row = row | {"reasoning_content": metadata["reasoning"], "metadata": others}
    if isinstance(messages, list) and any(map(_has_older_reasoning, messages)):
        row = row | {"messages": [_rename_reasoning(message) for message in messages]}
    return row


def _has_older_reasoning(message: object) -> bool:
    return (
        isinstance(message, dict)
        and message.get("role") == "assistant"
        and isinstance(message.get("reasoning"), str)
        and "reasoning_content" not in message
    )


def _rename_reasoning(message: Any) -> Any:
    if not _has_older_reasoning(message):
        return message
    return {"reasoning_content" if key == "reasoning" else key: value for key, value in message.items()}
