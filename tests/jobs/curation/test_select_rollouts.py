"""Rules by hand: the dropped rows, reasons and order; and properties of any filters on any table."""

from types import SimpleNamespace

import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rollmill.corpus.table import SCHEMA
from rollmill.errors import InputError
from rollmill.exports.export_result import count_reasons
from rollmill.jobs.curation.analysis import analyse
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.jobs.curation.select_rollouts import select
from tests.jobs.curation.made_rollouts import made_table

ANSWER = "First we add the two numbers and then we check the sum with care because it matters a lot today"
QUESTION = "How many ways are there to seat seven guests at a round table when two of them must never sit together"


class Texts:
    """Stands in for a corpus whose records must be read; notes which rows were."""

    hashed = True

    def __init__(self, table, completions, question="q"):
        self.table = table
        self.completions = completions
        self.question = question
        self.read = []

    def records(self, table):
        for row in table["row"]:
            self.read.append(row)
            conditions = {"role": "user", "content": self.question}
            answered = {"role": "assistant", "content": self.completions[row]}
            yield orjson.dumps({"instance_id": "a", "messages": [conditions, answered]})


def judge(rows, **conditions):
    """The drop reason of each row, None for those kept."""
    table = rows if isinstance(rows, pl.DataFrame) else made_table(*rows)
    return reasons(SimpleNamespace(hashed=True, table=table), **conditions)


def reasons(corpus, **conditions):
    selected = select(corpus, Filters(**conditions))
    judged = selected.judged["drop_reason"].to_list()
    assert selected.kept["row"].to_list() == [row for row, reason in enumerate(judged) if reason is None]
    assert selected.dropped["drop_reason"].to_list() == [reason for reason in judged if reason]
    assert count_reasons(selected.dropped) == {reason: judged.count(reason) for reason in set(judged) - {None}}
    return judged


def column(name, *values):
    return [{name: value} for value in values]


def test_no_condition_keeps_everything():
    rows = [{"status": "failed", "error_type": "timeout"}, {"reward": None}, {"reward": -1.0, "empty": True}]
    assert judge(rows) == [None] * 3
    assert judge([]) == []
    assert select(SimpleNamespace(hashed=True, table=made_table(*rows)), Filters()).descriptions == []


@pytest.mark.parametrize(
    ("name", "small", "large"),
    [("reward", 0.25, 0.75), ("messages", 3, 5), ("tokens", 100, 300)],
)
def test_bounds_are_inclusive_and_missing_values_are_dropped(name, small, large):
    middle = (small + large) / 2 if name == "reward" else (small + large) // 2
    rows = column(name, None, small, middle, large)
    missing, below, above = f"no_{name}", f"{name}_below_min", f"{name}_above_max"
    assert judge(rows, **{f"min_{name}": middle}) == [missing, below, None, None]
    assert judge(rows, **{f"max_{name}": middle}) == [missing, None, None, above]
    assert judge(rows, **{f"min_{name}": middle, f"max_{name}": middle}) == [missing, below, None, above]
    assert judge(rows, **{f"min_{name}": small, f"max_{name}": large}) == [missing, None, None, None]


def test_least_speedup():
    rows = column("speedup", None, 0.99, 1.0, 2.0)
    assert judge(rows, min_speedup=1.0) == ["no_speedup", "speedup_below_min", None, None]


def test_zero_is_a_bound():
    assert judge(column("reward", -0.5, 0.0, None), min_reward=0.0) == ["reward_below_min", None, "no_reward"]
    assert judge(column("reward", -0.5, 0.5), max_reward=0) == [None, "reward_above_max"]


def test_unjudged_rollouts_are_neither_successful_nor_unsuccessful():
    rows = column("success", True, False, None)
    assert judge(rows, successful_only=True) == [None, "not_successful", "not_successful"]
    assert judge(rows, unsuccessful_only=True) == ["not_unsuccessful", None, "not_unsuccessful"]


def test_exit_statuses():
    rows = column("exit_status", "Submitted", "LimitsExceeded", None, "submitted")
    assert judge(rows, exit_status=["Submitted"]) == [None, "exit_status", "exit_status", "exit_status"]
    assert judge(rows, exit_status=["Submitted", "LimitsExceeded"]) == [None, None, "exit_status", "exit_status"]


def test_errors_by_kind_or_any():
    rows = [{"status": "failed", "error_type": kind} for kind in ("timeout", "http_500")] + [{"error_type": None}]
    assert judge(rows, drop_errors=["timeout"]) == ["failed", None, None]
    assert judge(rows, drop_errors=["http_500", "timeout"]) == ["failed", "failed", None]
    assert judge(rows, drop_errors=["timeout", "any"]) == ["failed", "failed", None]


def test_unparseable_and_empty():
    rows = [{"status": "unparseable", "empty": True}, {"empty": True}, {"empty": False}, {"empty": None}]
    assert judge(rows, drop_unparseable=True) == ["unparseable", None, None, None]
    assert judge(rows, drop_empty=True) == ["empty_completion", "empty_completion", None, None]
    assert judge(rows, drop_unparseable=True, drop_empty=True) == ["unparseable", "empty_completion", None, None]


def test_duplicates_are_of_one_problem_and_the_first_stays():
    rows = [
        {"completion_hash": 1},
        {"completion_hash": 2},
        {"completion_hash": 1},
        {"completion_hash": 1, "instance_id": "b"},
        {"completion_hash": 1},
        {"completion_hash": None},
        {"completion_hash": None},
        {"completion_hash": 3, "empty": True},
        {"completion_hash": 3, "empty": True},
    ]
    expected = [None, None, "duplicate_completion", None, "duplicate_completion", None, None, None, None]
    assert judge(rows, drop_duplicates=True) == expected
    assert analyse(made_table(*rows)).duplicates == expected.count("duplicate_completion")


@pytest.mark.parametrize(
    ("conditions", "reason", "failing"),
    [
        ({"successful_only": True}, "not_successful", {"success": False}),
        ({"min_reward": 0.5}, "reward_below_min", {"reward": 0.0}),
        ({"where": "turns < 9"}, "where", {"turns": 9}),
        ({"max_tokens": 100}, "tokens_above_max", {"tokens": 101}),
        ({"drop_errors": ["any"]}, "failed", {"status": "failed", "error_type": "timeout"}),
    ],
)
@pytest.mark.parametrize("group", [{"drop_duplicates": True}, {"best_k": 1}, {"at_most_k": 1}])
def test_dropped_rollouts_do_not_count_in_comparisons(conditions, reason, failing, group):
    good = {"completion_hash": 1, "success": True, "reward": 0.75, "turns": 1, "tokens": 50, "answer_error": 0.5}
    first = {**good, "answer_error": 0.0, **failing}
    last = {"drop_duplicates": "duplicate_completion", "best_k": "not_best", "at_most_k": "over_limit"}[
        next(iter(group))
    ]
    assert judge([first, good, good], **conditions, **group) == [reason, None, last]


def test_first_rule_gives_the_reason():
    row = {
        "status": "failed", "error_type": "timeout", "success": False, "reward": 0.0, "speedup": 0.5, "messages": 1,
        "exit_status": "x", "turns": 9, "empty": True, "tokens": 5,
    }  # fmt: skip
    conditions = {
        "drop_errors": ["any"], "drop_unparseable": True, "successful_only": True, "min_reward": 1.0,
        "min_speedup": 1.0, "min_messages": 2, "exit_status": ["ok"], "where": "turns < 9", "drop_empty": True,
        "min_tokens": 10,
    }  # fmt: skip
    order = []
    while conditions:
        [reason] = judge([row], **conditions)
        order.append(reason)
        conditions.pop(next(iter(conditions)))
    assert order == [
        "failed",
        "not_successful",  # without drop_errors; the row is not unparseable
        "not_successful",
        "reward_below_min",
        "speedup_below_min",
        "messages_below_min",
        "exit_status",
        "where",
        "empty_completion",
        "tokens_below_min",
    ]


def test_best_of_a_problem_by_error_then_reward_then_sample():
    rows = [
        {"sample_id": 5, "answer_error": 0.5, "reward": 1.0},
        {"sample_id": 4, "answer_error": 0.0, "reward": 0.5},
        {"sample_id": 3, "answer_error": 0.0, "reward": 0.75},
        {"sample_id": 2, "answer_error": None, "reward": 1.0},
        {"sample_id": 1, "answer_error": 0.0, "reward": 0.75},
        {"sample_id": 0, "answer_error": None, "reward": None},
        {"sample_id": 9, "instance_id": "b", "answer_error": 3.0, "reward": 0.0},
    ]
    ranked = [4, 2, 1, 0, 3, 5]
    for count in range(1, 8):
        kept = [row for row, reason in enumerate(judge(rows, best_k=count)) if reason is None]
        assert kept == sorted([*ranked[:count], 6])


def test_best_of_rollouts_without_answer_errors_is_by_reward():
    rows = column("reward", 0.25, None, 1.0, -1.0, 1.0)
    assert judge(rows, best_k=1) == ["not_best", "not_best", None, "not_best", "not_best"]
    assert judge(rows, best_k=3) == [None, "not_best", None, "not_best", None]


def test_best_rollouts_of_a_problem_are_kept_up_to_a_limit():
    rows = [
        {"instance_id": name, "reward": reward} for name, reward in zip("abaab", (0.0, 1.0, 0.5, 1.0, 0.0), strict=True)
    ]
    assert judge(rows, at_most_k=2) == [None, None, None, "over_limit", None]
    assert judge(rows, at_most_k=1, best_k=2) == ["not_best", None, None, "over_limit", "over_limit"]


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("reward > 0.5", [0]),
        ("reward <= 0.5", [1]),
        ("reward IS NULL", [2]),
        ("reward > 0.5 OR reward IS NULL", [0, 2]),
        ("NOT (reward > 0.5)", [1]),
        ("instance_id = 'a' AND sample_id IN (1, 2)", [1, 2]),
        ("instance_id LIKE 'a%'", [0, 1, 2]),
        ("STARTS_WITH(instance_id, 'b')", []),
        ("LENGTH(instance_id) = 1 AND ABS(sample_id - 1) = 1", [0, 2]),
        ("COALESCE(reward, 0) < 0.5", [2]),
        ("success", [0]),
        ("1 = 1", [0, 1, 2]),
        ("1 = 2", []),
        ("reward BETWEEN 0.4 AND 0.6", [1]),
    ],
)
def test_where(expression, kept):
    rows = [{"reward": 1.0, "success": True}, {"reward": 0.5, "success": False}, {"reward": None, "success": None}]
    result = judge(rows, where=expression)
    assert result == [None if row in kept else "where" for row in range(3)]


def test_where_counts_below_zero():
    rows = [{"turns": 3, "messages": 5}, {"turns": 5, "messages": 3}]
    assert judge(rows, where="turns - messages < 0") == [None, "where"]
    assert judge(rows, where="turns - 4 > 0") == ["where", None]
    judged = select(SimpleNamespace(hashed=True, table=made_table(*rows)), Filters(where="turns - 4 > 0")).judged
    assert judged.drop("drop_reason").schema == SCHEMA


def test_an_aggregate_in_where_is_over_all_that_was_read():
    rows = [{"reward": 0.0, "success": False}, {"reward": 0.5, "success": True}, {"reward": 1.0, "success": True}]
    assert judge(rows, where="reward > AVG(reward)") == ["where", "where", None]
    assert judge(rows, where="reward >= AVG(reward)", successful_only=True) == ["not_successful", None, None]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("reward >", "is no SQL expression"),
        ("", "is no SQL expression"),
        ("reward", "is of type Float64, neither true nor false"),
        ("rewrd > 1", "there is no column rewrd; there are number, length, instance_id"),
        ("completion_hash = 1", "there is no column completion_hash"),
        ("no_such_function(reward) > 1", "is no SQL expression"),
        ("reward > 'a' AND", "is no SQL expression"),
        ("*", "--where '*' is"),
        ("SELECT 1", "is no SQL expression"),
    ],
)
def test_invalid_condition_is_refused_at_once(expression, message):
    with pytest.raises(ValidationError) as raised:
        Filters(where=expression)
    assert message in str(raised.value)


@pytest.mark.parametrize("expression", ["CAST(instance_id AS INT) > 3", "REGEXP_LIKE(instance_id, '(')"])
def test_a_condition_that_fails_on_some_row_is_one_line(expression):
    with pytest.raises(InputError, match=r"^--where .*cannot be worked out for every rollout") as raised:
        judge(column("instance_id", "4", "x"), where=expression)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"successful_only": True, "unsuccessful_only": True}, "together keep nothing"),
        ({"min_reward": 0.75, "max_reward": 0.5}, "--min_reward 0.75 is more than --max_reward 0.5"),
        ({"min_tokens": 1234568, "max_tokens": 1234567}, "--min_tokens 1234568 is more than --max_tokens 1234567"),
        ({"min_messages": 3, "max_messages": 2}, "--min_messages 3 is more"),
        ({"min_reward": float("nan")}, "finite"),
        ({"near_duplicates": 0}, "greater than 0"),
        ({"best_k": 0}, "greater than or equal to 1"),
    ],
)
def test_conditions_that_cannot_be_met(conditions, message):
    with pytest.raises(ValidationError) as raised:
        Filters(**conditions)
    assert message in str(raised.value)


def test_conditions_in_words():
    conditions = Filters(
        min_reward=0.5, max_reward=1.0, max_tokens=1234567, successful_only=True, where="turns < 9",
        drop_errors=["timeout", "http_500"], best_k=2,
    )  # fmt: skip
    assert select(SimpleNamespace(hashed=True, table=made_table()), conditions).descriptions == [
        "no error timeout, http_500",
        "successful only",
        "reward at least 0.5",
        "reward at most 1",
        "where turns < 9",
        "tokens at most 1234567",
        "the best 2 of a problem",
    ]


def test_near_duplicates_among_kept_rollouts():
    almost = ANSWER.replace("today", "tonight")
    rows = [{"reward": 0.0}, *column("reward", 1.0, 1.0, 1.0, 1.0), {"reward": 1.0, "instance_id": "b"}]
    corpus = Texts(made_table(*rows), [ANSWER, ANSWER, almost, "no.", "no.", ANSWER])
    assert reasons(corpus, near_duplicates=0.7) == [None, *["near_duplicate"] * 2, None, "near_duplicate", None]
    corpus.read.clear()
    expected = ["reward_below_min", None, "near_duplicate", None, "near_duplicate", None]
    assert reasons(corpus, near_duplicates=0.7, min_reward=0.5) == expected
    assert corpus.read == [1, 2, 3, 4, 5], "a text was read of a rollout that was dropped before"


@pytest.fixture
def benchmark_file(tmp_path):
    path = tmp_path / "benchmark.jsonl"
    path.write_bytes(orjson.dumps({"question": QUESTION}) + b"\n" + orjson.dumps({"question": "too short"}) + b"\n")
    return str(path)


def test_contamination(benchmark_file):
    corpus = Texts(made_table({}, {}, {}), ["mine", f"He asked: {QUESTION.upper()}?", QUESTION[:40]])
    selected = select(corpus, Filters(benchmark=[benchmark_file]))
    assert selected.judged["drop_reason"].to_list() == [None, "contaminated", None]
    assert selected.judged["contaminated_by"].to_list() == [None, "benchmark.jsonl:1", None]
    assert selected.notes == ["1 of 2 benchmark items are too short to search for"]
    assert reasons(corpus, benchmark=[benchmark_file], benchmark_ngram=7) == [None, "contaminated", "contaminated"]
    corpus.question = QUESTION
    assert reasons(corpus, benchmark=[benchmark_file]) == ["contaminated"] * 3


def test_contaminated_rollouts_have_no_duplicates(benchmark_file):
    more = " ".join(QUESTION.split()[9:])
    corpus = Texts(made_table({}, {}), [QUESTION, more])
    conditions = {"near_duplicates": 0.4, "benchmark": [benchmark_file], "benchmark_ngram": 13}
    assert reasons(corpus, near_duplicates=0.4) == [None, "near_duplicate"]
    assert reasons(corpus, **conditions) == ["contaminated", None]


def test_a_benchmark_that_cannot_be_read():
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        judge([{}], benchmark=["nowhere.jsonl"])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A directory of a tokenizer that makes a token of every word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    base = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = PreTrainedTokenizerFast(tokenizer_object=base, unk_token="[UNK]")
    fast.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    fast.save_pretrained(folder)
    return str(folder)


def test_tokens_counted_by_a_tokenizer(tokenizer):
    table = made_table(*column("tokens", 1, 1, 1), {"tokens": 1, "reward": 0.0})
    corpus = Texts(table, ["a", "a b c", "a b c d e", "a"], question="how many")
    conditions = {"tokenizer": tokenizer, "where": "reward IS NULL"}
    above, below = "tokens_above_max", "tokens_below_min"
    assert reasons(corpus, max_tokens=5, **conditions) == [None, None, above, "where"]
    assert corpus.read == [0, 1, 2]
    assert reasons(corpus, min_tokens=4, max_tokens=6, **conditions) == [below, None, above, "where"]
    assert reasons(corpus, min_tokens=4) == [below] * 4, "without one, the records' own count"


def test_condition_on_tokens_uses_the_tokenizer(tokenizer):
    corpus = Texts(made_table(*column("tokens", 1, 1)), ["a", "a b c"], question="how many")
    assert reasons(corpus, where="tokens > 3", tokenizer=tokenizer) == ["where", None]
    assert reasons(corpus, where="tokens > 3") == ["where", "where"]


def test_unused_tokenizer_is_not_loaded():
    assert judge([{}], tokenizer="/nowhere") == [None]
    with pytest.raises(InputError, match="cannot load the tokenizer /nowhere"):
        reasons(Texts(made_table({}), ["a"]), tokenizer="/nowhere", max_tokens=5)


def test_rows_lost_are_a_bug(monkeypatch):
    monkeypatch.setattr("rollmill.jobs.curation.rules.apply", lambda table, _: table.head(1))
    with pytest.raises(RuntimeError, match="rows lost in a filter, a bug in rollmill"):
        judge([{}, {}], min_reward=1.0)


completions = st.sampled_from([ANSWER, ANSWER.replace("today", "now"), "no.", "yes.", "", " \n", "é\u2028"])
rows_of_tables = st.fixed_dictionaries(
    {
        "instance_id": st.sampled_from(["a", "b", "ü"]),
        "sample_id": st.integers(0, 3),
        "reward": st.none() | st.sampled_from([-1.0, 0.0, 0.5, 1.0]),
        "success": st.none() | st.booleans(),
        "status": st.sampled_from(["ok", "unparseable", "failed"]),
        "error_type": st.none() | st.sampled_from(["timeout", "http_500"]),
        "answer_error": st.none() | st.sampled_from([0.0, 0.25, 3.0]),
        "speedup": st.none() | st.sampled_from([0.5, 2.0]),
        "exit_status": st.none() | st.sampled_from(["Submitted", "Limits"]),
        "tokens": st.none() | st.integers(0, 9),
        "messages": st.none() | st.integers(0, 9),
        "turns": st.none() | st.integers(0, 9),
        "empty": st.none() | st.booleans(),
        "completion_hash": st.none() | st.integers(0, 3),
    }
)
any_filters = st.fixed_dictionaries(
    {},
    optional={
        "min_reward": st.sampled_from([-1.0, 0.0, 0.5]),
        "max_reward": st.sampled_from([0.5, 1.0]),
        "min_speedup": st.sampled_from([0.0, 1.0]),
        "min_messages": st.integers(0, 3),
        "max_messages": st.integers(4, 9),
        "min_tokens": st.integers(0, 3),
        "max_tokens": st.integers(4, 9),
        "exit_status": st.sampled_from([["Submitted"], ["Submitted", "Limits"]]),
        "drop_errors": st.sampled_from([["any"], ["timeout"]]),
        "drop_unparseable": st.booleans(),
        "where": st.sampled_from(["turns < 5", "reward > 0 OR reward IS NULL", "1 = 1", "success"]),
        "drop_empty": st.booleans(),
        "drop_duplicates": st.booleans(),
        "near_duplicates": st.sampled_from([0.5, 1.0]),
        "best_k": st.integers(1, 3),
        "at_most_k": st.integers(1, 3),
    },
).flatmap(
    lambda conditions: st.sampled_from([{}, {"successful_only": True}, {"unsuccessful_only": True}]).map(
        lambda more: conditions | more
    )
)


@given(st.lists(st.tuples(rows_of_tables, completions), max_size=12), any_filters)
def test_any_filters_on_any_table(built, conditions):
    corpus = Texts(made_table(*(row for row, _ in built)), [text for _, text in built])
    selected = select(corpus, Filters(**conditions))
    kept, dropped = selected.kept, selected.dropped
    assert kept.height + dropped.height == corpus.table.height == sum(count_reasons(dropped).values()) + kept.height
    assert dropped["drop_reason"].null_count() == 0
    assert kept["row"].is_sorted()
    assert sorted([*kept["row"], *dropped["row"]]) == corpus.table["row"].to_list()
    assert kept.select(SCHEMA.keys()).equals(corpus.table.filter(pl.col("row").is_in(kept["row"].to_list())))
    again = Texts(kept.select(SCHEMA.keys()), corpus.completions)
    assert select(again, Filters(**conditions)).dropped.height == 0
    if not conditions:
        assert kept.height == corpus.table.height


def test_duplicates_need_hashes():
    with pytest.raises(RuntimeError, match="a bug in rollmill"):
        select(SimpleNamespace(hashed=False, table=made_table()), Filters(drop_duplicates=True))
