"""Counts the Prefect task runs of a large flow run: at most one per 256 rollouts."""

from __future__ import annotations

from benchmarks.contenders.work import in_whole_problems
from benchmarks.flow_process import desk_flow
from benchmarks.machine import machine
from benchmarks.scripted_process import scripted_process
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.inference.scripted import Script

ROLLOUTS_PER_TASK_RUN = 256


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--requests", type=in_whole_problems, default=10240, help="rollouts of the run")
    parser.add_argument("--in_flight", type=in_whole_problems, default=128, help="slots")
    options = parser.parse_args()
    where = machine()
    with desk_flow() as flow, scripted_process(Script()) as server:
        run = flow.run(flow.work(server.base_url, requests=options.requests, in_flight=options.in_flight), "counted")
    count = sum(run.task_runs.values())
    per_task_run = run.rollouts / count
    rows = [{"task": name, "task runs": f"{number}"} for name, number in sorted(run.task_runs.items())]
    total = {"task": "all", "task runs": f"{count}", "rollouts": f"{run.rollouts:,}"}
    show(f"task_runs on {where}", [*rows, total | {"rollouts per task run": f"{per_task_run:.1f}"}])
    targets = Targets()
    targets.at_least("rollouts per task run", per_task_run, ROLLOUTS_PER_TASK_RUN)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
