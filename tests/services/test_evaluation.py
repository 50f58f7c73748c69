"""The evaluation service over the sandbox service, both as processes, with a small real problem."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from pydantic import SecretStr

from rollmill.grading.problem import GradedProblem
from rollmill.grading.remote import RemoteGrader
from rollmill.sandboxes.sandbox import SandboxSpec
from tests.services.running import Service, in_thread, marked
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SLOW = "import time\n\n\ndef double(number):\n    time.sleep(0.4)\n    return 2 * number\n"
FAST = "def double(number):\n    return 2 * number\n"
TEST = "from double import double\n\nassert double(3) == 6\nassert double(-1) == -2\nprint('2 passed')\n"
INPUTS = (
    "import os\n\nprint(int(os.environ['BENCH_SEED']) % 1000)\nprint(-1 if os.environ['BENCH_PART'] == 'edge' else 7)\n"
)
WORKER = """\
import os
import sys

out = os.fdopen(os.dup(1), "wb", 0)
os.dup2(2, 1)

from double import double

for line in iter(sys.stdin.readline, ""):
    number = int(line)
    out.write(b"ready\\n")
    assert sys.stdin.readline() == "go\\n"
    result = double(number)
    out.write(b"done\\n")
    out.write(b"%d\\n" % result)
"""

PROBLEM = {
    "instance_id": "double",
    "problem_statement": "Make double faster.",
    "image_name": "double",
    "path_in_repo": "double.py",
    "test_command": "python3 test.py",
    "inputs_command": "python3 inputs.py",
    "worker_command": "python3 worker.py",
    "timeout_s": 30,
}
# What is tested hangs in one process that can be found.
_HANGING, hanging = marked()
HANGS = {**PROBLEM, "instance_id": "hangs", "test_command": f"{_HANGING}; echo passed", "timeout_s": 100}
DOUBLE = GradedProblem.model_validate(PROBLEM)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    image = folder / "images" / "double"
    image.mkdir(parents=True)
    for name, text in {"double.py": SLOW, "test.py": TEST, "inputs.py": INPUTS, "worker.py": WORKER}.items():
        (image / name).write_text(text)
    (folder / "problems.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in (PROBLEM, HANGS)))
    return folder


@pytest.fixture(scope="module")
def sandboxes(folder):
    """Services with one slot, which the agent's sandbox takes while it is graded."""
    with Service("sandbox", "--images", folder / "images", "--max_sandboxes", 1, token="s1") as running:
        yield running


@pytest.fixture(scope="module")
def evaluation(folder, sandboxes):
    with evaluation_service(folder, sandboxes) as running:
        yield running


def evaluation_service(folder, sandboxes):
    arguments = ["--dataset", folder / "problems.jsonl", "--sandbox_server", f"127.0.0.1:{sandboxes.port}"]
    return Service("evaluation", *arguments, env={"ROLLMILL_SANDBOX_TOKEN": sandboxes.token}, token="e1")


@pytest.fixture
def agent(sandboxes):
    with sandboxes.remote() as host:
        yield host.start(SandboxSpec(image="double"))


@pytest.fixture
def grader(evaluation):
    grader = RemoteGrader(evaluation.url, token=SecretStr(evaluation.token))
    yield grader
    grader.close()


def test_a_faster_solution_is_graded(agent, grader):
    agent.execute(f"cat > double.py <<'END'\n{FAST}END")
    result = grader.grade(DOUBLE, agent.id)
    assert (result.error, result.success, result.phase) == (None, True, None)
    assert result.reward is not None
    assert result.reward > 0
    assert result.speedup is not None
    assert result.speedup > 1.2
    assert result.git_precheck is not None
    assert result.git_precheck.changed_files == ["double.py"]
    assert result.test_output == "2 passed\n"
    assert result.speedup_details is not None
    assert result.speedup_details.low > 1


def test_nothing_changed(agent, grader):
    result = grader.grade(DOUBLE, agent.id)
    assert (result.success, result.reward, result.phase, result.reason) == (False, 0.0, "git_precheck", "no change")


def test_a_wrong_solution(agent, evaluation):
    agent.execute("printf 'def double(number):\\n    return 6\\n' > double.py")
    request = {"instance_id": "double", "container_id": agent.id, "mode": "benchmark"}
    response = evaluation.ask("/evaluate_v3", request).json()
    assert (response["success"], response["reward"], response["phase"], response["test_success"]) == (
        False,
        0.0,
        "test",
        False,
    )
    assert response["test_exit_code"] == response["test_returncode"] == 1
    assert response["error"] == response["reason"]
    assert response["container_id"] == agent.id


def test_a_sandbox_that_is_not_there_is_no_grade(grader):
    result = grader.grade(DOUBLE, "nobody")
    assert (result.success, result.reward, result.error_type) == (None, None, "unknown_sandbox")


def test_a_problem_that_is_not_there_is_404(evaluation, grader):
    answer = evaluation.ask("/evaluate_v3", {"instance_id": "absent", "container_id": "c", "mode": "benchmark"})
    assert answer.status_code == 404
    assert "there is no problem 'absent'" in answer.json()["detail"]
    result = grader.grade(DOUBLE.model_copy(update={"instance_id": "absent"}), "c")
    assert (result.reward, result.error_type) == (None, "http_404")


@pytest.mark.parametrize(
    "body", [{}, {"instance_id": "double"}, {"instance_id": "p", "container_id": "c", "mode": "x"}]
)
def test_a_wrong_body_is_422(evaluation, body):
    answer = evaluation.ask("/evaluate_v3", body)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


def test_what_is_too_long_is_refused_in_one_line(evaluation):
    for field in ("instance_id", "container_id"):
        body = {"instance_id": "double", "container_id": "c", field: "x" * 1000}
        answer = evaluation.ask("/evaluate_v3", body)
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(f"{field}: ")
    answer = evaluation.ask("/evaluate_v3", {"instance_id": "double", "container_id": "c", "more": "x" * (5 << 20)})
    assert answer.status_code == 413
    answer = evaluation.ask("/evaluate_v3", {"instance_id": "absent\x1b[31m\n", "container_id": "c"})
    assert answer.json() == {"detail": "there is no problem 'absent\\x1b[31m\\n' in this service's data set"}


def test_requests_without_the_token_are_refused(evaluation):
    for path, body in (("/evaluate_v3", {}), ("/status", None)):
        assert evaluation.ask(path, body, headers={"Authorization": "Bearer s1"}).status_code == 401
    assert evaluation.ask("/health", headers={"Authorization": ""}).json() == {"status": "ok"}
    assert evaluation.counts()["problems"] == 2


def test_one_evaluation_at_a_time(agent, evaluation, grader):
    waiting = [in_thread(lambda: grader.grade(DOUBLE, agent.id)) for _ in range(3)]
    seen = []

    def done():
        counts = evaluation.counts()
        seen.append(counts["running"])
        return counts["running"] + counts["waiting"] == 0 and len(seen) > 3

    wait_until(done, 60)
    assert max(seen) <= 1
    assert [join().reason for join in waiting] == ["no change"] * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_evaluator_that_ends_in_the_middle(folder, sandboxes, agent, number):
    agent.execute("echo '# faster' >> double.py")
    with evaluation_service(folder, sandboxes) as running:
        grader = RemoteGrader(running.url, token=SecretStr("e1"))
        graded = in_thread(lambda: grader.grade(GradedProblem.model_validate(HANGS), agent.id))
        wait_until(hanging, 20)
        status, _ = running.end(number)
        result = graded()
        grader.close()
    assert (result.success, result.reward) == (None, None)
    assert result.error_type
    assert status == {signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    wait_until(lambda: not hanging())  # its sandboxes end with it


def test_a_sandbox_service_that_ends_in_the_middle(folder):
    sandboxes = Service("sandbox", "--images", folder / "images", token="s2")
    with sandboxes, evaluation_service(folder, sandboxes) as running, sandboxes.remote() as host:
        agent = host.start(SandboxSpec(image="double"))
        agent.execute("echo '# faster' >> double.py")
        grader = RemoteGrader(running.url, token=SecretStr("e1"))
        graded = in_thread(lambda: grader.grade(GradedProblem.model_validate(HANGS), agent.id))
        wait_until(hanging, 20)
        sandboxes.end(signal.SIGKILL)
        result = graded(60)
        grader.close()
    assert (result.success, result.reward, result.error_type) == (None, None, "connection")
    wait_until(lambda: not hanging())


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--dataset", "/no/such/file.jsonl"], 1, "/no/such/file.jsonl"),
        ([], 2, "--dataset"),
        (["--dataset", "PROBLEMS", "--ladder", "steep"], 1, "no ladder 'steep'"),
        (["--dataset", "PROBLEMS", "--sandbox_server", "ftp://x"], 1, "is not the address of a service"),
        (["--dataset", "PROBLEMS", "--host", "0.0.0.0"], 1, "set ROLLMILL_EVALUATION_TOKEN"),
    ],
)
def test_mistakes_are_one_line(folder, arguments, status, says):
    flags = [str(folder / "problems.jsonl") if argument == "PROBLEMS" else argument for argument in arguments]
    command = [sys.executable, "-m", "rollmill.services.evaluation", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (status, 1)
    assert says in done.stderr
