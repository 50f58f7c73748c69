"""Rows with recorded token ids are trained on exactly these."""

from array import array

import orjson
import pytest

from rollmill.exports.token_sequences import IGNORED
from rollmill.generation.row_digest import row_digest
from rollmill.generation.token_file import RolloutTokens, TokenFile
from rollmill.inference.sampled_tokens import SampledTokens, TokenSource
from rollmill.jobs.training.masks import Masks
from rollmill.jobs.training.prepared import TRAIN, prepare_rows, rows_file
from tests.jobs.training.test_prepared import learnt_rows
from tests.jobs.training.tiny_models import make_tokenizer

TOKENIZER = make_tokenizer()
HASH = "0123456789abcdef"
PROMPT = "<|user|>one?<eos><|assistant|>"
END = TOKENIZER.convert_tokens_to_ids("<eos>")


def ids(text):
    return TOKENIZER.encode(text, add_special_tokens=False)


def odd(text):
    """Return ids that differ from the encoded text: one for each letter, and the end token."""
    return [*(TOKENIZER.convert_tokens_to_ids(letter) for letter in text), END]


def record(folder, *calls, tokenizer=HASH):
    """Write a rollout's tokens; return their location."""
    file = TokenFile(folder / "0001.tokens")
    source = TokenSource(tokenizer, "processed_logprobs")
    sampled = [SampledTokens(array("I", prompt), array("I", written), None, source) for prompt, written in calls]
    location = file.append(RolloutTokens("p", 0, sampled))
    file.close()
    return location.model_dump()


def row(*messages, **metadata):
    """Return a training row; its tokens, if it has any, are those of its text."""
    pairs = [{"role": role, "content": content} for role, content in messages]
    result = {"messages": pairs, "metadata": {"instance_id": "p", "sample_id": 0, **metadata}}
    if isinstance(metadata.get("tokens"), dict):
        result["metadata"]["tokens"] = metadata["tokens"] | {"digest": row_digest(result)}
    return result


def prepare(folder, *rows, **options):
    path = folder / "sft.jsonl"
    path.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in rows))
    (folder / "rows").mkdir(exist_ok=True)
    return prepare_rows(
        folder / "rows",
        Masks(TOKENIZER, "base"),
        [str(path)],
        [],
        **{"max_length": 200, "tokenizer_hash": HASH} | options,
    )


def texts(folder):
    return learnt_rows(rows_file(folder / "rows", TRAIN))


def test_sampled_ids_are_trained_on_behind_their_prompt(tmp_path):
    prompt, written = ids(PROMPT), odd("yes")
    location = record(tmp_path, (prompt, written))
    prepared = prepare(tmp_path, row(("user", "one?"), ("assistant", "yes"), tokens=location))
    (text,) = texts(tmp_path)
    assert text.input_ids == prompt + written
    assert text.labels == [IGNORED] * len(prompt) + written
    assert (prepared.recorded_rows, prepared.encoded_anew, prepared.ends) == (1, {}, {"<eos>": 1})


def test_turns_share_a_text_and_untrained_ones_are_context(tmp_path):
    first = ids(PROMPT), odd("yes")
    second = first[0] + first[1] + ids("<|user|>two?<eos><|assistant|>"), odd("no")
    turns = [("user", "one?"), ("assistant", "yes"), ("user", "two?"), ("assistant", "no")]
    location = record(tmp_path, first, second)
    marked = row(*turns, tokens=location)
    marked["messages"][1]["weight"] = 0  # a mark is no other text
    prepare(tmp_path, row(*turns, tokens=location), marked)
    both, last = texts(tmp_path)
    assert both.input_ids == last.input_ids == second[0] + second[1]
    assert [label for label in both.labels if label != IGNORED] == first[1] + second[1]
    assert [label for label in last.labels if label != IGNORED] == second[1]


def test_behind_another_prompt_only_the_sampled_ids_are_used(tmp_path):
    location = record(tmp_path, (ids("<|user|>an example, and one?<eos><|assistant|>"), odd("yes")))
    prepare(tmp_path, row(("user", "one?"), ("assistant", "yes"), tokens=location | {"other_prompt": True}))
    (text,) = texts(tmp_path)
    assert text.input_ids == ids(PROMPT) + odd("yes")


def test_a_truncated_answer_has_no_end_token(tmp_path):
    location = record(tmp_path, (ids(PROMPT), odd("yes")[:-1]))
    cut = row(("user", "one?"), ("assistant", "yes"), tokens=location, truncated=True)
    prepared = prepare(tmp_path, cut, allow_no_end=True)
    assert (prepared.recorded_rows, prepared.turns_without_end) == (1, 1)
    assert texts(tmp_path)[0].input_ids[-1] != END


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tokenizer": "fedcba9876543210"}, "other_tokenizer"),
        ({"tokenizer": None}, "other_tokenizer"),
        ({"gone": True}, "tokens_not_found"),
        ({"metadata": {"sample_id": 1}}, "tokens_not_found"),
        ({"metadata": {"tokens": None}}, "not_recorded"),
        ({"metadata": {"tokens": "0001.tokens"}}, "not_recorded"),
    ],
)
def test_rows_with_unusable_ids_are_encoded_from_text(tmp_path, change, reason):
    options = {"tokenizer": HASH, "metadata": {}} | change
    location = record(tmp_path, (ids(PROMPT), odd("yes")), tokenizer=options["tokenizer"])
    if options.get("gone"):
        (tmp_path / "0001.tokens").unlink()
    requested = row(("user", "one?"), ("assistant", "yes"), **{"tokens": location} | options["metadata"])
    prepared = prepare(tmp_path, requested)
    assert (prepared.recorded_rows, prepared.encoded_anew) == (0, {reason: 1})
    (text,) = texts(tmp_path)
    assert text.input_ids == ids(PROMPT) + ids("yes<eos>")


def change_in(*path, value):
    def change(row):
        *outer, last = path
        for key in outer:
            row = row[key]
        row[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        change_in("messages", 1, "content", value="ye"),
        change_in("messages", 1, "content", value="corrected"),
        change_in("messages", 0, "content", value="one"),
        lambda row: row["messages"].insert(0, {"role": "system", "content": "Be brief."}),
        change_in("tools", value=[{"type": "function", "function": {"name": "f"}}]),
        change_in("chat_template_kwargs", value={"enable_thinking": False}),
        change_in("metadata", "truncated", value=True),
        lambda row: row["metadata"]["tokens"].pop("digest"),
    ],
)
def test_rows_edited_since_recording_are_encoded_from_text(tmp_path, change):
    location = record(tmp_path, (ids(PROMPT), odd("yes")))
    changed = row(("user", "one?"), ("assistant", "yes"), tokens=location)
    change(changed)
    prepared = prepare(tmp_path, changed, allow_no_end=True)
    assert (prepared.recorded_rows, prepared.encoded_anew) == (0, {"tokens_of_another_text": 1})


def test_ids_in_the_row_are_used_unchanged(tmp_path):
    prompt, written = ids(PROMPT), odd("yes")
    labels = [IGNORED] * len(prompt) + written
    total = row(("user", "one?"), ("assistant", "yes"), tokenizer=HASH) | {
        "input_ids": prompt + written,
        "labels": labels,
    }
    prepared = prepare(tmp_path, total)
    assert prepared.recorded_rows == 1
    assert texts(tmp_path)[0].labels == labels


@pytest.mark.parametrize("labels", [[1], None, "ab", [1, 2, 3], [-100, 99, 3]])
def test_labels_that_do_not_fit_the_ids_are_refused(tmp_path, labels):
    broken = row(("user", "one?"), ("assistant", "yes"), tokenizer=HASH) | {"input_ids": [1, 2, 4], "labels": labels}
    prepared = prepare(tmp_path, broken, row(("user", "one?"), ("assistant", "yes")))
    assert prepared.dropped == {"unusable": 1}


def test_rows_of_recorded_ids_that_are_too_long_are_left_out(tmp_path):
    location = record(tmp_path, (ids(PROMPT) + ids("x") * 200, odd("yes")))
    long = row(("user", "one?"), ("assistant", "yes"), tokens=location)
    prepared = prepare(tmp_path, long, row(("user", "one?"), ("assistant", "yes")))
    assert prepared.dropped == {"over_max_length": 1}


@pytest.mark.parametrize("written", [[*ids("no"), END], [10**6, END]])
def test_ids_that_decode_to_another_text_are_not_trained_on(tmp_path, written):
    location = record(tmp_path, (ids(PROMPT), written))
    prepared = prepare(tmp_path, row(("user", "one?"), ("assistant", "yes"), tokens=location))
    assert prepared.encoded_anew == {"tokens_of_another_text": 1}
