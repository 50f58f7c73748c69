"""The page of trajectories in a browser."""

import json
import re

import pytest

from rollmill.reports.viewing.pages import write_pages
from tests.reports.viewing.chromium import CHROMIUM, dump_dom, opened

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror="document.title=1">'
ESCAPED = re.escape(HOSTILE.replace("<", "&lt;").replace(">", "&gt;"))


def rows():
    """Eight rollouts of two problems: rewards 0, 0.1, ..., every fourth failed, the last one long."""
    for row in range(8):
        failed = row % 4 == 3
        facts = {
            "row": row,
            "instance_id": f"problem_{row // 4}",
            "sample_id": row % 4,
            "reward": None if failed else row / 10,
            "success": None if failed else row % 2 == 0,
            "claimed_success": True,
            "status": "failed" if failed else "ok",
            "error_type": "timeout" if failed else None,
            "exit_status": "Submitted",
            "model_calls": row,
        }
        content = f"The Needle{row} is here. " * (200 if row == 7 else 1)
        record = {"messages": [{"role": "user", "content": content}], "git_diff": "@@ -1 +1 @@\n-old\n+new"}
        yield facts, json.dumps(record).encode()


def typed(name, value):
    return (
        f"(() => {{ const field = document.forms.filters.elements.{name}; field.value = {json.dumps(value)};"
        "field.dispatchEvent(new Event('input', {bubbles: true})); return true; })()"
    )


def pressed(key):
    return f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}})) || true"


def text_shows(words):
    return f"document.getElementById('matches').textContent === {json.dumps(words)}"


def sheet_says(words):
    return f"document.getElementById('sheet').textContent.includes({json.dumps(words)})"


def listed(*numbers):
    hashes = json.dumps([f"#row-{number}" for number in numbers])
    return f"JSON.stringify([...document.querySelectorAll('#list a')].map((a) => a.hash)) === JSON.stringify({hashes})"


def current(number):
    return (
        f"location.hash === '#row-{number}' && document.querySelectorAll('[aria-current]').length === 1"
        f" && document.querySelector('[aria-current]').hash === '#row-{number}'"
    )


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.html"
    write_pages(path, "eight", rows())
    return path


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    return lambda: tmp_path_factory.mktemp("profile")


def test_hostile_content_is_shown_as_text(tmp_path, profiles):
    record = {"messages": [{"role": "user", "content": HOSTILE}], "git_diff": HOSTILE, "problem_statement": HOSTILE}
    facts = {"row": 0, "instance_id": HOSTILE, "sample_id": 0, "status": "ok", "success": True, "reward": 1.0}
    write_pages(tmp_path / "page.html", "a <title>", [(facts, json.dumps(record).encode())])
    dom = dump_dom(tmp_path / "page.html", profiles())
    assert "<title>a &lt;title&gt;</title>" in dom
    assert "<img" not in dom
    assert re.search(f'<div class="prose">{ESCAPED}</div>', dom)
    assert re.search(f"<h2[^>]*>{ESCAPED}</h2>", dom)
    assert re.search(f'<pre class="diff"><span[^>]*>{ESCAPED}\n</span></pre>', dom)


def test_search_filters_and_order(page, profiles):
    with opened(page, profiles()) as ask:
        ask(text_shows("8 of 8 trajectories"), listed(*range(8)), current(0), sheet_says("Needle0"))
        ask(typed("query", "needle5"), text_shows("1 of 8 trajectories"), current(5), sheet_says("Needle5"))
        ask("CSS.highlights.get('found').size === 1")
        ask(typed("query", "PROBLEM_1"), listed(4, 5, 6, 7))
        ask(typed("state", "failed"), listed(7), sheet_says("failed"))
        ask(typed("query", ""), listed(3, 7), typed("state", "unsuccessful"), listed(1, 5), typed("state", ""))
        ask(typed("least", "0.15"), listed(2, 4, 5, 6), typed("most", "0.45"), listed(2, 4))
        ask(typed("problem", "problem_0"), listed(2), typed("least", ""), typed("most", ""), listed(0, 1, 2, 3))
        ask(typed("ending", "error:timeout"), listed(3), typed("ending", "exit:Submitted"), listed(0, 1, 2, 3))
        ask(typed("order", "best"), listed(2, 1, 0, 3), typed("order", "worst"), listed(0, 1, 2, 3))
        ask(
            typed("query", "nowhere"),
            text_shows("0 of 8 trajectories"),
            listed(),
            sheet_says("No trajectory matches."),
        )
        ask("document.getElementById('clear').click() || true", listed(*range(8)), sheet_says("Needle0"))
        ask(typed("order", "longest"), listed(7, 0, 1, 2, 3, 4, 5, 6), "document.getElementById('clear').hidden")


def test_keys_links_and_long_messages(page, profiles):
    with opened(f"{page}#row-6", profiles()) as ask:
        ask(current(6), sheet_says("Needle6"), pressed("j"), current(7), pressed("j"), current(7))
        more = "document.querySelector('.message .more')"
        ask(f"{more}.textContent.startsWith('Show all 4,') && {more}.getAttribute('aria-expanded') === 'false'")
        ask(f"{more}.click() || true", f"{more}.textContent === 'Show less'", "!document.querySelector('.cut')")
        ask(pressed("k"), current(6), pressed("/"), "document.activeElement.id === 'query'")
        ask("document.querySelector('#list a').click() || true", current(0), sheet_says("Needle0"))
        ask("(location.hash = '#row-99')", sheet_says("This page has no trajectory #row-99."))


def test_a_link_to_nothing_and_a_page_of_nothing(page, profiles, tmp_path):
    with opened(f"{page}#row-99", profiles()) as ask:
        ask(sheet_says("This page has no trajectory #row-99."), listed(*range(8)), pressed("j"), current(0))
    write_pages(tmp_path / "empty.html", "none", [])
    with opened(tmp_path / "empty.html", profiles()) as ask:
        ask(text_shows("0 of 0 trajectories"), sheet_says("There is no trajectory here."))
