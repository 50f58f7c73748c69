"""The dataset card of exports."""

import pytest
from datasets import load_dataset

from rollmill.exports.card import write_card
from rollmill.exports.preferences import export_preferences
from rollmill.exports.sft import export_sft
from rollmill.exports.splitting import Split
from rollmill.exports.trajectories import export_trajectory
from tests.exports.sample_corpus import InMemoryCorpus, rollout

RECORDS = [rollout(f"p{number // 2}", number % 2, float(number % 2), answer=f"a{number}") for number in range(8)]


def sft(folder, name="sft.jsonl", records=RECORDS, **options):
    corpus = InMemoryCorpus(records)
    kept = corpus.table[: corpus.table.height - 1]
    exported = export_sft(folder / name, corpus, kept, split=options.pop("split", None))
    return write_card(exported, corpus=corpus, filtered={"below_min_reward": 1}, **options)


def load(folder, name, cache):
    return load_dataset(str(folder), name, cache_dir=str(cache))


def test_card_describes_files_filters_and_origin(tmp_path):
    records = [*RECORDS, rollout("p9", 0, answer=" "), rollout("p9", 1)]
    card = sft(tmp_path, records=records, split=Split(0.3), filters=["reward > 0.5 | a*b"], origin={"run": "abc <x>"})
    text = card.read_text()
    assert card.name == "README.md"
    for line in (
        '- config_name: "sft"',
        "## sft",
        "Format `messages`.",
        "- source: made.jsonl",
        "- model: org/model",
        "- run: abc &lt;x&gt;",
        "- reward &gt; 0.5 \\| a\\*b",
        "| read | 10 |",
        "| filtered: below\\_min\\_reward | 1 |",
        "| dropped: empty\\_completion | 1 |",
        "| kept | 8 |",
        "| quarantined (rows that could not be read, not counted above) | 2 |",
    ):
        assert f"{line}\n" in text
    assert text.startswith("---\nconfigs:\n")


def test_every_export_of_a_folder_loads_by_its_name(tmp_path):
    folder, corpus = tmp_path / "out", InMemoryCorpus(RECORDS)
    sft(folder, split=Split(0.3))
    for exported in (
        export_preferences(folder / "dpo.jsonl", corpus, corpus.table),
        export_trajectory(folder / "whole.json", corpus, corpus.table, origin={"run": "abc"}),
        export_trajectory(folder / "lines.jsonl.gz", corpus, corpus.table),
    ):
        write_card(exported, corpus=corpus)
    assert (folder / "README.md").read_text().count("config_name") == 4
    rows = load(folder, "sft", tmp_path / "cache")
    assert set(rows) == {"train", "validation"}
    assert sum(split.num_rows for split in rows.values()) == 7
    assert load(folder, "dpo", tmp_path / "cache")["train"].column_names == ["prompt", "chosen", "rejected", "metadata"]
    assert load(folder, "whole", tmp_path / "cache")["train"][1]["trajectory"] == RECORDS[1]["messages"]
    assert load(folder, "lines", tmp_path / "cache")["train"].num_rows == 8


def test_writing_again_replaces_one_section_and_keeps_the_rest(tmp_path):
    sft(tmp_path, filters=["first"])
    card = sft(tmp_path, "other.jsonl", filters=["of the other"])
    text = card.read_text().replace("---\n\n#", "license: mit\n---\n\n#", 1) + "\nWritten by hand.\n"
    card.write_text(text)
    again = sft(tmp_path, filters=["second"]).read_text()
    assert "second" in again
    assert "first" not in again
    assert again.count("## sft") == again.count("## other") == 1
    assert again.index("## sft") < again.index("## other")
    for kept in ("- of the other\n", "Written by hand.\n", "license: mit\n"):
        assert kept in again
    assert again.count("configs:") == again.count("license") == 1
    assert sft(tmp_path, filters=["second"]).read_text() == again


def test_readme_of_the_user_is_left_unchanged(tmp_path):
    (tmp_path / "README.md").write_text("# My project\n")
    assert sft(tmp_path).name == "sft.card.md"
    assert (tmp_path / "README.md").read_text() == "# My project\n"
    assert "## sft" in (tmp_path / "sft.card.md").read_text()


def test_missing_or_empty_files_are_not_configured(tmp_path):
    sft(tmp_path)
    (tmp_path / "sft.jsonl").unlink()
    sft(tmp_path, "other.jsonl")
    text = sft(tmp_path, "empty.jsonl", records=[rollout(answer=""), rollout()]).read_text()
    assert text.count("config_name") == 1
    assert "## sft" in text
    assert "## empty" in text


def test_text_from_outside_cannot_end_a_section(tmp_path):
    evil = "<!-- rollmill:end -->"
    text = sft(tmp_path, filters=[evil], origin={evil: evil}).read_text()
    assert text.count(evil) == 1
    assert sft(tmp_path, filters=[evil], origin={evil: evil}).read_text() == text


def test_counts_that_do_not_add_up_are_a_bug(tmp_path):
    corpus = InMemoryCorpus(RECORDS)
    exported = export_sft(tmp_path / "sft.jsonl", corpus, corpus.table[:3])
    with pytest.raises(RuntimeError, match="8 read, 0 filtered, 3 kept, 0 dropped"):
        write_card(exported, corpus=corpus)
