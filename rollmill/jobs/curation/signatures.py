"""Near-duplicates: words of texts, MinHash signatures of n-grams of words, and comparison of signatures.

A signature is a list of minima under random permutations; two sets agree at a position with a probability equal to
their Jaccard similarity, so the share of equal positions estimates it (Broder 1997, "On the resemblance and containment
of documents").
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from rensa import RMinHash  # type: ignore[import-untyped]

from rollmill.errors import InputError

NUM_PERM = 128
"""Positions of a signature; the estimate's standard error is at most 0.044."""

SHINGLE = 5
"""Number of consecutive words that are one element of a text's set; of characters, in a text with fewer words."""

NEAR_DUPLICATE = 0.8
"""Estimated Jaccard similarity from which two completions count as the same."""

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

_SEED = 42
_BASE = 0x9E3779B97F4A7C15  # odd, so that powers of it stay invertible modulo 2^64
_MODULUS = 1 << 64
_LARGE_PROBLEM = 256
"""Rows from which on a problem is compared by itself."""
_CHUNK_ROWS = 1 << 16
"""Rows that are copied at a time, which bounds the memory."""
_BITS = 2
"""Lowest bits of each position that the first test compares: more reject more pairs, and cost more memory."""

# Scripts without spaces between words: each of their characters is a word.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_WORD = r"[\p{L}\p{M}\p{N}]+"
_CHARACTER = r"(?s)."
_EDGE = "\0" * (SHINGLE - 1)


class Words(NamedTuple):
    """The words of several texts, one text after another."""

    text: pl.Series
    """String, one per word, lower-cased."""
    hashes: Hashes
    """One per word; equal words have equal hashes within a process."""
    offsets: Positions
    """Index of each text's first word, then the number of all words; of shape (texts + 1,)."""

    def starts(self, length: int) -> Positions:
        """Return the indexes of the first words of all n-grams of `length` words within one text, ascending."""
        texts = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        return np.flatnonzero(texts[: max(len(texts) - length + 1, 0)] == texts[length - 1 :])


def split_words(texts: Sequence[str]) -> Words:
    """Return the words of texts in NFKC and lower case: runs of letters, marks and digits.

    Every character is a word in scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese).
    """
    series = _normalize(texts).str.replace_all(_UNSPACED, " $0 ")
    return _flat(series.str.extract_all(_WORD))


def ngram_hashes(hashes: Hashes, length: int) -> Hashes:
    """Return the polynomial hash (modulo 2^64) of each n-gram of `length` consecutive hashes.

    The result has the shape (`len(hashes) - length + 1`,), and is empty for fewer hashes than `length`.
    """
    if len(hashes) < length:
        return np.empty(0, np.uint64)
    # By doubling: `block` has the hashes of n-grams of 1, 2, 4, ... words, made of two neighbours of the one before.
    # Those whose widths add up to `length` make the whole; so it takes log2(length) passes, not `length`.
    total, covered = hashes[:0], 0
    block, width = hashes, 1
    while True:
        power = np.uint64(pow(_BASE, width, _MODULUS))
        if length & width:
            total = total[: len(block) - covered] * power + block[covered:] if covered else block
            covered += width
        if covered == length:
            return total
        block, width = block[:-width] * power + block[width:], 2 * width


def ngram_hashes_at(hashes: Hashes, positions: Positions, length: int) -> Hashes:
    """Return the hash of `ngram_hashes` at these positions only; each n-gram must end within `hashes`."""
    total = np.zeros(len(positions), np.uint64)
    for step in range(length):
        total = total * np.uint64(_BASE) + hashes[positions + step]
    return total


def signatures(texts: Sequence[str]) -> list[list[int]]:
    """Return a MinHash signature of each text, `NUM_PERM` integers of 32 bits; an empty list for a blank text.

    Its set has the text's 5-grams of words (see `split_words`). A text of fewer words has none: then the set
    has 5-grams of characters, with punctuation, and white space as one space. Padding at both ends puts every
    character into five of them, so that a changed digit of a bare answer matters. Seeded: equal texts have equal
    signatures within an installation (Polars' hash of a word may change with its releases).
    """
    words = split_words(texts)
    few = np.diff(words.offsets) < SHINGLE
    result = _minhash(words)
    short: list[int] = np.flatnonzero(few).tolist()
    if short:
        plain = _normalize([texts[index] for index in short]).str.replace_all(r"\s+", " ").str.strip_chars(" ")
        padded = pl.select(pl.when(plain != "").then(_EDGE + plain + _EDGE).otherwise(pl.lit(""))).to_series()
        for index, signature in zip(short, _minhash(_flat(padded.str.extract_all(_CHARACTER))), strict=True):
            result[index] = signature
    return result


def near_duplicates(column: pl.Series, *, threshold: float = NEAR_DUPLICATE) -> pl.Series:
    """Return which rows repeat an earlier row of their problem.

    The series is Boolean, one per row, for `map_batches` on a whole column.

    `column` is a struct of `instance_id`, `signature` (list of `NUM_PERM` integers, null or empty where there is
    nothing to compare) and `alive`. In row order, an alive row is a near-duplicate where its estimated Jaccard
    similarity with an earlier alive row of the same problem, itself no near-duplicate, is at least `threshold`.
    So the rows left are pairwise below it, and doing it twice changes nothing. Every pair is decided by the whole
    signature: none is missed as by banding. Time grows with the problem's rows times those kept.

    Raises `InputError` for a threshold that is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise InputError(
            f"near-duplicate threshold {threshold}: a similarity above 0 and at most 1 is needed, e.g. 0.8"
        )
    signature = column.struct.field("signature")
    usable = column.struct.field("alive").fill_null(False) & (signature.list.len().fill_null(0) > 0)
    flags = np.zeros(len(column), bool)
    rows = usable.arg_true().to_numpy().astype(np.int64)
    if len(rows):
        problem = column.struct.field("instance_id").filter(usable).rank("dense").to_numpy().astype(np.int64)
        matrix = signature.filter(usable).explode().cast(pl.UInt32).to_numpy().reshape(len(rows), NUM_PERM)
        flags[rows] = _Comparison(matrix, math.ceil(threshold * NUM_PERM - 1e-9)).find_repeats(problem)
    return pl.Series(column.name, flags)


def _normalize(texts: Sequence[str]) -> pl.Series:
    # Python's own normalization first checks whether there is anything to do; Polars' takes 30 times as long.
    return pl.Series([unicodedata.normalize("NFKC", text) for text in texts], dtype=pl.String).str.to_lowercase()


def _flat(lists: pl.Series) -> Words:
    """Return lists of words, one per text, as one sequence."""
    text = lists.explode().drop_nulls()
    offsets = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy(), dtype=np.int64)])
    return Words(text, text.hash(_SEED).to_numpy(), offsets)


def _minhash(words: Words) -> list[list[int]]:
    """Return the signature of each text's n-grams of words."""
    starts = words.starts(SHINGLE)
    shingles = ngram_hashes(words.hashes, SHINGLE)[starts]
    offsets = np.searchsorted(starts, words.offsets).astype(np.uint64)
    rows: list[list[int]] = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, NUM_PERM, _SEED).to_rows()
    # A text without any n-gram would get a signature of maximal values, equal to that of every other such text.
    empty = offsets[1:] == offsets[:-1]
    return [[] if nothing else row for nothing, row in zip(empty, rows, strict=True)]


class _Comparison:
    """Compares signatures, first by the lowest bits of each position: positions whose bits differ are different.

    This test passes every similar pair, and few others, at a small part of the cost of comparing whole signatures.

    Args:
        signatures: of shape (rows, `NUM_PERM`).
        needed: number of equal positions of a similar pair.
    """

    def __init__(self, signatures: npt.NDArray[np.uint32], needed: int) -> None:
        self.signatures = signatures
        self.needed = needed
        self.unequal = NUM_PERM - needed
        self.bits = np.empty((_BITS, NUM_PERM // 64, len(signatures)), np.uint64)
        """One bit of every position, packed into words of 64; of shape (bits, words, rows)."""
        for bit in range(_BITS):
            for start in range(0, len(signatures), _CHUNK_ROWS):
                chunk = slice(start, start + _CHUNK_ROWS)
                ones = ((signatures[chunk] >> bit) & 1).astype(np.uint8)
                self.bits[bit, :, chunk] = np.packbits(ones, axis=1).view(np.uint64).T

    def find_repeats(self, problem: Positions) -> npt.NDArray[np.bool_]:
        """Return which rows are near-duplicates; `problem` is the number of each row's problem, of shape (rows,)."""
        result = np.zeros(len(problem), bool)
        order = np.argsort(problem, kind="stable")
        _, sizes = np.unique(problem, return_counts=True)
        small = np.repeat(sizes <= _LARGE_PROBLEM, sizes)
        self._compare_small(order[small], problem, result)
        for rows in np.split(order[~small], np.cumsum(sizes[sizes > _LARGE_PROBLEM])):
            self._compare_large(rows, result)
        return result

    def _compare_small(self, rows: Positions, problem: Positions, result: npt.NDArray[np.bool_]) -> None:
        """Compare the rows of all small problems, sorted by problem, and set `result` of near-duplicates."""
        # Each step handles one row of every problem: a call of numpy costs more than comparing a problem's few rows.
        # The first undecided row of a problem is kept, and removes the rows that are similar to it.
        while len(rows):
            starts = np.flatnonzero(np.diff(problem[rows], prepend=-1))
            firsts = rows[starts]
            first_of = np.repeat(firsts, np.diff(starts, append=len(rows)))
            near = np.flatnonzero(_unequal(self.bits[..., rows], self.bits[..., first_of]) <= self.unequal)
            near = near[self._similar(rows[near], first_of[near])]
            result[rows[near]] = True
            result[firsts] = False  # each row is similar to itself
            rows = np.delete(rows, near)

    def _compare_large(self, rows: Positions, result: npt.NDArray[np.bool_]) -> None:
        """Compare the rows of one large problem, with bits copied only after near-duplicates were removed."""
        bits = self.bits[..., rows]
        while len(rows):
            first, rows, others = rows[0], rows[1:], bits[..., 1:]
            near = np.flatnonzero(_unequal(others, bits[..., :1]) <= self.unequal)
            near = near[self._similar(rows[near], np.broadcast_to(first, len(near)))]
            result[rows[near]] = True
            rows, bits = (np.delete(rows, near), np.delete(others, near, axis=-1)) if len(near) else (rows, others)

    def _similar(self, rows: Positions, others: Positions) -> npt.NDArray[np.bool_]:
        """Return which pairs of rows are similar, by their whole signatures."""
        result = np.empty(len(rows), bool)
        for start in range(0, len(rows), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            equal = self.signatures[rows[chunk]] == self.signatures[others[chunk]]
            result[chunk] = np.count_nonzero(equal, axis=1) >= self.needed
        return result


def _unequal(bits: Hashes, others: Hashes) -> npt.NDArray[np.uint8]:
    """Return the number of positions that differ in any of the bits, at most `NUM_PERM`, for each row."""
    count: npt.NDArray[np.uint8] | None = None
    for half in range(bits.shape[1]):
        # XOR marks positions whose bit differs; a population count adds up 64 positions at once.
        differing = bits[0, half] ^ others[0, half]
        for bit in range(1, len(bits)):
            differing |= bits[bit, half] ^ others[bit, half]
        ones = np.bitwise_count(differing)
        count = ones if count is None else count + ones
    assert count is not None
    return count
