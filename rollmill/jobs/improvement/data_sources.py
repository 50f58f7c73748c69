"""Data sources: what gives a round of the loop its rows. Each kind is one module in `sources`.

The flow of a kind that generates is named by the room above, under the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rollmill.errors import InputError
from rollmill.generation.concurrency import Concurrency
from rollmill.jobs.improvement.data_source_file import Settings, read_settings
from rollmill.registry import Entry, Registry
from rollmill.verifiers.registry import VERIFIERS

if TYPE_CHECKING:
    from pydantic import BaseModel

    from rollmill.jobs.improvement.held_out import HeldOut
    from rollmill.problems import Prompting


@dataclass(frozen=True)
class SourceEntry(Entry):
    """What a module of `sources` declares of its kind; the target is a `SourceKind`."""

    value: str = field(default="FILE", kw_only=True)
    """What `--feed NAME=` takes for it, as `--help` calls it."""


SOURCES = Registry("data source", "rollmill.jobs.improvement.sources", SourceEntry)
"""The kinds of data sources, by the name that `--feed` takes."""


def describe_sources() -> str:
    """Return the values that `--feed` takes, each with what it is: a part of the parameter's description."""
    return ", ".join(f"{entry.name}={entry.value} ({entry.description})" for entry in SOURCES.values())


class RoundContext(NamedTuple):
    """What the loop decides for a data source in one round."""

    policy: str
    """The model that acts."""
    folder: Path
    """Of the round."""
    seed: int
    """Added to the source's own: each round makes other rollouts."""
    serving: Settings
    """`server_block`, `vllm_args`, `log_dir`, `no_canary`: for a source that says nothing else."""
    slots: Concurrency
    """Requests in flight at most."""


class SourceKind(NamedTuple):
    """How one kind of data source feeds the loop; `model` is the class of its parameters."""

    model: type[BaseModel]
    plan: Callable[[Settings, str, RoundContext], Any]
    """Settings of the user, name of the source, round -> parameters. Raises pydantic's `ValidationError`."""
    inputs: Callable[[Any], list[str]]
    """Parameters -> what there is to read once the source has run, as `read_corpus` takes it."""
    contaminated: Callable[[Any, HeldOut], dict[str, str]]
    """Held-out problems that its problems hold -> where."""
    decided: frozenset[str] = frozenset()
    """Parameters that are the loop's."""
    prompting: Callable[[Any], Prompting] | None = None
    """How its problems, beside its run's journal, are asked in training; None: rows keep the messages as recorded."""
    exists: bool = False
    """Whether nothing has to be generated: its settings are then `{"input": [VALUE]}`, from `--feed NAME=VALUE`."""


class DataSource(NamedTuple):
    """A source as the user gives it: its name, which is its run's and unlike all others', its kind, its settings."""

    name: str
    kind: str
    settings: Settings

    def plan(self, context: RoundContext) -> PlannedSource:
        """Plan the source for one round."""
        return PlannedSource(self.name, self.kind, source_kind(self.kind).plan(self.settings, self.name, context))


class PlannedSource(NamedTuple):
    """A source in one round, with the parameters of its flow."""

    name: str
    kind: str
    parameters: Any

    @property
    def made(self) -> bool:
        """Tell whether a flow makes its rollouts."""
        return not source_kind(self.kind).exists

    @property
    def inputs(self) -> list[str]:
        """Return what there is to read once its rollouts are made."""
        return source_kind(self.kind).inputs(self.parameters)

    @property
    def prompting(self) -> Prompting | None:
        """Return how its problems are asked in training; None: as recorded."""
        prompting = source_kind(self.kind).prompting
        return prompting and prompting(self.parameters)

    def contaminated(self, held_out: HeldOut) -> dict[str, str]:
        """Map held-out problems that are among its problems to where. Raises `InputError` as reading them does."""
        return source_kind(self.kind).contaminated(self.parameters, held_out)


def source_kind(name: str) -> SourceKind:
    """Import a kind of data source. Raises `InputError` where there is none of this name."""
    kind: SourceKind = SOURCES.load(name)
    return kind


def read_feeds(flags: list[str], *, verifier: str | None = None) -> list[DataSource]:
    """Read the data sources that `NAME=VALUE` flags name; files may name `verifier`, too, which the user has given.

    Raises `InputError`, in one line that begins with the flag.
    """
    sources = []
    for number, flag in enumerate(flags, start=1):
        name, equals, value = flag.partition("=")
        kind = name.replace("-", "_")
        if kind not in SOURCES:
            raise InputError(f"--feed {flag}: give NAME=FILE: {SOURCES.hint(kind)}")
        if not equals or not value:
            raise InputError(f"--feed {flag}: give {kind}={SOURCES[kind].value}")
        try:
            sources.append(DataSource(f"{kind}_{number}", kind, _read_value(kind, value, verifier)))
        except InputError as error:
            raise InputError(f"--feed {kind}: {error}") from error
    return sources


_NOWHERE = RoundContext("policy", Path(), 0, {}, 1)


def _read_value(name: str, value: str, verifier: str | None) -> Settings:
    """Read the settings that a flag's value names: the path of rollouts, or of a file with parameters."""
    kind = source_kind(name)
    if kind.exists:
        from rollmill.corpus.inputs import find_sources

        find_sources([value])
        return {"input": [value]}
    return read_settings(
        value,
        model=kind.model,
        decided=kind.decided,
        verifiers=[*VERIFIERS, *([verifier] if verifier and verifier not in VERIFIERS else [])],
        check=lambda settings: kind.plan(settings, name, _NOWHERE),
    )
