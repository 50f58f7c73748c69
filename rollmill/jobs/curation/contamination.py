"""Contamination: which rollouts share a run of words with a benchmark.

A run of 13 words is what GPT-3's authors looked for (Brown et al. 2020, appendix C). As there, runs that stand in more
than ten documents, here benchmark items, are phrases that they have in common ("put your final answer within"), and
are no evidence.
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
from rollmill.jobs.curation.signatures import Hashes, Positions, Words, run_hashes, run_hashes_at, split_words
from rollmill.problems.data_files import is_data_file, read_data_file

NGRAM = 13
"""Words in a row that a text and a benchmark item must share."""

SHORTEST = 5
"""Words of the shortest item that is looked for, whole; fewer occur anywhere by chance."""

COMMON_ITEMS = 10
"""Items that a run of words may stand in and still tell which it is from."""

QUESTION_COLUMNS = ("prompt", "question", "problem", "problem_statement", "text", "input", "instruction", "messages")

_FEWEST_SLOTS, _MOST_SLOTS = 16, 27


class _Runs(NamedTuple):
    """Runs of one length in the benchmarks, to look hashes up in."""

    length: int
    hashes: Hashes
    """Ascending, each once."""
    starts: Positions
    """The first place of each run in the benchmarks' words."""
    slots: npt.NDArray[np.bool_]
    """Whether any hash begins with these bits: answers nearly all look-ups, from the processor's cache."""

    def find(self, hashes: Hashes) -> Positions:
        """Return the indices of the hashes that are among these."""
        shift = np.uint64(64 - (len(self.slots).bit_length() - 1))
        # A binary search of millions of hashes waits for memory at every step: `slots` spares it nearly all of them.
        maybe = np.flatnonzero(self.slots[hashes >> shift])
        indices = np.searchsorted(self.hashes, hashes[maybe])
        # A hash greater than all has the index behind the last.
        hits: Positions = maybe[self.hashes[np.minimum(indices, len(self.hashes) - 1)] == hashes[maybe]]
        return hits

    def start_of(self, hashes: Hashes) -> Positions:
        """Return where in the benchmarks' words hashes found here begin."""
        return self.starts[np.searchsorted(self.hashes, hashes)]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Benchmarks:
    """Benchmark items as runs of words, to look for in the texts of rollouts."""

    ngram: int
    items: int
    """Rows read, of all files."""
    too_short: int
    """Rows with nothing long enough to look for."""
    too_common: int
    """Runs left out because more than `COMMON_ITEMS` rows have them."""
    _names: list[str]
    _item_of: Positions
    """The item that each text in `_words` is of."""
    _words: Words
    _long: _Runs
    """Runs of `ngram` words."""
    _short: list[_Runs]
    """Whole texts of fewer words, by length."""
    _openings: _Runs
    """The first words of these."""

    @classmethod
    def read(cls, paths: Sequence[str], *, ngram: int = NGRAM) -> Benchmarks:
        """Read benchmark files: JSON, JSON Lines, Parquet, or plain `.txt` with an item on each line.

        Of a row, every string in `QUESTION_COLUMNS` counts (of messages, the user's). Texts of fewer than `ngram`
        words are looked for whole, where they have at least `SHORTEST`.
        Raises `InputError` for a file that cannot be read, has a bad row, no row, or none of the columns.
        """
        if ngram < SHORTEST:
            raise InputError(
                f"contamination by runs of {ngram} words: fewer than {SHORTEST} occur by chance, name more"
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
        # Items of `ngram` words or more are looked for by every run of `ngram` words, shorter ones whole. A text is
        # searched by its runs of `ngram` words, and by its runs of `SHORTEST`: only where one of those opens a short
        # item, the whole item is looked up.
        lengths = np.diff(words.offsets)
        usable = np.unique(item_of[lengths >= SHORTEST])
        items = np.repeat(item_of, lengths)
        starts = words.starts(ngram)
        long, common = _runs(ngram, run_hashes(words.hashes, ngram)[starts], starts, items)
        short: list[_Runs] = []
        openings = np.empty(0, np.int64)
        for length in range(SHORTEST, ngram):
            starts = words.offsets[:-1][lengths == length]
            runs, left_out = _runs(length, run_hashes_at(words.hashes, starts, length), starts, items)
            common += left_out
            if len(runs.hashes):
                short.append(runs)
                openings = np.concatenate([openings, runs.starts])
        opening, first = np.unique(run_hashes_at(words.hashes, openings, SHORTEST), return_index=True)
        table = _table(SHORTEST, opening, openings[first])
        return cls(ngram, len(names), len(names) - len(usable), common, names, item_of, words, long, short, table)

    def contaminated(self, texts: Sequence[str]) -> list[str | None]:
        """Return the benchmark item (`file:row`) that each text shares a run of words with, the first in it, or None.

        Words are those of `split_words`: lower-cased, without punctuation, and single characters of Chinese, Japanese
        and the like. Hashes only propose: every hit is verified by comparing the words themselves.
        """
        words = split_words(texts)
        positions, lengths, starts = self._hits(words)
        # Hashes were made over all texts in a row: a run that begins in one text and ends in the next is no hit.
        owners = np.searchsorted(words.offsets, positions, side="right") - 1
        inside = np.flatnonzero(positions + lengths <= words.offsets[owners + 1])
        names: list[str | None] = [None] * len(texts)
        # By position, so that a text's first hit decides; stable, so that a run of `ngram` words goes before the short
        # items that begin with it.
        for hit in inside[np.argsort(positions[inside], kind="stable")]:
            owner = owners[hit]
            if names[owner] is None and self._same_words(words, positions[hit], starts[hit], lengths[hit]):
                names[owner] = self._name_at(starts[hit])
        return names

    def _hits(self, words: Words) -> tuple[Positions, Positions, Positions]:
        """Return where a benchmark's run seems to begin in the texts, its length, and where it is in the benchmarks."""
        hits: list[tuple[Positions, int, Positions]] = []
        if len(self._long.hashes):
            hashes = run_hashes(words.hashes, self.ngram)
            matched = self._long.find(hashes)
            hits.append((matched, self.ngram, self._long.start_of(hashes[matched])))
        if self._short:
            opened = self._openings.find(run_hashes(words.hashes, SHORTEST))
            for runs in self._short:
                whole = opened[opened + runs.length <= len(words.hashes)]
                hashes = run_hashes_at(words.hashes, whole, runs.length)
                matched = runs.find(hashes)
                hits.append((whole[matched], runs.length, runs.start_of(hashes[matched])))
        if not hits:
            return (np.empty(0, np.int64),) * 3
        positions, lengths, starts = zip(*hits, strict=True)
        counts = [len(each) for each in positions]
        return np.concatenate(positions), np.repeat(np.array(lengths, np.int64), counts), np.concatenate(starts)

    def _same_words(self, words: Words, position: int, start: int, length: int) -> bool:
        return words.text[position : position + length].equals(self._words.text[start : start + length])

    def _name_at(self, start: int) -> str:
        text = int(np.searchsorted(self._words.offsets, start, side="right")) - 1
        return self._names[int(self._item_of[text])]


def _runs(length: int, hashes: Hashes, starts: Positions, items: Positions) -> tuple[_Runs, int]:
    """Return the runs to look up, each once, and how many were left out because too many items have them.

    Args:
        length: words of each run.
        hashes: of the runs.
        starts: where each begins in the benchmarks' words.
        items: the item of every word.
    """
    seen, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    # Pairs of run and item as one number each, so that an item that has a run twice counts once.
    many = int(items.max(initial=0)) + 1
    pairs = np.unique(inverse.astype(np.int64) * many + items[starts])
    common = np.bincount(pairs // many, minlength=len(seen)) > COMMON_ITEMS
    return _table(length, seen[~common], starts[first[~common]]), int(common.sum())


def _table(length: int, hashes: Hashes, starts: Positions) -> _Runs:
    """Build the table of hashes that ascend."""
    # Sixteen slots or more for each hash: of hashes that are not there, at most one in sixteen finds its slot taken.
    bits = min(max((16 * len(hashes)).bit_length(), _FEWEST_SLOTS), _MOST_SLOTS)
    slots = np.zeros(1 << bits, bool)
    slots[hashes >> np.uint64(64 - bits)] = True
    return _Runs(length, hashes, starts, slots)


def _read_items(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (1-based row, its questions)."""
    rows = with_question = 0
    columns: list[str] = []
    for number, row in _read_lines(path) if _is_text(path) else _read_rows(path):
        rows += 1
        columns = columns or sorted(row)
        with_question += any(row.get(column) is not None for column in QUESTION_COLUMNS)
        yield number, [text for column in QUESTION_COLUMNS for text in _strings(row.get(column))]
    if not rows:
        raise InputError(f"benchmark {path} holds no row: name a file with items")
    if not with_question:
        raise InputError(
            f"benchmark {path} has none of the columns {', '.join(QUESTION_COLUMNS)}, "
            f"only {', '.join(columns) or 'rows without any'}: rename the column of its questions"
        )


def _strings(value: Any) -> Iterator[str]:
    """Yield the texts of a cell: itself, its list's, the text parts', the user's messages'."""
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
            raise InputError(f"benchmark {path}, row {number}: {row.reason}; mend or remove it")
        yield number, row
