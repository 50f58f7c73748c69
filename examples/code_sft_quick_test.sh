#!/usr/bin/env bash
# Ten episodes of code_env and one epoch: does everything work? More flags may follow.
set -euo pipefail
cd "$(dirname "$0")/.."
export MODEL_PATH="${MODEL_PATH:?set MODEL_PATH to the directory or hub id of a model}"
exec .venv/bin/python -m flows.collect_episodes --config examples/episodes/code.yaml \
    training.sft_num_episodes=10 training.sft_config.num_train_epochs=1 \
    training.sft_data_dir=./sft_data_code_quick training.sft_model_dir=./sft_model_code_quick "$@"
