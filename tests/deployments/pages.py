"""Prefect's pages in a browser.

With `ROLLMILL_SCREENSHOTS=DIR` screenshots are written to that folder, such as those in `docs/images/ui-*.png`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as NothingSent

from tests.waiting import wait_until

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 120_000
PICTURES = os.environ.get("ROLLMILL_SCREENSHOTS")
VERSION = re.compile("^[0-9a-f]{8}$")


class Pages:
    """Prefect's pages in a browser, and what a user does there."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open_menu(self, name: str) -> None:
        """Click an entry of the menu."""
        self.page.get_by_role("link", name=name, exact=True).first.click()

    def field(self, label: str) -> Locator:
        """Return the input of the form with this label."""
        labelled = f'//label[normalize-space() = "{label}" or normalize-space() = "{label} (Optional)"]'
        return self.page.locator(f"{labelled}/following::*[self::textarea or self::input][1]")

    def press(self, button: str, address: str) -> None:
        """Press a button until its request to the address succeeds.

        A press does nothing while the page still validates a field, and the answer is 503 while Prefect's database is
        busy: a user would press again.
        """

        def taken() -> bool:
            try:
                with self.page.expect_request(address, timeout=10_000) as sent:
                    self.page.get_by_role("button", name=button, exact=True).click()
            except NothingSent:
                return False
            answer = sent.value.response()
            return answer is not None and answer.ok

        wait_until(taken, timeout=PATIENCE_MS / 1000)

    def new_block(self, kind: str) -> None:
        """Open the form of a new block."""
        self.open_menu("Blocks")
        self.page.locator("a[href$='/blocks/catalog']").first.click()
        self.page.get_by_placeholder("Search").last.fill(kind)
        expect(self.page.get_by_text("1 Block", exact=True)).to_be_visible()
        self.page.get_by_role("link", name="Create", exact=True).click()
        self.page.wait_for_url("**/create")

    def open_artifact(self, key: str) -> None:
        """Open the latest version of an artifact from the run's page."""
        self.page.get_by_role("tab", name="Artifacts").click()
        self.page.get_by_role("link", name=key).first.click()
        self.page.get_by_role("link", name=VERSION).first.click()
        self.page.wait_for_url("**/artifacts/artifact/**")

    def expect_texts(self, *texts: str) -> None:
        """Wait until the page shows all these texts."""
        for text in texts:
            expect(self.page.get_by_text(text).first).to_be_visible()

    def take_screenshot(self, name: str, *, top: Locator | None = None) -> None:
        """Take a screenshot for the documentation if `ROLLMILL_SCREENSHOTS` is set."""
        if PICTURES:
            if top:
                top.evaluate("element => element.scrollIntoView({block: 'start'})")
            self.page.wait_for_timeout(3000)  # for slow animations: no assertion depends on a screenshot
            path = Path(PICTURES) / f"ui-{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=path, animations="disabled")


@contextmanager
def open_pages(url: str) -> Iterator[Pages]:
    """Open the pages of a Prefect server in a browser while the block runs."""
    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    if not PICTURES:
        switches.append("--disable-3d-apis")  # without a GPU the graph of a run, which moves, is drawn by the CPU
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=switches, timeout=PATIENCE_MS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.goto(url)
        yield Pages(page)
        browser.close()
