"""Export for supervised fine-tuning."""

import msgspec
import orjson
import pytest
from datasets import load_dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollmill.corpus.record import decode_record
from rollmill.errors import InputError
from rollmill.exports import training_file
from rollmill.exports.conversation import clean
from rollmill.exports.sft import TokenBudget, export_sft
from rollmill.exports.splitting import Split
from tests.exports.sample_corpus import InMemoryCorpus, lines_of, msg, reasons_of, rollout

CALL = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"path": "x"}}}]


def export(folder, records, root=None, **options):
    corpus = records if isinstance(records, InMemoryCorpus) else InMemoryCorpus(records, root)
    return export_sft(folder / "sft.jsonl", corpus, corpus.table, **options)


def loaded(exported, folder, **options):
    files = {side: str(path) for side, path in exported.files.items()}
    return load_dataset("json", data_files=files, cache_dir=str(folder / "cache"), **options)


def test_messages_and_metadata(tmp_path):
    record = rollout(seed=7, speedup=1.5, model_calls=3, verdict={"verifier": "numeric@1", "reward": 1.0})
    exported = export(tmp_path, [record], origin={"run": "abc", "nothing": None, "seed": 99})
    (line,) = lines_of(tmp_path / "sft.jsonl")
    assert line == {
        "messages": record["messages"],
        "metadata": {
            "instance_id": "p0",
            "sample_id": 0,
            "seed": 7,
            "reward": 1.0,
            "success": True,
            "speedup": 1.5,
            "model_calls": 3,
            "verifier": "numeric@1",
            "run": "abc",
        },
    }
    assert list(line["metadata"])[:4] == ["instance_id", "sample_id", "seed", "reward"]
    assert (exported.rows, exported.problems, exported.kept) == ({"train": 1}, {"train": 1}, 1)


@pytest.mark.parametrize("seed", ["seven", 1 << 63, True, None, 1.5])
def test_seed_beyond_64_bits_is_left_out(tmp_path, seed):
    export(tmp_path, [rollout(seed=seed)])
    assert "seed" not in lines_of(tmp_path / "sft.jsonl")[0]["metadata"]


def test_error_is_the_answer_error_of_the_table(tmp_path):
    corpus = InMemoryCorpus([rollout()])
    table = corpus.table.with_columns(answer_error=0.25, extra=1)
    export_sft(tmp_path / "sft.jsonl", corpus, table)
    assert lines_of(tmp_path / "sft.jsonl")[0]["metadata"]["error"] == 0.25


def test_the_rejected_side_of_a_preference_is_no_row(tmp_path):
    sides = [rollout(metadata={"preference": side}) for side in ("chosen", "rejected")]
    exported = export(tmp_path, sides)
    assert reasons_of(exported) == {1: "rejected_side_of_a_preference"}


def test_prompt_and_completion(tmp_path):
    turns = [
        msg("system", "s"),
        msg("user", "q"),
        msg("assistant", "a"),
        msg("user", "o"),
        msg("assistant", "b"),
    ]
    record = {"instance_id": "p", "sample_id": 0, "messages": turns}
    leading = {"instance_id": "p", "sample_id": 1, "messages": [msg("assistant", "hi")]}
    exported = export(tmp_path, [record, leading], format="prompt_completion")
    (line,) = lines_of(tmp_path / "sft.jsonl")
    assert (line["prompt"], line["completion"]) == (turns[:2], turns[2:])
    assert list(line) == ["prompt", "completion", "metadata"]
    assert reasons_of(exported) == {1: "no_prompt"}


def test_every_row_is_written_or_has_a_reason(tmp_path):
    records = [
        rollout(answer=" "),
        rollout(sample=1),
        {"instance_id": "p", "sample_id": 0},
        {"instance_id": "p", "sample_id": 1, "messages": [msg("user", "q")]},
        {"instance_id": "p", "sample_id": 2, "messages": [msg("robot", "q"), msg("assistant", "a")]},
        b'{"instance_id":"p","sample_id":3,"messages":[{"role":"assistant","content":"\xff"}]}',
    ]
    exported = export(tmp_path, records)
    assert reasons_of(exported) == {
        0: "empty_completion",
        2: "no_messages",
        3: "no_assistant_turn",
        4: "unknown_role",
        5: "not_unicode",
    }
    assert exported.reasons == dict.fromkeys(sorted(reasons_of(exported).values()), 1)
    assert exported.kept == len(lines_of(tmp_path / "sft.jsonl")) == 1


def test_nothing_kept_makes_an_empty_file(tmp_path):
    exported = export(tmp_path, [rollout(answer="")])
    assert (tmp_path / "sft.jsonl").read_bytes() == b""
    assert exported.rows == {"train": 0}


def test_only_the_given_rows_are_read(tmp_path):
    corpus = InMemoryCorpus([rollout(sample=number) for number in range(4)])
    exported = export_sft(tmp_path / "sft.jsonl", corpus, corpus.table[[1, 3]])
    assert [line["metadata"]["sample_id"] for line in lines_of(tmp_path / "sft.jsonl")] == [1, 3]
    assert exported.dropped.height == 0
    with pytest.raises(ValueError, match="sorted by `row`"):
        export_sft(tmp_path / "sft.jsonl", corpus, corpus.table[[3, 1]])


def test_text_parts_become_plain_text_without_images(tmp_path):
    parts = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}]
    record = {
        "instance_id": "p",
        "sample_id": 0,
        "messages": [msg("user", parts), msg("assistant", "x")],
    }
    exported = export(tmp_path, [rollout(), record])
    assert lines_of(tmp_path / "sft.jsonl")[1]["messages"][0]["content"] == "a\nb"
    assert loaded(exported, tmp_path)["train"].num_rows == 2


def test_all_contents_become_parts_where_one_row_shows_an_image(tmp_path):
    image = {"type": "image", "image": "images/x.png"}
    shown = [msg("user", [image, {"type": "text", "text": "q"}]), msg("assistant", "x")]
    records = [rollout(), {"instance_id": "p", "sample_id": 0, "messages": shown}]
    corpus = InMemoryCorpus(records, tmp_path / "run")
    exported = export(tmp_path / "out", corpus)
    first, second = lines_of(tmp_path / "out" / "sft.jsonl")
    assert first["messages"][2]["content"] == [{"type": "text", "text": "a"}]
    assert second["messages"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "q"}]
    assert (first["images"], second["images"]) == ([], ["../run/images/x.png"])
    assert (exported.kept, corpus.readings) == (2, 2)
    assert loaded(exported, tmp_path)["train"][1]["images"] == ["../run/images/x.png"]


@pytest.mark.parametrize("path", ["{0}/run/x.png", "https://host/x.png", "data:image/png;base64,AA=="])
def test_image_paths_that_are_not_relative_stay(tmp_path, path):
    path = path.format(tmp_path)
    turns = [msg("user", [{"type": "image", "image": path}]), msg("assistant", "x")]
    export(tmp_path, [{"instance_id": "p", "sample_id": 0, "messages": turns}], tmp_path / "run")
    assert lines_of(tmp_path / "sft.jsonl")[0]["images"] == [path]


def test_a_name_with_a_colon_is_a_path(tmp_path):
    turns = [msg("user", [{"type": "image", "image": "scan:1.png"}]), msg("assistant", "x")]
    export(tmp_path, [{"instance_id": "p", "sample_id": 0, "messages": turns}], tmp_path / "run")
    assert lines_of(tmp_path / "sft.jsonl")[0]["images"] == ["run/scan:1.png"]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "/etc/passwd"},
        {"type": "image", "image": "a:/../../secret.png"},
        {"type": "image", "image": "../../secret.png"},
        {"type": "image", "image": "file:///etc/passwd"},
        {"type": "image", "image": "link.png"},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": "FILE:///etc/passwd"},
        {"type": "input_image", "image_url": "/etc/passwd"},
        {"type": "image", "path": "/etc/passwd"},
        {"type": "video", "video": "/etc/passwd"},
    ],
)
def test_row_with_an_image_outside_its_folder_is_dropped(tmp_path, part):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link.png").symlink_to("/etc/passwd")
    shown = [msg("user", [part]), msg("assistant", "x")]
    fine = [msg("user", [{"type": "image", "image": "images/x.png"}]), msg("assistant", "x")]
    rows = [{"instance_id": "p", "sample_id": number, "messages": turns} for number, turns in enumerate((shown, fine))]
    exported = export(tmp_path, rows, tmp_path / "run")
    assert exported.dropped["drop_reason"].to_list() == ["image_outside"]
    assert len(lines_of(tmp_path / "sft.jsonl")) == 1


def test_further_folders_of_images_are_named_by_a_flag(tmp_path):
    (tmp_path / "pictures").mkdir()
    turns = [
        msg("user", [{"type": "image", "image": str(tmp_path / "pictures" / "a.png")}]),
        msg("assistant", "x"),
    ]
    rows = [{"instance_id": "p", "sample_id": 0, "messages": turns}]
    export(tmp_path, rows, tmp_path / "run", image_folders=[str(tmp_path / "pictures")])
    assert lines_of(tmp_path / "sft.jsonl")[0]["images"] == [str(tmp_path / "pictures" / "a.png")]


def test_images_of_a_remote_source_keep_their_paths(tmp_path):
    turns = [msg("user", [{"type": "image", "image": "images/x.png"}]), msg("assistant", "x")]
    export(tmp_path, [{"instance_id": "p", "sample_id": 0, "messages": turns}])
    assert lines_of(tmp_path / "sft.jsonl")[0]["images"] == ["images/x.png"]


def test_late_columns_come_first_so_that_a_loader_finds_them(tmp_path, monkeypatch):
    monkeypatch.setattr(training_file, "FIRST_BYTES", 20_000)
    plain = [rollout(sample=number, answer="x" * 1000) for number in range(60)]
    tools = [
        msg("user", "q"),
        msg("assistant", None, tool_calls=CALL),
        msg("tool", "o"),
        msg("assistant", "a"),
    ]
    late = {"instance_id": "late", "sample_id": 0, "messages": tools, "seed": 1, "speedup": 2.0}
    exported = export(tmp_path, [*plain, late, {**late, "sample_id": 1}, rollout(sample=60)])
    lines = lines_of(tmp_path / "sft.jsonl")
    assert len(lines) == exported.kept == 63
    assert [line["metadata"]["sample_id"] for line in lines] == [0, *range(60), 1, 60]
    assert lines[0]["metadata"]["instance_id"] == "late"
    rows = loaded(exported, tmp_path, chunksize=20_000)["train"]
    assert rows.num_rows == 63
    assert rows[0]["messages"][1]["tool_calls"][0]["function"]["arguments"]["path"] == "x"


def test_rows_in_the_first_megabyte_keep_their_order(tmp_path):
    plain = [rollout(sample=number, answer="x" * 10_000) for number in range(90)]
    tools = [
        msg("user", "q"),
        msg("assistant", None, tool_calls=CALL),
        msg("tool", "o"),
        msg("assistant", "a"),
    ]
    other = [{**CALL[0], "function": {"name": "g", "arguments": {"depth": 1, "path": None}}}]
    deeper = [
        msg("user", "q"),
        msg("assistant", "", tool_calls=other),
        msg("tool", "o"),
        msg("assistant", "a"),
    ]
    records = [
        *plain,
        {"instance_id": "t", "sample_id": 0, "messages": tools},
        *plain,
        {"instance_id": "d", "sample_id": 0, "messages": deeper},
        *plain * 12,
    ]
    exported = export(tmp_path, records)
    rows = loaded(exported, tmp_path)["train"]
    assert rows.num_rows == len(records) == 90 * 14 + 2
    assert rows["metadata"][0]["instance_id"] == "d"
    assert rows["metadata"][91]["instance_id"] == "t"


def test_prepending_moves_files_larger_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(training_file, "_BLOCK", 7)
    path = tmp_path / "x.jsonl"
    monkeypatch.setattr(training_file, "FIRST_BYTES", 0)
    with training_file.open_training_file(path) as lines:
        for number in range(20):
            lines.write(b"%d\n" % number, {"late"} if number == 12 else set())
    assert path.read_bytes().split() == [b"12", *(b"%d" % number for number in range(20) if number != 12)]


def test_rows_over_the_token_budget_are_dropped(tmp_path):
    seen = []

    def count(conversations):
        seen.append(len(conversations))
        return [sum(len(turn["content"]) for turn in turns) for turns in conversations]

    records = [rollout(sample=number, answer="a" * (number % 2 * 100 + 1)) for number in range(70)]
    exported = export(tmp_path, records, budget=TokenBudget("t", 50, count))
    assert seen == [64, 6]
    assert set(reasons_of(exported)) == set(range(1, 70, 2))
    assert exported.reasons == {"over_token_budget": 35}
    counted = len("s" + "q of p0" + "a")
    assert export(tmp_path, records[:1], budget=TokenBudget("t", counted, count)).kept == 1
    assert export(tmp_path, records[:1], budget=TokenBudget("t", counted - 1, count)).kept == 0


def test_split_is_by_problem_and_the_same_every_time(tmp_path):
    records = [rollout(f"p{number % 30}", number // 30) for number in range(90)]
    exported = export(tmp_path, records, split=Split(0.3, seed=1))
    train, validation = (
        [line["metadata"]["instance_id"] for line in lines_of(tmp_path / name)]
        for name in ("sft.jsonl", "sft.validation.jsonl")
    )
    assert not set(train) & set(validation)
    assert len(train) + len(validation) == 90
    assert exported.rows == {"train": len(train), "validation": len(validation)}
    assert exported.problems == {"train": len(train) // 3, "validation": len(validation) // 3}
    assert 3 <= exported.problems["validation"] <= 16
    before = (tmp_path / "sft.validation.jsonl").read_bytes()
    export(tmp_path, records, split=Split(0.3, seed=1))
    assert (tmp_path / "sft.validation.jsonl").read_bytes() == before
    export(tmp_path, records, split=Split(0.3, seed=2))
    assert (tmp_path / "sft.validation.jsonl").read_bytes() != before


def test_dropped_rows_leave_no_side_of_the_split_empty(tmp_path):
    split = Split(0.01, seed=0)
    (held_out,) = split.validation([f"p{number}" for number in range(6)])
    records = [rollout(f"p{number}", answer="" if f"p{number}" == held_out else "a") for number in range(6)]
    exported = export(tmp_path, records, split=split)
    assert exported.problems == {"train": 4, "validation": 1}
    assert reasons_of(exported) == {int(held_out[1:]): "empty_completion"}


def test_validation_shows_no_column_that_train_does_not(tmp_path):
    split = Split(0.6, seed=0)
    names = [f"p{number}" for number in range(8)]
    first, second, *others = sorted(split.validation(names))
    assert others
    records = [rollout(name, **({"speedup": 2.0} if name in (first, second) else {})) for name in names]
    exported = export(tmp_path, records, split=split)
    train, validation = (lines_of(path) for path in exported.files.values())
    assert first in [line["metadata"]["instance_id"] for line in train]
    assert sorted(line["metadata"]["instance_id"] for line in validation) == [second, *others]
    assert {side: rows.num_rows for side, rows in loaded(exported, tmp_path).items()} == exported.rows


def test_two_problems_are_on_two_sides_whatever_their_columns(tmp_path):
    exported = export(tmp_path, [rollout("p", speedup=2.0), rollout("q", seed=1)], split=Split(0.5))
    assert exported.problems == {"train": 1, "validation": 1}


def test_late_rows_are_bounded_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(training_file, "FIRST_BYTES", 0)
    monkeypatch.setattr(training_file, "MOST_LATE_BYTES", 3)
    with training_file.open_training_file(tmp_path / "x.jsonl") as lines:
        for number in range(6):
            lines.write(b"%d\n" % number, {f"column {number}"})
    assert (tmp_path / "x.jsonl").read_bytes().split() == [b"1", b"2", b"0", b"3", b"4", b"5"]


def test_one_problem_is_not_split(tmp_path):
    exported = export(tmp_path, [rollout(), rollout(sample=1)], split=Split(0.5))
    assert exported.rows == {"train": 2}
    assert not (tmp_path / "sft.validation.jsonl").exists()


@given(
    st.sets(st.text(max_size=2), max_size=20), st.sets(st.text(max_size=2)), st.floats(0.01, 0.99), st.integers(0, 5)
)
def test_validation_invariants(problems, train, share, seed):
    chosen = Split(share, seed).validation(problems, train)
    assert chosen <= problems
    assert (0 < len(chosen) < len(problems)) == (len(problems) > 1)
    assert not chosen & train or problems <= train


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_out_of_bounds_is_refused(share):
    with pytest.raises(InputError, match="not between 0 and 1"):
        Split(share)


def test_invalid_options_are_refused(tmp_path):
    corpus = InMemoryCorpus([rollout()])
    with pytest.raises(InputError, match=r"ends in \.jsonl"):
        export_sft(tmp_path / "sft.json", corpus, corpus.table)
    with pytest.raises(InputError, match="unknown format 'alpaca'"):
        export(tmp_path, corpus, format="alpaca")


def test_an_export_that_fails_leaves_no_file(tmp_path):
    def broken(_):
        raise OSError("tokenizer gone")

    with pytest.raises(OSError, match="gone"):
        export(tmp_path, [rollout()], budget=TokenBudget("t", 1, broken))
    assert list(tmp_path.iterdir()) == []


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)
TURN = st.builds(msg, st.sampled_from(["system", "user", "assistant", "exit"]), TEXT | st.none())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.lists(TURN, max_size=5), max_size=5), st.sampled_from(["messages", "prompt_completion"]))
def test_every_row_is_kept_or_dropped_and_files_round_trip(tmp_path, conversations, form):
    records = [
        {"instance_id": "p", "sample_id": number, "messages": turns} for number, turns in enumerate(conversations)
    ]
    exported = export(tmp_path, records, format=form)
    written = (tmp_path / "sft.jsonl").read_bytes().splitlines(keepends=True)
    assert len(written) + exported.dropped.height == len(records)
    for line in written:
        assert line.endswith(b"\n")
        source = records[orjson.loads(line)["metadata"]["sample_id"]]
        cleaned = clean(decode_record(orjson.dumps(source)).conversation())
        assert msgspec.json.encode(decode_record(line).conversation()) == msgspec.json.encode(cleaned)
