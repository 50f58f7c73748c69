"""The third of the three files of a new generating job: its flow and command line."""

import sys

from rollmill.config.command_line import parse_command_line, report_errors
from rollmill.generation.finished import finished_outcomes
from tests.flows.new_job.parameters import Paraphrase

if __name__ == "__main__":
    arguments = parse_command_line(Paraphrase, prog="paraphrase", description=Paraphrase.__doc__ or "", examples="")
    with report_errors("paraphrase"):
        complete = finished_outcomes(arguments, [arguments.directory], "tests.flows.new_job.job:jobs")
        if complete:
            sys.stdout.write("\n".join(complete[0].lines()) + "\n")
            raise SystemExit(0)

from prefect import flow

from rollmill.terminal.interruption import interruptible
from tasks.ephemeral_server import desk_server
from tasks.errors import report_failure
from tasks.run_job import run_job, waiting_threads
from tests.flows.new_job.job import ParaphraseJob, ParaphraseOutcome


@flow(name="paraphrase", task_runner=waiting_threads())
@report_failure
def paraphrase(parameters: Paraphrase) -> ParaphraseOutcome:
    return run_job(ParaphraseJob(parameters))


if __name__ == "__main__":
    with report_errors("paraphrase"), interruptible(), desk_server():
        sys.stdout.write("\n".join(paraphrase(arguments).lines()) + "\n")
