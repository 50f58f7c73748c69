import asyncio
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.errors import RunStoppedError
from rollmill.generation import engine as engine_module
from rollmill.generation.engine import Engine
from tests.generation.run_factory import completed_rollout, open_journal
from tests.waiting import async_wait_until


@pytest.fixture
def journal(tmp_path):
    with open_journal(tmp_path / "journal.jsonl") as opened:
        yield opened


class Attempts:
    """Makes `(name, sample, seconds)`, and remembers."""

    def __init__(self, state="ok"):
        self.state = state
        self.running = self.most = 0
        self.calls = Counter()
        self.order = []
        self.cancelled = 0

    async def __call__(self, work):
        name, sample, seconds = work
        self.order.append((name, sample))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        self.calls[name, sample] += 1
        return completed_rollout(name, sample, state=self.state)


def work(name, count, seconds=0.0):
    return iter([(name, sample, seconds) for sample in range(count)])


def test_slots_are_never_exceeded_and_always_filled(journal):
    started = []

    async def run():
        may_end = asyncio.Semaphore(0)

        async def attempt(piece):
            started.append(piece)
            await may_end.acquire()
            return completed_rollout(*piece[:2])

        async with Engine(attempt, journal, slots=4) as engine:
            batches = [engine.add(work("a", 9), 9), engine.add(work("b", 7), 7)]
            for ended in range(16):
                await async_wait_until(lambda: len(started) >= min(ended + 4, 16))  # noqa: B023
                assert len(started) == min(ended + 4, 16)
                may_end.release()
            return [tally.done for tally in await asyncio.gather(*batches)]

    assert asyncio.run(run()) == [9, 7]


def test_no_barrier_between_batches(journal):
    attempts = Attempts()

    async def run():
        async with Engine(attempts, journal, slots=2) as engine:
            slow = engine.add(iter([("a", 0, 0.3), ("a", 1, 0.0)]), 2)
            quick = engine.add(work("b", 5, 0.01), 5)
            await quick
            assert not slow.done()
            assert (await slow).done == 2

    asyncio.run(run())


def test_work_is_taken_when_a_slot_is_free(journal):
    attempts, taken = Attempts(), []

    def lazy():
        for index in range(10):
            taken.append(index)
            yield "a", index, 0.02

    async def run():
        async with Engine(attempts, journal, slots=3) as engine:
            batch = engine.add(lazy(), 10)
            assert not taken
            assert engine.waiting == 10
            await asyncio.sleep(0.01)
            assert len(taken) == 3
            assert engine.waiting == 7
            await batch
            assert engine.waiting == 0

    asyncio.run(run())
    assert attempts.order == [("a", number) for number in range(10)]


def test_waiting_count_is_right_when_a_batch_is_short(journal):
    async def run():
        async with Engine(Attempts(), journal, slots=2) as engine:
            assert (await engine.add(work("a", 3), 50)).done == 3
            assert (await engine.add(iter([]), 0)).done == 0
            assert engine.waiting == 0

    asyncio.run(run())


def test_everything_is_journaled_and_observed(journal):
    seen = []

    async def run():
        async with Engine(Attempts("unparseable"), journal, slots=2, observe=seen.append) as engine:
            return await engine.add(work("a", 5), 5)

    tally = asyncio.run(run())
    assert tally == journal.tally
    assert tally.counts() == (5, 0, 5, 0)
    assert len(seen) == 5
    assert [rollout.sample_id for rollout in journal.group("a", 5)] == list(range(5))


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2)), max_size=8), st.integers(1, 5))
def test_every_piece_of_work_is_made_once(batches, slots):
    attempts = Attempts()

    async def run(journal):
        futures = []
        async with Engine(attempts, journal, slots=slots) as engine:
            for index, (size, pause) in enumerate(batches):
                futures.append(engine.add(work(f"b{index}", size), size))
                for _ in range(pause):
                    await asyncio.sleep(0)
            tallies = await asyncio.gather(*futures)
        assert [tally.done for tally in tallies] == [size for size, _ in batches]
        assert engine.waiting == 0

    with tempfile.TemporaryDirectory() as folder, open_journal(Path(folder) / "j") as journal:
        asyncio.run(run(journal))
        assert journal.tally.done == sum(size for size, _ in batches)
    expected = {(f"b{index}", sample): 1 for index, (size, _) in enumerate(batches) for sample in range(size)}
    assert attempts.calls == expected
    assert attempts.most <= slots


class BrokenError(Exception):
    pass


def test_an_attempt_that_raises_stops_everything(journal):
    attempts = Attempts()

    async def attempt(work):
        if work[:2] == ("a", 3):
            raise BrokenError("a bug")
        return await attempts(work)

    async def run():
        async with Engine(attempt, journal, slots=2) as engine:
            first, second = engine.add(work("a", 6, 0.01), 6), engine.add(work("b", 6, 0.01), 6)
            for future in (first, second, engine.add(work("c", 1), 1)):
                with pytest.raises(BrokenError, match="a bug"):
                    await future
            assert str(engine.stopped_by) == "a bug"
            with pytest.raises(BrokenError, match="a bug"):
                await engine.add(work("d", 1), 1)

    asyncio.run(run())
    assert 2 <= journal.tally.done <= 4
    assert attempts.calls.total() == journal.tally.done  # what was made is journaled


def test_several_attempts_that_raise_at_once(journal):
    async def attempt(work):
        await asyncio.sleep(0)
        raise BrokenError(f"bug {work[1]}")

    async def run():
        async with Engine(attempt, journal, slots=8) as engine:
            with pytest.raises(BrokenError):
                await asyncio.wait_for(engine.add(work("a", 20), 20), 5)

    asyncio.run(run())


def test_work_that_cannot_be_made_ready_stops_everything(journal):
    def lazy():
        yield "a", 0, 0.0
        raise BrokenError("no such column")

    async def run():
        async with Engine(Attempts(), journal, slots=2) as engine:
            with pytest.raises(BrokenError, match="no such column"):
                await engine.add(lazy(), 2)

    asyncio.run(run())


def test_stop_without_a_waiting_batch_is_silent(journal, caplog):
    async def attempt(_):
        raise BrokenError

    async def run():
        async with Engine(attempt, journal, slots=1) as engine:
            engine.add(work("a", 1), 1)
            await asyncio.sleep(0.01)

    asyncio.run(run())
    assert not caplog.records


def run_failing(journal, states, slots=4):
    """One slot's worth of order: each piece takes the next state."""
    states = iter(states)

    async def attempt(work):
        await asyncio.sleep(0)
        return completed_rollout(*work[:2], state=next(states))

    async def run(count):
        async with Engine(attempt, journal, slots=slots) as engine:
            return await engine.add(work("a", count), count)

    return run


def test_nothing_but_failures_stops_the_run(journal):
    run = run_failing(journal, ["failed:http_401"] * 500)
    with pytest.raises(RunStoppedError, match="the last 64 rollouts all failed, the latest with http_401: m; fix this"):
        asyncio.run(run(500))
    assert 64 <= journal.tally.failed < 70


def test_with_many_slots_it_takes_more_failures(journal):
    run = run_failing(journal, ["failed"] * 500, slots=50)
    with pytest.raises(RunStoppedError, match="the last 100 rollouts"):
        asyncio.run(run(500))


def test_a_verifier_that_fails_every_time_does_not_stop_it(journal):
    async def attempt(work):
        return completed_rollout(*work[:2], state="failed:verifier_raised", completion="there is one")

    async def run():
        async with Engine(attempt, journal, slots=2) as engine:
            return await engine.add(work("a", 300), 300)

    assert asyncio.run(run()).failed == 300


def test_a_few_failures_do_not_stop_it(journal):
    states = (["failed"] * 63 + ["ok"]) * 3
    assert asyncio.run(run_failing(journal, states)(len(states))).failed == 189


def test_leaving_cancels_running_attempts(journal):
    attempts = Attempts()

    async def run():
        async with Engine(attempts, journal, slots=3) as engine:
            batch = engine.add(work("a", 10, 60), 10)
            await asyncio.sleep(0.01)
        assert batch.cancelled()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
    assert attempts.cancelled == 3


def test_a_full_disk_stops_it(small_disk):
    async def run(journal):
        async with Engine(Attempts(), journal, slots=4) as engine:
            with pytest.raises(RunStoppedError, match="the disk is full"):
                await engine.add(work("a", 3000), 3000)

    path = small_disk / "journal.jsonl"
    with open_journal(path) as journal:
        asyncio.run(run(journal))
        done = journal.tally.done
    assert path.read_bytes().endswith(b"\n")
    assert path.read_bytes().count(b"\n") == done > 100


def test_a_disk_that_fails_to_sync_stops_it(journal, monkeypatch):
    monkeypatch.setattr(engine_module, "_SYNC_EVERY_S", 0.02)
    synced = []

    def sync(_):
        synced.append(None)
        if len(synced) == 3:
            raise OSError(5, "Input/output error")

    async def run():
        async with Engine(Attempts(), journal, slots=1) as engine:
            with pytest.raises(RunStoppedError, match=r"cannot write .* to disk: .*Input/output error"):
                await engine.add(work("a", 100, 0.02), 100)

    monkeypatch.setattr(os, "fdatasync", sync)
    asyncio.run(run())
    assert len(synced) == 3
