"""Training rows of a round: right rollouts, with their problems asked as the policy will be asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rollmill.corpus.corpus import Corpus, read_corpus
from rollmill.curation.exporters import sft_exporter
from rollmill.curation.exporting import ExportOutcome, export_corpus
from rollmill.curation.filters import Filters, Selected, said_filters, select
from rollmill.curation.parameters import Sft
from rollmill.exports.seed_format import generated_metadata, summary, write_seed_format
from rollmill.files.rows import dump_line
from rollmill.problems import Prompting, build_messages, read_problems
from rollmill.records import Rollout
from rollmill.rollouts.run import PROBLEMS


def write_training_rows(run: Path, folder: Path, *, accepted: Filters, prompting: Prompting) -> ExportOutcome:
    """Writes `<folder>/chosen.json`, the accepted rollouts of a run, and `<folder>/sft.jsonl`, rows to train on.

    In both, the prompt is the problem's own under `prompting`: examples that helped a rollout are left out, so that
    training teaches to do without them. Raises `InputError` as `read_corpus` does.
    """
    corpus = read_corpus([str(run)])
    selected = select(corpus, accepted)
    chosen = folder / "chosen.json"
    kept = selected.kept
    metadata = {**generated_metadata(corpus, kept), **said_filters(corpus, selected.words)}
    write_seed_format(chosen, metadata, _asked_anew(corpus, selected, run, prompting), summary(kept))
    exporter, filters = sft_exporter(folder / "sft.jsonl", Sft(), Filters())
    return export_corpus(read_corpus([str(chosen)]), filters, exporter)


def _asked_anew(corpus: Corpus, selected: Selected, run: Path, prompting: Prompting) -> Iterator[bytes]:
    kept = selected.kept
    wanted = set(kept["instance_id"])
    problems = {one.instance_id: one for one in read_problems(run / PROBLEMS) if one.instance_id in wanted}
    for record in corpus.records(kept):
        rollout = Rollout.model_validate_json(record)
        if not (rollout.verdict and rollout.verdict.success and rollout.success):
            raise RuntimeError(f"a rollout without a verdict was chosen, a bug in rollmill: {rollout.instance_id}")
        messages = build_messages(problems[rollout.instance_id], prompting)
        yield dump_line(rollout.model_copy(update={"messages": messages}).model_dump(mode="json")).rstrip()
