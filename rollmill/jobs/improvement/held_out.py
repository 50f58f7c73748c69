"""Held-out problems: none of them is among those that are trained on, which is checked."""

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
from rollmill.corpus.record import UNREADABLE, decode_record
from rollmill.corpus.record_text import content_text
from rollmill.errors import InputError
from rollmill.exports.contents import is_list, parts_of
from rollmill.files.confined import ConfinedFileError, read_confined
from rollmill.generation.identity import content_key
from rollmill.generation.run import PROBLEMS
from rollmill.problems import ProblemSource, load_problems, read_problems
from rollmill.problems.images import LARGEST_IMAGE
from rollmill.records import Problem

LONG = 24
"""Characters from which a question is looked for inside of lines. A shorter one ("3 + 1 =") stands in other ones, too;
it counts where whole lines are it."""

_BATCH = 256
_WORD = r"0-9a-z\u00df-\u04ff"
"""Of scripts with spaces between words: where one of these goes on, a question does not end."""


class _Question(NamedTuple):
    instance_id: str
    key: str
    texts: tuple[str, ...]
    """What stands in conversations that ask it: all of them."""
    images: frozenset[str]
    """SHA-256."""


class HeldOut:
    """The questions of held-out problems, and where others ask them.

    Two questions are the same when they are, but for white space and capitals, and their images.
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

    def among(self, source: ProblemSource) -> dict[str, str]:
        """Map each held-out problem that a source has, too, to which of the source's problems it is.

        Raises `InputError` as `load_problems` does.
        """
        return self._shared(_problems(source), source.dataset)

    def within(self, inputs: Sequence[str]) -> dict[str, str]:
        """Map each held-out problem to the first conversation that contains it; all user turns are searched.

        A template or examples may stand around the question: see `LONG`. Of a run, its problems are looked through,
        too. Raises `InputError` as `read_corpus` does.
        """
        corpus = read_corpus(inputs, hashed=False)
        runs = [file.run for file in corpus.files if file.run]
        locations = {
            key: at for run in runs for key, at in self._shared(read_problems(run / PROBLEMS), str(run)).items()
        }
        places = corpus.table.select("source", "number").iter_rows()
        records = zip(places, corpus.records(corpus.table), strict=True)
        while batch := list(islice(records, _BATCH)):
            conversations = [user_turns(record) for _, record in batch]
            for ((source, number), _), turns, seen in zip(batch, conversations, self._seen(conversations), strict=True):
                images = _images(turns, corpus, source) if self._shows_images else set()
                for question in self._questions if seen or images else ():
                    if (
                        (question.texts or question.images)
                        and seen.issuperset(question.texts)
                        and images.issuperset(question.images)
                    ):
                        locations.setdefault(question.instance_id, f"row {number} of {corpus.sources[source]}")
        return locations

    def _shared(self, problems: Iterable[Problem], name: str) -> dict[str, str]:
        others = {question_key(problem): problem.instance_id for problem in problems}
        return {
            question.instance_id: f"{others[question.key]} of {name}"
            for question in self._questions
            if question.key in others
        }

    def _seen(self, conversations: list[list[Message]]) -> list[set[str]]:
        """Return which of the held-out texts stand in each conversation."""
        if not self._texts:
            return [set() for _ in conversations]
        texts = ["\0".join(_searchable(content_text(turn.content)) for turn in turns) for turns in conversations]
        hits = pl.Series(texts, dtype=pl.String).str.extract_many(self._texts, overlapping=True)
        return [
            {text for text in set(some) if _stands_in(text, whole)} for some, whole in zip(hits, texts, strict=True)
        ]


def check_held_out(held_out: HeldOut, contaminated: dict[str, str], name: str) -> int:
    """Return how many held-out problems there are. Raises `InputError` where any of them is trained on.

    `contaminated` maps those to where they stand; `name` is where the held-out problems are from.
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
    words = [_joined(turn) if isinstance(turn, str) else turn for turn in turns]
    return content_key([words, [image.sha256 for image in problem.images]])


def prompt_key(prompt: Sequence[Message]) -> str:
    """Return the `question_key` of a problem without images whose prompt is these messages."""
    return content_key([[_joined(content_text(turn.content)) for turn in prompt if turn.role == "user"], []])


def _problems(source: ProblemSource) -> Iterator[Problem]:
    with tempfile.TemporaryDirectory() as folder:
        yield from read_problems(load_problems(source, Path(folder)).path)


def _question(problem: Problem) -> _Question:
    turns = [{"role": "user", "content": problem.prompt}] if isinstance(problem.prompt, str) else problem.prompt
    contents = [turn.get("content") for turn in turns if turn.get("role") == "user"]
    texts = tuple(_looked_for(text) for text in contents if isinstance(text, str) and text.strip())
    images = frozenset(image.sha256 for image in problem.images)
    return _Question(problem.instance_id, question_key(problem), texts, images)


def _joined(text: str) -> str:
    return " ".join(text.casefold().split())


def _lines(text: str) -> str:
    return "".join(f"{line}\n" for line in map(_joined, text.splitlines()) if line)


def _looked_for(question: str) -> str:
    joined = _joined(question)
    return joined if len(joined) >= LONG else f"\n{_lines(question)}"


def _searchable(text: str) -> str:
    """Return what a user says, line by line, and in one line, however it is wrapped."""
    return f"\n{_lines(text)}\0{_joined(text)}"


def _stands_in(question: str, text: str) -> bool:
    """Tell whether a question stands in a text on its own: "3 + 1" is not in "13 + 12", nor in "3 + 1.5"."""
    if question[0] == "\n":
        return True
    before = re.compile(rf"(?<![{_WORD}])(?<!\d[.,])" if re.match(rf"[{_WORD}]", question[0]) else "")
    after = re.compile(rf"(?![{_WORD}]|[.,]\d)" if re.match(rf"[{_WORD}]", question[-1]) else "")
    at = text.find(question)
    while at >= 0 and not (before.match(text, at) and after.match(text, at + len(question))):
        at = text.find(question, at + 1)
    return at >= 0


def user_turns(record: bytes) -> list[Message]:
    """Return what the user says; nothing where that cannot be read, so that no training row is made of it."""
    try:
        return [turn for turn in decode_record(record).conversation() or [] if turn.role == "user"]
    except UNREADABLE:
        return []


def _images(turns: list[Message], corpus: Corpus, source: int) -> set[str]:
    """Return the SHA-256 of the image files that turns show; of a missing file its name, which is that in runs."""
    lists = [parts_of(turn.content) or [] for turn in turns if is_list(turn.content)]
    paths = [part.get("image") for parts in lists for part in parts if part.get("type") == "image"]
    root = corpus.image_root(source)
    return {_image_hash(path, root) for path in paths if isinstance(path, str)}


def _image_hash(path: str, root: Path | None) -> str:
    try:
        content = read_confined(path, [root or Path()], limit=LARGEST_IMAGE)
    except ConfinedFileError:  # not at hand, or not one that these rollouts may name
        return Path(path).stem
    return hashlib.sha256(content).hexdigest()
