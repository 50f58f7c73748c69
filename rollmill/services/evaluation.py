"""The evaluation service: `python -m rollmill.services.evaluation --dataset FILE --sandbox_server HOST:PORT`."""

from __future__ import annotations

import asyncio

from pydantic import ConfigDict

from rollmill.config.command_line import parse_command_line, report_errors
from rollmill.config.parameter import Parameters, parameter

PROG = "python -m rollmill.services.evaluation"
PORT = 9528


class EvaluationServiceOptions(Parameters):
    """Grades the work trees that agents left in the sandboxes of a sandbox service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = parameter(
        ...,
        "Grading",
        "Data set",
        "JSON or JSON Lines file of the problems that clients can have graded.",
        metavar="FILE",
    )
    sandbox_server: str = parameter(
        "127.0.0.1:9527", "Grading", "Sandbox server", "The service that has the sandboxes.", metavar="HOST:PORT"
    )
    ladder: str = parameter(
        "default", "Grading", "Ladder", "Reward by speedup: default, observed, or a JSON file.", metavar="NAME"
    )
    concurrency: int = parameter(
        1,
        "Grading",
        "Concurrency",
        "Evaluations at a time: several disturb each other's measurements.",
        ge=1,
        le=256,
        aliases=("workers",),
    )

    host: str = parameter("127.0.0.1", "Address", "Host", "Address to listen at; others than loopback need a token.")
    port: int = parameter(PORT, "Address", "Port", "Port to listen at; 0 for a free one.", ge=0, le=65535)


def main() -> None:
    """Serve until the process is ended; the sandboxes that it started end with it."""
    parameters = parse_command_line(
        EvaluationServiceOptions,
        prog=PROG,
        description="Grades the work trees that agents left in the sandboxes of a sandbox service.\n"
        "Clients send the token that ROLLMILL_EVALUATION_TOKEN holds in this process's environment; the sandbox "
        "service's is in ROLLMILL_SANDBOX_TOKEN.",
        examples=f"  {PROG} --dataset examples/performance_problems/problems.jsonl --sandbox_server 127.0.0.1:9527",
    )
    from rollmill.grading.grader import LocalGrader
    from rollmill.grading.problems import read_graded_problems
    from rollmill.grading.remote import TOKEN_VARIABLE
    from rollmill.grading.reward_schedule import read_ladder
    from rollmill.inference.http_service import token_from_environment
    from rollmill.sandboxes.remote import TOKEN_VARIABLE as SANDBOX_TOKEN_VARIABLE
    from rollmill.sandboxes.remote import RemoteHost
    from rollmill.services.evaluation_app import Evaluations, evaluation_app
    from rollmill.services.serving import listen, serve

    problems, ladder = read_graded_problems(parameters.dataset), read_ladder(parameters.ladder)
    token = token_from_environment(TOKEN_VARIABLE)
    sandbox_token = token_from_environment(SANDBOX_TOKEN_VARIABLE)
    sandboxes = RemoteHost(parameters.sandbox_server, token=sandbox_token, for_grading=True)
    with listen(parameters.host, parameters.port, token, TOKEN_VARIABLE) as listening:
        grader = LocalGrader(sandboxes, ladder=ladder)
        evaluations = Evaluations(grader, parameters.concurrency)
        try:
            app = evaluation_app(evaluations, problems, token=token)
            what = f"{len(problems)} problems, sandboxes of {parameters.sandbox_server}"
            serve(app, listening, what, lambda: asyncio.to_thread(sandboxes.close))
        finally:
            grader.close()
            sandboxes.close()
            evaluations.shut_down()


if __name__ == "__main__":
    with report_errors(PROG):
        main()
