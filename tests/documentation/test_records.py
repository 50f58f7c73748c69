"""The fields that pages list by hand are the fields of the files."""

from __future__ import annotations

import re

import orjson

from rollmill.jobs.rejection_sampling.summary import summarise
from rollmill.records import Problem
from tests.documentation.pages import ROOT

PAGE = (ROOT / "docs/concepts/records.md").read_text()


def first_cells(after: str) -> list[str]:
    """Return the names in the first column of the table after these words."""
    rows = re.match(r"\s*((?:^\|.*\n)+)", PAGE.partition(after)[2], re.MULTILINE)
    assert rows, after
    return [name for row in rows[1].splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]


def test_result_row_matches_the_documentation() -> None:
    row = summarise(0, Problem(instance_id="p", prompt="?", answer="1"), [None], numeric=True).to_json()
    left_out = {"best_reasoning_content"}  # where nobody thought
    assert sorted(set(first_cells("A row of `results`:\n")) - left_out) == sorted(row)
    counts = re.search(r"^\| `counts` \| (.*) \|$", PAGE, re.MULTILINE)
    assert counts
    assert re.findall(r"`(\w+)`", counts[1]) == list(row["counts"])


def test_episode_row_matches_the_documentation() -> None:
    from rollmill.jobs.episodes.record import EpisodeRollout, EpisodeTurn
    from rollmill.jobs.episodes.selection import Episode, Row

    turn = EpisodeTurn(agent_name="a", policy_name="p", turn_idx=0, first=0, end=1, reward=1.0, seed=0)
    rollout = EpisodeRollout.model_construct(
        messages=[{}], turns=[turn], success=True, env_name="e", sample_id=0, instance_id="i"
    )
    shown = orjson.loads(re.search(r"```json\n(.*?)```", PAGE.partition("## Episodes")[2], re.DOTALL)[1])
    written = Row(Episode(0, rollout), turn, None).to_json()
    assert (list(shown), list(shown["metadata"])) == (list(written), list(written["metadata"]))
