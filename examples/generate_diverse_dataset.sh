#!/usr/bin/env bash
# All problems, 32 attempts each at a high temperature. What is needed comes from the environment, more flags may follow:
#   MODEL=/models/qwen DATASET=data.json examples/generate_diverse_dataset.sh --sandbox-server host:9527
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python -m flows.agent_rollouts generate-multi \
    --model-path "${MODEL:?set MODEL to the directory or hub id of a model, or to its name on running servers}" \
    --dataset "${DATASET:-examples/performance_problems/dataset.json}" \
    --output "${OUTPUT:-training_data/diverse_dataset.json}" \
    --num-rollout 32 --temperature 1.3 --concurrency "${WORKERS:-4}" "$@"
