#!/usr/bin/env bash
# A small real model learns, from its own attempts with examples in the prompt, to do without the examples.
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python -m flows.improve \
    --model_path models/SmolLM2-135M-Instruct \
    --dataset examples/improve/train.jsonl \
    --held_out examples/improve/held_out.jsonl \
    --few_shot examples/improve/few_shot.jsonl \
    --num_rollout 4 --temperature 0.8 --max_tokens 24 --at_most_k 1 \
    --num_train_epochs 3 --per_device_train_batch_size 8 --gradient_accumulation_steps 1 \
    --learning_rate 3e-4 --lora_alpha 64 --rounds 1 \
    --vllm_args '--max-model-len 2048' \
    --output_dir improved "$@"
