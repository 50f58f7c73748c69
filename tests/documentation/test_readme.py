"""The README is one screen, and names only files, modules and numbers that exist."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from tests.documentation.pages import ROOT

README = (ROOT / "README.md").read_text()
BENCHMARKS = (ROOT / "docs/benchmarks.md").read_text()


def test_readme_has_fewer_than_1000_words() -> None:
    assert len(README.split()) < 1000


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)", README))))
def test_linked_files_exist(target: str) -> None:
    assert (ROOT / target).is_file()


def test_modules_of_the_jobs_exist() -> None:
    modules = re.findall(r"^\| \[`rollmill [\w-]+`\]\(docs/[^)]+\) \| `(flows\.\w+)` \|", README, re.MULTILINE)
    assert len(modules) == 7
    assert all(map(find_spec, modules))


def test_figures_of_the_readme_are_those_of_the_benchmarks() -> None:
    """Figures in the section `Why use it` are measured, and docs/benchmarks.md has them with their command."""
    reasons = README.partition("## Why use it\n")[2].partition("\n## ")[0]
    figures = re.findall(r"\d[\d,.]*(?:%|\b)", re.sub(r"\]\([^)]*\)|`[^`]*`|-135M", "", reasons))
    assert len(figures) > 5
    assert [figure for figure in figures if figure.rstrip(".,") not in BENCHMARKS] == []


def test_the_page_of_benchmarks_names_every_benchmark_that_is_run() -> None:
    script = (ROOT / "scripts/benchmarks").read_text()
    run = script.partition("for benchmark in ")[2].partition(";")[0].replace("\\", "").split()
    assert len(run) > 10
    named = set(re.findall(r"`python -m benchmarks\.(\w+)`", BENCHMARKS)) - {"NAME"}
    assert set(run) <= named
    assert all(find_spec(f"benchmarks.{name}") for name in named)
