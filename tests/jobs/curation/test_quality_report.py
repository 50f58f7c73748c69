"""The quality report."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from rollmill.corpus.table import empty_table
from rollmill.jobs.curation.analysis import analyse
from rollmill.jobs.curation.quality_report import quality_report
from tests.jobs.curation.made_rollouts import made_table

HOSTILE = '</td><script>document.title="owned"</script><img src=x onerror=alert(1)>'


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.rows = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        self.in_cell = tag in {"td", "th"} or (self.in_cell and tag == "button")

    in_cell = False

    def handle_data(self, data):
        if self.in_cell and self.rows and data.strip():
            self.rows[-1].append(data)
        self.in_cell = False

    def named(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def report(table, title="run", quarantined=0, sources=("a.jsonl",)):
    return quality_report(title, table, analyse(table, quarantined=quarantined), sources).decode()


def test_page_has_the_numbers():
    table = made_table(
        {"success": True, "reward": 1.0, "completion_hash": 1, "exit_status": "Submitted"},
        {"success": False, "reward": 0.5, "completion_hash": 1, "exit_status": "Submitted"},
        {"instance_id": "b", "status": "failed", "error_type": "Timeout"},
        {"instance_id": "c", "success": False, "reward": -1.0},
    )
    page = report(table, quarantined=7)
    rows = Tags(page).rows
    assert ["a", "2", "0", "2", "1", "50.0%", "0.75", "1", "1"] in rows
    assert ["b", "1", "1", "0", "0", "-", "-", "-", "0"] in rows
    assert [row[0] for row in rows[1:4]] == ["c", "a", "b"], "hardest first, unjudged last"
    assert ["Submitted", "2", "100.0%"] in rows
    assert ["Timeout", "1", "100.0%"] in rows
    assert "7 rows of the input could not be used" in page
    assert "1 completion (50.0%) equal to an earlier one of the same problem" in page
    assert "1 of 1 problem with several" in page


def test_nothing_from_outside_becomes_markup():
    table = made_table({"instance_id": HOSTILE, "exit_status": HOSTILE, "success": False}, *[
        {"instance_id": HOSTILE, "status": "failed", "error_type": HOSTILE}] * 3)  # fmt: skip
    parsed = Tags(report(table, title=HOSTILE, sources=[HOSTILE]))
    assert len(parsed.named("script")) == 1
    assert len(parsed.named("img")) == 1
    assert not any("onerror" in attrs for _, attrs in parsed.tags)
    assert any(HOSTILE in row for row in parsed.rows)


def test_nothing_is_loaded_from_elsewhere():
    page = report(made_table({"success": True}))
    assert [attrs["src"][:22] for attrs in Tags(page).named("img")] == ["data:image/png;base64,"]
    assert not re.search(r"https?://|<link|@import|url\(", page)
    assert "default-src 'none'" in page


def test_problems_beyond_the_hardest_are_left_out_and_counted():
    table = made_table(*({"instance_id": f"p{n:04}", "success": n >= 5, "reward": n / 10} for n in range(1003)))
    page = report(table)
    assert "The 1,000 hardest; 3 more are left out here" in page
    assert page.count('<th scope="row">p0') == 1000
    assert "p0999" in page
    assert "p1000" not in page


def test_an_empty_table_and_a_lone_surrogate_have_a_page():
    page = report(empty_table(), title="\ud800 模型", sources=[])
    assert "There is no problem." in page
    assert "模型" in page


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to sort a table in")
def test_a_browser_shows_names_as_text_and_sorts(tmp_path):
    table = made_table(
        *({"instance_id": name, "success": False, "reward": value} for name, value in [("x", 3.0), (HOSTILE, 20.0)]),
        {"instance_id": "none"},
    )
    press = "<script>const h = document.querySelectorAll('.sortable button')[6]; h.click(); h.click();</script></body>"
    file = tmp_path / "report.html"
    file.write_text(report(table).replace("</body>", press), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    parsed = Tags(done.stdout)
    assert "<title>run</title>" in done.stdout
    assert [row[0] for row in parsed.rows[1:4]] == [HOSTILE, "x", "none"]
