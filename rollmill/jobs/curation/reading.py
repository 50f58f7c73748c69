"""Reading for a job: the corpus, what could not be used put aside, and the analysis."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from rollmill.corpus.corpus import Corpus, read_corpus
from rollmill.corpus.inputs import find_sources
from rollmill.errors import InputError
from rollmill.exports.packing import output_kind
from rollmill.exports.splitting import VALIDATION
from rollmill.files.remote import is_remote
from rollmill.jobs.curation.analysis import analyse
from rollmill.jobs.curation.analysis_result import Analysis
from rollmill.jobs.curation.quarantine import open_quarantine
from rollmill.terminal.escapes import write_lines


@contextmanager
def reading(inputs: Sequence[str], output: Path | None = None, *, hashed: bool = True) -> Iterator[Corpus]:
    """The corpus of some inputs; what could not be used goes beside the output, and is said on stderr at the end.

    `hashed` as `read_corpus` has it: where duplicates do not matter, reading takes less time without.
    Raises `InputError` where the inputs cannot be read, and where one would be overwritten by what goes to `output`
    and beside it.
    """
    if output:
        _keep_inputs(inputs, output)
    aside = output.with_name(f"{output_kind(output).stem}.quarantine.jsonl") if output else None
    with open_quarantine(aside) as quarantine:
        corpus = read_corpus(inputs, quarantine, hashed=hashed)
        yield corpus
    if corpus.repaired:
        quarantine.note(f"{corpus.repaired:,} records held NaN or Infinity, which is no JSON: read as null")
    write_lines(sys.stderr, quarantine.lines())


def _keep_inputs(inputs: Sequence[str], output: Path) -> None:
    """Also those that a folder or a pattern stands for, which the parameters do not show."""
    kind = output_kind(output)
    stem, ending = f"{output.resolve().parent}/{kind.stem}", f"{kind.layout}{kind.packed}"
    written = {str(output.resolve()), f"{stem}{ending}", f"{stem}.dropped{ending}"}
    written |= {f"{stem}.{part}.jsonl" for part in ("dropped", "quarantine", VALIDATION)}
    for source in find_sources([one for one in inputs if one.startswith("file:") or not is_remote(one)]):
        if str(Path(source.path).resolve()) in written:
            raise InputError(f"{source.path} is an input, and would be overwritten: give another name than {output}")


def analyse_corpus(corpus: Corpus, tokenizer: str | None = None) -> Analysis:
    """The analysis, tokens counted by a tokenizer where one is named. Raises `InputError` where it cannot be loaded."""
    table = corpus.table
    if tokenizer:
        from rollmill.exports.token_counter import TokenCounter
        from rollmill.jobs.curation.text_features import with_text_features

        everything = pl.Series([True] * table.height, dtype=pl.Boolean)
        table = with_text_features(
            corpus, table, everything, signatures=False, benchmarks=None, counter=TokenCounter(tokenizer)
        )
    return analyse(table, quarantined=corpus.quarantined)
