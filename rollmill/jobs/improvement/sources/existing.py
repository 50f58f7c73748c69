"""Data source: rollouts that exist already, of any producer."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from rollmill.jobs.improvement.data_sources import SourceEntry, SourceKind

ENTRY = SourceEntry("data", "SOURCE", "rollouts that exist, of any producer", value="PATH")


class Existing(BaseModel):
    """Paths of the rollouts, as `read_corpus` takes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: list[str]


SOURCE = SourceKind(
    model=Existing,
    plan=lambda settings, name, context: Existing.model_validate(settings),
    inputs=lambda parameters: parameters.input,
    contaminated=lambda parameters, held_out: held_out.find_in_conversations(parameters.input),
    exists=True,
)
