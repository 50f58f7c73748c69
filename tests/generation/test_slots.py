"""Sessions that search for the best concurrency."""

import asyncio

import pytest

from rollmill.generation.concurrency import ConcurrencyController
from rollmill.generation.engine import Engine
from rollmill.generation.progress import Progress, progress_of
from rollmill.generation.session import RolloutSession
from rollmill.generation.tally import Tally
from rollmill.inference.scripted import Script, ScriptedServer
from tests.generation.run_factory import completed_rollout, open_journal, opened
from tests.generation.sessions import asking


def test_a_session_finds_more_than_it_begins_with(tmp_path):
    script = Script(latency_s=0.02, limit=24, thrash=2.0, completion="<answer>{digit}</answer>")
    with opened(tmp_path, rows=60, num_rollout=16) as run, ScriptedServer(script) as server:
        progress = progress_of(run)
        with RolloutSession(run, asking(server.base_url), slots="auto", progress=progress) as session:
            session.generate(list(run.problems()))
            best = session.found_slots
        assert run.missing() == 0
    assert server.requests == 960  # none was sent twice: changing the number costs no rollout
    assert server.most_in_flight > 8
    assert progress.snapshot().describe().endswith(f"{best} at a time")


class Falling(ConcurrencyController):
    """Wants fewer and fewer."""

    def finished(self, now, ticket, *, work, congested):
        self.limit = max(2, self.limit - 1)


def test_slots_that_are_too_many_end_with_their_rollouts(tmp_path):
    running = []

    async def attempt(work):
        running.append(work)
        at_once = len(running)
        await asyncio.sleep(0)
        running.remove(work)
        return completed_rollout("a", work, latency_s=float(at_once))

    async def run(journal):
        async with Engine(attempt, journal, slots=Falling(start=8)) as engine:
            tally = await engine.add(iter(range(60)), 60)
            assert engine.slots == 2
            return tally.done

    with open_journal(tmp_path / "journal.jsonl") as journal:
        assert asyncio.run(run(journal)) == 60
        at_once = [rollout.latency_s for rollout in journal.group("a", 60)]
    assert max(at_once) == 8
    assert max(at_once[-10:]) <= 2


@pytest.mark.parametrize(("slots", "shown"), [({}, None), ({"": 96}, 96), ({"a": 40, "b": 50}, 90)])
def test_progress_shows_the_number_of_all_workers(slots, shown):
    progress = Progress(total=10, left=10, before=Tally())
    progress.note_slots("c", None)
    for worker, count in slots.items():
        progress.note_slots(worker, count)
    assert progress.snapshot().slots == shown
    assert ("at a time" in progress.snapshot().describe()) == (shown is not None)


def test_the_manifest_keeps_what_was_found(tmp_path):
    with opened(tmp_path, rows=1, num_rollout=1) as run:
        run.note_slots(96)
        run.finish({})
    with opened(tmp_path, rows=1, num_rollout=1) as run:
        run.note_slots(None)
        assert run.manifest.slots == 96
