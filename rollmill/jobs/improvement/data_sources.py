"""Feeds: what gives a round its rows. A generating flow becomes one by an entry in `FEEDS`.

The flow itself is named by the room above, under the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from rollmill.errors import InputError
from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.improvement.data_source_file import Settings, read_settings
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.verifiers.registry import BUILT_IN

if TYPE_CHECKING:
    from rollmill.jobs.improvement.held_out import HeldOut
    from rollmill.problems import Prompting


class RoundContext(NamedTuple):
    """What the loop decides for a feed in one round."""

    policy: str
    """The model that acts."""
    folder: Path
    """Of the round."""
    seed: int
    """Added to the feed's own: each round makes other rollouts."""
    serving: Settings
    """`server_block`, `vllm_args`, `log_dir`, `no_canary`: for a feed that says nothing else."""
    slots: int
    """Requests in flight at most."""


class SourceKind(NamedTuple):
    """How one generating flow feeds the loop; its parameters are `model`'s."""

    model: type[BaseModel]
    aimed: Callable[[Settings, str, RoundContext], Any]
    """What a user has given, the feed's name, the aim -> the flow's parameters. Raises pydantic's `ValidationError`."""
    inputs: Callable[[Any], list[str]]
    """What the flow leaves, as `read_corpus` takes it."""
    learnt: Callable[[Any, HeldOut], dict[str, str]]
    """Held-out problems that its problems hold -> where."""
    decided: frozenset[str] = frozenset()
    """Parameters that are the loop's."""
    prompting: Callable[[Any], Prompting] | None = None
    """How its problems, beside its run's journal, are asked in training; None: rows keep the messages as recorded."""
    exists: bool = False
    """Whether nothing has to be made."""


class Existing(BaseModel):
    """Rollouts that exist already, of any producer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: list[str]


class DataSource(NamedTuple):
    """One feed: its name, which is its run's and unlike all others', its kind in `FEEDS`, what a user has given."""

    name: str
    kind: str
    settings: Settings

    def aimed(self, aim: RoundContext) -> PlannedSource:
        """The feed in one round."""
        return PlannedSource(self.name, self.kind, FEEDS[self.kind].aimed(self.settings, self.name, aim))


class PlannedSource(NamedTuple):
    """A feed in one round, with the parameters of its flow."""

    name: str
    kind: str
    parameters: Any

    @property
    def made(self) -> bool:
        """Whether a flow makes it."""
        return not FEEDS[self.kind].exists

    @property
    def inputs(self) -> list[str]:
        """What is there to read, when it is made."""
        return FEEDS[self.kind].inputs(self.parameters)

    @property
    def prompting(self) -> Prompting | None:
        """How its problems are asked in training; None: as recorded."""
        prompting = FEEDS[self.kind].prompting
        return prompting and prompting(self.parameters)

    def learnt(self, held_out: HeldOut) -> dict[str, str]:
        """Held-out problems that it would teach -> where they stand. Raises `InputError` as reading them does."""
        return FEEDS[self.kind].learnt(self.parameters, held_out)


def read_feeds(flags: list[str], *, verifier: str | None = None) -> list[DataSource]:
    """The feeds that `NAME=FILE` flags name; files may name `verifier`, too, which the user has given.

    Raises `InputError`, in one line that begins with the flag.
    """
    feeds = []
    for number, flag in enumerate(flags, start=1):
        name, equals, value = flag.partition("=")
        kind = name.replace("-", "_")
        if not equals or not value or kind not in FEEDS:
            raise InputError(f"--feed {flag}: give NAME=FILE, NAME one of {', '.join(FEEDS)}")
        try:
            feeds.append(DataSource(f"{kind}_{number}", kind, _given(kind, value, verifier)))
        except InputError as error:
            raise InputError(f"--feed {kind}: {error}") from error
    return feeds


_NOWHERE = RoundContext("policy", Path(), 0, {}, 1)


def _given(kind: str, value: str, verifier: str | None) -> Settings:
    """What a flag's value says: the path of rollouts, or of a file with parameters."""
    one = FEEDS[kind]
    if one.exists:
        from rollmill.corpus.inputs import find_sources

        find_sources([value])
        return {"input": [value]}
    return read_settings(
        value,
        known=one.model.model_fields,
        decided=one.decided,
        verifiers=[*BUILT_IN, *([verifier] if verifier and verifier not in BUILT_IN else [])],
        check=lambda given: one.aimed(given, kind, _NOWHERE),
    )


def _aim_sampling(settings: Settings, name: str, aim: RoundContext) -> RejectSampling:
    own = {"model_path": [aim.policy], "model_name": [name], "output_dir": str(aim.folder)}
    asked = RejectSampling.model_validate({**aim.serving, **settings, **own})
    concurrency = asked.concurrency if "concurrency" in settings else max(1, aim.slots // asked.num_rollout)
    return asked.model_copy(update={"seed": asked.seed + aim.seed, "concurrency": concurrency})


def _aim_agents(settings: Settings, name: str, aim: RoundContext) -> AgentRollouts:
    serving = {key: value for key, value in aim.serving.items() if key in AgentRollouts.model_fields}
    own = {"model": aim.policy, "output": str(aim.folder / f"{name}.json")}
    asked = AgentRollouts.model_validate({**serving, **settings, **own})
    return asked.model_copy(update={"seed": asked.seed + aim.seed})


def _learnt_by_agents(given: AgentRollouts, held_out: HeldOut) -> dict[str, str]:
    from rollmill.jobs.agent_rollouts.problems import source_of

    return held_out.among(source_of(given, given.problem_file))


def _prompting(given: RejectSampling) -> Prompting:
    from rollmill.problems.prompting import Prompting

    return Prompting.from_flags(given.prompt_template, None, given.system_prompt)


FEEDS = {
    "reject_sampling": SourceKind(
        model=RejectSampling,
        decided=frozenset(
            {"model_path", "model_name", "adapter", "output_dir", "store_block", "retry", "reverify"}
            | {"base_url", "endpoint_block", "skip_vllm_launch"}  # the loop serves each policy itself
        ),
        aimed=_aim_sampling,
        inputs=lambda given: [str(Path(given.output_dir) / given.model_name[0])],
        learnt=lambda given, held_out: held_out.among(given.source),
        prompting=_prompting,
    ),
    "agent_rollouts": SourceKind(
        model=AgentRollouts,
        decided=frozenset({"model", "output", "store_block", "retry", "base_url", "endpoint_block"}),
        aimed=_aim_agents,
        inputs=lambda given: [given.output],
        learnt=_learnt_by_agents,
    ),
    "data": SourceKind(
        model=Existing,
        aimed=lambda settings, name, aim: Existing.model_validate(settings),
        inputs=lambda given: given.input,
        learnt=lambda given, held_out: held_out.within(given.input),
        exists=True,
    ),
}
"""The kinds of feeds, by the name that `--feed` takes."""
