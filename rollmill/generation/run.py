"""A run: one directory with a manifest, the problems, and the journal of their rollouts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import orjson

from rollmill.errors import InputError
from rollmill.files.names import MANIFEST
from rollmill.generation.identity import Identity
from rollmill.generation.journal import Journal, RolloutT
from rollmill.generation.manifest import Manifest, check_unaltered, git_commit, host, now, read_manifest, versions
from rollmill.generation.ownership import Ownership
from rollmill.inference.request_changes import RequestChanges
from rollmill.problems import LoadedProblems, read_problems
from rollmill.records import Problem, Rollout
from rollmill.terminal.escapes import visible_line

Retry = Literal["failed", "truncated"]
PROBLEMS = "problems.jsonl"
QUARANTINE = "quarantine.jsonl"
IMAGES = "images"
JOURNALS = "rollouts"
"""The folder of a run's journals."""
_NUMBERED = re.compile(r"[0-9]{4}\.jsonl|[1-9][0-9]{4,17}\.jsonl")
"""Names of journals: 0001.jsonl, and a new number each time completions are scored again."""


class Run:
    """An open run directory, created by `open_run`.

    Args:
        directory: Of the run, locked by this process.
        manifest: As it is on disk, or will be.
        journal: Open for appending.
        expected: Rollouts of the complete run.
        retry: Which journaled rollouts are sampled again; None for none.
        max_tokens: The run's limit of completion tokens.
    """

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
        self._device_users: dict[str, set[str]] = {}
        """Workers that compute on a device, by the device's description."""
        self.journal = journal
        self.expected = expected
        """Rollouts of the complete run."""
        self.retry = retry
        self.max_tokens = max_tokens
        self.problem_count = int(manifest.problems["count"])

    @property
    def num_rollout(self) -> int:
        """Return the highest number of rollouts of any problem."""
        return -(-self.expected // self.problem_count)  # rounded up

    @cached_property
    def _first_problems(self) -> frozenset[str] | None:
        """Return the problems that get one rollout more than the others; None where all get equally many."""
        more = self.expected % self.problem_count
        return frozenset(problem.instance_id for problem in islice(self.problems(), more)) if more else None

    def problems(self) -> Iterator[Problem]:
        """Yield the problems in input order, read from the run's own copy."""
        return read_problems(self.directory / PROBLEMS)

    def pending(self, problem: Problem, limit: int | None = None) -> list[tuple[int, int]]:
        """Return (sample_id, attempt) of a problem's rollouts, or its first `limit` ones, that are still to be made."""
        pending = []
        for sample_id in range(self._rollouts_of(problem))[:limit]:
            attempt = self.journal.attempt_for(
                problem.instance_id, sample_id, retry=self.retry, max_tokens=self.max_tokens
            )
            if attempt is not None:
                pending.append((sample_id, attempt))
        return pending

    def missing(self) -> int:
        """Return the number of rollouts that are still to be made."""
        return sum(len(self.pending(problem)) for problem in self.problems())

    def next_journal(self) -> str:
        """Return the path, relative to the run directory, of the next journal to write."""
        return f"{JOURNALS}/{int(Path(self.manifest.journal).stem) + 1:04d}.jsonl"

    def switch_journal(self, name: str, identity: Identity) -> None:
        """Replace the run's journal and identity, in the manifest and in this object."""
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
        """Yield every problem with its rollouts by sample_id, in input order; None where a rollout is missing."""
        for problem in self.problems():
            yield problem, self.journal.group(problem.instance_id, self._rollouts_of(problem), kind)

    def _rollouts_of(self, problem: Problem) -> int:
        first = self._first_problems
        if first is not None and problem.instance_id not in first:
            return self.num_rollout - 1
        return self.num_rollout

    def note_device(self, device: dict[str, Any], worker: str) -> None:
        """Record a worker's device in the manifest; `count` is summed over workers with the same kind of device."""
        kind = {name: value for name, value in device.items() if name != "count"}
        users = self._device_users.setdefault(str(kind), set())
        if worker in users:
            return
        users.add(worker)
        others = [other for other in self.manifest.devices if {**other, "count": 0} != {**kind, "count": 0}]
        devices = [*others, {**kind, "count": device["count"] * len(users)}]
        self.manifest = self.manifest.model_copy(update={"devices": devices})
        self.manifest.write(self.directory)

    def note_changes(self, changes: dict[str, RequestChanges]) -> None:
        """Record, in the manifest, the request changes that the servers of this call require."""
        if changes != self.manifest.request_changes:
            self.manifest = self.manifest.model_copy(update={"request_changes": changes})
            self.manifest.write(self.directory)

    def add_notes(self, notes: Sequence[str]) -> None:
        """Add to the notes of the start in the manifest."""
        if notes:
            self.manifest = self.manifest.model_copy(update={"notes": [*self.manifest.notes, *notes]})
            self.manifest.write(self.directory)

    def note_slots(self, slots: int | None) -> None:
        """Record the best concurrency that was found; None where it was fixed. `finish` writes it to the manifest."""
        if slots is not None:
            self.manifest = self.manifest.model_copy(update={"slots": slots})

    def finish(self, totals: dict[str, Any]) -> None:
        """Record the end and the totals. Raises `RunStoppedError` where the journal was moved or replaced meanwhile."""
        self.journal.check_place()
        self.manifest = self.manifest.model_copy(update={"ended_at": now(), "totals": totals})
        self.manifest.write(self.directory)


def take_problems(loaded: LoadedProblems, directory: Path) -> None:
    """Move freshly loaded problems and their images into the run directory."""
    fresh = loaded.path.parent
    if (fresh / IMAGES).is_dir():
        (directory / IMAGES).mkdir(exist_ok=True)
        for image in (fresh / IMAGES).iterdir():
            image.replace(directory / IMAGES / image.name)
    loaded.path.replace(directory / PROBLEMS)


def problem_files(directory: Path) -> dict[str, Path]:
    """Return the files, besides problems, that loading a run's data set may have written: unusable rows, images."""
    candidates = {"quarantine": directory / QUARANTINE, "images": directory / IMAGES}
    return {kind: path for kind, path in candidates.items() if path.exists()}


@contextmanager
def loading_folder(directory: Path) -> Iterator[Path]:
    """Create a folder for problems that may turn out to be another run's; remove it at the end of the block."""
    for leftover in directory.glob(".loading*"):  # of a killed process: this one has the directory's lock
        shutil.rmtree(leftover, ignore_errors=True)
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
    notes: Sequence[str] = (),
    request_changes: Mapping[str, RequestChanges] = MappingProxyType({}),
) -> Iterator[Run]:
    """Open or continue the run in a directory that this process has locked.

    The `expected` rollouts are divided evenly among the problems; the remainder goes to the first ones, one each.

    Raises `InputError` when another run is in the directory, naming every parameter that differs, when a row of the
    journal belongs to another run, when the manifest was edited, and when `retry` or `reverify` finds no run.

    Args:
        directory: Of the run.
        job: The job's name in manifests.
        identity: Everything that the outputs depend on.
        parameters: All parameters of the call, for the manifest.
        seed: Seed of the run, for the manifest.
        loaded: The problems, in a folder from which they are moved into the run directory.
        expected: Rollouts of the complete run.
        retry: Which journaled rollouts are sampled again; None for none.
        reverify: Whether a run with another verification may be continued.
        flags: Command line flags that choose another directory, for messages.
        notes: Notes that are shown at the start, for the manifest.
        request_changes: Changes that servers require in requests, by model role, for the manifest.
    """
    old = read_manifest(directory)
    if old is None and (retry or reverify):
        flag = "--reverify" if reverify else f"--retry {retry}"
        raise InputError(f"{flag} needs a run in {directory}, and there is none: check {flags}")
    if old is not None:
        check_same_run(old, identity, directory=directory, retry=retry, reverify=reverify, flags=flags)
    manifest = Manifest(
        job=job,
        identity_key=identity.key,
        identity=identity,
        parameters=parameters,
        seed=seed,
        problems={
            "path": PROBLEMS,
            "sha256": loaded.sha256,
            "count": loaded.count,
            "quarantined": loaded.quarantined,
            "columns": loaded.fields,
        },
        versions=versions(),
        git_commit=git_commit(),
        host=host(),
        request_changes=dict(request_changes),
        notes=list(notes),
        **_history(old, directory),
    )
    if reverify and old is not None and old.identity.verification != identity.verification:
        manifest = manifest.model_copy(update={"identity_key": old.identity_key, "identity": old.identity})
    # The journal before the manifest: if its rows belong to another run, nothing in the directory may change, least of
    # all to a manifest that would claim these rows for this run at the next try.
    owner = Ownership(manifest.identity, has_manifest=old is not None, older_rows=manifest.older_rows, flags=flags)
    journal = Journal(directory / manifest.journal, owner)
    run = Run(directory, manifest, journal, expected=expected, retry=retry, max_tokens=identity.max_tokens)
    try:
        take_problems(loaded, directory)
        manifest.write(directory)
        yield run
    finally:
        run.journal.close()


def _history(old: Manifest | None, directory: Path) -> dict[str, Any]:
    """Return the fields that a manifest takes over from that of an earlier call, or with which a run begins."""
    return {
        "journal": old.journal if old else _newest_journal(directory),
        "older_rows": old is not None and old.older_rows,
        "started_at": old.started_at if old else now(),
        "totals": old.totals if old else {},
        "devices": old.devices if old else [],
        "slots": old.slots if old else None,
    }


def _newest_journal(directory: Path) -> str:
    """Return the path, relative to the run directory, of the journal with the highest number, for a lost manifest."""
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
    """Raise `InputError`, naming the parameters that differ, unless `new` continues the run on disk.

    Args:
        old: The manifest on disk.
        new: The identity of this call.
        directory: Of the run.
        retry: Which journaled rollouts are sampled again; None for none.
        reverify: Whether a run with another verification may be continued.
        flags: Command line flags that choose another directory, for messages.
    """
    differences = old.identity.differences(new)
    if reverify:
        differences = {name: pair for name, pair in differences.items() if name in old.identity.generation}
    advice = f"give another {flags} for another run, or the old value to continue this one"
    if set(differences) <= set(new.verification):
        advice += "; --reverify scores the stored completions again"
    limits = old.identity.generation["sampling"]["max_tokens"], new.generation["sampling"]["max_tokens"]
    texts = [text for name, pair in differences.items() for text in _difference_texts(name, *pair)]
    # A higher limit alone may continue the run: only rollouts that the old one truncated are sampled again.
    raised = texts == [f"max_tokens ({limits[0]} on disk, {limits[1]} now)"] and limits[1] > limits[0]
    if raised:
        advice += "; --retry truncated samples only the rollouts again that the old limit cut off"
    if differences and not (raised and retry == "truncated"):
        raise InputError(f"{directory} holds another run: {', '.join(texts)}: {advice}")
    check_unaltered(directory / MANIFEST, old.identity, old.identity_key)


def _difference_texts(name: str, on_disk: object, current: object) -> list[str]:
    if isinstance(on_disk, dict) and isinstance(current, dict):
        keys = [*on_disk, *(key for key in current if key not in on_disk)]
        pairs = [(key, on_disk.get(key), current.get(key)) for key in keys]
        return [text for key, old, new in pairs if old != new for text in _difference_texts(key, old, new)]
    return [f"{visible_line(name)} ({short(on_disk)} on disk, {short(current)} now)"]


def short(value: object) -> str:
    """Return a parameter's value in one line, shortened in its middle."""
    text = visible_line(orjson.dumps(value).decode())
    return text if len(text) <= 80 else f"{text[:30]}...{text[-47:]}"  # paths differ mostly at their ends
