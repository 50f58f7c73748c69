"""Prefect for a team, in a browser: registration, one shared GPU, schedules, notifications."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import expect

from blocks.kinds import BLOCKS
from deployments.automations import automations
from rollmill.inference.script import Script
from rollmill.inference.scripted import ScriptedServer
from tests.deployments.conftest import (
    CANCEL_S,
    FLAGS,
    FULL,
    NOTIFY,
    QUICK,
    WEEKLY,
    Desk,
    automation_names,
    run_parameters,
    script,
    vllm_processes,
)
from tests.deployments.pages import CHROMIUM, Pages, open_pages
from tests.flows.conftest import ROOT, journal_lines, write_problems
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: see requirements/debian-tests.txt")


def limits(desk: Desk) -> tuple[int, int]:
    """Return the concurrency limits of the queues gpu and cpu."""
    queues = {entry["name"]: entry["concurrency_limit"] for entry in desk.ask("work_pools/local/queues/filter", {})}
    return queues["gpu"], queues["cpu"]


def test_everything_is_registered(desk: Desk) -> None:
    named = {entry["name"] for entry in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    deployments = desk.ask("deployments/filter", {})
    assert {entry["name"] for entry in deployments} == named
    assert all(entry["description"] and entry["tags"] and entry["concurrency_options"] for entry in deployments)
    assert not any(schedule["active"] for entry in deployments for schedule in entry["schedules"])
    assert limits(desk) == (1, 4)
    slugs = {entry["slug"] for entry in desk.ask("block_types/filter", {})}
    assert {"vllm-server", "inference-endpoint", "dask-cluster", "sandbox-service"} <= slugs
    assert len(automation_names(desk)) == 3


@pytest.fixture
def pages(desk: Desk) -> Iterator[Pages]:
    with open_pages(desk.url) as opened:
        yield opened


def fill(pages: Pages, folder: Path) -> None:
    """Fill in the form of a rejection-sampling deployment: the scripted server instead of vLLM, 4 problems."""
    values = {
        "Model path": "m",
        "Problems: Data set": str(write_problems(folder / "problems.jsonl", 4)),
        "Prompt: Few-shot examples": "",
        "Server: vLLM arguments": script(latency_s=0.1),
        "Running: Output directory": str(folder / "out"),
        "Running: Log directory": str(folder / "logs"),
    }
    for label, value in values.items():
        pages.field(label).fill(value)


@needs_browser
def test_run_is_started_and_read_in_the_ui(pages: Pages, tmp_path: Path) -> None:
    page = pages.page
    pages.open_menu("Deployments")
    pages.expect_texts("reject-sampling-weekly", "train-lora")
    pages.take_screenshot("deployments")
    page.get_by_role("link", name="reject-sampling-quick", exact=True).click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()

    number = pages.field("Sampling: Rollouts per problem")
    expect(number).to_have_value("2")
    pages.take_screenshot("form")
    pages.take_screenshot("form-sampling", top=page.get_by_text("Prompt: Few-shot examples"))
    fill(pages, tmp_path)
    number.fill("0")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(":invalid").last).to_have_value("0")
    number.fill("2")
    pages.press("Submit", "**/create_flow_run")

    page.get_by_role("link", name="View run").or_(page.get_by_role("link", name="reject-sampling quick")).first.click()
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    page.get_by_role("tab", name="Artifacts").click()
    pages.expect_texts("quick: 8/8 rollouts, success 12.5%", f"Results of quick: {tmp_path / 'out/quick'} on ")
    pages.take_screenshot("artifacts", top=page.get_by_role("tab", name="Artifacts"))
    page.get_by_role("tab", name="Logs").click()
    pages.expect_texts("Finished in state Completed()")
    pages.take_screenshot("run")
    run = page.url

    pages.open_artifact("reject-sampling-quick-files")
    pages.expect_texts(str(tmp_path / "out/quick"), "sft.jsonl", "reject_sampling_results.json")
    pages.take_screenshot("files")
    page.goto(run)
    pages.open_artifact("reject-sampling-quick-summary")
    cells = page.get_by_role("row").filter(has_text="12.5%").get_by_role("cell")
    expect(cells).to_have_count(9)
    assert cells.all_inner_texts()[:4] == ["quick", "4", "8", "12.5%"]
    pages.take_screenshot("summary")
    page.goto(run)
    pages.open_artifact("reject-sampling-quick-statistics")
    pages.expect_texts("Rejection sampling: quick", "pass@k")
    pages.take_screenshot("statistics")
    page.goto(run)
    pages.open_artifact("reject-sampling-quick-errors")
    picture = page.locator("img[src^='data:image/png;base64,']").first
    expect(picture).to_be_visible()
    assert picture.evaluate("element => element.naturalWidth") > 500
    pages.take_screenshot("picture")


@needs_browser
def test_cancelling_in_the_ui_ends_vllm(pages: Pages, desk: Desk, tmp_path: Path) -> None:
    run = desk.start(FULL, **run_parameters(tmp_path, 400, latency_s=1.0, children=True), concurrency=2)
    wait_until(lambda: journal_lines(tmp_path / "out"), timeout=180)
    pages.page.goto(f"{desk.url}/runs/flow-run/{run}")
    pages.page.get_by_role("button", name="Cancel", exact=True).click()
    pages.expect_texts("Cancel Flow Run")
    assert vllm_processes(desk)
    pages.press("Confirm", "**/set_state")
    wait_until(lambda: vllm_processes(desk) == [], timeout=CANCEL_S)
    expect(pages.page.get_by_text("Cancelled", exact=True).first).to_be_visible()


@needs_browser
def test_blocks_created_in_the_ui_keep_their_secrets(pages: Pages) -> None:
    page = pages.page
    for block in BLOCKS:
        pages.new_block(block.get_block_type_name())
        descriptions = [field.description or "" for field in block.model_fields.values()]
        pages.expect_texts(*descriptions, block.get_description() or "")
        pages.take_screenshot(f"block-{block.get_block_type_slug()}")

    pages.new_block("Inference endpoint")
    page.get_by_label("Name").fill("team-servers")
    page.get_by_role("button", name="Add item").click()
    pages.field("Base Urls").fill("http://gpu-1:8000/v1")
    page.get_by_role("tab", name="password").click()
    pages.field("Api Key").fill("a-canary-key")
    pages.press("Save", "**/block_documents/")
    pages.expect_texts("team-servers", "http://gpu-1:8000/v1", "********")
    assert "a-canary-key" not in page.content()
    pages.take_screenshot("block")


@needs_browser
def test_automations_have_descriptive_names(pages: Pages) -> None:
    pages.open_menu("Automations")
    names = [entry.name for entry in automations(silent_s=45, late_s=10, notification=None)]
    assert len(names) == 3
    pages.expect_texts(*names)
    pages.take_screenshot("automations")


@pytest.mark.usefixtures("messages")
def test_second_up_applies_its_flags_and_keeps_active_schedules(desk: Desk) -> None:
    before = automation_names(desk)
    weekly = desk.deployment(WEEKLY)
    [schedule] = weekly["schedules"]
    desk.ask(f"deployments/{weekly['id']}/schedules/{schedule['id']}", {"active": True}, method="PATCH")
    output = desk.up("--gpu_runs=1", "--cpu_runs=8", NOTIFY, *FLAGS)
    assert f"export PREFECT_API_URL={desk.url}/api" in output
    assert limits(desk) == (1, 8)
    [schedule] = desk.deployment(WEEKLY)["schedules"]
    assert schedule["active"]
    desk.ask(f"deployments/{weekly['id']}/schedules/{schedule['id']}", {"active": False}, method="PATCH")
    assert automation_names(desk) == before | {"tell of failures", "tell of crashes", "tell of late runs"}


def test_runs_show_their_results_as_artifacts(desk: Desk, tmp_path: Path) -> None:
    run = desk.start(FULL, **run_parameters(tmp_path, 40))
    assert desk.wait(run)["state"]["type"] == "COMPLETED", desk.logs()
    shown = {entry["key"]: entry for entry in desk.artifacts(run)}
    [progress] = [entry for entry in shown.values() if entry["type"] == "progress"]
    assert progress["data"] == 100
    assert "m: 80/80 rollouts, success" in progress["description"]
    assert "80" in shown["reject-sampling-m-summary"]["data"]
    assert "pass@k" in shown["reject-sampling-m-statistics"]["data"]
    assert "data:image/png;base64" in shown["reject-sampling-m-errors"]["data"]

    run = desk.start("curate/curate", input=[str(tmp_path / "out/m")], output_dir=str(tmp_path / "curated"))
    assert desk.wait(run)["state"]["type"] == "COMPLETED", desk.logs()
    assert "curate-overview" in {entry["key"] for entry in desk.artifacts(run)}


def test_failed_runs_send_a_notification(desk: Desk, tmp_path: Path, notified: list[str]) -> None:
    failing = desk.start(QUICK, **run_parameters(tmp_path) | {"dataset": str(tmp_path / "none.jsonl")})
    assert desk.wait(failing)["state"]["type"] == "FAILED"
    wait_until(lambda: any("reject-sampling failed" in entry for entry in notified))
    [notification] = [entry for entry in notified if "reject-sampling failed" in entry]
    assert "none.jsonl" in notification


def test_second_run_waits_for_the_gpu_and_its_delay_sends_a_notification(
    desk: Desk, tmp_path: Path, notified: list[str]
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with ScriptedServer(Script(model="m", latency_s=5.0)) as server:
        sampling = {"base_url": [server.base_url], "vllm_args": "", "concurrency": 1}
        first = desk.start(QUICK, **run_parameters(folders[0], 40) | sampling)
        wait_until(lambda: server.requests, timeout=180)
        second = desk.start(WEEKLY, **run_parameters(folders[1]))
        name = desk.run(second)["name"]
        wait_until(lambda: any("has been late" in entry and name in entry for entry in notified), timeout=180)
        server.script.latency_s = 0.0
        desk.wait(first)
    begun = desk.wait(second)["start_time"]
    assert desk.state(first) == desk.state(second) == "COMPLETED", desk.logs()
    assert begun >= desk.run(first)["end_time"]


def test_scheduled_run_has_the_date_in_its_folder(desk: Desk, tmp_path: Path) -> None:
    deployment = desk.deployment(QUICK)
    parameters = (
        deployment["parameters"]["parameters"] | run_parameters(tmp_path) | {"output_dir": str(tmp_path / "of-{date}")}
    )
    body = [{"schedule": {"interval": 15.0}, "active": True, "parameters": {"parameters": parameters}, "slug": "soon"}]
    [schedule] = desk.ask(f"deployments/{deployment['id']}/schedules", body)
    try:
        of_it = {"deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "EXPECTED_START_TIME_DESC"}

        def fired() -> list[Any]:
            runs = desk.ask("flow_runs/filter", of_it)
            return [run for run in runs if run["auto_scheduled"] and run["state_type"] == "COMPLETED"]

        wait_until(fired, timeout=240, every=0.5)
        [run, *_] = fired()
    finally:
        desk.ask(f"deployments/{deployment['id']}/schedules/{schedule['id']}", method="DELETE")
    day = run["expected_start_time"][:10]
    assert len(journal_lines(tmp_path / f"of-{day}")) == 8
    for late in desk.ask("flow_runs/filter", of_it):
        if late["state_type"] not in {"COMPLETED", "FAILED", "CANCELLED"}:
            desk.wait(late["id"])
