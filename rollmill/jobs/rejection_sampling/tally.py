"""Tally: counts and errors of a run, collected problem by problem; no text is kept."""

from __future__ import annotations

from array import array
from collections import Counter

import numpy as np

from rollmill.jobs.rejection_sampling.coverage import Coverage
from rollmill.jobs.rejection_sampling.random_baseline import GuessBaseline, guess_baseline
from rollmill.jobs.rejection_sampling.summary import Summary
from rollmill.statistics.sampling_curves import CurveTally
from rollmill.statistics.summary import Numbers


class ProblemTally:
    """Counts and errors of the problems so far, in about 8 bytes per rollout and 200 per problem."""

    def __init__(self, num_rollout: int) -> None:
        self.problems = 0
        self.counts: Counter[str] = Counter()
        self.accepted = 0
        self.truncated = 0
        self.no_text: Counter[str] = Counter()
        """Rollouts without content, by reason."""
        self.generated = 0
        self.exact = 0
        """Number of problems whose least error is exactly 0."""
        self.failed_kinds: Counter[str] = Counter()
        self.judged: Counter[tuple[int, int]] = Counter()
        """Number of problems by (judged rollouts, accepted rollouts)."""
        self.curves = CurveTally(num_rollout)
        self._errors = array("d")
        self._least_errors = array("d")
        self._truths = array("d")
        self._guessed = array("d")
        """Flat triples (ground truth, judged rollouts, least error) of the problems to compare with guessing."""

    def add(self, summary: Summary) -> None:
        """Count one problem."""
        self.problems += 1
        self.counts.update(summary.counts)
        self.accepted += summary.accepted
        self.truncated += summary.truncated
        self.no_text.update(summary.no_text)
        self.generated += summary.generated
        if summary.min_error == 0:
            self.exact += 1
        self.failed_kinds.update(summary.failed_kinds)
        self.judged[summary.judged, summary.accepted] += 1
        self.curves.add(summary.attempts)
        self._errors.extend(error for error in summary.errors if error is not None)
        if summary.min_error is not None:
            self._least_errors.append(summary.min_error)
        if isinstance(summary.ground_truth, float):
            self._truths.append(summary.ground_truth)
            if summary.min_error is not None:
                self._guessed.extend((summary.ground_truth, summary.judged, summary.min_error))

    def coverage(self, expected: int) -> Coverage:
        """Check that every expected rollout was counted. Raises `CoverageError`."""
        counts = {status: self.counts[status] for status in ("ok", "unparseable", "failed", "missing")}
        return Coverage(expected=expected, **counts)

    def errors(self) -> Numbers:
        """Return the error of every rollout that has one."""
        return np.array(self._errors, dtype=np.float64)

    def least_errors(self) -> Numbers:
        """Return the least error of every problem that has one, in the order of problems."""
        return np.array(self._least_errors, dtype=np.float64)

    def guess_baseline(self) -> GuessBaseline:
        """Return the baseline of guessing, or the reason why there is none."""
        if not self._truths:
            reason = "the ground truths are not compared as numbers"
            return GuessBaseline(mean_least_error=None, model_mean_least_error=None, reason=reason)
        triples = np.array(self._guessed, dtype=np.float64).reshape(-1, 3)
        truths = np.array(self._truths, dtype=np.float64)
        return guess_baseline(truths, triples[:, 0], triples[:, 1], triples[:, 2])
