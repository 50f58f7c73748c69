"""Selects the turns of episodes that become training rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from rollmill.generation.identity import rollout_seed
from rollmill.generation.row_digest import row_digest
from rollmill.generation.run import Run
from rollmill.jobs.episodes.record import EpisodeRollout, EpisodeTurn
from rollmill.records import Message, TokenLocation, is_cut_off

FAILED = "episode failed on the way"
UNSUCCESSFUL = "episode did not succeed"
UNBALANCED = "episode left out for balance"
OTHER_AGENT = "other agent"
TRUNCATED = "answer was cut off"
REASONING_ONLY = "answer is thoughts alone"


class Selection(BaseModel):
    """The user's rules for the turns to keep."""

    model_config = ConfigDict(frozen=True)

    only_success: bool = True
    """Keep only successful episodes: all turns of an episode, or none."""
    agents: tuple[str, ...] = ()
    """Keep only the turns of these agents; empty for all."""
    balance_success: bool = False
    """Keep equal numbers of successful and unsuccessful episodes: of the larger group, a part that the seed selects."""
    seed: int = 0
    keep_truncated: bool = False
    """Also keep answers that were cut off; their rows are marked `truncated`."""


class Episode(NamedTuple):
    """One episode of a run."""

    env_idx: int
    """Number of its problem in the run, from 0."""
    rollout: EpisodeRollout


class Row(NamedTuple):
    """One turn, as a training row or as left out."""

    episode: Episode
    turn: EpisodeTurn
    left_out: str | None
    """The reason why it is left out; None for a training row."""

    def to_json(self, tokens: TokenLocation | None = None) -> dict[str, Any]:
        """Return the training row; `tokens` is the location of the episode's token ids, if known."""
        rollout, turn = self.episode.rollout, self.turn
        row: dict[str, Any] = {
            "messages": _messages(rollout.turn_messages(turn)),
            **rollout.turn_context(turn),
            "metadata": {
                "agent_name": turn.agent_name,
                "policy_name": turn.policy_name,
                "reward": turn.reward,
                "env_success": rollout.success,
                "env_name": rollout.env_name,
                "env_idx": self.episode.env_idx,
                "rollout_idx": rollout.sample_id,
                "turn_idx": turn.turn_idx,
                "instance_id": rollout.instance_id,
                **({"truncated": True} if is_cut_off(turn.finish_reason) else {}),
                **({"no_end": True} if "stop_text" in rollout.messages[turn.end - 1] else {}),
            },
        }
        if tokens is not None:
            row["metadata"]["tokens"] = self._tokens_of_turn(tokens) | {"digest": row_digest(row)}
        return row

    def _tokens_of_turn(self, tokens: TokenLocation) -> dict[str, Any]:
        """Return the location of the turn's tokens: an episode has one model call for each turn, in order."""
        rollout = self.episode.rollout
        identity = {"instance_id": rollout.instance_id, "sample_id": rollout.sample_id}
        return tokens.model_copy(update={**identity, "calls": (rollout.turns.index(self.turn),)}).model_dump(
            mode="json"
        )


def _messages(turn: Sequence[Message]) -> list[Message]:
    """Return a turn's messages for training: earlier answers with weight 0, all without `finish_reason`.

    Each earlier answer is trained on in the row of its own turn, behind the prompt that it had there.
    """
    context = [
        _without_finish_reason(message) | ({"weight": 0} if message["role"] == "assistant" else {})
        for message in turn[:-1]
    ]
    return [*context, _without_finish_reason(turn[-1])]


def _without_finish_reason(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "finish_reason"}


def episodes(run: Run) -> Iterator[Episode]:
    """Yield a run's episodes in the order of its problems, reading one at a time. Raises `InputError`."""
    for env_idx, (_, rollouts) in enumerate(run.groups(EpisodeRollout)):
        yield from (Episode(env_idx, rollout) for rollout in rollouts if rollout is not None)


def select_turns(run: Run, selection: Selection) -> Iterator[tuple[Episode, list[Row]]]:
    """Yield a run's episodes with all their turns, kept or left out. Reads the run twice for `balance_success`."""
    unbalanced = _unbalanced(run, selection.seed) if selection.balance_success else frozenset()
    for episode in episodes(run):
        key = episode.rollout.instance_id, episode.rollout.sample_id
        reason = _episode_reason(episode.rollout, selection, unbalanced=key in unbalanced)
        yield (
            episode,
            [
                Row(episode, turn, reason or _turn_reason(episode.rollout, turn, selection))
                for turn in episode.rollout.turns
            ],
        )


def _turn_reason(rollout: EpisodeRollout, turn: EpisodeTurn, selection: Selection) -> str | None:
    if selection.agents and turn.agent_name not in selection.agents:
        return OTHER_AGENT
    if rollout.is_reasoning_only(turn):
        return REASONING_ONLY
    return TRUNCATED if is_cut_off(turn.finish_reason) and not selection.keep_truncated else None


def _episode_reason(rollout: EpisodeRollout, selection: Selection, *, unbalanced: bool) -> str | None:
    """Return the reason why all turns of an episode are left out; None where they are not."""
    if rollout.success is None:
        return FAILED
    if selection.only_success and not rollout.success:
        return UNSUCCESSFUL
    return UNBALANCED if unbalanced else None


def _unbalanced(run: Run, seed: int) -> Collection[tuple[str, int]]:
    """Return the episodes to leave out, as (instance_id, sample_id), so that equally many succeeded and did not."""
    outcomes: dict[bool, list[tuple[str, int]]] = {True: [], False: []}
    for _, rollout in episodes(run):
        if rollout.success is not None:
            outcomes[rollout.success].append((rollout.instance_id, rollout.sample_id))
    fewer = min(map(len, outcomes.values()))
    # Ordered by a hash of seed and episode, so that the choice is random, and the same in every call.
    return frozenset(
        key
        for keys in outcomes.values()
        for key in sorted(keys, key=lambda key: rollout_seed(seed, f"balance {key[0]}", key[1]))[fewer:]
    )
