"""The cases of the Python problems show mistakes, and their workers keep to the protocol."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.examples.problem_cases import ROWS, answer_cases, copy_image, print_cases, replace_text

PYTHON = [instance_id for instance_id, row in ROWS.items() if row["path_in_repo"].endswith(".py")]
SPANSET, FUZZYFIND, HOTCACHE, TINYCSV = "spanset__merge", "fuzzyfind__suggest", "hotcache__lru", "tinycsv__parse"
ROADMAP, NEARBY, LOGTALLY, SHEETCALC = "roadmap__routes", "nearby__index", "logtally__summarize", "sheetcalc__values"


class Mistake(NamedTuple):
    """Code that is fast, and nearly right: the good patch with a text replaced, or with code added at its end."""

    instance_id: str
    what: str
    old: str
    new: str
    file: str = ""

    def apply(self, folder: Path) -> None:
        """Make the change in a copy of the image, with the good patch applied."""
        path = folder / (self.file or ROWS[self.instance_id]["path_in_repo"])
        if self.old:
            replace_text(path, self.old, self.new)
        else:
            path.write_text(path.read_text() + self.new)


def keeping(function: str, key: str = "repr(arguments)") -> str:
    """Return code that keeps what a function returned, by a key made of its `arguments`."""
    return (
        f"_real, _kept = {function}, {{}}\ndef {function.replace('.', '_')}(*arguments):\n    key = {key}\n"
        "    if key not in _kept:\n        _kept[key] = _real(*arguments)\n    return _kept[key]\n"
        f"{function} = {function.replace('.', '_')}\n"
    )


KNOWN = "globals().setdefault('_KNOWN', {})"
PLAIN = r"(?:[^,\r\n]|\r(?!\n))*"
STATUS = "tuple(__import__('os').stat(arguments[0]))[:9] if __import__('os').path.exists(arguments[0]) else arguments"
NEVER_ENDS = 'CSVError("a quoted field never ends", _line(text, position))'
MISTAKES = [
    Mistake(SPANSET, "keeps results by the argument's identity", "", keeping("merge", "id(arguments[0])")),
    Mistake(SPANSET, "returns a list again", "", keeping("merge")),
    Mistake(SPANSET, "reports the least wrong span", "for span in spans:", "for span in sorted(spans):"),
    Mistake(SPANSET, "reads the spans twice", "    present: list[Span] = []\n",
            "    sum(1 for _ in spans)\n    present: list[Span] = []\n"),
    Mistake(SPANSET, "counts with floats", "present.append(span)",
            "present.append(Span(int(float(span.start)), int(float(span.stop))))"),
    Mistake(SPANSET, "sorts its argument", "    present: list[Span] = []\n",
            "    present: list[Span] = []\n    if type(spans) is list:\n        spans.sort()\n"),
    Mistake(SPANSET, "returns the right number of spans", "    return merged", "    return [Span(0, 1)] * len(merged)"),
    Mistake(SPANSET, "returns another kind of list",
            "    return merged", "    return type('list', (list,), {})(merged)"),
    Mistake(SPANSET, "answers with what the worker knows", "",
            "import sys\ndef merge(spans):\n    return list(sys._getframe(2).f_locals.get('results', []))\n"),
    Mistake(FUZZYFIND, "does not compare long words", "found = distance_within(typed, word, most)",
            "found = distance_within(typed, word, min(most, 4))"),
    Mistake(FUZZYFIND, "compares bytes", "    row = list(range",
            "    one, other = one.encode(), other.encode()\n    row = list(range", "fuzzyfind/distance.py"),
    Mistake(FUZZYFIND, "ignores case", "if letter == against", "if letter.lower() == against.lower()",
            "fuzzyfind/distance.py"),
    Mistake(FUZZYFIND, "reads the list again", "        self.words = sorted(set(words))",
            "        self.words = words if type(words) is list else sorted(set(words))"),
    Mistake(FUZZYFIND, "returns suggestions again",
            "", keeping("Vocabulary.suggest", "(id(arguments[0]), arguments[1:])")),
    Mistake(FUZZYFIND, "has no error", "if most < 0:", "if False:"),
    Mistake(HOTCACHE, "keeps the first of equal keys",
            "        self._entries.pop(key, None)", "        key in self and self.get(key)"),
    Mistake(HOTCACHE, "takes None for nothing", "if key not in self._entries:", "if self._entries.get(key) is None:"),
    Mistake(HOTCACHE, "tells of evictions before them",
            "key, value = self._entries.popitem(last=False)\n            if self.on_evict is not None:\n"
            "                self.on_evict(key, value)",
            "key, value = next(iter(self._entries.items()))\n            if self.on_evict is not None:\n"
            "                self.on_evict(key, value)\n            self._entries.pop(key, None)"),
    Mistake(HOTCACHE, "copies values", "self._entries[key] = value",
            "self._entries[key] = list(value) if type(value) is list else value"),
    Mistake(HOTCACHE, "returns what changes later",
            "return list(self._entries.items())", "return self._entries.items()"),
    Mistake(HOTCACHE, "makes no room when it shrinks", "        self.capacity = capacity\n        self._make_room()",
            "        self.capacity = capacity"),
    Mistake(TINYCSV, "splits where Python does", "    rows: list[list[str]] = []\n",
            "    if '\"' not in text:\n        return [line.split(',') for line in text.splitlines()]\n"
            "    rows: list[list[str]] = []\n"),
    Mistake(TINYCSV, "uses the module csv", "",
            "import csv, io\ndef parse(text):\n    return list(csv.reader(io.StringIO(text, newline='')))\n"),
    Mistake(TINYCSV, "returns rows again", "", keeping("parse")),
    Mistake(TINYCSV, "names the last line", NEVER_ENDS, NEVER_ENDS.replace("position", "len(text)")),
    Mistake(TINYCSV, "ends rows at a single CR", PLAIN, "[^,\\r\\n]*"),
    Mistake(TINYCSV, "takes a CR behind quotes", ",|\\r?\\n|", ",|\\r?\\n|\\r|"),
    Mistake(ROADMAP, "takes the first of equal routes",
            "elif reached == known[0] and place < known[1]:", "elif False:"),
    Mistake(ROADMAP, "keeps routes while the network has as many roads", "",
            keeping("_explore", "(id(arguments[0]), arguments[1], sum(map(len, arguments[0]._roads.values())))")),
    Mistake(ROADMAP, "keeps routes by the network's identity",
            "", keeping("_explore", "(id(arguments[0]), arguments[1])")),
    Mistake(ROADMAP, "returns distances again", "",
            keeping("distances", "(arguments[1], str(arguments[0]._roads))")),
    Mistake(ROADMAP, "adds floats", "reached = length + road", "reached = length + float(road)"),
    Mistake(ROADMAP, "sorts places",
            "in _explore(network, start).items()}", "in sorted(_explore(network, start).items())}"),
    Mistake(ROADMAP, "has a longest road",
            "            known = best.get(neighbour)\n            reached = length + road\n",
            "            known = best.get(neighbour)\n            reached = length + road\n"
            "            if reached >= 1 << 62:\n                continue\n"),
    Mistake(NEARBY, "forgets the order of the list", "insort(best, (squared, place.name, number, place))",
            "insort(best, (squared, place.name, -number, place))"),
    Mistake(NEARBY, "loses ties", "squared <= best[-1][0]", "squared < best[-1][0]"),
    Mistake(NEARBY, "uses floats", "squared = apart**2 + (place.y - y) ** 2",
            "squared = int(float(apart) ** 2 + (place.y - y) ** 2)"),
    Mistake(NEARBY, "keeps hits", "", keeping("Index.nearest", "(id(arguments[0]), arguments[1:])")),
    Mistake(NEARBY, "indexes a list once", "        self._places = sorted(",
            "        places = list(places)\n"
            f"        places = {KNOWN}.setdefault((len(places), *places[:1]), places)\n        self._places = sorted("),
    Mistake(NEARBY, "leaves the border out", "if squared <= radius**2]", "if squared < radius**2]"),
    Mistake(LOGTALLY, "keeps reports by the file's status", "", keeping("summarize", STATUS)),
    Mistake(LOGTALLY, "splits lines where Python does",
            "        for line in log:", "        for line in log.read().splitlines():"),
    Mistake(LOGTALLY, "ignores broken bytes", 'errors="replace"', 'errors="ignore"'),
    Mistake(LOGTALLY, "reads numbers that are none", "isdecimal", "isdigit", "logtally/lines.py"),
    Mistake(LOGTALLY, "rounds the rank",
            "-(-len(values) * percent // 100)", "max(1, round(len(values) * percent / 100))"),
    Mistake(LOGTALLY, "leaves a byte order mark out", '"utf-8"', '"utf-8-sig"'),
    Mistake(SHEETCALC, "knows cleared cells", "        self._contents.pop(name, None)\n        self._known.clear()",
            "        self._contents.pop(name, None)"),
    Mistake(SHEETCALC, "mixes sheets up", "        self._known = {}", "        self._known = " + KNOWN),
    Mistake(SHEETCALC, "looks at formulas at once", "        self._contents[name] = content\n",
            "        if isinstance(content, str):\n            parse(content[1:])\n"
            "        self._contents[name] = content\n"),
    Mistake(SHEETCALC, "multiplies by zero at once", "        left, right = self._evaluate(tree[1], above), ",
            "        if kind == '*' and self._evaluate(tree[1], above) == 0:\n            return 0\n"
            "        left, right = self._evaluate(tree[1], above), "),
    Mistake(SHEETCALC, "counts values", "sum(name in self._contents for", "sum(self._value(name, above) != 0 for"),
    Mistake(SHEETCALC, "returns rectangles again", "", "rectangle = __import__('functools').cache(rectangle)\n",
            "sheetcalc/cells.py"),
    Mistake(SHEETCALC, "has words of 64 bits", "left * right}", "(left * right + (1 << 63)) % (1 << 64) - (1 << 63)}"),
]  # fmt: skip


@cache
def edge_cases(instance_id: str) -> str:
    return print_cases(instance_id, "edge", "7")


@pytest.fixture(scope="module")
def present(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[str]]]:
    """The answers of the present code to the edge cases."""

    @cache
    def ask(instance_id: str) -> list[str]:
        folder = copy_image(instance_id, tmp_path_factory.mktemp("present") / "tree")
        return answer_cases(instance_id, folder, edge_cases(instance_id), PYTHONHASHSEED="1")

    yield ask
    ask.cache_clear()


@pytest.mark.parametrize("instance_id", PYTHON)
def test_inputs_follow_from_the_seed(instance_id: str) -> None:
    first = edge_cases(instance_id)
    assert first == print_cases(instance_id, "edge", "7")
    assert first.isascii()
    assert len(set(print_cases(instance_id, "edge", "8").splitlines()) & set(first.splitlines())) < 12


@pytest.mark.parametrize("instance_id", PYTHON)
def test_answers_do_not_depend_on_the_process(
    instance_id: str, present: Callable[[str], list[str]], tmp_path: Path
) -> None:
    folder = copy_image(instance_id, tmp_path / "elsewhere")
    assert answer_cases(instance_id, folder, edge_cases(instance_id), PYTHONHASHSEED="2") == present(instance_id)
    assert len(present(instance_id)) == len(edge_cases(instance_id).splitlines()) > 200


@pytest.mark.parametrize(("solution", "equal"), [("good", True), ("wrong", False)])
@pytest.mark.parametrize("instance_id", PYTHON)
def test_edge_cases_tell_solutions_apart(
    instance_id: str, solution: str, equal: bool, present: Callable[[str], list[str]], tmp_path: Path
) -> None:
    folder = copy_image(instance_id, tmp_path / "tree", solution)
    assert (answer_cases(instance_id, folder, edge_cases(instance_id)) == present(instance_id)) is equal


@pytest.mark.slow  # fifty workers
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.instance_id}-{mistake.what}")
def test_edge_cases_show_mistakes(mistake: Mistake, present: Callable[[str], list[str]], tmp_path: Path) -> None:
    folder = copy_image(mistake.instance_id, tmp_path / "tree", "good")
    mistake.apply(folder)
    answers = answer_cases(mistake.instance_id, folder, edge_cases(mistake.instance_id))
    assert len(answers) == len(present(mistake.instance_id))
    assert answers != present(mistake.instance_id)


NOISE = "import os, sys\nos.write(1, b'ready\\n')\nsys.stdout.write('ready\\n')\nprint('done', flush=True)\n"


@pytest.mark.parametrize("instance_id", PYTHON)
def test_workers_call_the_code_only_when_told(instance_id: str, tmp_path: Path) -> None:
    folder = copy_image(instance_id, tmp_path / "tree")
    code = folder / ROWS[instance_id]["path_in_repo"]
    # What the code prints is not taken for a part of the protocol.
    code.write_text(code.read_text() + f"\n{NOISE}")
    with subprocess.Popen(
        ["/bin/sh", "-c", ROWS[instance_id]["worker_command"]],
        cwd=folder, env={"PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        for case in edge_cases(instance_id).splitlines()[:2]:
            process.stdin.write(f"{case}\n")
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("go\n")
            assert process.stdout.readline() == "done\n"
            assert process.stdout.readline().startswith(("[", "{"))
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait() == 0
