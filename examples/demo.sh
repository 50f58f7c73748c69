#!/usr/bin/env bash
# A small real model, on real vLLM, adds and subtracts: eight rollouts for each of 32 problems.
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python -m flows.reject_sampling \
    --model_path models/SmolLM2-135M-Instruct \
    --model_name SmolLM2-135M-Instruct \
    --dataset 'reasoning_gym:chain_sum?size=32&seed=7&min_terms=2&max_terms=2&min_digits=1&max_digits=2' \
    --few_shot examples/chain_sum_few_shot.jsonl \
    --num_rollout 8 --temperature 0.8 --max_tokens 32 \
    --vllm_args '--max-model-len 2048' \
    --output_dir demo_results "$@"
