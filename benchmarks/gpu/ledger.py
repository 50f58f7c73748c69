"""The file of measurements: one line of JSON for each, written at once, and the budget of seconds of a call."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rollmill.errors import RollmillError

Figures = dict[str, Any]
REASON = "not_measured"
"""Key of the reason why a measurement has no figures."""


class NotHereError(Exception):
    """A measurement that this machine cannot make; its message is the reason."""


class Measurement(NamedTuple):
    """One measurement: what is measured, with which settings, and the function that returns the figures."""

    name: str
    settings: dict[str, Any]
    measure: Callable[[], Figures]


class Ledger:
    """Measurements that are in a file already are not made again, so that calls continue each other.

    Args:
        path: The file; it is made with its folder.
        budget_s: Seconds after which no measurement begins any more.
        size: Size of the models, which is a part of every line.
    """

    def __init__(self, path: Path, *, budget_s: float, size: str) -> None:
        self.path, self.size = path, size
        self._began, self._budget_s = time.monotonic(), budget_s
        path.parent.mkdir(parents=True, exist_ok=True)
        self._present = {key_of(line) for line in read_lines(path) if REASON not in line}
        self.made = self.present = self.left = 0

    @property
    def is_over(self) -> bool:
        """True if the budget is used up."""
        return time.monotonic() - self._began >= self._budget_s

    def take(self, group: str, measurement: Measurement) -> None:
        """Make a measurement and write its line, unless the file has it or the budget is used up.

        A measurement that fails or cannot be made here is a line with the reason; another call tries it again.
        """
        line: Figures = {"measurement": measurement.name, "settings": {"size": self.size, **measurement.settings}}
        key = key_of(line)
        if key in self._present:
            self.present += 1
            return
        if self.is_over:
            self.left += 1
            return
        began = time.monotonic()
        try:
            figures = measurement.measure()
        except NotHereError as reason:
            figures = {REASON: str(reason)}
        except (ImportError, RollmillError) as error:
            figures = {REASON: f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        except Exception as error:  # one that fails must not cost the others: a machine with a GPU is lent for minutes
            message = str(error).strip().splitlines() or [""]
            figures = {REASON: f"{type(error).__name__}: {message[0][:150]} ... {message[-1][:150]}"}
            figures["trace"] = traceback.format_exc()[-1500:]
        self._write(line | {"group": group, **figures, "took_s": round(time.monotonic() - began, 1)})
        self._present.add(key)
        self.made += 1

    def _write(self, line: Figures) -> None:
        text = json.dumps(line, default=str)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        print(text, flush=True)


def key_of(line: Figures) -> str:
    """Return the text that identifies the measurement of a line: its name and its settings."""
    return json.dumps([line["measurement"], line["settings"]], sort_keys=True)


def read_lines(path: Path) -> Iterator[Figures]:
    """Yield the lines of a file; of a file that a killed call left, without its last line if that is not complete."""
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            yield dict(json.loads(text))
        except ValueError:
            continue
