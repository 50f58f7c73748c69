import pytest

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling.hint import Hint
from rollmill.jobs.optimal_sampling.job import OptimalSamplingJob
from rollmill.records import Problem
from tests.jobs.optimal_sampling.runs import opened, parameters, questions, shards_of
from tests.jobs.optimal_sampling.tiny_pairs import make_model


@pytest.fixture
def folder(tmp_path):
    make_model(tmp_path / "base")
    return tmp_path


def cut(requested):
    """(Row numbers, those that are wanted) of each shard."""
    with opened(requested) as run:
        result = [
            ([int(row.instance_id[4:]) for row in shard.rows], [row.is_pending for row in shard.rows])
            for shard in shards_of(requested, run)
        ]
        progress = OptimalSamplingJob.of(requested).progress(run)
    assert progress.total == progress.left == sum(sum(expected) for _, expected in result)
    return [(numbers, [n for n, wants in zip(numbers, expected, strict=True) if wants]) for numbers, expected in result]


def test_shards_begin_at_multiples_of_their_size(folder):
    assert cut(parameters(folder, questions(10), shard_size=4)) == [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([4, 5, 6, 7], [4, 5, 6, 7]),
        ([8, 9], [8, 9]),
    ]


def test_parts_of_the_data_set_are_cut_like_all_of_it(folder):
    assert cut(parameters(folder, questions(10), shard_size=4, start_idx=3, num_samples=3)) == [
        ([0, 1, 2, 3], [3]),
        ([4, 5, 6, 7], [4, 5]),
    ]
    assert cut(parameters(folder, start_idx=9, num_samples=100, shard_size=4)) == [([8, 9], [9])]


def test_quarantined_rows_leave_gaps(folder):
    rows = questions(6)
    rows[1] = {"question": ""}
    requested = parameters(folder, rows, shard_size=3, max_bad_share=0.5)
    assert cut(requested) == [([0, 2], [0, 2]), ([3, 4, 5], [3, 4, 5])]


def test_the_hint_is_for_the_target_alone(folder):
    requested = parameters(folder, questions(1), hint="It is {answer}: {response}.")
    with opened(requested) as run:
        [shard] = shards_of(requested, run)
    assert shard.rows[0].messages == [{"role": "user", "content": "w3"}]
    assert shard.rows[0].messages_t == [{"role": "user", "content": "It is w0: w0.\n\nw3"}]
    assert (shard.first, shard.last) == (0, 0)


def problem(**fields):
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    return Problem(instance_id="row-3", prompt=turns, fields=fields)


def test_hint_template_places_the_prompt_and_may_be_a_file(tmp_path):
    assert Hint.from_flag("{prompt}\n(so: {a.b})").messages(problem(a={"b": 5}), None) == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q\n(so: 5)"},
    ]
    (tmp_path / "hint.txt").write_text("Know {response}.\n")
    assert Hint.from_flag(str(tmp_path / "hint.txt")).messages(problem(), "r")[1]["content"] == "Know r.\n\nq"
    assert Hint.from_flag("in {{braces}}").messages(problem(), None)[1]["content"] == "in {braces}\n\nq"


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        ("{answer}", r"--hint names \{answer\}, which row-3 does not have: it has prompt, response, level"),
        ("{", "--hint: .*braces are malformed"),
        ("{}", "--hint: .*names no column"),
    ],
)
def test_invalid_hints_are_refused(hint, message):
    with pytest.raises(InputError, match=message):
        Hint.from_flag(hint).messages(problem(level=1), "r")


def test_unfinished_rows_are_cut_again_in_their_batch(folder):
    with opened(parameters(folder, questions(3), shard_size=4)) as run:
        [shard] = shards_of(parameters(folder, shard_size=4), run)
    rest = shard.without({("row-0", 0), ("row-2", 0)})
    assert [row.instance_id for row in rest.rows] == ["row-0", "row-1", "row-2"]
    assert (rest.pending, rest.first, rest.last) == ([("row-1", 0)], 0, 1)
    assert rest.without({("row-1", 0)}) is None
