"""One HTML file for many trajectories: a list with search and filters, and the selected one beside it.

The file is self-contained: it needs no server and no network. Its data is in `<script type="application/json">`
elements, two for each trajectory: the facts that the list needs, and the rest, which is parsed when it is displayed or
searched.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from rollmill.files.atomic import atomic_write
from rollmill.reports.viewing.blocks import Block, shorten
from rollmill.reports.viewing.page_script import SCRIPT
from rollmill.reports.viewing.page_style import STYLE
from rollmill.reports.viewing.trajectory import (
    DENIED,
    NO_MESSAGES,
    Findings,
    Trajectory,
    is_denied,
    read_trajectory,
    state,
)
from rollmill.terminal.escapes import visible

_LONGEST_OUTPUT = 20_000
"""Characters of each program's output in an evaluation: build logs are often longer than all the rest."""

_ESCAPES = {b"<": b"\\u003c", b">": b"\\u003e", b"&": b"\\u0026"}


def write_pages(path: Path, title: str, rows: Iterable[tuple[dict[str, Any], bytes]], *, left_out: int = 0) -> None:
    """Write the page atomically.

    Messages and diffs are complete; outputs in an evaluation are cut in the middle beyond 20,000 characters each, with
    a note. No record raises. Raises `OSError`.

    Args:
        path: the file.
        title: of the page.
        rows: each rollout's row of the table (see `rollmill.corpus.table`) with its JSON object; one is in memory at a
            time.
        left_out: number of further rollouts that are not on the page.
    """
    with atomic_write(path) as file:
        file.write(_beginning(title, left_out).encode())
        for facts, record in rows:
            trajectory = read_trajectory(record)
            file.write(_script("facts", _facts_json(facts, trajectory)))
            file.write(_script("trajectory", _trajectory_json(trajectory)))
        file.write(f"<script>{SCRIPT}</script>\n</body>\n</html>\n".encode())


def embedded(value: object) -> bytes:
    """Return JSON that no HTML parser can take for markup: without `<`, `>` and `&`.

    U+2028 and U+2029, which some parsers take for line breaks, become escapes.
    """
    text = orjson.dumps(value)
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text.replace("\u2028".encode(), b"\\u2028").replace("\u2029".encode(), b"\\u2029")


def _script(name: str, value: dict[str, Any]) -> bytes:
    return b'<script type="application/json" class="%b">%b</script>\n' % (name.encode(), embedded(value))


def _facts_json(facts: dict[str, Any], trajectory: Trajectory) -> dict[str, Any]:
    return {
        "row": facts.get("row"),
        "id": visible(str(facts.get("instance_id"))),
        "sample": facts.get("sample_id"),
        "reward": facts.get("reward"),
        "state": state(facts),
        "denied": DENIED if is_denied(facts) else None,
        "unparseable": facts.get("status") == "unparseable",
        "speedup": facts.get("speedup"),
        "error": _word(facts.get("error_type")),
        "exit": _word(facts.get("exit_status")),
        "finish": _word(facts.get("finish_reason")),
        "calls": facts.get("model_calls"),
        "tokens": facts.get("tokens"),
        "length": sum(len(block.text) for turn in trajectory.turns for block in turn.blocks),
    }


def _trajectory_json(trajectory: Trajectory) -> dict[str, Any]:
    return {
        "turns": [(turn.role, turn.name, _plain(turn.blocks), turn.bookkeeping) for turn in trajectory.turns],
        "silent": NO_MESSAGES,
        "problem": trajectory.problem_statement,
        "diff": trajectory.git_diff,
        "evaluation": _findings_json(trajectory.evaluation),
        "verdict": _findings_json(trajectory.verdict),
        "error": trajectory.error,
        "unreadable": trajectory.unreadable,
    }


def _findings_json(findings: Findings) -> dict[str, Any]:
    outputs = [(name, _plain(shorten([Block("output", text)], _LONGEST_OUTPUT))) for name, text in findings.outputs]
    return {"facts": findings.facts, "outputs": outputs}


def _plain(blocks: list[Block]) -> list[tuple[str, ...]]:
    return [tuple(block) for block in blocks]  # orjson encodes tuples, but not named tuples


def _word(value: Any) -> str | None:
    return None if value is None else visible(str(value))


def _beginning(title: str, left_out: int) -> str:
    """Return the page before the data. Its content security policy allows only its own script and style."""
    name = html.escape(visible(title))
    more = f"<p>{left_out:,} more {'is' if left_out == 1 else 'are'} not on this page.</p>" if left_out else ""
    policy = (
        f"default-src 'none'; style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>{STYLE}</style>
</head>
<body>
<header id="top">
<a id="skip" class="unseen skip" href="#sheet">Skip to the trajectory</a>
<h1>{name}</h1>{more}
<p class="keys"><kbd>j</kbd> next, <kbd>k</kbd> previous, <kbd>/</kbd> search, <kbd>Esc</kbd> clear</p>
</header>
<div id="side">
<form id="filters" role="search" aria-label="Search and filters" autocomplete="off">
<label class="wide">Search messages and ids<input id="query" name="query" type="search"></label>
<label>Outcome<select id="state" name="state"><option value="">all</option></select></label>
<label>Error or exit status<select id="ending" name="ending"><option value="">all</option></select></label>
<label>Minimum reward<input name="least" type="number" step="any"></label>
<label>Maximum reward<input name="most" type="number" step="any"></label>
<label>Problem<select id="problem" name="problem"><option value="">all</option></select></label>
<label>Order<select name="order"><option value="">as in the file</option>
<option value="best">highest reward</option><option value="worst">lowest reward</option>
<option value="longest">longest</option><option value="shortest">shortest</option></select></label>
</form>
<p id="count"><span id="matches" role="status">loading…</span><button id="clear" type="button" hidden>Clear</button></p>
<ol id="list" aria-label="Trajectories"></ol>
</div>
<main id="sheet" tabindex="-1" aria-label="The chosen trajectory">
<noscript><p class="empty">This page shows its trajectories with JavaScript, which is switched off.</p></noscript>
</main>
<p id="now" class="unseen" role="status"></p>
"""


def _digest(text: str) -> str:
    """Return the source of an inline text in a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
