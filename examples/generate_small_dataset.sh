#!/usr/bin/env bash
# Ten problems, 32 attempts each. What is needed comes from the environment, more flags may follow:
#   MODEL=/models/qwen DATASET=data.json examples/generate_small_dataset.sh --sandbox-server host:9527
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python -m flows.agent_rollouts generate-multi \
    --model-path "${MODEL:?set MODEL to the directory or hub id of a model, or to its name on running servers}" \
    --dataset "${DATASET:-examples/performance_problems/dataset.json}" \
    --output "${OUTPUT:-training_data/small_dataset.json}" \
    --max-problems 10 --num-rollout 32 --temperature 1.0 --concurrency "${WORKERS:-4}" "$@"
