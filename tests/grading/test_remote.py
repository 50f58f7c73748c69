"""Grades of a service: parsing of its answers, and failures of its requests."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from rollmill.grading.evaluation import Evaluation, GitPrecheck, SpeedupDetails
from rollmill.grading.problem import GradedProblem
from rollmill.grading.remote import RemoteGrader, read_evaluation
from rollmill.services.evaluation_app import answer
from tests.inference.raw_server import RawServer
from tests.services.running import RawTCP, in_thread, read_request, reset
from tests.waiting import wait_until

PROBLEM = GradedProblem(instance_id="p", problem_statement="make it fast", image_name="i")

REAL = Path(__file__).parents[3] / "shared/data/evaluated_rollouts.json"

FAILED = {
    "success": False,
    "reward": -1.0,
    "error": "Test build failed",
    "reason": "Build failed",
    "phase": "build_test",
}


def no_grade(evaluation):
    return (evaluation.success, evaluation.reward, evaluation.speedup) == (None, None, None)


@pytest.mark.skipif(not REAL.exists(), reason="the real answers are not part of the repository")
def test_real_answers_are_read():
    rows = json.loads(REAL.read_text())
    infos = [row["evaluation_info"] for row in rows]
    result = [read_evaluation("p", info["response"]["json"]) for info in infos if "response" in info]
    assert len(result) == 23
    assert all(evaluation.error is None for evaluation in result)
    assert sorted({evaluation.reward for evaluation in result}) == [-1.0, -0.2, 0.3]
    assert {evaluation.phase for evaluation in result} == {None, "git_precheck", "build"}
    [best] = [evaluation for evaluation in result if evaluation.reward == 0.3]
    assert best.success
    assert best.speedup == 0.9952063634913164
    assert best.reason == "Slight performance degradation (speedup: 0.9952)"
    assert (best.build_returncode, best.test_returncode, best.benchmark_returncode) == (0, 0, 0)
    assert best.test_output.startswith("Running main()")
    assert best.git_precheck is not None
    assert best.git_precheck.changed_files == ["projects/rocprim/analyze_block_histogram.sh"]
    assert best.metadata["speedup_details"]["total_comparisons"] == 72
    assert best.metadata["gpu_id"] == 3
    json.dumps(best.model_dump(mode="json"), allow_nan=False)


def test_flags_pass_through_a_service():
    graded = Evaluation(instance_id="p", success=True, reward=1.0, flags=["it uses 1.8 cores, not 1.0"])
    assert read_evaluation("p", answer(graded, "c")).flags == graded.flags
    assert read_evaluation("p", {**FAILED, "flags": [1, "a"]}).flags == ["a"]
    assert read_evaluation("p", {**FAILED, "flags": "a"}).flags == []


def test_a_failed_build_is_a_grade():
    result = read_evaluation("p", FAILED)
    assert (result.success, result.reward, result.error, result.phase) == (False, -1.0, None, "build")
    assert result.reason == "Build failed"


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ({}, "no grade in the service's answer (empty)"),
        ({"success": False}, "no grade in the service's answer (success)"),
        ({"success": True, "reward": None}, "no grade in the service's answer (reward, success)"),
        ({"success": True, "reward": "1.0"}, "no grade in the service's answer (reward, success)"),
        ({"success": True, "reward": True}, "no grade in the service's answer (reward, success)"),
        ({"success": False, "error": "container not found"}, "container not found"),
        ({"success": False, "reward": 0.0, "error": "no GPU is free"}, "no GPU is free"),
        ({"success": False, "reward": 0.0, "reason": "r", "error": "e", "phase": "infrastructure"}, "e"),
    ],
)
def test_no_grade_is_no_reward(response, error):
    result = read_evaluation("p", response)
    assert no_grade(result)
    assert (result.error, result.error_type) == (error, "evaluation")


def test_malformed_fields_are_ignored():
    result = read_evaluation(
        "p",
        {
            "success": "yes", "reward": 1, "speedup": "fast", "reason": "r", "git_precheck": "ok", "test_output": None,
            "test_exit_code": "0", "benchmark_success": False, "speedup_details": [1], "metadata": 5, "gpu_id": 1,
        },
    )  # fmt: skip
    assert (result.success, result.reward, result.speedup, result.git_precheck) == (False, 1.0, None, None)
    assert (result.test_output, result.test_returncode, result.benchmark_returncode) == ("", None, 1)
    assert result.metadata == {"speedup_details": [1], "gpu_id": 1}


@pytest.mark.parametrize(
    "evaluation",
    [
        Evaluation(
            instance_id="p", success=True, reward=0.7, speedup=1.5, git_precheck=GitPrecheck(is_git=True, ok=True),
            build_returncode=0, test_returncode=0, test_output="3 passed", benchmark_returncode=0,
            metadata={"by": "low"},
            speedup_details=SpeedupDetails(
                average_speedup=1.5, min_speedup=1.4, max_speedup=1.6, low=1.41, high=1.59, total_comparisons=0,
                comparisons=[],
            ),
        ),
        Evaluation(instance_id="p", success=False, reward=0.0, reason="no change", phase="git_precheck"),
        Evaluation(instance_id="p", success=None, reward=None, error="the host is gone", error_type="connection"),
    ],
)  # fmt: skip
def test_own_services_answers_round_trip(evaluation):
    response = json.loads(json.dumps(answer(evaluation, "c0ffee"), allow_nan=False))
    result = read_evaluation("p", response)
    result.metadata.pop("container_id")
    assert result == evaluation


def test_our_own_answers_have_what_clients_of_the_seeds_read():
    response = answer(Evaluation(instance_id="p", success=None, reward=None, error="e", error_type="t"), "c")
    assert (response["success"], response["reward"], response["error"], response["phase"]) == (
        False,
        None,
        "e",
        "infrastructure",
    )
    failed = Evaluation(instance_id="p", success=False, reward=0.0, reason="1 failed", phase="test", test_returncode=1)
    response = answer(failed, "c")
    assert (response["success"], response["reward"], response["error"], response["reason"]) == (
        False,
        0.0,
        "1 failed",
        "1 failed",
    )
    assert (response["phase"], response["test_exit_code"], response["test_success"]) == ("test", 1, False)


@pytest.mark.parametrize(
    ("response", "type_"),
    [
        ((500, b'{"detail": "broken"}'), "http_500"),
        ((404, b'{"detail": "no such problem"}'), "http_404"),
        ((401, b"{}"), "http_401"),
        ((503, b"{}"), "http_503"),
        ((200, b"<html>"), "malformed_answer"),
        ((200, b"[]"), "malformed_answer"),
    ],
)
def test_transport_failure_is_reported_without_a_retry(response, type_):
    sent = []

    def reply(headers, body):
        sent.append(json.loads(body))
        return response

    with RawServer(reply) as server:
        grader = RemoteGrader(server.base_url.removesuffix("/v1"))
        result = grader.grade(PROBLEM, "c")
        grader.close()
    assert no_grade(result)
    assert result.error_type == type_
    assert result.error
    assert sent == [{"instance_id": "p", "container_id": "c", "mode": "benchmark"}]


def test_a_reset_is_not_sent_again():
    def reply(connection, number):
        read_request(connection)
        reset(connection)

    with RawTCP(reply) as server:
        result = RemoteGrader(server.address).grade(PROBLEM, "c")
        assert server.connections == 1
    assert no_grade(result)
    assert result.error_type == "connection"


def test_slow_service_is_a_timeout_error():
    def reply(connection, number):
        read_request(connection)
        time.sleep(2)

    with RawTCP(reply) as server:
        result = RemoteGrader(server.address, timeout_s=0.3).grade(PROBLEM, "c")
    assert no_grade(result)
    assert result.error_type == "timeout"


def test_closing_the_grader_abandons_a_slow_service():
    requested, over = threading.Event(), threading.Event()

    def reply(connection, number):
        read_request(connection)
        requested.set()
        over.wait(60)

    with RawTCP(reply) as server:
        grader = RemoteGrader(server.address)
        graded = in_thread(lambda: grader.grade(PROBLEM, "c"))
        assert requested.wait(20)
        grader.close()
        result = graded(20)
        over.set()
    assert no_grade(result)
    assert result.error_type == "closed"


def test_unreachable_service_is_retried(monkeypatch):
    waits = []
    monkeypatch.setattr("rollmill.inference.http_service.backoff_s", lambda retry: waits.append(retry) or 0.05)
    with RawTCP(lambda connection, number: None) as server:
        nobody = server.address
    result = RemoteGrader(nobody, max_retries=2).grade(PROBLEM, "c")
    assert no_grade(result)
    assert result.error_type == "connection"
    assert waits[:2] == [0, 1]


def test_leaving_the_block_ends_what_waits_for_a_grade():
    with RawTCP(lambda connection, _: (read_request(connection), time.sleep(2))) as service:
        with RemoteGrader(service.address) as grader:
            grading = in_thread(lambda: grader.grade(PROBLEM, "c"))
            wait_until(lambda: service.connections == 1)
        evaluation = grading()
    assert no_grade(evaluation)
    assert evaluation.error_type == "closed"
