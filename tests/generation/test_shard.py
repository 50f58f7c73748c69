import orjson

from rollmill.generation.progress import progress_of
from rollmill.generation.shard import ProblemScheduler, ShardRollouts, WorkerRun
from tests.generation.run_factory import append, completed_rollout, opened


def ids(shard):
    return [(part.problem.instance_id, [sample_id for sample_id, _ in part.pending]) for part in shard.problems]


def rows_of(shard, **fields):
    """Return completed rollouts for all of a shard."""
    return [
        completed_rollout(part.problem.instance_id, sample_id, **fields)
        for part in shard.problems
        for sample_id, _ in part.pending
    ]


def journaled(run):
    rows = [orjson.loads(line) for line in run.journal.path.read_bytes().splitlines()]
    return sorted((row["instance_id"], row["sample_id"]) for row in rows)


def test_shards_hold_whole_problems_without_journaled_rollouts(tmp_path):
    with opened(tmp_path, rows=5, num_rollout=3) as run:
        for where in (("p0", 0), ("p0", 1), ("p0", 2), ("p2", 1)):
            append(run.journal, *where)
        sharding = ProblemScheduler(run, progress_of(run))
        assert sharding.left == 11
        shard = sharding.cut(4)
        assert ids(shard) == [("p1", [0, 1, 2]), ("p2", [0, 2])]
        assert (shard.first, shard.last, len(shard), sharding.left) == (1, 2, 5, 6)
        assert ids(sharding.cut(100)) == [("p3", [0, 1, 2]), ("p4", [0, 1, 2])]
        assert sharding.cut(1) is None


def test_every_rollout_is_journaled_once(tmp_path):
    with opened(tmp_path, rows=2, num_rollout=2) as run:
        progress = progress_of(run)
        sharding = ProblemScheduler(run, progress)
        shard = sharding.cut(4)
        rows = rows_of(shard)
        assert sharding.journal_results(shard, ShardRollouts(rows, "w")).counts() == (4, 4, 0, 0)
        assert sharding.journal_results(
            shard, ShardRollouts([*rows, completed_rollout("nobody", 0)], "w")
        ).counts() == (0, 0, 0, 0)
        assert journaled(run) == [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)]
        assert run.journal.path.read_bytes() == b"".join(run.journal.owner.stamp(row.line) for row in rows)
        assert progress.snapshot().done == 4
        assert run.missing() == 0


def test_returned_rollouts_are_cut_again_but_failures_are_not(tmp_path):
    with opened(tmp_path, rows=3, num_rollout=2) as run:
        sharding = ProblemScheduler(run, progress_of(run))
        shard = sharding.cut(4)
        kept = [completed_rollout("p0", 0), completed_rollout("p1", 1, state="failed:timeout")]
        assert sharding.journal_results(shard, ShardRollouts(kept, "w", given_up=True)).counts() == (2, 1, 0, 1)
        assert sharding.left == 4
        again = sharding.cut(1)
        assert ids(again) == [("p0", [1]), ("p1", [0])]
        assert ids(sharding.cut(100)) == [("p2", [0, 1])]
        sharding.journal_results(again, ShardRollouts(rows_of(again), "w"))
        assert (sharding.cut(1), sharding.left) == (None, 0)
        assert journaled(run) == [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)]


def test_failed_rollouts_are_handed_out_once_on_retry(tmp_path):
    with opened(tmp_path, rows=2, num_rollout=2) as run:
        for sample_id in range(2):
            append(run.journal, "p1", sample_id, state="failed:timeout", attempt=3)
            append(run.journal, "p0", sample_id)
    with opened(tmp_path, rows=2, num_rollout=2, retry="failed") as run:
        sharding = ProblemScheduler(run, progress_of(run))
        shard = sharding.cut(100)
        assert [item.pending for item in shard.problems] == [[(0, 3), (1, 3)]]
        assert (
            sharding.journal_results(shard, ShardRollouts(rows_of(shard, state="failed:timeout"), "w")).counts()[3] == 2
        )
        assert sharding.cut(1) is None


def test_a_canary_is_not_cut_again(tmp_path):
    with opened(tmp_path, rows=2, num_rollout=3) as run:
        sharding = ProblemScheduler(run, progress_of(run))
        canary = sharding.cut_canary(run.problems(), 2)
        assert ids(canary) == [("p0", [0, 1]), ("p1", [0, 1])]
        sharding.journal_results(canary, ShardRollouts([completed_rollout("p0", 0)], "w", given_up=True))
        assert ids(sharding.cut(1)) == [("p0", [1]), ("p1", [0, 1])]
        assert ids(sharding.cut(100)) == [("p0", [2]), ("p1", [2])]
        assert sharding.cut_canary([], 2) is None


def test_a_part_sorts_what_is_made_by_shard(tmp_path):
    with opened(tmp_path, rows=3, num_rollout=1) as run:
        sharding = ProblemScheduler(run, progress_of(run))
        item, other = sharding.cut(2), sharding.cut(2)
    part = WorkerRun(tmp_path)
    first, second = part.add(item), part.add(other)
    for row in (completed_rollout("p2", 0), completed_rollout("p1", 0)):
        part.append(row)
    part.release(item)
    part.append(completed_rollout("p0", 0))  # nobody's any more
    assert [[row.instance_id for row in rows] for rows in (first, second)] == [["p1"], ["p2"]]
    assert part.pending(other.problems[0].problem, 0) == []


def test_a_late_answer_of_a_lost_worker_is_journaled_once(tmp_path):
    with opened(tmp_path, rows=2, num_rollout=2) as run:
        sharding = ProblemScheduler(run, progress_of(run))
        shard = sharding.cut(4)
        rows = rows_of(shard)
        for _ in range(2):
            sharding.journal_results(shard, ShardRollouts(rows[:1], "lost", given_up=True))
            assert sharding.left == 3
        # The rest waits to be cut again: what arrives meanwhile is neither handed out nor journaled a second time.
        sharding.journal_results(shard, ShardRollouts(rows[:3], "lost", given_up=True))
        again = sharding.cut(1)
        assert ids(again) == [("p1", [1])]
        sharding.journal_results(again, ShardRollouts(rows, "w"))
        assert (sharding.cut(1), sharding.left) == (None, 0)
        assert len(run.journal.path.read_bytes().splitlines()) == 4
        assert journaled(run) == [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)]
