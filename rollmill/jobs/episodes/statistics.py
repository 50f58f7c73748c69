"""Honest counts of a run's episodes, and what they say to its user."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rollmill.generation.failures import failure_note
from rollmill.jobs.episodes.selection import Episode, Row
from rollmill.records import is_cut_off
from rollmill.statistics.failures import FailureWords

_MANY_TRUNCATED = 0.2


class AgentStatistics(BaseModel):
    """One agent's turns."""

    policy_name: str
    turns: int = 0
    rows: int = 0
    """Turns that were kept."""
    reward_sum: float = Field(default=0.0, exclude=True)
    judged: int = Field(default=0, exclude=True)
    mean_reward: float | None = None
    """Over turns that have a reward."""
    truncated: int = 0
    """Answers that were cut off by --max_tokens."""

    def add(self, row: Row) -> None:
        """Count one turn."""
        self.turns += 1
        self.rows += row.left_out is None
        self.truncated += is_cut_off(row.turn.finish_reason)
        if row.turn.reward is not None:
            self.reward_sum += row.turn.reward
            self.judged += 1
            self.mean_reward = self.reward_sum / self.judged


class EpisodeStatistics(BaseModel):
    """`sft_data_<time>_stats.json`."""

    model_config = ConfigDict(validate_assignment=False)

    env_name: str
    wanted: int
    """Episodes of the whole run."""
    episodes: int = 0
    """Those that were played, to their end or to what broke them off."""
    successes: int = 0
    unsuccessful: int = 0
    failed: int = 0
    """Broken off on the way: neither a success nor none."""
    errors: dict[str, int] = {}
    """What broke episodes off, by type."""
    failed_words: list[FailureWords] = []
    """The same by words, the commonest first."""
    turns: int = 0
    rows: int = 0
    """Turns that were kept: lines of the data file."""
    left_out: dict[str, int] = {}
    """Turns that were not, by reason."""
    agents: dict[str, AgentStatistics] = {}
    model_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    data_file: str = ""
    selection: dict[str, Any] = {}

    @property
    def success_rate(self) -> float | None:
        """Return the share of successes among episodes that were played to their end; None where there is none."""
        judged = self.successes + self.unsuccessful
        return self.successes / judged if judged else None

    def add_episode(self, episode: Episode) -> None:
        """Count one episode."""
        rollout = episode.rollout
        self.episodes += 1
        self.successes += rollout.success is True
        self.unsuccessful += rollout.success is False
        if rollout.error is not None:
            self.failed += 1
            self.errors[rollout.error.type] = self.errors.get(rollout.error.type, 0) + 1
        self.model_calls += rollout.model_calls
        self.prompt_tokens += rollout.usage.prompt_tokens
        self.completion_tokens += rollout.usage.completion_tokens

    def add_row(self, row: Row) -> None:
        """Count one turn."""
        self.turns += 1
        if row.left_out is None:
            self.rows += 1
        else:
            self.left_out[row.left_out] = self.left_out.get(row.left_out, 0) + 1
        agent = self.agents.setdefault(row.turn.agent_name, AgentStatistics(policy_name=row.turn.policy_name))
        agent.add(row)

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as they stand in the file."""
        return {**self.model_dump(mode="json"), "success_rate": self.success_rate}

    def table(self) -> list[dict[str, str]]:
        """Return one line per agent."""
        return [
            {
                "agent": name,
                "policy": agent.policy_name,
                "turns": f"{agent.turns:,}",
                "rows kept": f"{agent.rows:,}",
                "mean reward": "-" if agent.mean_reward is None else f"{agent.mean_reward:.3f}",
                "truncated": f"{agent.truncated:,}",
            }
            for name, agent in self.agents.items()
        ]

    def notes(self) -> list[str]:
        """Return the lines that a user should look at."""
        notes = []
        if self.failed:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.errors.items())
            notes.append(f"{self.failed} episodes failed on the way ({kinds}); --retry failed plays just those again")
            note = failure_note(self.failed_words, self.episodes, "episodes")
            notes += [note] if note else []
        if self.episodes and not self.rows:
            notes.append(f"no row was kept: {self._why_none()}")
        for name, agent in self.agents.items():
            if agent.truncated > _MANY_TRUNCATED * agent.turns:
                share = agent.truncated / agent.turns
                notes.append(f"{share:.0%} of the answers of {name} were cut off: raise --max_tokens")
        return notes

    def _why_none(self) -> str:
        if self.successes:
            return "no agent of --keep_agents acted in an episode that succeeded"
        if self.selection.get("only_success") and self.unsuccessful:
            return "no episode succeeded; --no_successful_only keeps the others, too"
        return "; ".join(f"{count} x {reason}" for reason, count in self.left_out.items()) or "nothing was played"
