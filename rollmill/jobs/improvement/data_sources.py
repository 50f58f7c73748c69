"""Data sources, which `--feed` adds: they give a round of the loop its training rows.

Each kind is one module in `sources`. A kind that generates rollouts has the name of its flow.
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
    """Declaration of a kind in a module of `sources`; the target is a `SourceKind`."""

    value: str = field(default="FILE", kw_only=True)
    """Placeholder in `--help` for the value of `--feed NAME=`."""


SOURCES = Registry("data source", "rollmill.jobs.improvement.sources", SourceEntry)
"""The kinds of data sources, by the name that `--feed` takes."""


def describe_sources() -> str:
    """Return the values of `--feed` with their descriptions, for the parameter's help text."""
    return ", ".join(f"{entry.name}={entry.value} ({entry.description})" for entry in SOURCES.values())


class RoundContext(NamedTuple):
    """Parameters that the loop sets for a data source in one round."""

    policy: str
    """The model that generates rollouts."""
    folder: Path
    """The round's folder."""
    seed: int
    """Added to the source's own seed, so that each round generates other rollouts."""
    serving: Settings
    """`server_block`, `vllm_args`, `log_dir`, `no_canary`: defaults for a source that does not set them."""
    slots: Concurrency
    """Most requests in flight."""


class SourceKind(NamedTuple):
    """A kind of data source: functions of its parameters, which are an instance of `model`."""

    model: type[BaseModel]
    plan: Callable[[Settings, str, RoundContext], Any]
    """Settings of the user, name of the source, round -> parameters. Raises pydantic's `ValidationError`."""
    inputs: Callable[[Any], list[str]]
    """Parameters -> paths of the rollouts once the source has run, as `read_corpus` takes them."""
    contaminated: Callable[[Any, HeldOut], dict[str, str]]
    """Parameters, held-out problems -> the held-out problems that are among its own, each with a location."""
    set_by_loop: frozenset[str] = frozenset()
    """Parameters that the loop sets."""
    prompting: Callable[[Any], Prompting] | None = None
    """Parameters -> prompts of its problems in training; None where rows keep the recorded messages."""
    exists: bool = False
    """True if nothing has to be generated: its settings are then `{"input": [VALUE]}`, from `--feed NAME=VALUE`."""


class DataSource(NamedTuple):
    """A data source of the user: its unique name, which is also its run's, its kind, and its settings."""

    name: str
    kind: str
    settings: Settings

    def plan(self, context: RoundContext) -> PlannedSource:
        """Plan the source for one round."""
        return PlannedSource(self.name, self.kind, source_kind(self.kind).plan(self.settings, self.name, context))


class PlannedSource(NamedTuple):
    """A data source in one round, with the parameters of its flow."""

    name: str
    kind: str
    parameters: Any

    @property
    def is_generated(self) -> bool:
        """True if a flow generates its rollouts."""
        return not source_kind(self.kind).exists

    @property
    def inputs(self) -> list[str]:
        """Paths of its rollouts, once they are generated."""
        return source_kind(self.kind).inputs(self.parameters)

    @property
    def prompting(self) -> Prompting | None:
        """Prompts of its problems in training; None for the recorded messages."""
        prompting = source_kind(self.kind).prompting
        return prompting and prompting(self.parameters)

    def contaminated(self, held_out: HeldOut) -> dict[str, str]:
        """Map the held-out problems that are among its own to a location. Raises `InputError` as reading them does."""
        return source_kind(self.kind).contaminated(self.parameters, held_out)


def source_kind(name: str) -> SourceKind:
    """Import a kind of data source. Raises `InputError` for an unknown name."""
    kind: SourceKind = SOURCES.load(name)
    return kind


def read_feeds(flags: list[str], *, verifier: str | None = None) -> list[DataSource]:
    """Return the data sources of `NAME=VALUE` flags. Files may name `verifier`, too, which the user gave as a flag.

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


_ANY_ROUND = RoundContext("policy", Path(), 0, {}, 1)
"""A round for checking settings before there is one."""


def _read_value(name: str, value: str, verifier: str | None) -> Settings:
    """Return the settings of a flag's value, which is the path of rollouts, or of a file with parameters."""
    kind = source_kind(name)
    if kind.exists:
        from rollmill.corpus.inputs import find_sources

        find_sources([value])
        return {"input": [value]}
    return read_settings(
        value,
        model=kind.model,
        set_by_loop=kind.set_by_loop,
        verifiers=[*VERIFIERS, *([verifier] if verifier and verifier not in VERIFIERS else [])],
        check=lambda settings: kind.plan(settings, name, _ANY_ROUND),
    )
