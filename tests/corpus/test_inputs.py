"""Inputs: files, folders, patterns, runs, URLs, and their refusals."""

import os
import socket
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.corpus.inputs import Source, find_sources
from rollmill.corpus.journal_index import index_path
from rollmill.errors import InputError
from tests.corpus.sample_records import PACKERS, lines, make_run, record


@pytest.fixture
def folder(tmp_path):
    """Two files of a kind that is read, among others."""
    for name in (
        "b.jsonl",
        "a.json",
        "a.dropped.jsonl",
        "a.quarantine.jsonl",
        ".a.jsonl.1.part",
        ".hidden.jsonl",
        "x.txt",
    ):
        (tmp_path / name).write_bytes(lines([record("p", 0), record("p", 1)]))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/c.jsonl").write_bytes(lines([record("q")]))
    return tmp_path


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    for name in ("/in/2.jsonl", "/in/1.jsonl", "/in/1.dropped.jsonl", "/in/x.txt"):
        system.pipe(name, lines([record(name)]))
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def find_paths(*inputs):
    return [source.path for source in find_sources([str(item) for item in inputs])]


def test_file_path_is_kept_as_given(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_sources(["b.jsonl"]) == [Source("b.jsonl", "lines")]
    assert find_sources(["a.json"]) == [Source("a.json", "lines")]
    monkeypatch.setenv("HOME", str(folder))
    assert find_paths("~/b.jsonl") == [f"{folder}/b.jsonl"]


@pytest.mark.parametrize(
    ("name", "kind", "is_seekable"),
    [
        ("x.jsonl", "lines", True),
        ("x.NDJSON", "lines", True),
        ("x.jsonl.gz", "lines", False),
        ("x.jsonl.zst", "lines", False),
        ("x.json", "document", False),
        ("x.parquet", "parquet", False),
    ],
)
def test_kinds(tmp_path, name, kind, is_seekable):
    packed = next((suffix for suffix in PACKERS if suffix and name.endswith(suffix)), "")
    (tmp_path / name).write_bytes(PACKERS[packed](b"[]"))
    (source,) = find_sources([str(tmp_path / name)])
    assert (source.kind, source.is_seekable, source.folder) == (kind, is_seekable, tmp_path)


def test_folder_input_skips_quarantined_files_and_subfolders(folder):
    assert find_paths(folder) == [f"{folder}/a.json", f"{folder}/b.jsonl"]
    assert read_corpus([str(folder)]).table.height == 4
    assert find_paths(f"file://{folder}") == find_paths(folder)


def test_patterns(folder):
    assert find_paths(folder / "*.json*") == [f"{folder}/a.json", f"{folder}/b.jsonl"]
    assert find_paths(folder / "**" / "*.jsonl") == [f"{folder}/b.jsonl", f"{folder}/sub/c.jsonl"]
    assert find_paths(folder / "[ab].jso*") == [f"{folder}/a.json", f"{folder}/b.jsonl"]
    assert find_paths(folder / "?.json") == [f"{folder}/a.json"]
    assert find_paths(f"file://{folder}/b.*") == [f"{folder}/b.jsonl"]
    assert find_paths(folder / "*.dropped.*") == [f"{folder}/a.dropped.jsonl"]
    assert find_paths(folder / "su*") == [f"{folder}/sub/c.jsonl"]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    (tmp_path / "run[1].jsonl").write_bytes(lines([record()]))
    assert find_paths(tmp_path / "run[1].jsonl") == [f"{tmp_path}/run[1].jsonl"]


def test_remote_files_and_patterns(memory):
    assert find_paths("memory://in/2.jsonl") == ["memory://in/2.jsonl"]
    assert find_paths("memory://in/*.jsonl") == ["memory:///in/1.jsonl", "memory:///in/2.jsonl"]
    corpus = read_corpus(["memory://in/*.jsonl"])
    assert corpus.table["instance_id"].to_list() == ["/in/1.jsonl", "/in/2.jsonl"]
    assert len(list(corpus.records(corpus.table))) == 2
    assert corpus.image_root(0) is None
    assert corpus.name == "1.jsonl and 1 more"


def test_question_mark_in_a_web_address_is_no_pattern():
    url = "https://host/rollouts.jsonl?signature=a*b"
    assert find_sources([url]) == [Source(url, "lines")]


def test_a_run_and_its_journal(tmp_path):
    journal = make_run(tmp_path / "run", [record("a")])
    assert find_sources([str(tmp_path / "run")]) == [Source(str(journal), "lines", tmp_path / "run")]
    assert find_sources([str(journal)]) == [Source(str(journal), "lines", tmp_path / "run")]
    index_path(journal).write_bytes(b"")
    assert find_sources([str(journal.parent)]) == [Source(str(journal), "lines", tmp_path / "run")]
    assert find_paths(journal.parent / "*") == [str(journal)]
    assert find_paths(f"file://{tmp_path}/run") == [str(journal)]


def test_manifest_names_the_journal_to_read(tmp_path):
    second = make_run(tmp_path / "run", [record("a", reward=0.0)], journal="rollouts/0002.jsonl")
    first = second.with_name("0001.jsonl")
    first.write_bytes(lines([record("a")]))
    assert read_corpus([str(tmp_path / "run")]).table["reward"].to_list() == [0.0]
    assert read_corpus([str(first)]).table["reward"].to_list() == [1.0]


def test_a_folder_of_runs(tmp_path):
    for name in ("second", "first"):
        make_run(tmp_path / name, [record("a", answer=name)])
    (tmp_path / "more.jsonl").write_bytes(lines([record("z")]))
    corpus = read_corpus([str(tmp_path)])
    assert [source.run and source.run.name for source in corpus.files] == [None, "first", "second"]
    assert corpus.table["instance_id"].to_list() == ["z", "a", "a"]
    assert corpus.name == "more.jsonl and 2 more"


@pytest.mark.parametrize(
    "again", ["{0}/b.jsonl", "{0}", "{0}/b*", "{0}/../{1}/b.jsonl", "file://{0}/b.jsonl", "{0}/link.jsonl"]
)
def test_file_named_twice_is_refused(folder, again):
    (folder / "link.jsonl").symlink_to(folder / "b.jsonl")
    with pytest.raises(InputError, match="is given twice: its rollouts would count twice"):
        find_sources([f"{folder}/b.jsonl", again.format(folder, folder.name)])


def test_url_named_twice_is_refused(memory):
    with pytest.raises(InputError, match=r"memory://in/1\.jsonl is given twice"):
        find_sources(["memory://in/1.jsonl"] * 2)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ("{0}/missing.jsonl", "{0}/missing.jsonl: there is no such file or folder"),
        ("", "an input is empty: name a file, a folder, a pattern or a URL"),
        ("file://", "an input is empty"),
        ("{0}/*.parquet", "{0}/*.parquet: no file matches this pattern"),
        (
            "{0}/text",
            "{0}/text is of no kind that can be read: .jsonl, .ndjson, .json, .parquet, also with .gz, .zst",
        ),
        ("{0}/empty", "{0}/empty holds neither a run (manifest.json) nor a file that ends in .jsonl, .ndjson"),
        ("{0}/pipe.jsonl", "{0}/pipe.jsonl is a stream, and it is read more than once: save it in a file first"),
        ("/dev/null", "/dev/null is a stream"),
        ("{0}/socket.jsonl", "{0}/socket.jsonl is a stream"),
        ("{0}/" + "n" * 300 + ".jsonl", "cannot read {0}/nnn"),
        ("{0}/broken.jsonl", "{0}/broken.jsonl: there is no such file or folder"),
        ("memory://nothing/*.jsonl", "memory://nothing/*.jsonl: no file matches this pattern"),
        ("memory://nothing/x.txt", "cannot read memory://nothing/x.txt: "),
        ("nosuch://x/*.jsonl", "cannot read nosuch://x/*.jsonl: Protocol not known: nosuch"),
        ("memory://nothing/x.json", "cannot read memory://nothing/x.json: "),
    ],
)
def test_invalid_input_is_refused(folder, inputs, words, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    (folder / "text").write_text("no rollouts")
    (folder / "broken.jsonl").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jsonl")
        with pytest.raises(InputError) as caught:
            find_sources([inputs.format(folder)])
    assert str(caught.value).startswith(words.format(folder))
    assert "\n" not in str(caught.value)


def test_stream_in_a_folder_is_skipped(folder):
    os.mkfifo(folder / "pipe.jsonl")
    assert find_paths(folder) == [f"{folder}/a.json", f"{folder}/b.jsonl"]


def test_a_missing_remote_file():
    with pytest.raises(InputError, match=r"cannot read memory://nothing/x.jsonl: "):
        read_corpus(["memory://nothing/x.jsonl"])


def test_a_run_without_a_journal_yet(tmp_path):
    journal = make_run(tmp_path / "run", [])
    Path(journal).unlink()
    with pytest.raises(InputError, match=f"cannot read {journal}"):
        read_corpus([str(tmp_path / "run")])


def test_run_directory_named_rollouts_is_found(tmp_path):
    make_run(tmp_path / "rollouts", [record("a")])
    assert [source.run for source in find_sources([str(tmp_path / "rollouts")])] == [tmp_path / "rollouts"]
    assert find_sources([str(tmp_path)])[0].run == tmp_path / "rollouts"


def parquet_corpus(tmp_path, **columns):
    """A corpus of one Parquet file, and the reasons for which its rows could not be used."""
    pq.write_table(pa.table({"instance_id": ["p", "q"], **columns}), tmp_path / "x.parquet")
    reasons = []
    corpus = read_corpus([str(tmp_path / "x.parquet")], lambda _, bad: reasons.append(bad.reason))
    return corpus, reasons


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_binary_completion_is_a_bad_row(tmp_path, kind):
    corpus, [reason] = parquet_corpus(tmp_path, completion=pa.array([b"5", b"\xff"], kind))
    assert corpus.table["instance_id"].to_list() == ["p"]
    assert "completion has bytes that are not text" in reason


def test_binary_content_is_a_bad_row(tmp_path):
    messages = [[{"role": "assistant", "content": content}] for content in (b"5", b"\xff")]
    corpus, reasons = parquet_corpus(tmp_path, messages=messages)
    assert (corpus.table.height, len(reasons)) == (1, 1)


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
def test_rewards_as_text_are_numbers(tmp_path, kind):
    corpus, _ = parquet_corpus(tmp_path, reward=pa.array(["0.5", "-1e-1"]).cast(kind))
    assert corpus.table["reward"].to_list() == [0.5, -0.1]


@pytest.mark.parametrize("kind", [pa.string(), pa.json_()])
def test_json_text_in_columns_is_repaired(tmp_path, kind):
    texts = ['[{"role":"assistant","content":"a\\ud800","extra":NaN}]', '[{"role":"assistant","content":"b"}]']
    messages = pa.array(texts)
    if kind != pa.string():
        messages = pa.ExtensionArray.from_storage(kind, messages)
    corpus, reasons = parquet_corpus(tmp_path, messages=messages)
    assert (corpus.repaired, corpus.table["turns"].to_list(), reasons) == (1, [1, 1], [])
