"""Contamination: find rollouts that share an n-gram of words with a benchmark.

N-grams of 13 words follow GPT-3 (Brown et al. 2020, appendix C). As there, n-grams that occur in more than ten
documents, here benchmark items, are common phrases ("put your final answer within") and no evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import numpy.typing as npt

from rollmill.errors import InputError
from rollmill.files.rows import BadRow, Row
from rollmill.jobs.curation.signatures import Hashes, Positions, Words, ngram_hashes, ngram_hashes_at, split_words
from rollmill.problems.data_files import is_data_file, read_data_file

NGRAM = 13
"""Number of consecutive words that a text and a benchmark item must share."""

SHORTEST = 5
"""Number of words of the shortest item that is searched for; fewer would be found by chance."""

COMMON_ITEMS = 10
"""Most items that may have an n-gram; one of more items is a common phrase."""

QUESTION_COLUMNS = ("prompt", "question", "problem", "problem_statement", "text", "input", "instruction", "messages")

_FEWEST_SLOTS, _MOST_SLOTS = 16, 27


class _NgramTable(NamedTuple):
    """A lookup table of hashed n-grams of one length in the benchmarks."""

    length: int
    hashes: Hashes
    """Ascending, each once."""
    starts: Positions
    """Index of each n-gram's first word among the benchmarks' words."""
    slots: npt.NDArray[np.bool_]
    """Index: the leading bits of a hash; True if any hash begins so. Decides most look-ups, from the processor's
    cache."""

    def find(self, hashes: Hashes) -> Positions:
        """Return the indices of the hashes that are among these."""
        shift = np.uint64(64 - (len(self.slots).bit_length() - 1))
        # A binary search of millions of hashes waits for memory at every step: `slots` rules nearly all of them out
        # first.
        maybe = np.flatnonzero(self.slots[hashes >> shift])
        indices = np.searchsorted(self.hashes, hashes[maybe])
        # `searchsorted` returns an index past the end for a hash greater than all.
        hits: Positions = maybe[self.hashes[np.minimum(indices, len(self.hashes) - 1)] == hashes[maybe]]
        return hits

    def start_of(self, hashes: Hashes) -> Positions:
        """Return the index of the first word, in the benchmarks, of hashes that `find` has found."""
        return self.starts[np.searchsorted(self.hashes, hashes)]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Benchmarks:
    """Benchmark items as n-grams to search for in the texts of rollouts."""

    ngram: int
    items: int
    """Rows read, of all files."""
    too_short: int
    """Rows without a text of at least `SHORTEST` words."""
    too_common: int
    """N-grams left out because more than `COMMON_ITEMS` rows have them."""
    _names: list[str]
    _item_of: Positions
    """Index of the item that each text in `_words` belongs to."""
    _words: Words
    _long: _NgramTable
    """N-grams of `ngram` words."""
    _short: list[_NgramTable]
    """Whole texts of fewer words, by length."""
    _openings: _NgramTable
    """The first `SHORTEST` words of these."""

    @classmethod
    def read(cls, paths: Sequence[str], *, ngram: int = NGRAM) -> Benchmarks:
        """Read benchmark files: JSON, JSON Lines, Parquet, or plain `.txt` with an item on each line.

        Every string in `QUESTION_COLUMNS` of a row counts (of messages, those of the user). A text of fewer than
        `ngram`, but at least `SHORTEST` words is searched for as a whole. Raises `InputError` for a file that cannot be
        read, has a bad row, no row, or none of the columns.
        """
        if ngram < SHORTEST:
            raise InputError(
                f"contamination by n-grams of {ngram} words: fewer than {SHORTEST} occur by chance, name more"
            )
        short_names = Counter(Path(path).name for path in paths)
        names: list[str] = []
        texts: list[str] = []
        item_of: list[int] = []
        for path in paths:
            label = Path(path).name if short_names[Path(path).name] == 1 else path
            for number, questions in _read_items(path):
                texts += questions
                item_of += [len(names)] * len(questions)
                names.append(f"{label}:{number}")
        return cls._index(names, np.array(item_of, np.int64), split_words(texts), ngram)

    @classmethod
    def _index(cls, names: list[str], item_of: Positions, words: Words, ngram: int) -> Benchmarks:
        """Build the lookup tables.

        Args:
            names: name of each item.
            item_of: index of the item of each text.
            words: the words of all texts.
            ngram: number of words of an n-gram.
        """
        # Items of `ngram` words or more are searched for by every n-gram of `ngram` words, shorter ones as a whole. Of
        # a text, its n-grams of `ngram` words are looked up, and those of `SHORTEST`: only where one of these is the
        # beginning of a short item, the whole item is looked up.
        lengths = np.diff(words.offsets)
        usable = np.unique(item_of[lengths >= SHORTEST])
        items = np.repeat(item_of, lengths)
        starts = words.starts(ngram)
        long, common = _ngram_table(ngram, ngram_hashes(words.hashes, ngram)[starts], starts, items)
        short: list[_NgramTable] = []
        openings = np.empty(0, np.int64)
        for length in range(SHORTEST, ngram):
            starts = words.offsets[:-1][lengths == length]
            table, left_out = _ngram_table(length, ngram_hashes_at(words.hashes, starts, length), starts, items)
            common += left_out
            if len(table.hashes):
                short.append(table)
                openings = np.concatenate([openings, table.starts])
        opening, first = np.unique(ngram_hashes_at(words.hashes, openings, SHORTEST), return_index=True)
        opening_table = _table(SHORTEST, opening, openings[first])
        return cls(
            ngram, len(names), len(names) - len(usable), common, names, item_of, words, long, short, opening_table
        )

    def contaminated(self, texts: Sequence[str]) -> list[str | None]:
        """Return for each text the first benchmark item (`file:row`) that it shares an n-gram with, or None.

        Words are those of `split_words`: lower-cased, without punctuation, and single characters of Chinese, Japanese
        and similar scripts. A hit of hashes is verified by comparing the words.
        """
        words = split_words(texts)
        positions, lengths, starts = self._hits(words)
        # Hashes run across the borders of texts: an n-gram that begins in one text and ends in the next is no hit.
        owners = np.searchsorted(words.offsets, positions, side="right") - 1
        inside = np.flatnonzero(positions + lengths <= words.offsets[owners + 1])
        names: list[str | None] = [None] * len(texts)
        # In order of position, as a text's first hit counts; stable, so that of hits at one position an n-gram of
        # `ngram` words comes before short items.
        for hit in inside[np.argsort(positions[inside], kind="stable")]:
            owner = owners[hit]
            if names[owner] is None and self._same_words(words, positions[hit], starts[hit], lengths[hit]):
                names[owner] = self._name_at(starts[hit])
        return names

    def _hits(self, words: Words) -> tuple[Positions, Positions, Positions]:
        """Return positions in the texts, lengths, and positions in the benchmarks of n-grams with equal hashes."""
        hits: list[tuple[Positions, int, Positions]] = []
        if len(self._long.hashes):
            hashes = ngram_hashes(words.hashes, self.ngram)
            matched = self._long.find(hashes)
            hits.append((matched, self.ngram, self._long.start_of(hashes[matched])))
        if self._short:
            opening_positions = self._openings.find(ngram_hashes(words.hashes, SHORTEST))
            for table in self._short:
                candidates = opening_positions[opening_positions + table.length <= len(words.hashes)]
                hashes = ngram_hashes_at(words.hashes, candidates, table.length)
                matched = table.find(hashes)
                hits.append((candidates[matched], table.length, table.start_of(hashes[matched])))
        if not hits:
            return (np.empty(0, np.int64),) * 3
        positions, lengths, starts = zip(*hits, strict=True)
        counts = [len(each) for each in positions]
        return np.concatenate(positions), np.repeat(np.array(lengths, np.int64), counts), np.concatenate(starts)

    def _same_words(self, words: Words, position: int, start: int, length: int) -> bool:
        """Return whether an n-gram has the same words in the texts as in the benchmarks.

        Args:
            words: of the texts.
            position: index of the n-gram's first word in them.
            start: index of its first word in the benchmarks.
            length: number of words.
        """
        return words.text[position : position + length].equals(self._words.text[start : start + length])

    def _name_at(self, start: int) -> str:
        text = int(np.searchsorted(self._words.offsets, start, side="right")) - 1
        return self._names[int(self._item_of[text])]


def _ngram_table(length: int, hashes: Hashes, starts: Positions, items: Positions) -> tuple[_NgramTable, int]:
    """Return the lookup table of distinct n-grams, and the number of those left out because too many items have them.

    Args:
        length: number of words of each n-gram.
        hashes: of the n-grams.
        starts: index of each n-gram's first word in the benchmarks.
        items: index of the item of every word.
    """
    seen, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    # Pairs of n-gram and item as one number each, so that an item that has one twice counts once.
    many = int(items.max(initial=0)) + 1
    pairs = np.unique(inverse.astype(np.int64) * many + items[starts])
    common = np.bincount(pairs // many, minlength=len(seen)) > COMMON_ITEMS
    return _table(length, seen[~common], starts[first[~common]]), int(common.sum())


def _table(length: int, hashes: Hashes, starts: Positions) -> _NgramTable:
    """Return the lookup table of ascending hashes."""
    # At least sixteen slots for each hash: of hashes that are not in the table, at most one in sixteen passes `slots`.
    bits = min(max((16 * len(hashes)).bit_length(), _FEWEST_SLOTS), _MOST_SLOTS)
    slots = np.zeros(1 << bits, bool)
    slots[hashes >> np.uint64(64 - bits)] = True
    return _NgramTable(length, hashes, starts, slots)


def _read_items(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (1-based row, its questions)."""
    rows = with_question = 0
    columns: list[str] = []
    for number, row in _read_lines(path) if _is_text(path) else _read_rows(path):
        rows += 1
        columns = columns or sorted(row)
        if any(row.get(column) is not None for column in QUESTION_COLUMNS):
            with_question += 1
        yield number, [text for column in QUESTION_COLUMNS for text in _strings(row.get(column))]
    if not rows:
        raise InputError(f"benchmark {path} holds no row: name a file with items")
    if not with_question:
        raise InputError(
            f"benchmark {path} has none of the columns {', '.join(QUESTION_COLUMNS)}, "
            f"only {', '.join(columns) or 'rows without any'}: rename the column of its questions"
        )


def _strings(value: Any) -> Iterator[str]:
    """Yield the texts of a cell: of a string itself, of lists, of text parts, of the user's messages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, dict) and value.get("role", "user") == "user":
        yield from _strings(value.get("content") if "role" in value else value.get("text"))


def _is_text(path: str) -> bool:
    name = path.lower().split("?", 1)[0] if "://" in path else path.lower()
    for packed in (".gz", ".zst", ".xz", ".bz2"):
        name = name.removesuffix(packed)
    return name.endswith(".txt")


def _read_lines(path: str) -> Iterator[tuple[int, Row]]:
    try:
        with fsspec.open(path, "rb", compression="infer") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, {"text": line.decode("utf-8-sig")}
    except Exception as error:  # every file system and decompressor raises types of its own
        raise InputError(f"cannot read benchmark {path}: {error}") from error


def _read_rows(path: str) -> Iterator[tuple[int, Row]]:
    if not is_data_file(path):
        raise InputError(f"benchmark {path} is no file: name a JSON, JSON Lines, Parquet or .txt file")
    for number, row in read_data_file(path):
        if isinstance(row, BadRow):
            raise InputError(f"benchmark {path}, row {number}: {row.reason}; fix or remove it")
        yield number, row
