"""Checks that no held-out problem is among the problems that are trained on."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

import polars as pl

from rollmill.corpus.corpus import Corpus, read_corpus
from rollmill.corpus.message import Message
from rollmill.corpus.record import UNREADABLE_ERRORS, decode_record
from rollmill.corpus.record_text import content_text
from rollmill.errors import InputError
from rollmill.exports.contents import decode_parts, is_list
from rollmill.files.confined import ConfinedFileError, read_confined
from rollmill.generation.identity import content_key
from rollmill.generation.run import PROBLEMS
from rollmill.problems import ProblemSource, load_problems, read_problems
from rollmill.problems.images import LARGEST_IMAGE
from rollmill.records import Problem

LONG = 24
"""Characters from which a question is searched within lines. A shorter one ("3 + 1 =") is a part of other questions,
too: it has to be a line, or several, of its own."""

_BATCH = 256
_WORD = r"0-9a-z\u00df-\u04ff"
"""Letters of scripts with spaces between words: a question that is followed by one ends within a word."""


class _Question(NamedTuple):
    """A held-out question. A conversation that asks it contains all its texts and images."""

    instance_id: str
    key: str
    """See `question_key`."""
    texts: tuple[str, ...]
    """Its user turns, in the form in which they are searched: see `_search_text`."""
    images: frozenset[str]
    """SHA-256 of its images."""


class HeldOut:
    """The questions of held-out problems; finds them in other data.

    Two questions are the same if their texts are equal but for white space and case, and their images are equal.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._questions = [_question(problem) for problem in problems]
        self._shows_images = any(question.images for question in self._questions)
        self._texts = list(dict.fromkeys(text for question in self._questions for text in question.texts))

    @classmethod
    def read(cls, source: ProblemSource) -> Self:
        """Read the held-out problems of a source. Raises `InputError` as `load_problems` does."""
        return cls(_problems(source))

    def __len__(self) -> int:
        return len(self._questions)

    def find_in_problems(self, source: ProblemSource) -> dict[str, str]:
        """Map each held-out problem that a source also has to the source's problem with the same question.

        Raises `InputError` as `load_problems` does.
        """
        return self._shared(_problems(source), source.dataset)

    def find_in_conversations(self, inputs: Sequence[str]) -> dict[str, str]:
        """Map each held-out problem to the first conversation that contains it; all user turns are searched.

        The question may be surrounded by a template or examples: see `LONG`. A run's problems are searched, too. Raises
        `InputError` as `read_corpus` does.
        """
        corpus = read_corpus(inputs, hashed=False)
        runs = [file.run for file in corpus.files if file.run]
        locations = {
            key: location
            for run in runs
            for key, location in self._shared(read_problems(run / PROBLEMS), str(run)).items()
        }
        numbers = corpus.table.select("source", "number").iter_rows()
        records = zip(numbers, corpus.records(corpus.table), strict=True)
        # In batches, for memory: Polars searches all texts of a batch for all questions in one pass (Aho-Corasick).
        while batch := list(islice(records, _BATCH)):
            conversations = [user_turns(record) for _, record in batch]
            matches = self._find_texts(conversations)
            for ((source, number), _), turns, texts in zip(batch, conversations, matches, strict=True):
                images = _images(turns, corpus, source) if self._shows_images else set()
                for question in self._questions if texts or images else ():
                    if (
                        (question.texts or question.images)
                        and texts.issuperset(question.texts)
                        and images.issuperset(question.images)
                    ):
                        locations.setdefault(question.instance_id, f"row {number} of {corpus.sources[source]}")
        return locations

    def _shared(self, problems: Iterable[Problem], name: str) -> dict[str, str]:
        """Map each held-out problem that is among `problems` to a location; `name` is where these are from."""
        others = {question_key(problem): problem.instance_id for problem in problems}
        return {
            question.instance_id: f"{others[question.key]} of {name}"
            for question in self._questions
            if question.key in others
        }

    def _find_texts(self, conversations: list[list[Message]]) -> list[set[str]]:
        """Return the held-out texts that each conversation contains."""
        if not self._texts:
            return [set() for _ in conversations]
        texts = ["\0".join(_searchable(content_text(turn.content)) for turn in turns) for turns in conversations]
        hits = pl.Series(texts, dtype=pl.String).str.extract_many(self._texts, overlapping=True)
        return [
            {hit for hit in set(text_hits) if _is_separate(hit, text)}
            for text_hits, text in zip(hits, texts, strict=True)
        ]


def check_held_out(held_out: HeldOut, contaminated: dict[str, str], name: str) -> int:
    """Return the number of held-out problems. Raises `InputError` where any of them is trained on.

    `contaminated` maps those to their locations; `name` is where the held-out problems are from.
    """
    if contaminated:
        shared = [f"{instance_id} is {location}" for instance_id, location in contaminated.items()]
        more = f", and {len(shared) - 3} more" if len(shared) > 3 else ""
        raise InputError(
            f"{len(shared)} of {len(held_out)} held-out problems are trained on ({'; '.join(shared[:3])}{more}): "
            f"take them out of {name} or of what is trained on"
        )
    return len(held_out)


def question_key(problem: Problem) -> str:
    """Return a key that is equal for equal questions."""
    turns = [problem.prompt] if isinstance(problem.prompt, str) else [turn.get("content") for turn in problem.prompt]
    texts = [_normalize(turn) if isinstance(turn, str) else turn for turn in turns]
    # All turns count, system prompts included: among problems, the complete question has to be equal.
    return content_key([texts, [image.sha256 for image in problem.images]])


def prompt_key(prompt: Sequence[Message]) -> str:
    """Return the `question_key` of a problem without images whose prompt is these messages."""
    return content_key([[_normalize(content_text(turn.content)) for turn in prompt if turn.role == "user"], []])


def _problems(source: ProblemSource) -> Iterator[Problem]:
    with tempfile.TemporaryDirectory() as folder:
        yield from read_problems(load_problems(source, Path(folder)).path)


def _question(problem: Problem) -> _Question:
    turns = [{"role": "user", "content": problem.prompt}] if isinstance(problem.prompt, str) else problem.prompt
    contents = [turn.get("content") for turn in turns if turn.get("role") == "user"]
    texts = tuple(_search_text(text) for text in contents if isinstance(text, str) and text.strip())
    images = frozenset(image.sha256 for image in problem.images)
    return _Question(problem.instance_id, question_key(problem), texts, images)


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split())


def _lines(text: str) -> str:
    return "".join(f"{line}\n" for line in map(_normalize, text.splitlines()) if line)


def _search_text(question: str) -> str:
    """Return a question in one line if it is long, else as complete lines, between newlines."""
    normalized = _normalize(question)
    return normalized if len(normalized) >= LONG else f"\n{_lines(question)}"


def _searchable(text: str) -> str:
    """Return a user turn in both forms in which questions are searched: line by line, and in one line."""
    return f"\n{_lines(text)}\0{_normalize(text)}"


def _is_separate(question: str, text: str) -> bool:
    """Return whether a question is in a text as words of its own: "3 + 1" is not in "13 + 12", nor in "3 + 1.5"."""
    if question[0] == "\n":  # complete lines
        return True
    # A word must not continue before or behind it; nor a number, as in "3 + 1.5".
    before = re.compile(rf"(?<![{_WORD}])(?<!\d[.,])" if re.match(rf"[{_WORD}]", question[0]) else "")
    after = re.compile(rf"(?![{_WORD}]|[.,]\d)" if re.match(rf"[{_WORD}]", question[-1]) else "")
    index = text.find(question)
    while index >= 0 and not (before.match(text, index) and after.match(text, index + len(question))):
        index = text.find(question, index + 1)
    return index >= 0


def user_turns(record: bytes) -> list[Message]:
    """Return the user's turns; none where a record cannot be read, which is no training row then."""
    try:
        return [turn for turn in decode_record(record).conversation() or [] if turn.role == "user"]
    except UNREADABLE_ERRORS:
        return []


def _images(turns: list[Message], corpus: Corpus, source: int) -> set[str]:
    """Return the SHA-256 of the image files in turns; of a missing file its name, which in runs is its SHA-256."""
    lists = [decode_parts(turn.content) or [] for turn in turns if is_list(turn.content)]
    paths = [part.get("image") for parts in lists for part in parts if part.get("type") == "image"]
    root = corpus.image_root(source)
    return {_image_hash(path, root) for path in paths if isinstance(path, str)}


def _image_hash(path: str, root: Path | None) -> str:
    try:
        content = read_confined(path, [root or Path()], limit=LARGEST_IMAGE)
    except ConfinedFileError:  # missing, or outside of the folder that these rollouts may refer to
        return Path(path).stem
    return hashlib.sha256(content).hexdigest()
