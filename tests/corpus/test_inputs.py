import os
import socket
from pathlib import Path

import fsspec
import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.corpus.inputs import Source, find_sources
from rollmill.corpus.journal_index import index_path
from rollmill.errors import InputError
from tests.corpus.made import PACKERS, lines, make_run, record


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


def found(*given):
    return [source.path for source in find_sources([str(one) for one in given])]


def test_a_file_is_what_the_user_wrote(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_sources(["b.jsonl"]) == [Source("b.jsonl", "lines")]
    assert find_sources(["a.json"]) == [Source("a.json", "lines")]
    monkeypatch.setenv("HOME", str(folder))
    assert found("~/b.jsonl") == [f"{folder}/b.jsonl"]


@pytest.mark.parametrize(
    ("name", "kind", "anywhere"),
    [
        ("x.jsonl", "lines", True),
        ("x.NDJSON", "lines", True),
        ("x.jsonl.gz", "lines", False),
        ("x.jsonl.zst", "lines", False),
        ("x.json", "document", False),
        ("x.parquet", "parquet", False),
    ],
)
def test_kinds(tmp_path, name, kind, anywhere):
    packed = next((suffix for suffix in PACKERS if suffix and name.endswith(suffix)), "")
    (tmp_path / name).write_bytes(PACKERS[packed](b"[]"))
    (source,) = find_sources([str(tmp_path / name)])
    assert (source.kind, source.anywhere, source.folder) == (kind, anywhere, tmp_path)


def test_a_folder_without_what_was_put_aside_and_without_folders_in_it(folder):
    assert found(folder) == [f"{folder}/a.json", f"{folder}/b.jsonl"]
    assert read_corpus([str(folder)]).table.height == 4
    assert found(f"file://{folder}") == found(folder)


def test_patterns(folder):
    assert found(folder / "*.json*") == [f"{folder}/a.json", f"{folder}/b.jsonl"]
    assert found(folder / "**" / "*.jsonl") == [f"{folder}/b.jsonl", f"{folder}/sub/c.jsonl"]
    assert found(folder / "[ab].jso*") == [f"{folder}/a.json", f"{folder}/b.jsonl"]
    assert found(folder / "?.json") == [f"{folder}/a.json"]
    assert found(f"file://{folder}/b.*") == [f"{folder}/b.jsonl"]
    assert found(folder / "*.dropped.*") == [f"{folder}/a.dropped.jsonl"]
    assert found(folder / "su*") == [f"{folder}/sub/c.jsonl"]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    (tmp_path / "run[1].jsonl").write_bytes(lines([record()]))
    assert found(tmp_path / "run[1].jsonl") == [f"{tmp_path}/run[1].jsonl"]


def test_remote_files_and_patterns(memory):
    assert found("memory://in/2.jsonl") == ["memory://in/2.jsonl"]
    assert found("memory://in/*.jsonl") == ["memory:///in/1.jsonl", "memory:///in/2.jsonl"]
    corpus = read_corpus(["memory://in/*.jsonl"])
    assert corpus.table["instance_id"].to_list() == ["/in/1.jsonl", "/in/2.jsonl"]
    assert len(list(corpus.records(corpus.table))) == 2
    assert corpus.image_root(0) is None
    assert corpus.name == "1.jsonl and 1 more"


def test_a_question_mark_in_a_web_address_is_no_pattern():
    url = "https://host/rollouts.jsonl?signature=a*b"
    assert find_sources([url]) == [Source(url, "lines")]


def test_a_run_and_its_journal(tmp_path):
    journal = make_run(tmp_path / "run", [record("a")])
    assert find_sources([str(tmp_path / "run")]) == [Source(str(journal), "lines", tmp_path / "run")]
    assert find_sources([str(journal)]) == [Source(str(journal), "lines", tmp_path / "run")]
    index_path(journal).write_bytes(b"")
    assert find_sources([str(journal.parent)]) == [Source(str(journal), "lines", tmp_path / "run")]
    assert found(journal.parent / "*") == [str(journal)]
    assert found(f"file://{tmp_path}/run") == [str(journal)]


def test_the_journal_that_counts(tmp_path):
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
def test_a_file_that_is_given_twice(folder, again):
    (folder / "link.jsonl").symlink_to(folder / "b.jsonl")
    with pytest.raises(InputError, match="is given twice: its rollouts would count twice"):
        find_sources([f"{folder}/b.jsonl", again.format(folder, folder.name)])


def test_a_url_that_is_given_twice(memory):
    with pytest.raises(InputError, match=r"memory://in/1\.jsonl is given twice"):
        find_sources(["memory://in/1.jsonl"] * 2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{0}/missing.jsonl", "{0}/missing.jsonl: there is no such file or folder"),
        ("", "an input is empty: name a file, a folder, a pattern or a URL"),
        ("file://", "an input is empty"),
        ("{0}/*.parquet", "{0}/*.parquet: no file matches this pattern"),
        (
            "{0}/x.txt",
            "{0}/x.txt is of no kind that can be read: .jsonl, .ndjson, .json, .parquet, also with .gz, .zst",
        ),
        ("{0}/empty", "{0}/empty holds neither a run (manifest.json) nor a file that ends in .jsonl, .ndjson"),
        ("{0}/pipe.jsonl", "{0}/pipe.jsonl is a stream, and it is read more than once: save it in a file first"),
        ("/dev/null", "/dev/null is a stream"),
        ("{0}/socket.jsonl", "{0}/socket.jsonl is a stream"),
        ("{0}/" + "n" * 300 + ".jsonl", "cannot read {0}/nnn"),
        ("{0}/broken.jsonl", "{0}/broken.jsonl: there is no such file or folder"),
        ("memory://nothing/*.jsonl", "memory://nothing/*.jsonl: no file matches this pattern"),
        ("memory://nothing/x.txt", "memory://nothing/x.txt is of no kind that can be read"),
        ("nosuch://x/*.jsonl", "cannot read nosuch://x/*.jsonl: Protocol not known: nosuch"),
        ("memory://nothing/x.json", "cannot read memory://nothing/x.json: "),
    ],
)
def test_what_is_no_input(folder, given, words, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    (folder / "broken.jsonl").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jsonl")
        with pytest.raises(InputError) as caught:
            find_sources([given.format(folder)])
    assert str(caught.value).startswith(words.format(folder))
    assert "\n" not in str(caught.value)


def test_a_stream_in_a_folder_is_passed_over(folder):
    os.mkfifo(folder / "pipe.jsonl")
    assert found(folder) == [f"{folder}/a.json", f"{folder}/b.jsonl"]


def test_a_missing_remote_file():
    with pytest.raises(InputError, match=r"cannot read memory://nothing/x.jsonl: "):
        read_corpus(["memory://nothing/x.jsonl"])


def test_a_run_without_a_journal_yet(tmp_path):
    journal = make_run(tmp_path / "run", [])
    Path(journal).unlink()
    with pytest.raises(InputError, match=f"cannot read {journal}"):
        read_corpus([str(tmp_path / "run")])


def test_a_run_may_have_the_name_of_the_folder_of_journals(tmp_path):
    make_run(tmp_path / "rollouts", [record("a")])
    assert [source.run for source in find_sources([str(tmp_path / "rollouts")])] == [tmp_path / "rollouts"]
    assert find_sources([str(tmp_path)])[0].run == tmp_path / "rollouts"
