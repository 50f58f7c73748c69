#!/usr/bin/env bash
# From raw rollouts to training data: analysis, pictures, a filter, rows for supervised fine-tuning.
#   INPUT=training_data/small_dataset.json MIN_REWARD=0.8 examples/curate.sh
set -euo pipefail
cd "$(dirname "$0")/.."
input=${INPUT:?set INPUT to a file of rollouts, or a run directory}
folder=${OUTPUT_DIR:-curated}

.venv/bin/python -m flows.curate analyze --input "$input"
.venv/bin/python -m flows.curate overview --input "$input" --output "$folder/overview.png"
.venv/bin/python -m flows.curate filter_data --input "$input" --output "$folder/high_quality.json" \
    --min-reward "${MIN_REWARD:-0.7}" --successful-only --drop-duplicates
.venv/bin/python -m flows.curate export_sft --input "$folder/high_quality.json" --output "$folder/sft.jsonl" \
    --validation-share "${VALIDATION_SHARE:-0.05}"
