"""A run: one directory, one identity, one journal that counts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import orjson

from rollmill.errors import InputError
from rollmill.files.names import MANIFEST
from rollmill.generation.identity import Identity
from rollmill.generation.journal import Journal, RolloutT
from rollmill.generation.manifest import Manifest, check_unaltered, git_commit, host, now, read_manifest, versions
from rollmill.generation.ownership import Ownership
from rollmill.problems import LoadedProblems, read_problems
from rollmill.records import Problem, Rollout
from rollmill.terminal.escapes import visible_line

Retry = Literal["failed", "truncated"]
PROBLEMS = "problems.jsonl"
QUARANTINE = "quarantine.jsonl"
IMAGES = "images"
JOURNALS = "rollouts"
_NUMBERED = re.compile(r"[0-9]{4}\.jsonl|[1-9][0-9]{4,17}\.jsonl")
"""The folder of a run's journals."""


class Run:
    """An open run directory. Made by `open_run`."""

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        journal: Journal,
        *,
        expected: int,
        retry: Retry | None,
        max_tokens: int,
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self._device_users: dict[str, set[int]] = {}
        self.journal = journal
        self.expected = expected
        """Rollouts of the whole run."""
        self.retry = retry
        self.max_tokens = max_tokens
        self.problem_count = int(manifest.problems["count"])

    @property
    def num_rollout(self) -> int:
        """The most rollouts that a problem gets."""
        return -(-self.expected // self.problem_count)

    @cached_property
    def _first_problems(self) -> frozenset[str] | None:
        """The first problems, where the rollouts do not come out even: the others get one less. None where they do."""
        more = self.expected % self.problem_count
        return frozenset(problem.instance_id for problem in islice(self.problems(), more)) if more else None

    def problems(self) -> Iterator[Problem]:
        """The problems in input order, read from the run's own copy."""
        return read_problems(self.directory / PROBLEMS)

    def wanted(self, problem: Problem, first: int | None = None) -> list[tuple[int, int]]:
        """(sample_id, attempt) of what is still to be made of a problem, or of its first few rollouts."""
        wanted = []
        for sample_id in range(self._rollouts_of(problem))[:first]:
            attempt = self.journal.attempt_for(
                problem.instance_id, sample_id, retry=self.retry, max_tokens=self.max_tokens
            )
            if attempt is not None:
                wanted.append((sample_id, attempt))
        return wanted

    def missing(self) -> int:
        """How many rollouts are still to be made."""
        return sum(len(self.wanted(problem)) for problem in self.problems())

    def next_journal(self) -> str:
        """Name, relative to the run directory, of a journal that is not there yet."""
        return f"{JOURNALS}/{int(Path(self.manifest.journal).stem) + 1:04d}.jsonl"

    def switch_journal(self, name: str, identity: Identity) -> None:
        """Makes another journal the one that counts, and the run the one with that identity."""
        update = {"journal": name, "older_rows": False, "identity": identity, "identity_key": identity.key}
        self.manifest = self.manifest.model_copy(update=update)
        self.manifest.write(self.directory)
        self.journal.close()
        owner = Ownership(identity, has_manifest=True, flags=self.journal.owner.flags)
        self.journal = Journal(self.directory / name, owner)

    def groups(
        self,
        kind: type[RolloutT] = Rollout,  # type: ignore[assignment]
    ) -> Iterator[tuple[Problem, list[RolloutT | None]]]:
        """Every problem with its rollouts by sample_id, in input order; None where a rollout is missing."""
        for problem in self.problems():
            yield problem, self.journal.group(problem.instance_id, self._rollouts_of(problem), kind)

    def _rollouts_of(self, problem: Problem) -> int:
        first = self._first_problems
        return self.num_rollout - (first is not None and problem.instance_id not in first)

    def note_device(self, used: dict[str, Any], process: int) -> None:
        """Note what a process computes on; `count` becomes that of all processes that compute on the same."""
        kind = {name: value for name, value in used.items() if name != "count"}
        users = self._device_users.setdefault(str(kind), set())
        if process in users:
            return
        users.add(process)
        others = [one for one in self.manifest.devices if {**one, "count": 0} != {**kind, "count": 0}]
        devices = [*others, {**kind, "count": used["count"] * len(users)}]
        self.manifest = self.manifest.model_copy(update={"devices": devices})
        self.manifest.write(self.directory)

    def finish(self, totals: dict[str, Any]) -> None:
        """Notes the end and what came of it. Raises `RunStoppedError` where the directory is not the run's any more."""
        self.journal.check_place()
        self.manifest = self.manifest.model_copy(update={"ended_at": now(), "totals": totals})
        self.manifest.write(self.directory)


def take_problems(loaded: LoadedProblems, directory: Path) -> None:
    """Moves freshly loaded problems and their images into the run directory."""
    fresh = loaded.path.parent
    if (fresh / IMAGES).is_dir():
        (directory / IMAGES).mkdir(exist_ok=True)
        for image in (fresh / IMAGES).iterdir():
            image.replace(directory / IMAGES / image.name)
    loaded.path.replace(directory / PROBLEMS)


def problem_files(directory: Path) -> dict[str, Path]:
    """What a run's data set gave besides problems, where it gave any, by what it is: unusable rows, and images."""
    given = {"quarantine": directory / QUARANTINE, "images": directory / IMAGES}
    return {what: path for what, path in given.items() if path.exists()}


@contextmanager
def loading_folder(directory: Path) -> Iterator[Path]:
    """A folder inside the run directory for problems that are not yet known to be this run's; removed at the end."""
    for left in directory.glob(".loading*"):  # by a process that was killed: this one has locked the directory
        shutil.rmtree(left, ignore_errors=True)
    folder = directory / ".loading"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def open_run(
    directory: Path,
    *,
    job: str,
    identity: Identity,
    parameters: dict[str, Any],
    seed: int,
    loaded: LoadedProblems,
    expected: int,
    retry: Retry | None = None,
    reverify: bool = False,
    flags: str = "--model_name or --output_dir",
) -> Iterator[Run]:
    """Opens or continues the run in a directory that this process has locked.

    Raises `InputError` when another run is there, naming every parameter that differs, when a row of the journal is of
    another run, when the manifest was edited, and when `retry` or `reverify` finds no run. The problems share the
    `expected` rollouts evenly, but for one more for the first ones where that does not come out even. `flags` name
    another directory.
    """
    old = read_manifest(directory)
    if old is None and (retry or reverify):
        what = "--reverify" if reverify else f"--retry {retry}"
        raise InputError(f"{what} needs a run in {directory}, and there is none: check {flags}")
    if old is not None:
        check_same_run(old, identity, directory=directory, retry=retry, reverify=reverify, flags=flags)
    manifest = Manifest(
        job=job,
        identity_key=identity.key,
        identity=identity,
        parameters=parameters,
        seed=seed,
        journal=old.journal if old else _newest_journal(directory),
        older_rows=old is not None and old.older_rows,
        problems={"path": PROBLEMS, "sha256": loaded.sha256, "count": loaded.count, "quarantined": loaded.quarantined},
        versions=versions(),
        git_commit=git_commit(),
        host=host(),
        started_at=old.started_at if old else now(),
        totals=old.totals if old else {},
        devices=old.devices if old else [],
    )
    if reverify and old is not None and old.identity.verification != identity.verification:
        manifest = manifest.model_copy(update={"identity_key": old.identity_key, "identity": old.identity})
    # The journal first: where its rows are another run's, nothing in the directory is to change, least of all to a
    # manifest that would make them this one's at the next try.
    owner = Ownership(manifest.identity, has_manifest=old is not None, older_rows=manifest.older_rows, flags=flags)
    journal = Journal(directory / manifest.journal, owner)
    run = Run(directory, manifest, journal, expected=expected, retry=retry, max_tokens=identity.max_tokens)
    try:
        take_problems(loaded, directory)
        manifest.write(directory)
        yield run
    finally:
        run.journal.close()


def _newest_journal(directory: Path) -> str:
    """Name, relative to the run directory, of the journal that counts where no manifest says which."""
    numbers = [int(path.stem) for path in (directory / JOURNALS).glob("*.jsonl") if _NUMBERED.fullmatch(path.name)]
    return f"{JOURNALS}/{max(numbers, default=1):04d}.jsonl"


def check_same_run(
    old: Manifest,
    new: Identity,
    *,
    directory: Path,
    retry: Retry | None,
    reverify: bool,
    flags: str = "--model_name or --output_dir",
) -> None:
    """Raises `InputError`, naming what differs, unless `new` continues the run on disk."""
    differences = old.identity.differences(new)
    if reverify:
        differences = {name: pair for name, pair in differences.items() if name in old.identity.generation}
    advice = f"give another {flags} for another run, or the old value to continue this one"
    if set(differences) <= set(new.verification):
        advice += "; --reverify scores the stored completions again"
    limits = old.identity.generation["sampling"]["max_tokens"], new.generation["sampling"]["max_tokens"]
    told = [text for name, pair in differences.items() for text in _told(name, *pair)]
    raised = told == [f"max_tokens ({limits[0]} on disk, {limits[1]} now)"] and limits[1] > limits[0]
    if raised:
        advice += "; --retry truncated redoes just what the old limit cut off"
    if differences and not (raised and retry == "truncated"):
        raise InputError(f"{directory} holds another run: {', '.join(told)}: {advice}")
    check_unaltered(directory / MANIFEST, old.identity, old.identity_key)


def _told(name: str, there: object, here: object) -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*there, *(key for key in here if key not in there)]
        pairs = [(key, there.get(key), here.get(key)) for key in keys]
        return [text for key, old, new in pairs if old != new for text in _told(key, old, new)]
    return [f"{visible_line(name)} ({short(there)} on disk, {short(here)} now)"]


def short(value: object) -> str:
    """A value of a parameter in one line, shortened in its middle."""
    text = visible_line(orjson.dumps(value).decode())
    return text if len(text) <= 80 else f"{text[:30]}...{text[-47:]}"  # what tells paths apart stands at their ends
