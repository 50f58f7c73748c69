"""The journal's row of one episode."""

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
    """0-based round over the turn order."""
    first: int
    end: int
    """The turn's prompt is `messages[first:end - 1]` of the episode, the agent's answer `messages[end - 1]`."""
    reward: float | None = Field(allow_inf_nan=False)
    """None where the environment failed on the answer."""
    seed: int
    finish_reason: str | None = None
    info: dict[str, Any] = Field(default_factory=dict)
    """What the environment saw in the answer."""
    tools: list[Any] | None = Field(default=None, exclude_if=lambda value: value is None)
    chat_template_kwargs: dict[str, Any] | None = Field(default=None, exclude_if=lambda value: value is None)
    """As `Rollout` has them: of a turn where they are not the same in all turns, and the row has none."""


class EpisodeRollout(Rollout):
    """One episode: its problem is `instance_id`, its number there `sample_id`.

    `messages` holds every turn's prompt and answer, one turn after the other; `completion` is null. `reward` is 1 for
    success, else 0; the agents' own stand in `turns`. `latency_s`: seconds of the whole episode. `finish_reason`: of
    the last answer.
    """

    env_name: str
    turns: list[EpisodeTurn]

    def turn_context(self, turn: EpisodeTurn) -> dict[str, Any]:
        """Return what a turn's prompt was rendered with beside its messages: `tools`, `chat_template_kwargs`."""
        fields = {name: getattr(turn, name) or getattr(self, name) for name in ("tools", "chat_template_kwargs")}
        return {name: value for name, value in fields.items() if value}

    def is_reasoning_only(self, turn: EpisodeTurn) -> bool:
        """Tell whether the agent thought and said nothing: an empty answer."""
        answer = self.messages[turn.end - 1]
        content = answer.get("content")
        said = not isinstance(content, str) or content.strip() or answer.get("tool_calls")
        return bool(answer.get("reasoning_content")) and not said

    def turn_messages(self, turn: EpisodeTurn) -> list[Message]:
        """Return a turn's conversation: what the agent was shown, and what it said."""
        return self.messages[turn.first : turn.end]
