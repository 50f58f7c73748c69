"""Agreement of a judge and a second verifier."""

from rollmill.jobs.rejection_sampling.agreement import measure_agreement
from rollmill.verifiers import open_verifiers
from tests.generation.run_factory import append, opened


def test_agreement_is_counted_over_rollouts_that_both_judged(tmp_path):
    rows = [{"id": f"p{n}", "prompt": "q", "answer": answer} for n, answer in enumerate(["1", "2", "3", "x"])]
    with opened(tmp_path, rows=rows, num_rollout=2) as run:
        append(run.journal, "p0", 0, completion="1")
        append(run.journal, "p0", 1, completion="2")
        append(run.journal, "p1", 0, completion="2", error=1.0)
        append(run.journal, "p1", 1, completion="5", error=1.0)
        append(run.journal, "p2", 0, state="failed:verifier_unavailable", completion="3")
        agreement = measure_agreement(run, open_verifiers("exact", accept_error=0.0), "exact")
    assert (agreement.both_accept, agreement.judge_alone) == (1, 1)
    assert (agreement.verifier_alone, agreement.both_refuse, agreement.failed) == (1, 1, 0)
    assert agreement.line() == (
        "the judge and exact agree on 2 of 4 rollouts of a sample: 1 are accepted by the judge alone, 1 by exact alone"
    )
