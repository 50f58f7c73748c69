"""The rejection sampling flow: run, continued, refused, interrupted."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rollmill.inference.scripted import Script, ScriptedServer
from tests.flows.conftest import Job, journal_lines, write_problems
from tests.inference.raw_server import RawServer
from tests.inference.test_trial import server_that, unsupported
from tests.problems.conftest import make_png

pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path: Path, prefect_environment: dict[str, str]) -> Job:
    write_problems(tmp_path / "problems.jsonl", 20)
    return Job("reject_sampling", tmp_path, prefect_environment | {"PYTHONPATH": str(Path(__file__).parents[2])})


BASE = ("--model_path", "scripted", "--model_name", "scripted", "--dataset", "problems.jsonl", "--num_rollout", "4")


def flags(server: ScriptedServer) -> tuple[str, ...]:
    return (*BASE, "--base_url", server.base_url)


def only_line(text: str) -> str:
    """Return the last line, which is the error's message; check that there is no traceback."""
    assert "Traceback" not in text
    return text.strip().splitlines()[-1]


def test_run_writes_its_files_and_the_second_run_does_nothing(job: Job) -> None:
    folder = job.folder / "reject_sampling_results" / "scripted"
    with ScriptedServer(Script(latency_s=0.01)) as server:
        done = job.run(*flags(server))
        assert done.returncode == 0, done.stderr
        assert server.requests == 80
        assert max(server.seeds.values()) == 1
        assert "success" in done.stdout
        assert "tokens/s" in done.stdout
        results = (folder / "reject_sampling_results.json").read_bytes()
        again = job.run(*flags(server))
        assert server.requests == 80
    assert "already complete" in again.stdout
    assert "Flow run" not in again.stderr, "Prefect has nothing to do"
    assert (folder / "reject_sampling_results.json").read_bytes() == results
    rows = json.loads(results)["results"]
    assert [row["instance_id"] for row in rows] == [f"p{number}" for number in range(20)]
    assert all(row["counts"] == {"ok": 4, "unparseable": 0, "failed": 0, "missing": 0} for row in rows)
    assert all(row["min_error"] == min(row["errors"]) for row in rows)
    statistics = (folder / "statistics.txt").read_text()
    assert "expected 80 = ok 80 + unparseable 0 + failed 0 + missing 0" in statistics
    health = "health: nothing wrong in 80 rollouts and 20 ground truths"
    assert health in done.stdout
    assert health in statistics
    assert (folder / "error_distribution.png").read_bytes().startswith(b"\x89PNG")
    accepted = sum(row["accepted"] for row in rows)
    kept = [json.loads(line) for line in (folder / "sft.jsonl").read_text().splitlines()]
    assert 0 < len(kept) <= accepted
    assert all(row["metadata"]["error"] == 0 and row["messages"][-1]["role"] == "assistant" for row in kept)
    assert {row["metadata"]["model"] for row in kept} == {"scripted"}
    dropped = [json.loads(line)["drop_reason"] for line in (folder / "sft.dropped.jsonl").read_text().splitlines()]
    assert len(kept) + len(dropped) == 80
    assert set(dropped) == {"not_successful", "duplicate_completion"}
    assert dropped.count("not_successful") == 80 - accepted
    assert f"| kept | {len(kept)} |" in (folder / "README.md").read_text()
    analysed = Job("curate", job.folder, job.environment).run("analyze", "--input", str(folder), "--json")
    assert analysed.returncode == 0, analysed.stderr
    analysis = json.loads(analysed.stdout)
    assert (analysis["rollouts"], analysis["problems"], analysis["successes"]) == (80, 20, accepted)
    assert analysis["duplicates"] >= dropped.count("duplicate_completion")


def test_more_rollouts_continue_the_run_and_other_parameters_are_refused(job: Job) -> None:
    with ScriptedServer(Script()) as server:
        assert job.run(*flags(server)).returncode == 0
        assert job.run(*flags(server), "--num_rollout", "6").returncode == 0
        assert server.requests == 120
        refused = job.run(*flags(server), "--temperature", "0.5", "--verifier", "exact")
    assert refused.returncode == 1
    output = only_line(refused.stderr)
    assert "temperature (1.0 on disk, 0.5 now)" in output
    assert 'verifier ("numeric@2" on disk, "exact@2" now)' in output
    assert len(journal_lines(job.folder)) == 120


def test_reverify_scores_again_without_generating(job: Job) -> None:
    folder = job.folder / "reject_sampling_results" / "scripted"
    with ScriptedServer(Script()) as server:
        assert job.run(*flags(server)).returncode == 0
        before = json.loads((folder / "reject_sampling_results.json").read_text())["summary"]["accepted"]
        request_count = server.requests
        loose = (*flags(server), "--accept_error", "3", "--reverify")
        assert job.run(*loose).returncode == 0
        assert server.requests == request_count
    after = json.loads((folder / "reject_sampling_results.json").read_text())["summary"]["accepted"]
    assert after > before
    assert sorted(path.name for path in (folder / "rollouts").glob("*.jsonl")) == ["0001.jsonl", "0002.jsonl"]


def test_retry_repeats_only_failed_or_truncated_rollouts(job: Job) -> None:
    folder = job.folder / "reject_sampling_results" / "scripted"
    with ScriptedServer(Script(faults=["400"] * 5)) as server:
        assert job.run(*flags(server), "--no_canary").returncode == 0
        assert "failed 5" in (folder / "statistics.txt").read_text()
        assert job.run(*flags(server), "--retry", "failed").returncode == 0
        assert server.requests == 85
        assert "ok 80 + unparseable 0 + failed 0" in (folder / "statistics.txt").read_text()
        server.script.finish_reason = "length"
        assert job.run(*flags(server), "--num_rollout", "5", "--no_canary").returncode == 0
        assert server.requests == 105
        server.script.finish_reason = "stop"
        refused = job.run(*flags(server), "--num_rollout", "5", "--max_tokens", "4096")
        assert "--retry truncated" in only_line(refused.stderr)
        longer = (*flags(server), "--num_rollout", "5", "--max_tokens", "4096", "--retry", "truncated")
        assert job.run(*longer).returncode == 0
        assert server.requests == 125


def test_canary_stops_a_run_without_usable_answers(job: Job) -> None:
    with ScriptedServer(Script(completion="I cannot say.")) as server:
        stopped = job.run(*flags(server))
        assert stopped.returncode == 1
        assert "only 0% of the canary's completions hold an answer" in only_line(stopped.stderr)
        assert server.requests == 16
        assert job.run(*flags(server), "--no_canary").returncode == 0
        assert server.requests == 80


def test_reason_is_printed_if_all_rollouts_fail(job: Job) -> None:
    with ScriptedServer(Script(context_tokens=1)) as server:
        stopped = job.run(*flags(server))
        assert stopped.returncode == 1
        line = only_line(stopped.stderr)
        assert "all 16 rollouts of the canary failed: 16 x http_400" in line
        assert "This model's maximum context length is 1 tokens" in line
        assert "give a smaller --max_tokens" in line
        assert server.requests == 16
        failed = job.run(*flags(server), "--max_problems", "6", "--output_dir", "other", "--no_canary")
        assert failed.returncode == 1
        assert "all 24 rollouts failed: 24 x http_400" in only_line(failed.stderr)
        statistics = (job.folder / "other" / "scripted" / "statistics.txt").read_text()
        assert "24 x http_400: " in statistics
        assert "WARNING: 24 of 24 rollouts failed outside the model (24 x http_400" in statistics
        assert job.run(*flags(server), "--max_problems", "6", "--output_dir", "other", "--no_canary").returncode == 1
        assert server.requests == 40


def answer_body(form: int) -> bytes:
    """Return a response body: a right answer in the form of one of several servers, a refusal, or an error."""
    text = "It is <answer>4</answer>."
    forms: list[dict[str, Any] | bytes] = [
        {"message": {"content": [{"type": "thinking", "thinking": "2+2"}, {"type": "text", "text": text}]}},
        {"message": {"content": text, "reasoning": {"content": "2+2"}}},
        {"message": {"content": None, "refusal": "I won't."}},
        {"message": {"content": None}, "finish_reason": "content_filter"},
        b'data: {"choices": [{"delta": {"content": "It is <answer>4</answer>."}}]}\n\ndata: [DONE]\n\n',
        b'{"error": {"message": "upstream went away", "code": 400}}',
    ]
    output = forms[form % len(forms)]
    return (
        output if isinstance(output, bytes) else json.dumps({"choices": [{"finish_reason": "stop", **output}]}).encode()
    )


def test_server_errors_are_classified(job: Job) -> None:
    calls: list[int] = []

    def answer(_headers: Any, body: bytes) -> tuple[int, bytes]:
        if body == b"/v1/models":
            return 200, b'[{"id": "scripted", "owned_by": "sglang"}]'
        calls.append(1)
        return 200, answer_body(len(calls))

    with RawServer(answer) as server:
        done = job.run(*BASE, "--base_url", server.base_url, "--verifier", "exact", "--no_canary")
    assert done.returncode == 0, done.stderr
    assert len(calls) == 80
    rows = [json.loads(line) for line in journal_lines(job.folder)]
    reasons = Counter(
        (row["verdict"] or {}).get("reason") or row["verdict"]["status"] for row in rows if row["verdict"]
    )
    assert (reasons["refusal"], reasons["content_filter"]) == (14, 13)
    failed = [row["error"]["message"] for row in rows if row["error"]]
    assert set(failed) == {"an error inside the answer: upstream went away"}
    assert f"{len(failed)} x http_400: an error inside the answer: upstream went away" in done.stdout
    statistics = (job.folder / "reject_sampling_results" / "scripted" / "statistics.txt").read_text()
    assert "no text: refusal" in statistics


def test_requests_have_the_fields_that_the_server_accepts(job: Job) -> None:
    def refuses(request: dict[str, Any]) -> Any:
        return next((unsupported(name) for name in ("max_tokens", "seed", "temperature") if name in request), None)

    with server_that(refuses, models=[{"id": "scripted"}]) as server:
        call = (*BASE, "--base_url", server.base_url, "--temperature", "0.5")
        refused = job.run(*call)
        assert refused.returncode == 1
        assert "the server refuses temperature 0.5: " in only_line(refused.stderr)
        assert "or --drop_params to leave it out" in only_line(refused.stderr)
        done = job.run(*call, "--drop_params", "--no_canary")
        assert done.returncode == 0, done.stderr
        tried = len(server.requests)
        assert "already complete" in job.run(*call, "--drop_params", "--no_canary").stdout
        assert len(server.requests) == tried
    assert "the server accepts no seed" in done.stderr
    assert {"max_completion_tokens", "top_p"} < set(server.requests[-1])
    manifest = json.loads((job.folder / "reject_sampling_results" / "scripted" / "manifest.json").read_text())
    assert manifest["request_changes"]["model"]["left_out"] == ["seed", "temperature"]
    assert manifest["identity"]["generation"]["left_out"] == {"model": ["temperature"]}


def test_one_rollout_per_problem_and_temperature_zero(job: Job) -> None:
    with ScriptedServer(Script()) as server:
        done = job.run(*flags(server), "--num_rollout", "1")
        assert done.returncode == 0, done.stderr
        assert server.requests == 20
        same = job.run(*flags(server), "--temperature", "0", "--output_dir", "greedy")
        assert "at --temperature 0 the 4 rollouts of a problem are the same answer" in same.stdout


def test_several_checkpoints_are_compared(job: Job, stand_in: dict[str, str]) -> None:
    job.environment = stand_in
    models = ("--model_path", "a", "b", "--model_name", "step1", "step2", "--dataset", "problems.jsonl")
    done = job.run(*models, "--num_rollout", "2")
    assert done.returncode == 0, done.stderr
    folder = job.folder / "reject_sampling_results"
    assert "step2 against step1, paired by problem, on 20 problems" in (folder / "comparison.txt").read_text()
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "step1" / "statistics.txt").exists()
    assert (folder / "step2" / "statistics.txt").exists()
    assert "serving on port" in (job.folder / "logs" / "step2_vllm.log").read_text()


MISTAKES = {
    ("--base_url", "http://127.0.0.1:9/v1"): "no server answers at http://127.0.0.1:9/v1",
    ("--dataset", "nowhere.jsonl"): "nowhere.jsonl",
    ("--few_shot", "nowhere.jsonl"): "nowhere.jsonl",
    ("--verifier", "no_such"): "no_such",
    ("--prompt_template", "Say {quetsion}"): "{prompt}",
    ("--answer_field", "solution"): "--answer_field",
    ("--retry", "failed"): "there is none",
    ("--endpoint_block", "no-such"): "no-such",
}


def test_mistakes_are_one_line(job: Job) -> None:
    with ScriptedServer(Script()) as server:
        command_lines = [
            [
                *(BASE if option[0] in ("--base_url", "--endpoint_block") else flags(server)),
                "--output_dir",
                f"out_{number}",
                *option,
            ]
            for number, option in enumerate(MISTAKES)
        ]
        for (code, output), expected in zip(job.fail_each(*command_lines), MISTAKES.values(), strict=True):
            assert code in (1, 2), output
            assert expected in output


def test_wrong_model_name_names_what_is_served(job: Job) -> None:
    with ScriptedServer(Script(model="other")) as server:
        failed = job.run(*flags(server))
    assert "does not serve 'scripted' but 'other'" in only_line(failed.stderr)


UNUSABLE = {
    b"": "holds no rows",
    b'{"question": "q"}\n': "--answer_field",
    b'{"question": 5, "answer": []}\n': "file_2.jsonl",
    b"\xff\xfe\x00garbage\n": "file_3.jsonl",
    b'{"question": "\\ud800", "answer": 1}\n': "file_4.jsonl",
    b'{"id": 1, "question": "q", "answer": "many"}\n': "file_5.jsonl",
}


def test_unusable_input_is_one_line(job: Job) -> None:
    for number, content in enumerate(UNUSABLE):
        (job.folder / f"file_{number}.jsonl").write_bytes(content)
    with ScriptedServer(Script()) as server:
        command_lines = [[*flags(server), "--dataset", f"file_{number}.jsonl"] for number in range(len(UNUSABLE))]
        for (code, output), expected in zip(job.fail_each(*command_lines), UNUSABLE.values(), strict=True):
            assert code == 1, output
            assert expected in output


def test_bad_rows_are_quarantined_and_reported(job: Job) -> None:
    rows = (job.folder / "problems.jsonl").read_bytes().splitlines(keepends=True)
    rows[3] = b'{"id": "p3", "question": "\\ud800", "answer": 3}\n'
    rows[5] = rows[4]
    rows[7] = json.dumps({"id": "p7", "question": "long " * 2_000_000, "answer": 7}).encode() + b"\n"
    (job.folder / "problems.jsonl").write_bytes(b"".join(rows))
    with ScriptedServer(Script()) as server:
        done = job.run(*flags(server), "--num_rollout", "2", "--no_canary")
        assert done.returncode == 0, done.stderr
        assert server.requests == 36
    folder = job.folder / "reject_sampling_results" / "scripted"
    quarantined = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert [row["row"] for row in quarantined] == [4, 6]
    assert "duplicate id" in quarantined[1]["reason"]
    assert "2 rows" in done.stdout


def test_images_go_to_the_server_in_order(job: Job) -> None:
    images = [make_png(number) for number in range(3)]
    for number, image in enumerate(images):
        (job.folder / f"{number}.png").write_bytes(image)
    rows = [{"prompt": "<image> or <image>?", "answer": 1, "images": [f"{n}.png", "2.png"]} for n in range(2)]
    (job.folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ScriptedServer(Script()) as server:
        done = job.run(*flags(server), "--num_rollout", "1", "--no_canary", "--accept_error", "9")
        assert done.returncode == 0, done.stderr
        sent = [body["messages"][0]["content"] for body in server.bodies]
    urls = sorted([part["image_url"]["url"] for part in parts if part["type"] == "image_url"] for parts in sent)
    data = ["data:image/png;base64," + base64.b64encode(image).decode() for image in images]
    assert urls == sorted([[data[0], data[2]], [data[1], data[2]]])
    folder = job.folder / "reject_sampling_results" / "scripted"
    journaled = json.loads(journal_lines(folder)[0])["messages"][0]["content"]
    paths = [part["image"] for part in journaled if part["type"] == "image"]
    assert (folder / paths[1]).read_bytes() == images[2]
    kept = [json.loads(line)["images"] for line in (folder / "sft.jsonl").read_text().splitlines()]
    assert [[(folder / path).read_bytes() for path in row] for row in kept] == [
        [images[0], images[2]],
        [images[1], images[2]],
    ]


SAVE_BLOCKS = """
import sys
from blocks.inference import InferenceEndpoint, VLLMServer
InferenceEndpoint(base_urls=[sys.argv[1]], api_key=sys.argv[2]).save("desk")
VLLMServer(python=sys.executable, startup_timeout_s=60).save("desk")
"""


def test_servers_and_key_come_from_blocks(job: Job, stand_in: dict[str, str]) -> None:
    key = "canary-key-77aa"
    with ScriptedServer(Script()) as server:
        saved = [sys.executable, "-c", SAVE_BLOCKS, server.base_url, key]
        subprocess.run(saved, env=job.environment, check=True, cwd=job.folder, capture_output=True)
        done = job.run(*BASE, "--endpoint_block", "desk")
        assert done.returncode == 0, done.stderr
        assert server.requests == 80
    assert not [path for path in job.folder.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    job.environment = {**stand_in, "ROLLMILL_VLLM_PYTHON": "/nowhere"}
    options = ("--model_path", "m", "--model_name", "own", "--dataset", "problems.jsonl", "--num_rollout", "2")
    done = job.run(*options, "--server_block", "desk")
    assert done.returncode == 0, done.stderr


def test_api_key_is_not_written_anywhere(job: Job) -> None:
    key = "canary-key-5b1c"
    with ScriptedServer(Script(faults=["401", "400"])) as server:
        done = job.run(*flags(server), VLLM_API_KEY=key)
    assert done.returncode == 0, done.stderr
    assert key not in done.stdout + done.stderr
    written = [path for path in job.folder.rglob("*") if path.is_file()]
    written += [path for path in Path(job.environment["PREFECT_HOME"]).rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if key.encode() in path.read_bytes()]


BROKEN_VERIFIER = """
import os, time

class Broken:
    name, version = "broken", "1"

    def verify(self, problem, completion):
        from rollmill.records import Verdict
        if os.path.exists("mended"):
            return Verdict(verifier="broken@1", status="ok", answer="1", error=0.0, reward=1.0, success=True)
        if problem.instance_id == "p1":
            os._exit(3)
        if problem.instance_id != "p2":
            raise ValueError("no idea")
        return Verdict(verifier="broken@1", status="ok", answer="1", error=1.0, reward=0.0, success=False)
"""


def test_rows_of_a_broken_verifier_are_reverified_without_generating(job: Job) -> None:
    (job.folder / "broken.py").write_text(BROKEN_VERIFIER)
    folder = job.folder / "reject_sampling_results" / "scripted"
    options = ("--verifier", "broken:Broken", "--no_canary")
    with ScriptedServer(Script()) as server:
        done = job.run(*flags(server), *options)
        assert done.returncode == 0, done.stderr
        assert "fix the verifier, then --reverify" in done.stdout.replace("\n", " ")
        statistics = (folder / "statistics.txt").read_text()
        assert "expected 80 = ok 4 + unparseable 0 + failed 76 + missing 0" in statistics
        (job.folder / "mended").touch()
        assert job.run(*flags(server), *options, "--reverify").returncode == 0
        assert server.requests == 80
    assert "expected 80 = ok 80" in (folder / "statistics.txt").read_text()


def test_recommended_sampling_is_shown_and_can_be_used(job: Job) -> None:
    (job.folder / "model").mkdir()
    (job.folder / "model/generation_config.json").write_text('{"temperature": 0.6, "top_k": 20}')
    call = ("--model_path", "model", *BASE[2:], "--max_problems", "1", "--no_canary")
    with ScriptedServer(Script()) as server:
        plain = job.run(*call, "--base_url", server.base_url, "--output_dir", "plain")
        assert "generation_config.json recommends temperature 0.6, top_k 20" in plain.stderr
        assert "top_k" not in server.bodies[-1]
        taken = job.run(*call, "--base_url", server.base_url, "--output_dir", "taken", "--sampling", "model")
        assert "recommends" not in taken.stderr
        assert (server.bodies[-1]["temperature"], server.bodies[-1]["top_k"]) == (0.6, 20)
    notes = json.loads((job.folder / "plain/scripted/manifest.json").read_text())["notes"]
    assert "the running servers may add top_k 20" in notes[1]
