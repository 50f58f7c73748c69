"""The record types that travel between rooms and stand in files.

Everything here serialises to valid JSON: a float that is not finite becomes null, with a reason beside it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[1] = 1

Message = dict[str, Any]
"""One chat message: `role`, and `content` as text or as a list of parts (`text`, or `image` with a file's path)."""


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
    reward: float | None = Field(allow_inf_nan=False)
    success: bool | None
    verdict: Verdict | None
    error: Failure | None
    usage: Usage = Usage()
    latency_s: float | None = None
    """Seconds from sending the request that succeeded to the end of its answer; None where none did."""
    finish_reason: str | None = None
    model_calls: int = 0
    """Requests sent, retries included."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    run_identity: str | None = Field(default=None, exclude=True)
    """The first 16 digits of the identity of the run whose journal holds the row; the journal writes it, as the row's
    last field. None in rows of older versions, and outside of journals."""

    @property
    def status(self) -> Literal["ok", "unparseable", "failed"]:
        """How the rollout is counted."""
        return self.verdict.status if self.verdict else "failed" if self.error else "ok"
