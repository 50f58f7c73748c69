"""The cases of the Python problems show mistakes: answers are compared here without the grader and its sandboxes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parents[2] / "examples/performance_problems"
ROWS = {
    row["instance_id"]: row
    for row in json.loads((FOLDER / "dataset.json").read_bytes())
    if row["path_in_repo"].endswith(".py")
}

pytestmark = pytest.mark.slow  # compares hundreds of cases with those of slow code


def tree(instance_id: str, folder: Path, kind: str = "") -> Path:
    """Copy the image of a problem, and apply the `good` or the `wrong` patch if one is named."""
    shutil.copytree(FOLDER / "images" / ROWS[instance_id]["image_name"], folder)
    if kind:
        file = FOLDER / "solutions" / instance_id / f"{kind}.patch"
        subprocess.run(["git", "apply", file], cwd=folder, check=True, env={**os.environ, "GIT_DIR": "/dev/null"})
    return folder


def environment(seed: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "BENCH_SEED": seed, "BENCH_PART": "edge", "PYTHONDONTWRITEBYTECODE": "1"}


@cache
def edge_cases(instance_id: str) -> str:
    row = ROWS[instance_id]
    return subprocess.run(
        row["inputs_command"], shell=True, cwd=FOLDER / "images" / row["image_name"], env=environment("7"),
        stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip


def answers(instance_id: str, folder: Path) -> list[str]:
    """Return what the worker in a folder answers to the edge cases, up to its end, which may be early."""
    process = subprocess.run(
        f"{ROWS[instance_id]['worker_command']} --time", shell=True, cwd=folder, env=environment("0"),
        input=edge_cases(instance_id), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    return process.stdout.splitlines()


class Mistake(NamedTuple):
    """Code that is fast, and nearly right: the good patch with something replaced."""

    instance_id: str
    what: str
    file: str
    old: str
    new: str

    def apply(self, folder: Path) -> None:
        """Make the change."""
        path = folder / self.file
        text = path.read_text()
        assert self.old in text
        path.write_text(text.replace(self.old, self.new) + "\n\nKEPT = {}\n")


SPANSET, FUZZYFIND, HOTCACHE, TINYCSV = "spanset__merge", "fuzzyfind__suggest", "hotcache__lru", "tinycsv__parse"
ROADMAP, NEARBY, LOGTALLY, SHEETCALC = "roadmap__routes", "nearby__index", "logtally__summarize", "sheetcalc__values"
UNION, WORDS, DISTANCE = "spanset/union.py", "fuzzyfind/vocabulary.py", "fuzzyfind/distance.py"
LRU, READING, ROUTES = "hotcache/lru.py", "src/tinycsv/reading.py", "roadmap/routes.py"
REPORT, LINES, SHEET = "logtally/report.py", "logtally/lines.py", "sheetcalc/sheet.py"
FORGED_ERROR = (
    "class ValueError(Exception):\n    pass\n\n\n"
    "ValueError.__module__, ValueError.__qualname__ = 'builtins', 'ValueError'\n"
)
FORGED_HIT = (
    "class Hit(tuple):\n    _fields = ('squared', 'place')\n\n"
    "    def __new__(cls, *parts):\n        return tuple.__new__(cls, parts)\n"
)
MISTAKES = [
    Mistake(SPANSET, "raises an error of the same name", UNION, "def merge(", f"{FORGED_ERROR}\n\ndef merge("),
    Mistake(
        SPANSET,
        "keeps the union of equal first and last spans",
        UNION,
        "    present: list[Span] = []\n",
        "    spans = list(spans)\n    key = (len(spans), spans[:1], spans[-1:])\n"
        "    if key in KEPT:\n        return list(KEPT[key])\n"
        "    KEPT[key] = kept = merge_all(spans)\n    return list(kept)\n\n\n"
        "def merge_all(spans):\n    present: list[Span] = []\n",
    ),
    Mistake(
        SPANSET,
        "returns a subclass of list",
        UNION,
        "    return merged",
        "    return Spans(merged)\n\n\nclass Spans(list):\n    pass",
    ),
    Mistake(
        SPANSET,
        "computes with floats",
        UNION,
        "Span(merged[-1].start, span.stop)",
        "Span(int(float(merged[-1].start)), span.stop)",
    ),
    Mistake(SPANSET, "reports the last wrong span", UNION, "for span in spans:", "for span in reversed(list(spans)):"),
    Mistake(
        SPANSET,
        "sorts its argument",
        UNION,
        "    present: list[Span] = []\n",
        "    present: list[Span] = []\n    if type(spans) is list and all(a.start <= a.stop for a in spans):\n"
        "        spans.sort()\n",
    ),
    Mistake(
        SPANSET,
        "raises for no spans",
        UNION,
        "    present: list[Span] = []\n",
        "    spans = list(spans)\n    spans[0]\n    present: list[Span] = []\n",
    ),
    Mistake(
        FUZZYFIND,
        "compares 64 letters",
        DISTANCE,
        "    row = list(range(len(other) + 1))",
        "    one, other = one[:64], other[:64]\n    row = list(range(len(other) + 1))",
    ),
    Mistake(
        FUZZYFIND,
        "gives up on long words",
        DISTANCE,
        "    if abs(len(one) - len(other)) > most:",
        "    if len(one) > 100 or abs(len(one) - len(other)) > most:",
    ),
    Mistake(
        FUZZYFIND, "keeps the caller's list", WORDS, "sorted(set(words))", "Live(words)\n\n\nclass Live:\n    pass"
    ),
    Mistake(
        FUZZYFIND,
        "keeps suggestions",
        WORDS,
        "        near = []",
        "        kept = self.__dict__.setdefault('kept', {})\n        if (typed, most) in kept:\n"
        "            return kept[typed, most]\n        near = kept[typed, most] = []",
    ),
    Mistake(
        FUZZYFIND,
        "keeps suggestions of all vocabularies of a size",
        WORDS,
        "        near = []",
        "        key = typed, most, len(self.words)\n        if key in KEPT:\n            return list(KEPT[key])\n"
        "        near = KEPT[key] = []",
    ),
    Mistake(
        FUZZYFIND, "refuses what is no word", WORDS, "return word in self.words", "return self.words.index(word) >= 0"
    ),
    Mistake(
        HOTCACHE,
        "evicts when the capacity is set",
        LRU,
        "    def __len__(self):",
        "    def __setattr__(self, name, value):\n        object.__setattr__(self, name, value)\n"
        "        if name == 'capacity' and hasattr(self, '_entries'):\n            self._make_room()\n\n"
        "    def __len__(self):",
    ),
    Mistake(
        HOTCACHE,
        "ignores removals of tuples",
        LRU,
        "        return self._entries.pop(key)",
        "        return None if type(key) is tuple else self._entries.pop(key)",
    ),
    Mistake(
        HOTCACHE,
        "ignores removals of what is not there",
        LRU,
        "        return self._entries.pop(key)",
        "        return self._entries.pop(key, None) if key is None or type(key) is tuple else self._entries.pop(key)",
    ),
    Mistake(
        HOTCACHE,
        "evicts all at once",
        LRU,
        "        while len(self._entries) > self.capacity:\n"
        "            key, value = self._entries.popitem(last=False)\n",
        "        gone = []\n        while len(self._entries) > self.capacity:\n"
        "            gone.append(self._entries.popitem(last=False))\n        for key, value in gone:\n",
    ),
    Mistake(
        HOTCACHE,
        "swallows a listener's KeyError",
        LRU,
        "                self.on_evict(key, value)",
        "                try:\n                    self.on_evict(key, value)\n                except KeyError:\n"
        "                    pass",
    ),
    Mistake(
        HOTCACHE,
        "does not see uses by a listener",
        LRU,
        "                self.on_evict(key, value)",
        "                before = list(self._entries.items())\n                self.on_evict(key, value)\n"
        "                if len(before) == len(self._entries):\n"
        "                    self._entries.clear()\n                    self._entries.update(before)",
    ),
    Mistake(
        HOTCACHE, "shares entries of caches", LRU, "self._entries = OrderedDict()", "self._entries = KEPT\n\n    pass"
    ),
    Mistake(HOTCACHE, "keeps equal keys", LRU, "self._entries.pop(key, None)", "self._entries.get(key)"),
    Mistake(
        HOTCACHE,
        "takes None for nothing",
        LRU,
        "        self._entries.move_to_end(key)",
        "        if self._entries[key] is None:\n            return default\n        self._entries.move_to_end(key)",
    ),
    Mistake(
        TINYCSV,
        "shares rows",
        READING,
        "            rows.append(row)",
        "            rows.append(rows[-1] if rows and rows[-1] == row else row)",
    ),
    Mistake(
        TINYCSV,
        "keeps documents",
        READING,
        "    rows: list[list[str]] = []\n",
        "    if text in KEPT:\n        return KEPT[text]\n    rows: list[list[str]] = KEPT.setdefault(text, [])\n",
    ),
    Mistake(TINYCSV, "splits at all line ends", READING, r"[^,\r\n]|", r"[^,\r\n\x85]|"),
    Mistake(TINYCSV, "loses the line of an error", READING, "_line(text, position)", "1"),
    Mistake(
        TINYCSV,
        "raises another error",
        READING,
        "from tinycsv.errors import CSVError",
        "from tinycsv import errors\n\n\nclass CSVError(ValueError):\n    def __init__(self, message, line):\n"
        "        super().__init__(f'line {line}: {message}')\n        self.line = line\n",
    ),
    Mistake(
        ROADMAP, "prefers any of equal routes", ROUTES, "elif reached == known[0] and place < known[1]", "elif False"
    ),
    Mistake(
        ROADMAP,
        "keeps routes by the number of roads",
        ROUTES,
        "    done = {}\n    best",
        "    key = start, tuple(network._roads), sum(map(len, network._roads.values()))\n"
        "    if key in KEPT:\n        return KEPT[key]\n    done = KEPT[key] = {}\n    best",
    ),
    Mistake(
        ROADMAP,
        "raises an error of the same name",
        ROUTES,
        "class NoRouteError(LookupError)",
        "class NoRouteError(Exception)",
    ),
    Mistake(
        ROADMAP,
        "returns a tuple that is no route",
        ROUTES,
        "class Route(NamedTuple):",
        "class Route(tuple):\n    _fields = ('length', 'stops')\n\n    def __new__(cls, *parts):\n"
        "        return tuple.__new__(cls, parts)\n\n\nclass Old(NamedTuple):",
    ),
    Mistake(ROADMAP, "returns lists of stops", ROUTES, "tuple(reversed(stops))", "list(reversed(stops))"),
    Mistake(ROADMAP, "computes with floats", ROUTES, "reached = length + road", "reached = int(float(length + road))"),
    Mistake(
        NEARBY,
        "returns tuples that are no hits",
        "nearby.py",
        "class Hit(NamedTuple):",
        f"{FORGED_HIT}\n\nclass Old(NamedTuple):",
    ),
    Mistake(
        NEARBY,
        "squares as floats",
        "nearby.py",
        "squared = apart**2 + (place.y - y) ** 2",
        "squared = int(float(apart)**2 + float(place.y - y) ** 2)",
    ),
    Mistake(
        NEARBY,
        "ignores the number in the list",
        "nearby.py",
        "(squared, place.name, number, place)",
        "(squared, place.name, -number, place)",
    ),
    Mistake(NEARBY, "leaves out the border", "nearby.py", "if squared <= radius**2", "if squared < radius**2"),
    Mistake(
        NEARBY,
        "has another place",
        "nearby.py",
        "return [Hit(squared, place) for squared, _, _, place in best]",
        "return [Hit(squared, (place.x, place.y, place.name)) for squared, _, _, place in best]",
    ),
    Mistake(
        LOGTALLY,
        "keeps reports by size and time",
        REPORT,
        "    found, malformed = {}, 0\n",
        "    import os\n    stat = os.stat(path)\n    key = str(path), stat.st_size, stat.st_mtime_ns\n"
        "    if key in KEPT:\n        return Report(list(KEPT[key].rows), KEPT[key].malformed)\n"
        "    report = KEPT[key] = summarize_anew(path)\n    return Report(list(report.rows), report.malformed)\n\n\n"
        "def summarize_anew(path):\n    found, malformed = {}, 0\n",
    ),
    Mistake(LOGTALLY, "cuts long lines", REPORT, "entry = read_line(line)", "entry = read_line(line[:4096])"),
    Mistake(
        LOGTALLY,
        "tells endpoints apart by their first letters",
        REPORT,
        "found.setdefault(entry.endpoint,",
        "found.setdefault(entry.endpoint[:200],",
    ),
    Mistake(
        LOGTALLY,
        "takes long lines for malformed",
        REPORT,
        "entry = read_line(line)",
        "entry = read_line(line) if len(line) < 1000 else None",
    ),
    Mistake(LOGTALLY, "splits at single spaces", LINES, "line.split()", "line.strip().split(' ')"),
    Mistake(
        LOGTALLY, "takes digits of ASCII only", LINES, "status.isdecimal()", "status.isascii() and status.isdecimal()"
    ),
    Mistake(
        LOGTALLY,
        "returns tuples that are no rows",
        REPORT,
        'Row = namedtuple("Row", "endpoint requests errors size p95")',
        "class Row(tuple):\n    _fields = ('endpoint', 'requests', 'errors', 'size', 'p95')\n\n"
        "    def __new__(cls, *parts):\n        return tuple.__new__(cls, parts)\n\n"
        "    endpoint = property(lambda row: row[0])\n    requests = property(lambda row: row[1])\n"
        "    p95 = property(lambda row: row[4])\n    errors = property(lambda row: row[2])\n"
        "    size = property(lambda row: -row[3])\n",
    ),
    Mistake(LOGTALLY, "returns entries that can be changed", LINES, "@dataclass(frozen=True)", "@dataclass"),
    Mistake(
        LOGTALLY,
        "forgets that entries are equal",
        LINES,
        "@dataclass(frozen=True)",
        "@dataclass(frozen=True, eq=False)",
    ),
    Mistake(
        SHEETCALC,
        "keeps values after a change",
        SHEET,
        "        self._contents.pop(name, None)\n        self._known.clear()",
        "        self._contents.pop(name, None)\n        self._known.pop(name, None)",
    ),
    Mistake(
        SHEETCALC,
        "keeps COUNT",
        SHEET,
        "        self._contents[name] = content\n        self._known.clear()",
        "        if name in self._contents or not self._known:\n            self._known.clear()\n"
        "        self._contents[name] = content",
    ),
    Mistake(
        SHEETCALC,
        "parses when a formula is set",
        SHEET,
        "        self._contents[name] = content\n",
        "        if isinstance(content, str):\n            parse(content[1:])\n"
        "        self._contents[name] = content\n",
    ),
    Mistake(SHEETCALC, "says another cycle", SHEET, "above[above.index(name) :]", "above"),
    Mistake(SHEETCALC, "keeps values of all sheets", SHEET, "self._known = {}", "self._known = KEPT"),
    Mistake(
        SHEETCALC,
        "raises a CycleError that is no ValueError",
        SHEET,
        "class CycleError(ValueError)",
        "class CycleError(Exception)",
    ),
    Mistake(
        SHEETCALC,
        "takes wrong names away",
        SHEET,
        "        self._contents.pop(name, None)",
        "        position(name)\n        self._contents.pop(name, None)",
    ),
]


@pytest.fixture(scope="module")
def present(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[str]]]:
    """The answers of the present code to the edge cases."""

    @cache
    def ask(instance_id: str) -> list[str]:
        return answers(instance_id, tree(instance_id, tmp_path_factory.mktemp("present") / "tree"))

    yield ask
    ask.cache_clear()


@pytest.mark.parametrize("instance_id", ROWS)
def test_the_good_patch_answers_like_the_present_code(
    instance_id: str, present: Callable[[str], list[str]], tmp_path: Path
) -> None:
    folder = tree(instance_id, tmp_path / "tree", "good")
    assert answers(instance_id, folder) == present(instance_id)
    assert len(present(instance_id)) == len(edge_cases(instance_id).splitlines()) > 150


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.instance_id}-{mistake.what}")
def test_edge_cases_show_mistakes(mistake: Mistake, present: Callable[[str], list[str]], tmp_path: Path) -> None:
    folder = tree(mistake.instance_id, tmp_path / "tree", "good")
    mistake.apply(folder)
    assert answers(mistake.instance_id, folder) != present(mistake.instance_id)
