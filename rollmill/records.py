"""The record types that travel between rooms and stand in files.

Everything here serialises to valid JSON: a float that is not finite becomes null, with a reason beside it.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION: Literal[1] = 1

Message = dict[str, Any]
"""One chat message: `role`, and `content` as text or as a list of parts (`text`, or `image` with a file's path).

What the model wrote in an assistant's message may have besides: `reasoning_content`, the thoughts before the content;
`tool_calls` in OpenAI's form, each call's `arguments` the text that the server sent; `finish_reason`, the server's;
`stop_text`, as `Rollout` has it.
"""

PREFERENCE, REJECTED = "preference", "rejected"
"""Of a rollout that is one side of a preference: the key of its metadata that says which, and the worse one's name."""


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
    """Tell whether a finish reason says that the answer was cut off at a limit on tokens, under any server's name.

    Names: OpenAI's chat completions, vLLM, SGLang, TGI, DeepSeek `length`; Responses `max_output_tokens`,
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
    """An image that belongs to a prompt: the file that holds its bytes, and what they are."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Path of the file, relative to the folder of `problems.jsonl` (the run directory): a run can be moved."""
    media_type: str
    """`image/png`, `image/jpeg`, ..., found from the bytes, not from the file's name."""
    sha256: str


class Problem(BaseModel):
    """One thing to solve."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    instance_id: str
    prompt: str | list[Message]
    """The question as text, or as the chat messages that the data set holds."""
    answer: str | None = None
    """Ground truth as text, or the answer that the data set's messages end with; None where there is none of its own:
    the verifier may find it in `fields`."""
    equivalent_answers: tuple[str, ...] = Field(default=(), exclude_if=_is_empty)
    """Further ground truths, each as right as `answer`, which is the first of the data set's list and not among these.
    Left out where there are none."""
    images: tuple[Image, ...] = ()
    fields: dict[str, Any] = Field(default_factory=dict)
    """The row's other columns, for prompt templates and verifiers."""


class Verdict(BaseModel):
    """What a verifier saw in one completion."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True)

    verifier: str
    """Name and version, such as `numeric@1`."""
    status: Literal["ok", "unparseable"]
    """`ok`: an answer was found and judged. `unparseable`: the completion holds no answer that can be judged."""
    answer: str | None = None
    """The answer as it was read from the completion."""
    distance: float | None = Field(
        default=None,
        allow_inf_nan=False,
        validation_alias=AliasChoices("distance", "error"),
        serialization_alias="error",
    )
    """Distance to the ground truth, 0 for a right answer; None where there is none. In files its key is `error`."""
    reason: str | None = None
    """Why the completion is unparseable, or what the verifier wants to say."""
    reward: float = Field(allow_inf_nan=False)
    success: bool
    metadata: dict[str, Any] | None = Field(default=None, exclude_if=lambda value: value is None)
    """What else the verifier recorded: of several verifiers each one's verdict, of a judge its words and tokens."""

    @property
    def error(self) -> float | None:
        """The earlier name of `distance`, which verifiers of users may read."""
        return self.distance


class Failure(BaseModel):
    """Why a rollout has no verdict: never the model's fault."""

    model_config = ConfigDict(frozen=True)

    type: str
    """A word to count by: `timeout`, `connection`, `http_400`, `malformed_response`, `verifier_raised`, ..."""
    message: str


RolloutError = Failure
"""The earlier name."""


class Usage(BaseModel):
    """Tokens of one rollout as the server counted them."""

    model_config = ConfigDict(frozen=True)

    prompt_tokens: int = 0
    completion_tokens: int = 0


class TokenLocation(BaseModel):
    """Where the tokens of a rollout are: a file beside its journal, and the byte at which the record begins.

    Rows that were made of a rollout (documents, training rows) leave out the byte, which depends on when the rollout
    was done, and say by the other fields what of the record is theirs; a journal's row leaves those out.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    """Relative to the folder of the file that the row is in, or absolute."""
    offset: int | None = Field(default=None, exclude_if=_is_none)
    """None for the latest record of the rollout."""
    instance_id: str | None = Field(default=None, exclude_if=_is_none)
    """Of the rollout in its journal, where the row has another name for the problem."""
    sample_id: int | None = Field(default=None, exclude_if=_is_none)
    calls: tuple[int, ...] | None = Field(default=None, exclude_if=_is_none)
    """Which calls the row's last answers come from, by index, negative from the end; None for all. Negative ones that
    are not there are answers that stood in the prompt."""
    digest: str | None = Field(default=None, exclude_if=_is_none)
    """Of the row's text as it was when the location was written, see `row_digest`; None: as the record says."""
    other_prompt: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether the row asks in another way than the model was asked, so that only what it wrote is to be learnt."""


class Rollout(BaseModel):
    """One attempt at one problem: one line of a journal.

    A rollout has either a verdict or an error, or neither where nobody verifies: samples that are drawn as training
    data. `reward` and `success` are the verdict's, and null where there is none: what failed outside is not a wrong
    answer.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    instance_id: str
    sample_id: int
    """0-based within the problem."""
    seed: int
    messages: list[Message]
    """The conversation that the completion answers."""
    completion: str | None
    reasoning_content: str | None = Field(default=None, exclude_if=_is_none)
    """The model's thoughts before the completion, where the server tells them apart. Left out where there are none."""
    tool_calls: list[Any] | None = Field(default=None, exclude_if=_is_none)
    """What the completion calls, in OpenAI's form, `arguments` as the server sent them. Left out where nothing."""
    tools: list[Any] | None = Field(default=None, exclude_if=_is_none)
    """The tools that were sent with every request, in OpenAI's form. Left out where there were none."""
    chat_template_kwargs: dict[str, Any] | None = Field(default=None, exclude_if=_is_none)
    """What the server gave its chat template besides, as it was sent. Left out where nothing was."""
    tokens: TokenLocation | None = Field(default=None, exclude_if=_is_none)
    """The tokens that were sampled. Left out where they are not recorded."""
    reward: float | None = Field(allow_inf_nan=False)
    success: bool | None
    verdict: Verdict | None
    error: Failure | None
    usage: Usage = Usage()
    latency_s: float | None = None
    """Seconds from sending the request that succeeded to the end of its answer; None where none did."""
    finish_reason: str | None = None
    stop_text: str | None = Field(default=None, exclude_if=_is_none)
    """The text of `stop` that ended the completion, so that the model wrote no end; empty where there were such texts
    and the server does not say what ended it. Left out where the model ended it, or the limit on tokens."""
    model_calls: int = 0
    """Requests sent, retries included."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    run_identity: str | None = Field(default=None, exclude=True)
    """The first 16 digits of the identity of the run whose journal holds the row; the journal writes it, as the row's
    last field. None in rows of older versions, and outside of journals."""

    @model_validator(mode="before")
    @classmethod
    def _read_older_names(cls, row: Any) -> Any:
        return _raise_calls(name_reasoning(row)) if isinstance(row, dict) else row

    @property
    def status(self) -> Literal["ok", "unparseable", "failed"]:
        """How the rollout is counted."""
        return self.verdict.status if self.verdict else "failed" if self.error else "ok"


def _raise_calls(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with `tool_calls` where older versions of rejection sampling wrote `metadata.tool_calls`."""
    metadata = row.get("metadata")
    if not (isinstance(metadata, dict) and isinstance(metadata.get("tool_calls"), list)) or "tool_calls" in row:
        return row
    others = {key: value for key, value in metadata.items() if key != "tool_calls"}
    return row | {"tool_calls": metadata["tool_calls"], "metadata": others}


def name_reasoning(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with `reasoning_content` where older versions wrote other names; the row itself stays as it is.

    Rejection sampling wrote `metadata.reasoning`, episodes `reasoning` in the assistant's messages.
    """
    metadata, messages = row.get("metadata"), row.get("messages")
    if isinstance(metadata, dict) and isinstance(metadata.get("reasoning"), str) and "reasoning_content" not in row:
        others = {key: value for key, value in metadata.items() if key != "reasoning"}
        row = row | {"reasoning_content": metadata["reasoning"], "metadata": others}
    if isinstance(messages, list) and any(map(_has_older_reasoning, messages)):
        row = row | {"messages": [_renamed(message) for message in messages]}
    return row


def _has_older_reasoning(message: object) -> bool:
    return (
        isinstance(message, dict)
        and message.get("role") == "assistant"
        and isinstance(message.get("reasoning"), str)
        and "reasoning_content" not in message
    )


def _renamed(message: Any) -> Any:
    if not _has_older_reasoning(message):
        return message
    return {"reasoning_content" if key == "reasoning" else key: value for key, value in message.items()}
