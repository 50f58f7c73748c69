"""Rows of an export have the location of their recorded tokens, or the ids themselves."""

from array import array

import orjson
import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.exports.sft import export_sft
from rollmill.exports.token_sequences import IGNORED
from rollmill.generation.row_digest import row_digest
from rollmill.generation.token_file import RolloutTokens, TokenFile, TokenReader
from rollmill.inference.sampled_tokens import SampledTokens, TokenSource
from rollmill.jobs.curation.apply_filters import filter_corpus
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.records import TokenLocation

SOURCE = TokenSource("0123456789abcdef", "processed_logprobs")
PROMPT, FIRST, AGAIN, SECOND = [1, 2], [3, 9], [4], [5, 9]
TURNS = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "a"},
    {"role": "user", "content": "and?"},
    {"role": "assistant", "content": "b"},
]


def call(prompt, written):
    return SampledTokens(array("I", prompt), array("I", written), array("f", [-0.5] * len(written)), SOURCE)


CALLS = [call(PROMPT, FIRST), call(PROMPT + FIRST + AGAIN, SECOND)]


def journal(folder, *rollouts):
    """A file of rollouts, each as its messages and calls, with their tokens beside it."""
    folder.mkdir()
    tokens = TokenFile(folder / "0001.tokens")
    lines = []
    for sample_id, (messages, calls) in enumerate(rollouts):
        row = {"instance_id": "p", "sample_id": sample_id, "reward": 1.0, "success": True, "messages": messages}
        if calls:
            built = RolloutTokens("p", sample_id, calls, row_digest(row))
            row["tokens"] = tokens.append(built).model_dump()
        lines.append(orjson.dumps(row) + b"\n")
    tokens.close()
    (folder / "0001.jsonl").write_bytes(b"".join(lines))
    return read_corpus([str(folder / "0001.jsonl")])


def export(corpus, path, **options):
    path.parent.mkdir(exist_ok=True)
    exported = export_sft(path, corpus, corpus.table, **options)
    return [orjson.loads(line) for line in path.read_bytes().splitlines()], exported


def calls_of(row, folder):
    reader = TokenReader(folder)
    try:
        return reader.read(TokenLocation.model_validate(row["metadata"]["tokens"]), "p", 0).calls
    finally:
        reader.close()


def test_row_has_the_location_of_its_tokens(tmp_path):
    rows, _ = export(journal(tmp_path / "run", (TURNS, CALLS)), tmp_path / "elsewhere/sft.jsonl")
    assert rows[0]["metadata"]["tokens"]["file"] == "../run/0001.tokens"
    assert calls_of(rows[0], tmp_path / "elsewhere") == CALLS


def test_calls_of_omitted_answers_are_omitted(tmp_path):
    empty = [*TURNS[:1], {"role": "assistant", "content": " "}, *TURNS[2:]]
    marked = [*TURNS[:3], {"role": "assistant", "content": "b", "train": False}]
    (first, second), _ = export(journal(tmp_path / "run", (empty, CALLS), (marked, CALLS)), tmp_path / "run/sft.jsonl")
    assert calls_of(first, tmp_path / "run") == CALLS[1:]
    assert TokenLocation.model_validate(second["metadata"]["tokens"]).calls == (-2,)


def test_joined_answers_have_no_token_location(tmp_path):
    joined = [TURNS[0], TURNS[1], TURNS[3]]
    rows, _ = export(journal(tmp_path / "run", (joined, CALLS)), tmp_path / "run/sft.jsonl")
    assert "tokens" not in rows[0]["metadata"]


def test_filtered_records_have_a_relative_token_location(tmp_path):
    corpus = journal(tmp_path / "run", (TURNS, CALLS))
    (tmp_path / "kept").mkdir()
    filter_corpus(corpus, Filters(), tmp_path / "kept/rows.jsonl")
    rows, _ = export(read_corpus([str(tmp_path / "kept/rows.jsonl")]), tmp_path / "third/sft.jsonl")
    assert calls_of(rows[0], tmp_path / "third") == CALLS


def test_token_location_survives_filtering_and_exporting_again(tmp_path):
    export(journal(tmp_path / "run", (TURNS, CALLS)), tmp_path / "elsewhere/sft.jsonl")
    (tmp_path / "kept/deep").mkdir(parents=True)
    rows = read_corpus([str(tmp_path / "elsewhere/sft.jsonl")])
    filter_corpus(rows, Filters(), tmp_path / "kept/deep/rows.jsonl")
    again, _ = export(read_corpus([str(tmp_path / "kept/deep/rows.jsonl")]), tmp_path / "third/sft.jsonl")
    assert calls_of(again[0], tmp_path / "third") == CALLS


def test_token_ids_and_labels(tmp_path):
    rows, _ = export(journal(tmp_path / "run", (TURNS, CALLS)), tmp_path / "run/sft.jsonl", token_ids=True)
    (row,) = rows
    assert row["input_ids"] == PROMPT + FIRST + AGAIN + SECOND
    assert row["labels"] == [IGNORED] * 2 + FIRST + [IGNORED] + SECOND
    assert row["metadata"]["tokenizer"] == SOURCE.tokenizer


def test_prompts_that_do_not_continue_make_several_rows(tmp_path):
    shortened = [CALLS[0], call([1, 7], SECOND)]
    rows, exported = export(journal(tmp_path / "run", (TURNS, shortened)), tmp_path / "run/sft.jsonl", token_ids=True)
    assert [row["input_ids"] for row in rows] == [PROMPT + FIRST, [1, 7, *SECOND]]
    assert exported.kept == 1


@pytest.mark.parametrize("calls", [None, [call([], []), CALLS[1]]])
def test_rollout_without_tokens_is_dropped_with_token_ids(tmp_path, calls):
    corpus = journal(tmp_path / "run", (TURNS, CALLS), (TURNS, calls))
    rows, exported = export(corpus, tmp_path / "run/sft.jsonl", token_ids=True)
    assert (len(rows), exported.reasons) == (1, {"no_tokens": 1})


def test_edited_rollout_has_no_tokens(tmp_path):
    journal(tmp_path / "run", (TURNS, CALLS))
    path = tmp_path / "run/0001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"content":"a"', b'"content":"corrected"'))
    corpus = read_corpus([str(path)])
    rows, _ = export(corpus, tmp_path / "run/sft.jsonl")
    assert "tokens" not in rows[0]["metadata"]
    assert export(corpus, tmp_path / "run/ids.jsonl", token_ids=True)[1].reasons == {"no_tokens": 1}


def test_token_location_has_the_digest_of_the_row(tmp_path):
    rows, _ = export(journal(tmp_path / "run", (TURNS, CALLS)), tmp_path / "run/sft.jsonl")
    assert rows[0]["metadata"]["tokens"]["digest"] == row_digest(rows[0])
