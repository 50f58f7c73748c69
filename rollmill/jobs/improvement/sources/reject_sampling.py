"""Data source: rejection sampling on the loop's problems, or on others."""

from __future__ import annotations

from pathlib import Path

from rollmill.generation.concurrency import problems_at_a_time
from rollmill.jobs.improvement.data_source_file import Settings
from rollmill.jobs.improvement.data_sources import RoundContext, SourceEntry, SourceKind
from rollmill.jobs.improvement.parameters import ROLLOUTS
from rollmill.jobs.rejection_sampling.parameters import LoopSampling, RejectSampling
from rollmill.problems.prompting import Prompting

ENTRY = SourceEntry("reject_sampling", "SOURCE", "that flow's parameters as YAML or JSON, for other problems")


def _plan(settings: Settings, name: str, context: RoundContext) -> RejectSampling:
    set_by_loop = {"model_path": [context.policy], "model_name": [name], "output_dir": str(context.folder)}
    # The loop's command has no flags for columns: messages must not name them. A file of settings has them.
    kind = LoopSampling if name == ROLLOUTS else RejectSampling
    planned = kind.model_validate({**context.serving, **settings, **set_by_loop})
    is_set = settings.get("concurrent_problems")
    problems = planned.concurrent_problems if is_set else problems_at_a_time(context.slots, planned.num_rollout)
    return planned.model_copy(update={"seed": planned.seed + context.seed, "concurrent_problems": problems})


SOURCE = SourceKind(
    model=RejectSampling,
    set_by_loop=frozenset(
        {"model_path", "model_name", "adapter", "output_dir", "store_block", "retry", "reverify"}
        | {"base_url", "endpoint_block", "skip_vllm_launch"}  # the loop serves each policy itself
    ),
    plan=_plan,
    inputs=lambda parameters: [str(Path(parameters.output_dir) / parameters.model_name[0])],
    contaminated=lambda parameters, held_out: held_out.find_in_problems(parameters.source),
    prompting=lambda parameters: Prompting.from_flags(parameters.prompt_template, None, parameters.system_prompt),
)
