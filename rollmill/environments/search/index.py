"""Full-text index of a corpus: SQLite's FTS5, ranked by BM25."""

from __future__ import annotations

import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

from rollmill.environments.search.corpus import CorpusDocument, read_corpus
from rollmill.environments.tools import Document
from rollmill.errors import InputError, ServingError
from rollmill.sandboxes.owned_folder import OwnedFolder

_MOST_WORDS = 64
"""Most words of a query; SQLite refuses expressions with more than a thousand."""
_MOST_SCORED = 20_000
"""Most documents that are scored for a query; scoring takes about ten microseconds per document."""
_COUNTED_WORDS = 1 << 16
_WORD = re.compile(r"[^\W_]+")
_COMMON = """
a about also an and any are as at be been but by can could did do does each for from had has have he her his how i if
in into is it its many me more most much my name not of on one or our out she so some such than that the their them
then there these they this those to up was we were what when where which while who whom whose why will with would you
your
"""
_STOP_WORDS = frozenset(_COMMON.split())
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -32000;
CREATE TABLE documents (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, text TEXT NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (
    title, text, content = 'documents', content_rowid = 'number', tokenize = 'porter unicode61 remove_diacritics 2'
);
"""
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
_FIND = """
SELECT documents.id, documents.title, documents.text, -found.score
FROM (
    SELECT rowid, bm25(words, 2.0, 1.0) AS score FROM words WHERE words MATCH ? ORDER BY score, rowid LIMIT ?
) AS found JOIN documents ON documents.number = found.rowid
ORDER BY found.score, found.rowid
"""


class FullTextIndex:
    """A thread-safe `Searcher` of one corpus, and a context manager.

    The index is a temporary file, which `close` removes, or the next index if this process was killed. A document's
    score is its BM25 (k1 1.2, b 0.75: SQLite's `bm25()`) with the weight 2 for words in the title.
    """

    def __init__(self, documents: Iterable[CorpusDocument]) -> None:
        """Build the index. Raises `InputError` for a duplicate id, and as reading the documents does."""
        self._folder = OwnedFolder(Path(tempfile.gettempdir()) / f"rollmill-search-{os.geteuid()}")
        self._path = self._folder.path / "index.sqlite"
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._count = lru_cache(_COUNTED_WORDS)(self._count_documents)
        try:
            self.documents = _build(self._path, documents)
        except BaseException:
            self.close()
            raise

    def search(self, query: str, top_k: int) -> list[Document]:
        """Return the best documents first, at most `top_k`, of those with any of the query's words; see `Searcher`.

        The first 64 words are used, without stop words ("the") unless there are no others. Of these the rarest are
        searched, as many as occur in at most 20,000 documents together, but at least one, so that a query takes
        milliseconds in a corpus of any size.
        """
        words = _words(query)
        if not words or top_k < 1:
            return []
        try:
            rarest = self._rarest(words)
            with self._connection() as connection:
                return [Document(*row) for row in connection.execute(_FIND, (" OR ".join(rarest), top_k))]
        except sqlite3.Error as error:
            raise ServingError(f"the search index cannot be read: {error}") from error

    def close(self) -> None:
        """Remove the index; searches in progress may fail."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for connection in idle:
            connection.close()
        self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rarest(self, words: Sequence[str]) -> list[str]:
        """Return the rarest words that occur in at most `_MOST_SCORED` documents together, at least one word."""
        counts = {word: self._count(word) for word in words}
        selected: list[str] = []
        left = _MOST_SCORED
        for word in sorted(words, key=counts.__getitem__):
            left -= counts[word]
            if left < 0 and selected:
                break
            selected.append(word)
        return selected

    def _count_documents(self, word: str) -> int:
        """Count the documents that contain a word, up to `_MOST_SCORED`."""
        with self._connection() as connection:
            ((count,),) = connection.execute(_COUNT, (word, _MOST_SCORED))
        return int(count)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that no other thread uses during the block."""
        with self._lock:
            if self._closed:
                raise ServingError("the search index is closed")
            idle = self._idle.pop() if self._idle else None
        connection = idle or sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
        try:
            yield connection
        except BaseException:
            connection.close()  # it may have an unfinished query
            raise
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()


def open_index(corpus: str) -> FullTextIndex:
    """Open the index of a corpus; see `read_corpus` for the values of `corpus`. Raises `InputError`."""
    return FullTextIndex(read_corpus(corpus))


def _build(path: Path, documents: Iterable[CorpusDocument]) -> int:
    """Write the index and return the number of documents."""
    number = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN")
        for number, document in enumerate(documents, start=1):
            try:
                connection.execute("INSERT INTO documents VALUES (?, ?, ?, ?)", (number, *document))
            except sqlite3.IntegrityError:
                raise InputError(f"the corpus has two documents with the id {document.id!r}") from None
            connection.execute("INSERT INTO words (rowid, title, text) VALUES (?, ?, ?)", (number, *document[1:]))
        connection.execute("INSERT INTO words (words) VALUES ('optimize')")  # merges the index for faster queries
        connection.execute("COMMIT")
    return number


def _words(query: str) -> list[str]:
    """Return the significant words of a query, each as an FTS5 expression."""
    words = list(dict.fromkeys(_WORD.findall(query.lower())))
    significant = [word for word in words if word not in _STOP_WORDS] or words
    return [f'"{word}"' for word in significant[:_MOST_WORDS]]
