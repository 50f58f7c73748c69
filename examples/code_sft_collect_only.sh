#!/usr/bin/env bash
# 100 episodes of code_env, to be looked at before anything is trained. More flags may follow:
#   MODEL_PATH=/models/qwen examples/code_sft_collect_only.sh training.sft_num_episodes=500
set -euo pipefail
cd "$(dirname "$0")/.."
export MODEL_PATH="${MODEL_PATH:?set MODEL_PATH to the directory or hub id of a model}"
exec .venv/bin/python -m flows.collect_episodes --config examples/episodes/code.yaml training.run_sft_training=False "$@"
