import sys

import pytest

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling.datasets import (
    load_data_set,
    original_fields,
    response_column,
    response_of,
    row_number,
)
from rollmill.problems import read_problems
from tests.jobs.optimal_sampling.runs import parameters

ADAPTER = """
class Mine:
    def __init__(self, name, split):
        self.name, self.split = name, split
    def __len__(self):
        return 3
    def get_prompt(self, idx):
        return f"{self.name} {self.split} {idx}"
    def get_metadata(self, idx):
        return {"sample_idx": idx, "level": idx * 2}

class Chat(Mine):
    def get_prompt(self, idx):
        return [{"role": "user", "content": f"chat {idx}"}]

class Broken(Mine):
    def get_prompt(self, idx):
        return [].pop()

class Listing(Mine):
    def get_metadata(self, idx):
        return [1]

class Sets(Mine):
    def get_metadata(self, idx):
        return {"a": {1}}

class Unmade(Mine):
    def __init__(self, name, split):
        raise KeyError(split)

class NotOne:
    pass
"""


def load(folder, rows=None, **options):
    requested = parameters(folder, rows, **options)
    loaded = load_data_set(requested, folder, folder / "quarantine.jsonl")
    return requested, loaded, list(read_problems(loaded.path))


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    (tmp_path / "own_data.py").write_text(ADAPTER)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: load(tmp_path, [{}], dataset_adapter=f"own_data:{name}", dataset="set", dataset_split="test")
    sys.modules.pop("own_data", None)


@pytest.mark.parametrize("column", ["prompt", "question", "instruction", "input", "text"])
@pytest.mark.parametrize("adapter", ["auto", "deepscaler"])
def test_the_prompt_column_is_detected(tmp_path, column, adapter):
    _, loaded, [problem] = load(tmp_path, [{"id": 7, column: "q", "level": 3}], dataset_adapter=adapter)
    assert (loaded.fields, problem.prompt, problem.instance_id) == ({"prompt": column}, "q", "row-0")
    assert original_fields(problem, loaded.fields) == {column: "q", "id": 7, "level": 3}


@pytest.mark.parametrize("column", ["response", "answer", "output", "completion"])
def test_the_response_column_is_detected(tmp_path, column):
    requested, loaded, [problem, empty] = load(tmp_path, [{"prompt": "q", column: 5}, {"prompt": "p", column: None}])
    result = response_column(requested, loaded.path)
    assert (result, response_of(problem, result), response_of(empty, result)) == (column, "5", None)


def test_messages_are_prompt_and_response(tmp_path):
    turns = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant")]
    requested, loaded, [problem] = load(tmp_path, [{"messages": turns, "level": 1}])
    assert [turn["role"] for turn in problem.prompt] == ["system", "user"]
    assert response_column(requested, loaded.path) is None
    assert response_of(problem, None) == "a"
    assert original_fields(problem, loaded.fields) == {"level": 1}


def test_named_columns(tmp_path):
    rows = [{"text": "no", "extra": {"q": "yes", "level": 1}, "gold": "g"}]
    options = {"dataset_adapter": "generic", "prompt_field": "extra.q", "response_field": "gold"}
    requested, loaded, [problem] = load(tmp_path, rows, **options)
    assert (problem.prompt, response_of(problem, response_column(requested, loaded.path))) == ("yes", "g")
    assert original_fields(problem, loaded.fields) == {"text": "no", "extra": {"level": 1}, "gold": "g"}


def test_a_missing_column_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no column 'nope' \(--prompt_field\)"):
        load(tmp_path, [{"text": "q"}], prompt_field="nope")
    requested, loaded, _ = load(tmp_path, [{"text": "q", "gold": 1}], response_field="nope")
    with pytest.raises(InputError, match=r"no column 'nope' \(--response_field\); its columns: gold"):
        response_column(requested, loaded.path)


def test_quarantined_rows_keep_their_numbers(tmp_path):
    rows = [{"id": "a", "prompt": "p"}, {"id": "a", "prompt": ""}, {"id": "a", "prompt": "q"}]
    _, loaded, problems = load(tmp_path, rows, max_bad_share=0.5)
    assert [row_number(problem.instance_id) for problem in problems] == [0, 2]
    assert (loaded.count, loaded.quarantined) == (2, 1)
    assert load(tmp_path, rows, max_bad_share=0.5, start_idx=2)
    with pytest.raises(InputError, match=r"--start_idx 3: .*rows\.jsonl has 3 rows"):
        load(tmp_path, rows, max_bad_share=0.5, start_idx=3)


def test_columns_of_the_old_answer_are_renamed_to_original(tmp_path):
    row = {"prompt": "q", "completion": "old", "reward": 1.0, "metadata": {"instance_id": "z"}, "source": "s"}
    _, loaded, [problem] = load(tmp_path, [row])
    assert original_fields(problem, loaded.fields) == {
        "prompt": "q", "original_completion": "old", "original_reward": 1.0,
        "original_metadata": {"instance_id": "z"}, "source": "s",
    }  # fmt: skip


def test_procedural_problems_have_numbers_and_answers(tmp_path):
    _, loaded, problems = load(tmp_path, [{}], dataset="reasoning_gym:chain_sum?size=3&seed=1")
    assert [row_number(problem.instance_id) for problem in problems] == [0, 1, 2]
    assert original_fields(problems[0], loaded.fields)["answer"] == response_of(problems[0], None)


def test_a_custom_dataset_class(adapter):
    _, loaded, problems = adapter("Mine")
    assert [problem.prompt for problem in problems] == [f"set test {number}" for number in range(3)]
    assert [original_fields(problem, loaded.fields) for problem in problems] == [{"level": n} for n in (0, 2, 4)]
    assert adapter("Chat")[2][1].prompt == [{"role": "user", "content": "chat 1"}]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nobody", "the module 'own_data' has no 'Nobody'"),
        ("NotOne", "it has no get_prompt, get_metadata, __len__"),
        ("Broken", "get_prompt(0) failed: IndexError: pop from empty list"),
        ("Listing", "get_metadata(0) returned list: return a dict"),
        ("Sets", "failed: TypeError"),
        ("Unmade", "Unmade('set', 'test') failed: KeyError: 'test'"),
    ],
)
def test_errors_of_a_custom_class_are_one_line(adapter, name, message):
    with pytest.raises(InputError) as raised:
        adapter(name)
    assert message in str(raised.value)
    assert f"--dataset_adapter own_data:{name}" in str(raised.value)
