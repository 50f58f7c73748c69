"""The journal row of an episode."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rollmill.records import Message, Rollout


class EpisodeTurn(BaseModel):
    """One agent's turn in an episode."""

    model_config = ConfigDict(frozen=True)

    agent_name: str
    policy_name: str
    turn_idx: int
    """Round over the turn order, from 0."""
    first: int
    end: int
    """The turn's prompt is `messages[first:end - 1]` of the episode, the agent's answer `messages[end - 1]`."""
    reward: float | None = Field(allow_inf_nan=False)
    """Reward of the step; None where the environment failed on the answer."""
    seed: int
    finish_reason: str | None = None
    info: dict[str, Any] = Field(default_factory=dict)
    """The environment's information on the step."""
    tools: list[Any] | None = Field(default=None, exclude_if=lambda value: value is None)
    chat_template_kwargs: dict[str, Any] | None = Field(default=None, exclude_if=lambda value: value is None)
    """As in `Rollout`, for this turn: only where they differ between turns, so that the row has none."""


class EpisodeRollout(Rollout):
    """One episode: `instance_id` is its problem, `sample_id` its number among the episodes of the problem.

    `messages` has every turn's prompt and answer, one turn after the other; `completion` is null. `reward` is 1 for
    success, else 0; the agents' rewards are in `turns`. `latency_s` are the seconds of the whole episode.
    `finish_reason` is that of the last answer.
    """

    env_name: str
    turns: list[EpisodeTurn]

    def turn_context(self, turn: EpisodeTurn) -> dict[str, Any]:
        """Return the chat template's other inputs for a turn: `tools` and `chat_template_kwargs`."""
        fields = {name: getattr(turn, name) or getattr(self, name) for name in ("tools", "chat_template_kwargs")}
        return {name: value for name, value in fields.items() if value}

    def is_reasoning_only(self, turn: EpisodeTurn) -> bool:
        """Return whether the agent's answer is reasoning alone, without content or calls."""
        answer = self.messages[turn.end - 1]
        content = answer.get("content")
        has_answer = not isinstance(content, str) or content.strip() or answer.get("tool_calls")
        return bool(answer.get("reasoning_content")) and not has_answer

    def turn_messages(self, turn: EpisodeTurn) -> list[Message]:
        """Return a turn's conversation: the agent's prompt, and its answer."""
        return self.messages[turn.first : turn.end]
