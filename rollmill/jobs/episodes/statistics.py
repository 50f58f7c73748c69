"""Statistics of a run's episodes, and notes on them for the user."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rollmill.generation.failures import failure_note
from rollmill.jobs.episodes.selection import Episode, Row
from rollmill.records import is_cut_off
from rollmill.statistics.failures import FailureWords

_MANY_TRUNCATED = 0.2


class AgentStatistics(BaseModel):
    """Statistics of one agent's turns."""

    policy_name: str
    turns: int = 0
    rows: int = 0
    """Turns that were kept."""
    reward_sum: float = Field(default=0.0, exclude=True)
    judged: int = Field(default=0, exclude=True)
    mean_reward: float | None = None
    """Mean over the turns that have a reward."""
    truncated: int = 0
    """Answers that were cut off by --max_tokens."""

    def add(self, row: Row) -> None:
        """Count one turn."""
        self.turns += 1
        if row.left_out is None:
            self.rows += 1
        if is_cut_off(row.turn.finish_reason):
            self.truncated += 1
        if row.turn.reward is not None:
            self.reward_sum += row.turn.reward
            self.judged += 1
            self.mean_reward = self.reward_sum / self.judged


class EpisodeStatistics(BaseModel):
    """Statistics of a run: `sft_data_<time>_stats.json`."""

    model_config = ConfigDict(validate_assignment=False)

    env_name: str
    wanted: int
    """Episodes of the whole run."""
    episodes: int = 0
    """Episodes that were played, completely or up to an error."""
    successes: int = 0
    unsuccessful: int = 0
    failed: int = 0
    """Episodes that ended with an error: neither successful nor unsuccessful."""
    errors: dict[str, int] = {}
    """Number of errors, by type."""
    failed_words: list[FailureWords] = []
    """Number of errors by message, most frequent first."""
    turns: int = 0
    rows: int = 0
    """Turns that were kept: lines of the data file."""
    left_out: dict[str, int] = {}
    """Turns that were left out, by reason."""
    agents: dict[str, AgentStatistics] = {}
    model_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    data_file: str = ""
    selection: dict[str, Any] = {}

    @property
    def success_rate(self) -> float | None:
        """Share of successes among the episodes without an error; None where there is no such episode."""
        judged = self.successes + self.unsuccessful
        return self.successes / judged if judged else None

    def add_episode(self, episode: Episode) -> None:
        """Count one episode."""
        rollout = episode.rollout
        self.episodes += 1
        if rollout.success is True:
            self.successes += 1
        elif rollout.success is False:
            self.unsuccessful += 1
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
        """Return the statistics as in the file."""
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
        """Return notes on what a user should look at."""
        notes = []
        if self.failed:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.errors.items())
            notes.append(f"{self.failed} episodes failed on the way ({kinds}); --retry failed plays just those again")
            note = failure_note(self.failed_words, self.episodes, "episodes")
            notes += [note] if note else []
        if self.episodes and not self.rows:
            notes.append(f"no row was kept: {self._no_row_reason()}")
        for name, agent in self.agents.items():
            if agent.truncated > _MANY_TRUNCATED * agent.turns:
                share = agent.truncated / agent.turns
                notes.append(f"{share:.0%} of the answers of {name} were cut off: raise --max_tokens")
        return notes

    def _no_row_reason(self) -> str:
        if self.successes:
            return "no agent of --keep_agents acted in an episode that succeeded"
        if self.selection.get("only_success") and self.unsuccessful:
            return "no episode succeeded; --no_successful_only keeps the others, too"
        return "; ".join(f"{count} x {reason}" for reason, count in self.left_out.items()) or "nothing was played"
