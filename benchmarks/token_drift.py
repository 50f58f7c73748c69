"""Counts sampled answers whose training ids differ from the sampled ids: with re-encoded text, and with recorded ids.

The answers are a real model's at temperature 1, journaled with their tokens by `flows.reject_sampling` on a new vLLM,
or those of an existing run (--run). Rows are prepared as in `train_lora`, once without and once with the recorded ids.
The size of the token file is compared with the journal's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import orjson
import pyarrow as pa

from benchmarks.machine import machine
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.corpus.corpus import read_corpus
from rollmill.exports.sft import export_sft
from rollmill.exports.token_sequences import IGNORED
from rollmill.generation.manifest import read_manifest
from rollmill.generation.token_file import TokenReader
from rollmill.inference.tokenizer_hash import tokenizer_hash
from rollmill.jobs.training.masks import Masks
from rollmill.jobs.training.prepared import TRAIN, prepare_rows, rows_file
from rollmill.records import Rollout

MOST_OF_JOURNAL = 1.3
PROMPTS = (
    "Write two short sentences about the sea.",
    "Tell me a joke about a café and 3 numbers like 1,234.5.",
    "List four fruits with emoji.",
    "Explain in German what a bicycle is.",
)

Answer = tuple[str, int]
"""instance_id and sample_id."""


def make_run(model: str, folder: Path, answers: int) -> Path:
    """Sample answers on a vLLM of this machine; return the run's directory."""
    data = folder / "prompts.jsonl"
    rows = ({"id": str(number), "prompt": prompt, "answer": "0"} for number, prompt in enumerate(PROMPTS))
    data.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    command = [sys.executable, "-m", "flows.reject_sampling", "--model_path", model, "--model_name", "drift"]
    command += ["--dataset", str(data), "--num_rollout", str(-(-answers // len(PROMPTS))), "--max_tokens", "96"]
    command += ["--output_dir", str(folder), "--log_dir", str(folder / "logs"), "--no_canary", "--record_tokens"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return folder / "drift"


def sampled_ids(journal: Path) -> dict[Answer, list[int]]:
    """Return the sampled token ids of each answer."""
    reader = TokenReader(journal.parent)
    try:
        rollouts = map(Rollout.model_validate_json, journal.read_bytes().splitlines())
        return {
            (rollout.instance_id, rollout.sample_id): list(
                reader.read(rollout.tokens, rollout.instance_id, rollout.sample_id).calls[-1].ids
            )
            for rollout in rollouts
            if rollout.tokens is not None
        }
    finally:
        reader.close()


def training_ids(export: Path, folder: Path, model: str, tokenizer: str | None) -> dict[Answer, list[int]]:
    """Prepare rows as `train_lora` does, and return the token ids in each row's loss.

    Args:
        export: The training rows.
        folder: New folder for the prepared rows.
        model: Directory or hub id of the model.
        tokenizer: Hash of the tokenizer, to use recorded ids; None to encode the text.
    """
    from transformers import AutoTokenizer

    folder.mkdir()
    masks = Masks(AutoTokenizer.from_pretrained(model), model)
    prepare_rows(folder, masks, [str(export)], [], max_length=8192, allow_no_end=True, tokenizer_hash=tokenizer)
    dropped = {orjson.loads(line)["line"] for line in (folder / "dropped.jsonl").read_bytes().splitlines()}
    lines = export.read_bytes().splitlines()
    kept = [orjson.loads(line)["metadata"] for number, line in enumerate(lines, start=1) if number not in dropped]
    with pa.memory_map(str(rows_file(folder, TRAIN))) as file, pa.ipc.open_stream(file) as stream:
        labels = [row["labels"] for batch in stream for row in batch.to_pylist()]
    return {
        (row["instance_id"], row["sample_id"]): [label for label in text if label != IGNORED]
        for row, text in zip(kept, labels, strict=True)
    }


def drifted(sampled: Mapping[Answer, list[int]], trained: Mapping[Answer, list[int]]) -> int:
    """Count the answers whose training ids differ from the sampled ids."""
    return len([answer for answer, ids in trained.items() if ids != sampled[answer]])


def main() -> None:
    """Measure, print a table, compare with the targets."""
    parser = arguments(__doc__)
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct", help="directory of the model")
    parser.add_argument("--answers", type=int, default=160, help="answers to sample")
    parser.add_argument("--run", type=Path, help="a run with recorded tokens, instead of one that is made")
    options = parser.parse_args()
    print(machine())
    targets = Targets()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = options.run or make_run(options.model, folder, options.answers)
        manifest = read_manifest(run)
        assert manifest is not None, f"{run} is no run"
        journal = run / manifest.journal
        sampled = sampled_ids(journal)
        corpus = read_corpus([str(run)])
        export_sft(folder / "sft.jsonl", corpus, corpus.table, keep_truncated=True)
        by_text = training_ids(folder / "sft.jsonl", folder / "text", options.model, None)
        by_ids = training_ids(folder / "sft.jsonl", folder / "ids", options.model, tokenizer_hash(options.model))
        rows = [
            {
                "trained on": how,
                "answers": f"{len(trained)}",
                "other ids than sampled": f"{drifted(sampled, trained)}",
                "share": f"{drifted(sampled, trained) / len(trained):.0%}",
            }
            for how, trained in (("their text, encoded again", by_text), ("recorded ids", by_ids))
        ]
        show("training ids of sampled answers", rows)
        share = journal.with_suffix(".tokens").stat().st_size / journal.stat().st_size
    targets.at_most("answers that drift with recorded ids", drifted(sampled, by_ids), 0)
    targets.at_most("the file of tokens, as a share of the journal", share, MOST_OF_JOURNAL)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
