"""What came of the rounds, and which policy stands at their end."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from rollmill.statistics.accuracy import Accuracy, Difference


class Round(BaseModel):
    """One round's numbers."""

    model_config = ConfigDict(frozen=True)

    number: int
    policy: str
    """The model that made the rollouts."""
    rollouts: int
    right: int
    rows: int
    """Rows that were trained on."""
    feeds: dict[str, int] = {}
    """The same by feed."""
    steps: int
    train_loss: float
    model: str
    """What training made of it: a model directory."""
    accuracy: Accuracy
    difference: Difference
    """Between the policy that stood before and this one, on the same held-out problems."""
    kept: bool
    """Whether it was better beyond noise; else it was rolled back."""


class History(BaseModel):
    """The base, and all rounds so far."""

    model_config = ConfigDict(frozen=True)

    base: str
    base_accuracy: Accuracy
    with_examples: Accuracy | None
    """Of the base with the examples in its prompt that rollouts have; None where they have none."""
    rounds: tuple[Round, ...] = ()
    stopped: str | None = None
    """Why the rounds ended before their number was reached."""

    @property
    def policy(self) -> str:
        """Return the model that stands: that of the last round that was kept, else the base."""
        return next((played.model for played in reversed(self.rounds) if played.kept), self.base)

    @property
    def standing(self) -> int:
        """Return the round that made the policy; 0 for the base."""
        return next((played.number for played in reversed(self.rounds) if played.kept), 0)

    def goes_on(self, rounds: int) -> bool:
        """Tell whether another round is to be played."""
        return self.stopped is None and len(self.rounds) < rounds

    def after(self, played: Round) -> History:
        """Return the history with one round more; a round that is rolled back is the last."""
        stopped = None if played.kept else f"round {played.number} was not better beyond noise, and was rolled back"
        return self.model_copy(update={"rounds": (*self.rounds, played), "stopped": stopped})
