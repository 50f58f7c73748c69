"""Data source: attempts of a coding agent."""

from __future__ import annotations

from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
from rollmill.jobs.improvement.data_source_file import Settings
from rollmill.jobs.improvement.data_sources import RoundContext, SourceEntry, SourceKind
from rollmill.jobs.improvement.held_out import HeldOut

ENTRY = SourceEntry("agent_rollouts", "SOURCE", "that flow's parameters as YAML or JSON")


def _plan(settings: Settings, name: str, context: RoundContext) -> AgentRollouts:
    serving = {key: value for key, value in context.serving.items() if key in AgentRollouts.model_fields}
    set_by_loop = {"model_path": context.policy, "output": str(context.folder / f"{name}.json")}
    planned = AgentRollouts.model_validate({**serving, **settings, **set_by_loop})
    return planned.model_copy(update={"seed": planned.seed + context.seed})


def _contaminated(parameters: AgentRollouts, held_out: HeldOut) -> dict[str, str]:
    from rollmill.jobs.agent_rollouts.problems import source_of

    return held_out.find_in_problems(source_of(parameters, parameters.problem_file))


SOURCE = SourceKind(
    model=AgentRollouts,
    set_by_loop=frozenset({"model_path", "output", "store_block", "retry", "base_url", "endpoint_block"}),
    plan=_plan,
    inputs=lambda parameters: [parameters.output],
    contaminated=_contaminated,
)
