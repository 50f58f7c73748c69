"""The documentation builds strictly, without external resources, and matches the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from blocks.kinds import BLOCKS
from rollmill.environments.registry import ENVIRONMENTS
from rollmill.jobs.improvement.data_sources import SOURCES
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.sandboxes.registry import SANDBOXES
from rollmill.verifiers.registry import VERIFIERS
from tests.documentation.pages import PAGES, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [ROOT / "scripts/documentation", "--site-dir", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_are_built_without_external_resources(site: Path) -> None:
    built = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")} - {Path("404")}
    assert built == {
        path.relative_to(ROOT / "docs").with_suffix("") for path in PAGES if (ROOT / "docs") in path.parents
    }
    assert not list(site.rglob("hooks"))
    for page in site.rglob("*.html"):
        fetched = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(https?:[^\" >]+)", page.read_text())
        assert not fetched, (page, fetched)


def test_the_reference_has_every_parameter_and_block(site: Path) -> None:
    page = (site / "reference/reject_sampling.html").read_text()
    rows = {name: row for row in page.split("<tr>") for name in re.findall(r"^\s*<td><code>--(\w+)</code>", row)}
    assert set(rows) == set(RejectSampling.model_fields)
    assert "at least 0, at most 10" in rows["temperature"]
    assert "<code>failed</code>, <code>truncated</code>" in rows["retry"]
    assert "<code>NUM_ROLLOUT</code>" in rows["num_rollout"]
    blocks = (site / "reference/blocks.html").read_text()
    for block in BLOCKS:
        assert f"<code>{block.get_block_type_slug()}</code>" in blocks
        assert all(f"<td><code>{name}</code></td>" in blocks for name in block.model_fields if name[0] != "_")


def test_tables_list_every_registry_entry(site: Path) -> None:
    tables = {
        "how-to/rejection-sampling": VERIFIERS,
        "how-to/episodes": ENVIRONMENTS,
        "how-to/agent-rollouts": SANDBOXES,
        "how-to/training": SOURCES,
    }
    for name, registry in tables.items():
        page = (site / f"{name}.html").read_text()
        for entry in registry.values():
            assert re.search(rf"<td><code>{entry.name}\b.*</code></td>\s*<td>{re.escape(entry.description)}</td>", page)


def test_no_placeholder_is_left_and_records_are_described(site: Path) -> None:
    marks = re.compile(r"<!-- (parameters|record|blocks|deployments|entries)\b")
    assert not [(page.name, match[0]) for page in site.rglob("*.html") for match in marks.finditer(page.read_text())]
    records = (site / "concepts/records.html").read_text()
    assert "Index of the rollout among those of the problem, from 0." in records  # the text under a field of `Rollout`
    assert "$$" not in (site / "concepts/q-star.html").read_text()
    assert 'class="formula"' in (site / "concepts/q-star.html").read_text()
