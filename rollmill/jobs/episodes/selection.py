"""Which turns of which episodes become rows."""

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
    """What a user wants of the episodes."""

    model_config = ConfigDict(frozen=True)

    only_success: bool = True
    """Only successful episodes: all turns of one, or none."""
    agents: tuple[str, ...] = ()
    """Only the turns of these; empty for all."""
    balance_success: bool = False
    """As many episodes that did not succeed as did: of what there is more of, a part that the seed picks."""
    seed: int = 0
    keep_truncated: bool = False
    """Answers that were cut off, too; their rows say so."""


class Episode(NamedTuple):
    """One episode of a run."""

    env_idx: int
    """0-based number of its problem."""
    rollout: EpisodeRollout


class Row(NamedTuple):
    """One turn."""

    episode: Episode
    turn: EpisodeTurn
    left_out: str | None
    """Why it is no row; None where it is one."""

    def to_json(self, tokens: TokenLocation | None = None) -> dict[str, Any]:
        """Return the training row, by the names that its readers know; `tokens` are the episode's, if known."""
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
        """Return where the turn's tokens are: the calls of an episode are those of its turns, in their order."""
        rollout = self.episode.rollout
        named = {"instance_id": rollout.instance_id, "sample_id": rollout.sample_id}
        return tokens.model_copy(update={**named, "calls": (rollout.turns.index(self.turn),)}).model_dump(mode="json")


def _messages(turn: Sequence[Message]) -> list[Message]:
    """Return a turn as training takes it: why answers ended stands in the journal alone, earlier ones are context.

    Each earlier answer is learnt in the row of its own turn, in the context that it had there.
    """
    context = [_bare(message) | ({"weight": 0} if message["role"] == "assistant" else {}) for message in turn[:-1]]
    return [*context, _bare(turn[-1])]


def _bare(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "finish_reason"}


def episodes(run: Run) -> Iterator[Episode]:
    """Yield a run's episodes in the order of its problems, each read when its turn comes. Raises `InputError`."""
    for env_idx, (_, rollouts) in enumerate(run.groups(EpisodeRollout)):
        yield from (Episode(env_idx, rollout) for rollout in rollouts if rollout is not None)


def selected(run: Run, selection: Selection) -> Iterator[tuple[Episode, list[Row]]]:
    """Yield a run's episodes, each with all its turns and why one is left out. Reads the run twice for balance."""
    unbalanced = _unbalanced(run, selection.seed) if selection.balance_success else frozenset()
    for episode in episodes(run):
        key = episode.rollout.instance_id, episode.rollout.sample_id
        why = _why_not(episode.rollout, selection, unbalanced=key in unbalanced)
        yield (
            episode,
            [
                Row(episode, turn, why or _why_no_row(episode.rollout, turn, selection))
                for turn in episode.rollout.turns
            ],
        )


def _why_no_row(rollout: EpisodeRollout, turn: EpisodeTurn, selection: Selection) -> str | None:
    if selection.agents and turn.agent_name not in selection.agents:
        return OTHER_AGENT
    if rollout.is_reasoning_only(turn):
        return REASONING_ONLY
    return TRUNCATED if is_cut_off(turn.finish_reason) and not selection.keep_truncated else None


def _why_not(rollout: EpisodeRollout, selection: Selection, *, unbalanced: bool) -> str | None:
    if rollout.success is None:
        return FAILED
    if selection.only_success and not rollout.success:
        return UNSUCCESSFUL
    return UNBALANCED if unbalanced else None


def _unbalanced(run: Run, seed: int) -> Collection[tuple[str, int]]:
    """Return the episodes to leave out so that as many succeeded as did not."""
    outcomes: dict[bool, list[tuple[str, int]]] = {True: [], False: []}
    for _, rollout in episodes(run):
        if rollout.success is not None:
            outcomes[rollout.success].append((rollout.instance_id, rollout.sample_id))
    fewer = min(map(len, outcomes.values()))
    return frozenset(
        key
        for keys in outcomes.values()
        for key in sorted(keys, key=lambda key: rollout_seed(seed, f"balance {key[0]}", key[1]))[fewer:]
    )
