import os

import pytest

from rollmill.errors import InputError
from rollmill.generation.manifest import read_manifest
from rollmill.generation.run import loading_folder
from rollmill.records import Problem
from tests.generation.run_factory import append, identity, opened
from tests.problems.conftest import make_png

P0 = Problem(instance_id="p0", prompt="q")


def refusal(directory, **settings):
    with pytest.raises(InputError) as caught, opened(directory, **settings):
        pass
    return str(caught.value)


def test_a_new_run(tmp_path):
    with opened(tmp_path, rows=3, num_rollout=2) as run:
        assert [problem.instance_id for problem in run.problems()] == ["p0", "p1", "p2"]
        assert (run.expected, run.missing(), run.problem_count) == (6, 6, 3)
        assert run.pending(P0) == [(0, 0), (1, 0)]
        assert run.journal.path == tmp_path / "rollouts" / "0001.jsonl"
        assert [rollouts for _, rollouts in run.groups()] == [[None, None]] * 3
    assert not list(tmp_path.glob(".loading*"))


def test_it_continues_where_it_was(tmp_path):
    with opened(tmp_path) as run:
        append(run.journal, "p0", 1)
        started = run.manifest.started_at
        run.finish({"done": 1})
    with opened(tmp_path) as run:
        assert run.missing() == 5
        assert run.pending(P0) == [(0, 0)]
        assert run.manifest.started_at == started
        assert run.manifest.totals == {"done": 1}
        assert run.manifest.ended_at is None
        assert [rollout and rollout.sample_id for rollout in next(run.groups())[1]] == [None, 1]


def test_more_rollouts_continue_a_run(tmp_path):
    with opened(tmp_path, num_rollout=1) as run:
        append(run.journal, "p0", 0)
        assert (run.pending(P0), run.missing()) == ([], 2)
    with opened(tmp_path, num_rollout=3) as run:
        assert run.pending(P0) == [(1, 0), (2, 0)]
        assert run.missing() == 8
    with opened(tmp_path, num_rollout=1) as run:
        assert run.missing() == 2


@pytest.mark.parametrize(
    ("expected", "shares"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (5, [2, 2, 1]), (6, [2, 2, 2])]
)
def test_rollouts_that_do_not_come_out_even(tmp_path, expected, shares):
    with opened(tmp_path, rows=3, expected=expected) as run:
        assert [len(run.pending(problem)) for problem in run.problems()] == shares
        assert [len(rollouts) for _, rollouts in run.groups()] == shares
        assert (run.expected, run.missing(), run.num_rollout) == (expected, expected, max(shares))


@pytest.mark.parametrize(("first", "pending"), [(None, [0, 1, 2]), (0, []), (1, [0]), (2, [0, 1]), (9, [0, 1, 2])])
def test_only_the_first_few(tmp_path, first, pending):
    with opened(tmp_path, num_rollout=3) as run:
        assert [sample for sample, _ in run.pending(P0, first)] == pending


def test_what_differs_is_named_with_old_and_new_value(tmp_path):
    with opened(tmp_path, same=identity(model="a", template="x" * 100)):
        pass
    manifest = (tmp_path / "manifest.json").read_bytes()
    problems = (tmp_path / "problems.jsonl").read_bytes()
    message = refusal(tmp_path, same=identity(model="b", template=None, max_tokens=7), rows=1)
    assert f"{tmp_path} holds another run: " in message
    assert 'model ("a" on disk, "b" now)' in message
    assert "max_tokens (100 on disk, 7 now)" in message
    assert "xxx...xxx" in message
    assert 'xxx" on disk, null now)' in message
    assert "temperature" not in message
    assert "\n" not in message
    assert (tmp_path / "manifest.json").read_bytes() == manifest
    assert (tmp_path / "problems.jsonl").read_bytes() == problems
    assert not list(tmp_path.glob(".loading*"))


def test_another_verifier_points_to_reverify(tmp_path):
    with opened(tmp_path):
        pass
    message = refusal(tmp_path, same=identity(verifier="exact@1"))
    assert 'verifier ("numeric@1" on disk, "exact@1" now)' in message
    assert "--reverify scores the stored completions again" in message
    assert "--reverify" not in refusal(tmp_path, same=identity(verifier="exact@1", model="n"))
    assert 'model ("m" on disk, "n" now)' in refusal(tmp_path, same=identity(model="n"), reverify=True)


def test_the_token_limit_may_be_raised_for_what_was_truncated(tmp_path):
    with opened(tmp_path) as run:
        append(run.journal, "p0", 0, finish_reason="length")
        append(run.journal, "p0", 1)
    raised, lowered = identity(max_tokens=200), identity(max_tokens=50)
    message = refusal(tmp_path, same=raised)
    assert "max_tokens (100 on disk, 200 now)" in message
    assert "--retry truncated" in message
    assert "--retry truncated" not in refusal(tmp_path, same=lowered)
    refusal(tmp_path, same=raised, retry="failed")
    refusal(tmp_path, same=lowered, retry="truncated")
    refusal(tmp_path, same=identity(max_tokens=200, model="n"), retry="truncated")
    with opened(tmp_path, same=raised, retry="truncated") as run:
        assert run.pending(P0) == [(0, 0)]
    with opened(tmp_path, same=raised) as run:  # and goes on without the flag
        assert run.pending(P0) == [(0, 0)]
        append(run.journal, "p0", 0, finish_reason="length", max_tokens=200)
        assert run.pending(P0) == []
    assert read_manifest(tmp_path).identity.generation["sampling"]["max_tokens"] == 200


def test_retrying_what_failed(tmp_path):
    with opened(tmp_path) as run:
        append(run.journal, "p0", 0, state="failed")
        append(run.journal, "p0", 1)
    with opened(tmp_path) as run:
        assert run.pending(P0) == []
    with opened(tmp_path, retry="failed") as run:
        assert run.pending(P0) == [(0, 0)]


@pytest.mark.parametrize(
    ("settings", "flag"), [({"retry": "failed"}, "--retry failed"), ({"reverify": True}, "--reverify")]
)
def test_flags_that_need_a_run(tmp_path, settings, flag):
    assert f"{flag} needs a run in {tmp_path}, and there is none" in refusal(tmp_path, **settings)
    assert read_manifest(tmp_path) is None


def test_a_folder_left_by_a_killed_process_is_no_obstacle(tmp_path):
    for name in (f".loading-{os.getpid()}", ".loading-1", ".loading"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "problems.jsonl").write_text("garbage")
    with opened(tmp_path) as run:
        assert run.problem_count == 3
    with loading_folder(tmp_path) as folder:
        assert list(folder.iterdir()) == []
        assert folder.parent == tmp_path


def test_images_move_in(tmp_path):
    png = make_png(5)
    (tmp_path / "a.png").write_bytes(png)
    with opened(tmp_path, rows=[{"id": "p0", "prompt": "q", "answer": "1", "images": ["a.png"]}]) as run:
        (image,) = next(run.problems()).images
        assert (tmp_path / image.path).read_bytes() == png
    with opened(tmp_path, rows=[{"id": "p0", "prompt": "q", "answer": "1", "images": ["a.png"]}]) as run:
        assert next(run.problems()).images == (image,)


def test_the_journal_is_closed_when_the_block_raises(tmp_path):
    with pytest.raises(KeyError), opened(tmp_path) as run:
        raise KeyError
    with pytest.raises(OSError, match="Bad file descriptor"):
        append(run.journal)
