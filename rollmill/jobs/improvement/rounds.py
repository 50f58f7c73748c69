"""The steps of the loop: plan a round, select its rows, compare its model with the policy, write the history."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import polars as pl

from rollmill.corpus.corpus import read_corpus
from rollmill.files.atomic import atomic_write_bytes, atomic_write_json
from rollmill.generation.lock import lock_directory
from rollmill.jobs.evaluation.parameters import NAME
from rollmill.jobs.improvement.data_sources import PlannedSource
from rollmill.jobs.improvement.held_out import HeldOut, check_held_out
from rollmill.jobs.improvement.history import History, Round
from rollmill.jobs.improvement.parameters import Improve
from rollmill.jobs.improvement.training_rows import TrainingRows, write_training_rows
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from rollmill.jobs.training.manifest import Trained
from rollmill.jobs.training.parameters import TrainLora
from rollmill.reports.plots.improvement import Mark, draw_improvement
from rollmill.statistics.accuracy import Accuracy, accuracy, paired_difference
from rollmill.terminal.text_table import aligned

WITH_EXAMPLES = "with_examples"


class Plan(NamedTuple):
    """Plan of one round."""

    number: int
    policy: str
    """The model that generates the rollouts."""
    folder: Path
    feeds: tuple[PlannedSource, ...]
    """The round's data sources."""
    training: TrainLora

    @property
    def to_generate(self) -> list[PlannedSource]:
        """The data sources whose rollouts a flow generates."""
        return [feed for feed in self.feeds if feed.is_generated]


class LoopResult(NamedTuple):
    """The history of a finished loop, and its files."""

    history: History
    files: dict[str, Path]

    @property
    def directory(self) -> Path:
        """The loop's directory."""
        return self.files["rounds"].parent

    def lines(self) -> list[str]:
        """Return the lines to print for the user."""
        rows = round_rows(self.history)
        stopped = [self.history.stopped] if self.history.stopped else []
        files = [f"{name}: {path}" for name, path in self.files.items()]
        return [*aligned(list(rows[0]), rows), *stopped, f"policy: {self.history.policy}", *files]


def lock_loop(parameters: Improve) -> AbstractContextManager[None]:
    """Lock the loop's directory against other processes."""
    return lock_directory(Path(parameters.output_dir), flag="--output_dir")


def check_problems(parameters: Improve) -> int:
    """Return the number of held-out problems. Raises `InputError` where one of them is trained on."""
    held_out = HeldOut.read(parameters.evaluation(parameters.model_path, str(parameters.folder(0))).source)
    contaminated: dict[str, str] = {}
    for feed in parameters.plan_sources(1, parameters.model_path):
        contaminated = feed.contaminated(held_out) | contaminated
    return check_held_out(held_out, contaminated, str(parameters.held_out))


def base_evaluations(parameters: Improve) -> list[RejectSampling]:
    """Return the runs that evaluate the base: with the plain prompt and, with --few_shot, with its examples."""
    folder = str(parameters.folder(0))
    runs = [parameters.evaluation(parameters.model_path, folder)]
    if parameters.few_shot:
        with_examples = parameters.evaluation(parameters.model_path, folder, few_shot=parameters.few_shot)
        runs.append(with_examples.model_copy(update={"model_name": [WITH_EXAMPLES]}))
    return runs


def begin(parameters: Improve) -> History:
    """Return the history before the first round, from the base's evaluations."""
    folder = parameters.folder(0)
    return History(
        base=parameters.model_path,
        base_accuracy=accuracy(_table(folder / NAME)),
        with_examples=accuracy(_table(folder / WITH_EXAMPLES)) if parameters.few_shot else None,
    )


def plan_round(parameters: Improve, history: History) -> Plan:
    """Plan the next round."""
    number = len(history.rounds) + 1
    start = history.policy if parameters.train_from == "policy" else history.base
    feeds, training = parameters.plan_sources(number, history.policy), parameters.training(number, start)
    return Plan(number, history.policy, parameters.folder(number), feeds, training)


def choose_rows(parameters: Improve, plan: Plan) -> TrainingRows:
    """Write the round's training rows; see `write_training_rows`."""
    folder = plan.folder / "training_data"
    return write_training_rows(plan.feeds, folder, accepted=parameters.accepted, at_most_k=parameters.at_most_k)


def judge(parameters: Improve, history: History, plan: Plan, chosen: TrainingRows, trained: Trained) -> History:
    """Compare the round's model with the current policy, on the same problems, and keep it or roll it back.

    Args:
        parameters: The loop's parameters.
        history: The rounds before.
        plan: The round's plan.
        chosen: The rows that the round trained on.
        trained: The training's result.
    """
    rollouts = read_corpus([path for feed in plan.to_generate for path in feed.inputs]).table
    after = _table(plan.folder / NAME)
    difference = paired_difference(_table(parameters.folder(history.standing) / NAME), after)
    entry = Round(
        number=plan.number,
        policy=plan.policy,
        rollouts=rollouts.height,
        right=int(rollouts["success"].sum() or 0),
        rows=chosen.rows,
        feeds=chosen.feeds,
        steps=trained.steps,
        train_loss=trained.train_loss,
        model=str(trained.merged),
        accuracy=accuracy(after),
        difference=difference,
        kept=difference.better,
    )
    return history.after(entry)


def write_history(parameters: Improve, history: History) -> LoopResult:
    """Write `rounds.json`, `rounds.txt` and `improvement.png`."""
    folder = Path(parameters.output_dir)
    files = {
        "rounds": folder / "rounds.json",
        "table": folder / "rounds.txt",
        "picture": folder / "improvement.png",
    }
    if history.standing:
        files["adapter"] = Path(history.policy).parent
    atomic_write_json(files["rounds"], history.model_dump(mode="json"))
    rows = round_rows(history)
    atomic_write_bytes(files["table"], ("\n".join(aligned(list(rows[0]), rows)) + "\n").encode())
    marks = [_mark("base", history.base_accuracy, kept=True)]
    marks += [_mark(f"round {entry.number}", entry.accuracy, kept=entry.kept) for entry in history.rounds]
    with_examples = history.with_examples
    reference = _mark("base, with examples in its prompt", with_examples, kept=True) if with_examples else None
    subtitle = f"{history.base_accuracy.problems:,} held-out problems, 95% intervals over problems"
    picture = draw_improvement(marks, title=Path(history.base).name, subtitle=subtitle, reference=reference)
    atomic_write_bytes(files["picture"], picture)
    return LoopResult(history, files)


def round_rows(history: History) -> list[dict[str, str]]:
    """Return a row of text for the base and for each round."""
    empty = dict.fromkeys(("rollouts", "right", "trained on", "difference", ""), "")
    rows = [{"policy": "base", **_accuracy_cells(history.base_accuracy), **empty}]
    if history.with_examples:
        rows.append({"policy": "base, with examples", **_accuracy_cells(history.with_examples), **empty})
    for entry in history.rounds:
        by_source = ", ".join(f"{name} {rows:,}" for name, rows in entry.feeds.items())
        trained_on = f"{entry.rows:,} ({by_source})" if len(entry.feeds) > 1 else f"{entry.rows:,}"
        cells = {"rollouts": f"{entry.rollouts:,}", "right": f"{entry.right:,}", "trained on": trained_on}
        change = f"{entry.difference.mean:+.1%} ({entry.difference.low:+.1%} to {entry.difference.high:+.1%})"
        verdict = "kept" if entry.kept else "rolled back"
        rows.append(
            {
                "policy": f"round {entry.number}",
                **_accuracy_cells(entry.accuracy),
                **cells,
                "difference": change,
                "": verdict,
            }
        )
    return rows


def _accuracy_cells(interval: Accuracy) -> dict[str, str]:
    return {"accuracy": f"{interval.mean:.1%}", "95% interval": f"{interval.low:.1%} to {interval.high:.1%}"}


def _mark(name: str, interval: Accuracy, *, kept: bool) -> Mark:
    return Mark(name, interval.mean, interval.low, interval.high, kept)


def _table(run: Path) -> pl.DataFrame:
    return read_corpus([str(run)]).table
