"""Read a run's journal with Polars: pass rate by problem, length by correctness, and the texts of some rollouts.

    python examples/python/own_verifier.py      # leaves a run
    python examples/python/journal_polars.py
    python examples/python/journal_polars.py reject_sampling_results/my-model another_run.jsonl.gz

`read_corpus` takes run directories, files, patterns and URLs, also those of other tools. Its table has one row for each
rollout, the latest where a rollout was repeated; texts stay in the files until `conversations` reads them.
"""

import sys

import polars as pl

from rollmill.corpus.corpus import Corpus, read_corpus

RUN = "example_runs/own_verifier/scripted"


def print_pass_rates(corpus: Corpus) -> None:
    """Print how often each problem was solved, and how many different completions it has."""
    rates = corpus.table.group_by("instance_id", maintain_order=True).agg(
        rollouts=pl.len(),
        pass_rate=pl.col("success").mean(),  # null, and so left out, where a rollout failed
        mean_reward=pl.col("reward").mean(),
        different=pl.col("completion_hash").n_unique(),
    )
    print(rates)


def print_lengths(corpus: Corpus) -> None:
    """Print how long right and wrong completions are, in tokens."""
    lengths = corpus.table.drop_nulls("success").group_by("success").agg(
        rollouts=pl.len(),
        mean_tokens=pl.col("completion_tokens").mean(),
        p90_tokens=pl.col("completion_tokens").quantile(0.9),
        truncated=pl.col("truncated").mean(),
    ).sort("success")  # fmt: skip
    print(lengths)


def print_texts(corpus: Corpus, count: int = 3) -> None:
    """Print wrong completions, each text once."""
    wrong = corpus.table.filter(~pl.col("success")).unique("completion_hash", keep="first").sort("row").head(count)
    for problem, messages in zip(wrong["instance_id"], corpus.conversations(wrong), strict=True):
        print(f"{problem}: {messages[-1]['content']!r}")


def main(inputs: list[str]) -> None:
    """Print all three."""
    corpus = read_corpus(inputs)
    with pl.Config(
        tbl_formatting="MARKDOWN", tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True, tbl_rows=20
    ):
        print_pass_rates(corpus)
        print_lengths(corpus)
    print_texts(corpus)


if __name__ == "__main__":
    main(sys.argv[1:] or [RUN])
