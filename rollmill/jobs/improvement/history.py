"""History of the loop: the results of all rounds, and the current policy."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from rollmill.statistics.accuracy import Accuracy, Difference


class Round(BaseModel):
    """Results of one round."""

    model_config = ConfigDict(frozen=True)

    number: int
    policy: str
    """The model that generated the rollouts."""
    rollouts: int
    right: int
    """Rollouts that succeeded."""
    rows: int
    """Rows that were trained on."""
    feeds: dict[str, int] = {}
    """Rows that were trained on, by data source."""
    steps: int
    train_loss: float
    model: str
    """Directory of the trained model."""
    accuracy: Accuracy
    difference: Difference
    """Accuracy of this model minus that of the policy before, on the same held-out problems."""
    kept: bool
    """The model was significantly better; else the round was rolled back."""


class History(BaseModel):
    """The base model, and all rounds so far."""

    model_config = ConfigDict(frozen=True)

    base: str
    base_accuracy: Accuracy
    with_examples: Accuracy | None
    """Accuracy of the base with the few-shot examples of rollouts in its prompt; None where they have none."""
    rounds: tuple[Round, ...] = ()
    stopped: str | None = None
    """Reason for which the loop ended before its number of rounds; None where it did not."""

    @property
    def policy(self) -> str:
        """The current model: that of the last round that was kept, else the base."""
        return next((entry.model for entry in reversed(self.rounds) if entry.kept), self.base)

    @property
    def standing(self) -> int:
        """Number of the round that trained the current policy; 0 for the base."""
        return next((entry.number for entry in reversed(self.rounds) if entry.kept), 0)

    def continues(self, rounds: int) -> bool:
        """Return whether another round follows; `rounds` is the loop's number of rounds."""
        return self.stopped is None and len(self.rounds) < rounds

    def after(self, entry: Round) -> History:
        """Return the history with one more round; a round that is rolled back is the last."""
        stopped = None if entry.kept else f"round {entry.number} was not better beyond noise, and was rolled back"
        return self.model_copy(update={"rounds": (*self.rounds, entry), "stopped": stopped})
