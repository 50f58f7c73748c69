"""Read a corpus: stream documents from a data file or a folder of texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import orjson

from rollmill.errors import InputError
from rollmill.files.formats import SUFFIXES
from rollmill.files.rows import BadRow, Row
from rollmill.problems.data_files import read_data_file

OWN_CORPUS = Path(__file__).with_name("corpus.jsonl")
"""121 documents about fictional islands, so that no model has seen them in training."""
OWN_QUESTIONS = Path(__file__).with_name("questions.jsonl")
"""60 questions about them; half of them need two documents."""

_TEXTS = (".txt", ".md")


class CorpusDocument(NamedTuple):
    """One document."""

    id: str
    title: str
    text: str


def read_corpus(corpus: str) -> Iterator[CorpusDocument]:
    """Yield the documents of a data file (JSON Lines, JSON, Parquet) or of a folder's `.txt` and `.md` files.

    A row has `text`, or `contents` as in Search-R1's corpora: the title in quotes, a newline, the text. It may have
    `id` (default `row-<number>`) and `title`. A file's id is its path in the folder, its title its name. "" is the
    built-in corpus. Raises `InputError` for a corpus that is missing, malformed or empty.
    """
    path = Path(corpus).expanduser() if corpus else OWN_CORPUS
    documents = _read_folder(path) if path.is_dir() else _read_rows(str(path) if path.exists() else corpus)
    empty = True
    for document in documents:
        empty = False
        yield document
    if empty:
        what = f"no {' or '.join(_TEXTS)} files" if path.is_dir() else "no documents"
        raise InputError(f"the corpus {corpus} holds {what}")


def corpus_sha256(corpus: str) -> str:
    """Return a hash of all documents in order. Raises `InputError` as `read_corpus` does."""
    digest = hashlib.sha256()
    for document in read_corpus(corpus):
        digest.update(orjson.dumps([*document], option=orjson.OPT_APPEND_NEWLINE))
    return digest.hexdigest()


def split_contents(contents: str) -> tuple[str, str]:
    """Split a Search-R1 document into title (first line, without quotes) and text; a single line is text."""
    title, newline, text = contents.partition("\n")
    return (title.strip().strip('"'), text) if newline and text.strip() else ("", contents)


def _read_rows(path: str) -> Iterator[CorpusDocument]:
    if "://" not in path and not Path(path).is_file():
        raise InputError(f"there is no corpus {path}: name a folder of texts, or a {', '.join(SUFFIXES)} file")
    for number, row in read_data_file(path):
        if isinstance(row, BadRow):
            raise InputError(f"the corpus {path}, row {number}: {row.reason}")
        yield _document(row, number, path)


def _document(row: Row, number: int, path: str) -> CorpusDocument:
    text = row.get("text", row.get("contents"))
    if not isinstance(text, str):
        raise InputError(f"the corpus {path}, row {number}: neither text nor contents holds a text")
    title = row.get("title")
    if title is None:
        title, text = split_contents(text) if "text" not in row else ("", text)
    id_ = row.get("id", f"row-{number}")
    if not isinstance(title, str) or not isinstance(id_, str | int) or isinstance(id_, bool):
        raise InputError(f"the corpus {path}, row {number}: id must be text or a number, title must be text")
    return CorpusDocument(str(id_), title, text)


def _read_folder(folder: Path) -> Iterator[CorpusDocument]:
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in _TEXTS and path.is_file()):
        try:
            text = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the corpus's file {path} cannot be read as UTF-8: {error}") from error
        yield CorpusDocument(path.relative_to(folder).as_posix(), path.stem.replace("_", " "), text)
