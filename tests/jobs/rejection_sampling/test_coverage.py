import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.jobs.rejection_sampling.coverage import Coverage, CoverageError

counts = st.integers(0, 10_000)


@given(counts, counts, counts, counts, counts)
def test_coverage_adds_up_or_raises(expected, ok, unparseable, failed, missing):
    def make(expected):
        return Coverage(expected=expected, ok=ok, unparseable=unparseable, failed=failed, missing=missing)

    total = ok + unparseable + failed + missing
    assert make(total).judged == ok + unparseable
    if expected != total:
        with pytest.raises(CoverageError, match="bug in rollmill"):
            make(expected)
