"""A run as a user starts it in the browser: from the deployments' list to what the run's artifacts say.

With `ROLLMILL_SCREENSHOTS=DIR` pictures of the pages are left there: `docs/images/ui-*.png` are made so.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from blocks.kinds import BLOCKS
from deployments.automations import automations
from tests.deployments.conftest import CANCEL_S, FULL, Desk, asked, of_vllm, script
from tests.flows.conftest import journal_lines, write_problems
from tests.waiting import wait_until

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 120_000
PICTURES = os.environ.get("ROLLMILL_SCREENSHOTS")
VERSION = re.compile("^[0-9a-f]{8}$")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: see requirements/debian-tests.txt"),
]


class Pages:
    """Prefect's pages in a browser, and what a user does there."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def go(self, name: str) -> None:
        """Clicks an entry of the menu."""
        self.page.get_by_role("link", name=name, exact=True).first.click()

    def field(self, label: str) -> Locator:
        """What is typed into under a label of the form."""
        labelled = f'//label[normalize-space() = "{label}" or normalize-space() = "{label} (Optional)"]'
        return self.page.locator(f"{labelled}/following::*[self::textarea or self::input][1]")

    def new_block(self, kind: str) -> None:
        """Opens the form of a new block."""
        self.go("Blocks")
        self.page.get_by_role("link", name="Add Block").first.click()
        self.page.get_by_placeholder("Search").last.fill(kind)
        expect(self.page.get_by_text("1 Block", exact=True)).to_be_visible()
        self.page.get_by_role("link", name="Create", exact=True).click()
        self.page.wait_for_url("**/create")

    def latest(self, key: str) -> None:
        """From the run's page, opens an artifact's last version."""
        self.page.get_by_role("tab", name="Artifacts").click()
        self.page.get_by_role("link", name=key).first.click()
        self.page.get_by_role("link", name=VERSION).first.click()
        self.page.wait_for_url("**/artifacts/artifact/**")

    def reads(self, *texts: str) -> None:
        """Waits until the page says all of it."""
        for text in texts:
            expect(self.page.get_by_text(text).first).to_be_visible()

    def take(self, name: str, *, top: Locator | None = None) -> None:
        """A picture for the documentation, where one is asked for."""
        if PICTURES:
            if top:
                top.evaluate("element => element.scrollIntoView({block: 'start'})")
            self.page.wait_for_timeout(3000)  # for what is drawn slowly; a picture proves nothing
            path = Path(PICTURES) / f"ui-{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=path, animations="disabled")


@pytest.fixture
def pages(desk: Desk) -> Iterator[Pages]:
    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=switches, timeout=PATIENCE_MS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.goto(desk.url)
        yield Pages(page)
        browser.close()


def fill(pages: Pages, folder: Path) -> None:
    """The form of a deployment of rejection sampling: the stand-in in vLLM's place, 4 problems."""
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


def test_a_run_is_started_and_read_by_clicking(pages: Pages, tmp_path: Path) -> None:
    page = pages.page
    pages.go("Deployments")
    pages.reads("reject-sampling-weekly", "train-lora")
    pages.take("deployments")
    page.get_by_role("link", name="reject-sampling-quick", exact=True).click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()

    number = pages.field("Sampling: Rollouts per problem")
    expect(number).to_have_value("2")
    pages.take("form")
    pages.take("form-sampling", top=page.get_by_text("Prompt: Few-shot examples"))
    fill(pages, tmp_path)
    number.fill("0")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(":invalid").last).to_have_value("0")
    number.fill("2")
    page.get_by_role("button", name="Submit").click()

    page.get_by_role("link", name="View run").or_(page.get_by_role("link", name="reject-sampling quick")).first.click()
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    page.get_by_role("tab", name="Artifacts").click()
    pages.reads("quick: 8/8 rollouts, success 12.5%", f"Results of quick: {tmp_path / 'out/quick'} on ")
    pages.take("artifacts", top=page.get_by_role("tab", name="Artifacts"))
    page.get_by_role("tab", name="Logs").click()
    pages.reads("Finished in state Completed()")
    pages.take("run")
    run = page.url

    pages.latest("reject-sampling-quick-files")
    pages.reads(str(tmp_path / "out/quick"), "sft.jsonl", "reject_sampling_results.json")
    pages.take("files")
    page.goto(run)
    pages.latest("reject-sampling-quick-summary")
    cells = page.get_by_role("row").filter(has_text="12.5%").get_by_role("cell")
    expect(cells).to_have_count(9)
    assert cells.all_inner_texts()[:4] == ["quick", "4", "8", "12.5%"]
    pages.take("summary")
    page.goto(run)
    pages.latest("reject-sampling-quick-statistics")
    pages.reads("Rejection sampling: quick", "pass@k")
    pages.take("statistics")
    page.goto(run)
    pages.latest("reject-sampling-quick-errors")
    picture = page.locator("img[src^='data:image/png;base64,']").first
    expect(picture).to_be_visible()
    assert picture.evaluate("element => element.naturalWidth") > 500
    pages.take("picture")


def test_cancelling_by_clicking_ends_vllm(pages: Pages, desk: Desk, tmp_path: Path) -> None:
    run = desk.start(FULL, **asked(tmp_path, 4000, latency_s=1.0, children=True))
    wait_until(lambda: journal_lines(tmp_path / "out"), timeout=180)
    pages.page.goto(f"{desk.url}/runs/flow-run/{run}")
    pages.page.get_by_role("button", name="Cancel", exact=True).click()
    pages.reads("Cancel Flow Run")
    assert of_vllm(desk)
    pages.page.get_by_role("button", name="Confirm", exact=True).click()
    wait_until(lambda: of_vllm(desk) == [], timeout=CANCEL_S)
    expect(pages.page.get_by_text("Cancelled", exact=True).first).to_be_visible()


def test_blocks_are_made_by_clicking_and_keep_their_secrets(pages: Pages) -> None:
    page = pages.page
    for block in BLOCKS:
        pages.new_block(block.get_block_type_name())
        pages.reads(*(field.description or "" for field in block.model_fields.values()), block.get_description() or "")
        pages.take(f"block-{block.get_block_type_slug()}")

    pages.new_block("Inference endpoint")
    page.get_by_label("Name").fill("team-servers")
    page.get_by_role("button", name="Add item").click()
    pages.field("Base Urls").fill("http://gpu-1:8000/v1")
    page.get_by_role("tab", name="password").click()
    pages.field("Api Key").fill("a-canary-key")
    page.get_by_role("button", name="Save").click()
    pages.reads("team-servers", "http://gpu-1:8000/v1", "********")
    assert "a-canary-key" not in page.content()
    pages.take("block")


def test_automations_say_what_they_do(pages: Pages) -> None:
    pages.go("Automations")
    names = [one.name for one in automations(silent_s=45, late_s=10, notification=None)]
    assert len(names) == 3
    pages.reads(*names)
    pages.take("automations")
