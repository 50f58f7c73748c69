import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.environments.search.corpus import CorpusDocument
from rollmill.environments.search.index import FullTextIndex, open_index
from rollmill.errors import InputError, ServingError

DOCUMENTS = [
    CorpusDocument("cat", "The cat", "A cat sleeps on the roof. Cats purr."),
    CorpusDocument("dog", "Dog", "A dog barks at the cat near the house."),
    CorpusDocument("cafe", "Café Zoë", "Coffee & cake: C++, don't OR AND NOT NEAR(a b)."),
    CorpusDocument("house", "House", "The house has a roof and a door; nobody purrs."),
]


@pytest.fixture(scope="module")
def index():
    with FullTextIndex(DOCUMENTS) as built:
        yield built


def ids(documents):
    return [document.id for document in documents]


def test_best_document_comes_first(index):
    documents = index.search("cat", 10)
    assert ids(documents) == ["cat", "dog"]
    assert documents[0].title == "The cat"
    assert documents[0].text == DOCUMENTS[0].text
    assert documents[0].score > documents[1].score > 0
    assert ids(index.search("cat", 1)) == ["cat"]
    assert index.search("cat", 0) == []
    assert index.documents == 4


def test_words_are_found_in_other_forms(index):
    assert ids(index.search("CATS!", 1)) == ["cat"]
    assert ids(index.search("cafe zoe", 1)) == ["cafe"]
    assert ids(index.search("barking", 1)) == ["dog"]
    assert ids(index.search("sleeping", 9)) == ["cat"]


def test_any_query_word_matches_but_common_words_only_alone(index):
    assert ids(index.search("where does a dog that nobody knows live", 9)) == ["dog", "house"]
    assert len(index.search("the", 9)) == 3


@pytest.mark.parametrize(
    "query",
    [
        '"', "'", "cat OR", "NEAR(cat dog, 2)", "cat*", "^cat", "title:cat", "{title} : cat", "-cat", "(cat",
        "cat\0dog",
        "cat AND NOT dog", 'c"a"t', "cat_dog", "\ud800", "cat" * 4000, "cat dog " * 1250,
        " ".join(map(str, range(5000))),
        "猫 кошка γάτα", "e\u0301", "🐈", "%", ";DROP TABLE words",
    ],
)  # fmt: skip
def test_no_query_is_a_syntax_error(index, query):
    assert set(ids(index.search(query, 3))) <= {"cat", "dog", "cafe", "house"}


@given(st.text() | st.text(alphabet='"()*^:{}-+ANDORTE \0_é', max_size=40))
@settings(deadline=None)
def test_no_text_is_a_syntax_error(index, query):
    assert len(index.search(query, 2)) <= 2


def test_frequent_words_are_searched_only_without_rarer_ones(monkeypatch):
    monkeypatch.setattr("rollmill.environments.search.index._MOST_SCORED", 3)
    with FullTextIndex(DOCUMENTS) as index:
        assert ids(index.search("cat dog", 9)) == ["dog", "cat"]  # 2 + 1 documents
        assert set(ids(index.search("cat coffee nothing house", 9))) == {"cafe", "cat", "dog"}  # 1 + 2, and not 2 more
        assert len(index.search("the", 9)) == 3


def test_a_query_without_words_finds_nothing(index):
    assert index.search("", 3) == index.search(" ?! _ ", 3) == []


def test_many_threads_search_at_once(index):
    queries = ["cat", "dog", "house", "coffee"] * 100
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(lambda query: ids(index.search(query, 1)), queries))
    assert results == [["cat"], ["dog"], ["house"], ["cafe"]] * 100


def test_closed_index_leaves_no_files():
    index = FullTextIndex(DOCUMENTS)
    folder = index._folder.path
    assert folder.is_dir()
    index.search("cat", 1)
    index.close()
    index.close()
    assert not folder.exists()
    with pytest.raises(ServingError, match="the search index is closed"):
        index.search("cat", 1)


def test_failed_index_leaves_no_files():
    root = Path(tempfile.gettempdir()) / f"rollmill-search-{os.geteuid()}"
    before = set(root.iterdir()) if root.exists() else set()
    with pytest.raises(InputError, match="the corpus has two documents with the id 'cat'"):
        FullTextIndex([*DOCUMENTS, DOCUMENTS[0]])
    with pytest.raises(InputError, match="there is no corpus"):
        open_index("/nowhere")
    assert set(root.iterdir()) <= before


def test_next_index_removes_files_of_a_killed_process():
    code = (
        "import time; from rollmill.environments.search.index import open_index; index = open_index('');"
        "print(index._folder.path, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        left = Path(process.stdout.readline().strip())
        assert left.is_dir()
        with FullTextIndex(DOCUMENTS):
            assert left.is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
    with FullTextIndex(DOCUMENTS):
        assert not left.exists()


@pytest.mark.slow
def test_a_large_corpus_takes_little_memory_and_time():
    words = [f"word{number}" for number in range(20_000)]

    def documents():
        for number in range(30_000):
            text = " ".join(words[(number * 7919 + position * position * 104729) % 20_000] for position in range(100))
            yield CorpusDocument(str(number), words[number % 20_000], f"the house of {text}")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with FullTextIndex(documents()) as index:
        built = time.process_time() - began
        taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        began = time.process_time()
        for number in range(100):
            assert index.search(f"what is the word{number} and word{number * 3} of it?", 5)
        each = (time.process_time() - began) / 100
    assert taken < 200
    assert built < 60
    assert each < 0.25
