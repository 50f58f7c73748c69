"""Curation: analyse, filter and export rollouts; as quick commands, and as a flow."""

import sys

from rollmill.terminal.interruption import interruptible, leave_when_interrupted

if __name__ == "__main__":
    leave_when_interrupted("curate")  # before all else: the other imports take seconds

from rollmill.config.command_line import parse_command, report_errors
from rollmill.jobs.curation.parameters import COMMANDS, Curate

__all__ = ["Curate", "curate"]

DESCRIPTION = """\
Looks at rollouts of any generating job, filters them, and exports what training reads. Inputs are this project's runs
and journals, documents with "metadata", "examples" and "summary", JSON Lines and Parquet, compressed or not."""

EXAMPLES = """\
  python -m flows.curate analyze --input training_data/small_dataset.json
  python -m flows.curate filter_data --input raw.json --output high_quality.json --min-reward 0.7 --successful-only
  python -m flows.curate export_sft --input high_quality.json --output sft.jsonl --validation-share 0.05
  python -m flows.curate export_preferences --input raw.json --output pairs.jsonl --min-margin 0.3
  python -m flows.curate show_example --input raw.json --index 0
  python -m flows.curate show_example --input raw.json --unsuccessful-only --html failures.html
  python -m flows.curate compare --input reject_sampling_results/step18 reject_sampling_results/step36
  python -m flows.curate run --input reject_sampling_results/qwen --output_dir curated --where "reward >= 0.5"
"""

if __name__ == "__main__":
    # Before Prefect is imported, which takes seconds, and which the quick commands do not need.
    with report_errors("curate"):
        command = parse_command({**COMMANDS, "run": Curate}, prog="curate", description=DESCRIPTION, examples=EXAMPLES)
        if not isinstance(command, Curate):
            from rollmill.jobs.curation.commands import run_command

            with interruptible():
                run_command(command)
            raise SystemExit(0)
    call_parameters: Curate = command

from prefect import flow, runtime

from rollmill.jobs.curation.flow_steps import Curated
from rollmill.terminal.escapes import visible_line, write_lines
from tasks.curation import analyse_rollouts, export_rollouts, filter_rollouts, report_rollouts
from tasks.ephemeral_server import desk_server
from tasks.errors import report_failure
from tasks.interruption import result_of
from tasks.result_upload import open_uploader


@flow(
    name="curate",
    flow_run_name=lambda: f"curate {visible_line(runtime.flow_run.parameters['parameters'].input[0])}",
)
@report_failure
def curate(parameters: Curate) -> Curated:
    """Analyse rollouts, filter them, and export the kept ones."""
    with open_uploader(parameters.store_block) as store:
        result_of(analyse_rollouts.submit(parameters))
        kept = result_of(filter_rollouts.submit(parameters))
        exports = [result_of(export_rollouts.submit(parameters, kind)) for kind in parameters.export]
        report = None if parameters.no_report else result_of(report_rollouts.submit(parameters))
        return store(Curated(kept, exports, report))


if __name__ == "__main__":
    with report_errors("curate"), interruptible(), desk_server():
        write_lines(sys.stdout, curate(call_parameters).lines())
