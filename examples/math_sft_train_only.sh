#!/usr/bin/env bash
# Trains on episodes of math_env that were collected before: TRAIN_DATA_PATH, or else the latest in ./sft_data_math.
set -euo pipefail
cd "$(dirname "$0")/.."
latest=$(ls -t sft_data_math/sft_data_*.jsonl 2>/dev/null | head -n 1 || true)
exec .venv/bin/python -m flows.train_lora \
    --model_path "${MODEL_PATH:?set MODEL_PATH to the directory or hub id of a model}" \
    --train_data "${TRAIN_DATA_PATH:-${latest:?no sft_data_math/sft_data_*.jsonl: collect first, or set TRAIN_DATA_PATH}}" \
    --output_dir "${OUTPUT_DIR:-./sft_model_math}" \
    --num_train_epochs 3 --per_device_train_batch_size 2 --gradient_accumulation_steps 8 --learning_rate 5e-5 \
    --lora_r 64 --lora_alpha 16 "$@"
