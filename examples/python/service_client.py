"""Use the services over HTTP: run commands in a sandbox, let a change be graded there.

    python -m rollmill.services.sandbox --images examples/performance_problems/images
    python -m rollmill.services.evaluation --dataset examples/performance_problems/dataset.json
    python examples/python/service_client.py [SANDBOX_SERVICE [EVALUATION_SERVICE]]

The first two commands are the services, each in a terminal of its own; the addresses are by default theirs. Sandboxes
need Debian's package `bubblewrap`. A service that has a token gets it from the clients' `token=SecretStr(...)`.
"""

import sys
from pathlib import Path

from rollmill.grading.problems import read_graded_problems
from rollmill.grading.remote import RemoteGrader
from rollmill.sandboxes.remote import RemoteHost
from rollmill.sandboxes.sandbox import Sandbox, SandboxSpec

PROBLEMS = Path(__file__).parents[1] / "performance_problems"


def show(sandbox: Sandbox, command: str) -> None:
    """Run a command and print what a shell would show."""
    result = sandbox.execute(command, timeout_s=30)
    print(f"$ {command}\n{result.output.rstrip()}  [exit status {result.returncode}, {result.seconds:.1f} s]")


def main(sandbox_service: str = "localhost:9527", evaluation_service: str = "localhost:9528") -> None:
    """Solve one problem by its known solution, and print the grade."""
    problem = read_graded_problems(str(PROBLEMS / "dataset.json"))["spanset__merge"]
    solution = (PROBLEMS / "solutions/spanset__merge/good.patch").read_text()
    with RemoteHost(sandbox_service) as sandboxes, RemoteGrader(evaluation_service) as grader:
        sandbox = sandboxes.start(SandboxSpec(image=problem.image_name, env={"CHANGE": solution}))
        show(sandbox, "git log --oneline && ls")
        show(sandbox, 'printf "%s" "$CHANGE" | git apply && git diff --stat')
        show(sandbox, problem.test_command)
        evaluation = grader.grade(problem, sandbox.id)  # builds, tests and times the change in other sandboxes
    if evaluation.error:  # grading itself failed: neither a success nor a failure of the change
        sys.exit(f"no grade: {evaluation.error}")
    print(f"success {evaluation.success}, reward {evaluation.reward}, {evaluation.reason or 'all checks passed'}")
    if timing := evaluation.speedup_details:
        print(f"speedup {timing.average_speedup:.2f}, 95% interval {timing.low:.2f} to {timing.high:.2f},")
        print(f"from {timing.total_comparisons} pairs of runs")


if __name__ == "__main__":
    main(*sys.argv[1:])
