"""Improve a model by one round of the loop: sample, verify, train a LoRA adapter, and compare on held-out problems.

    python examples/python/improve_round.py [MODEL [FOLDER]]

Without arguments: `models/SmolLM2-135M-Instruct`, which `scripts/demo_model` makes, on the problems in
`examples/improve`. vLLM is started for the base and for the trained model, so this takes minutes on a CPU. A folder of
your own has `train.jsonl`, `held_out.jsonl` and `few_shot.jsonl`. Run it again to continue where it was interrupted.
"""

import sys
from pathlib import Path

from flows.improve import Improve, improve

ROOT = Path(__file__).parents[2]


def main(model: str = str(ROOT / "models/SmolLM2-135M-Instruct"), folder: str = str(ROOT / "examples/improve")) -> None:
    """Play one round, and print what it changed."""
    parameters = Improve(
        model_path=model,
        dataset=f"{folder}/train.jsonl",
        held_out=f"{folder}/held_out.jsonl",
        # In the prompt of the rollouts, not in training or evaluation: the model learns to do without.
        few_shot=f"{folder}/few_shot.jsonl",
        num_rollout=4,
        temperature=0.8,
        max_tokens=24,
        num_train_epochs=3,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=1,
        learning_rate=3e-4,
        lora_alpha=64,
        rounds=1,
        output_dir="example_runs/improve_round",
        vllm_args="--max-model-len 2048",
    )
    history = improve(parameters).history
    print(f"base: {history.base_accuracy.mean:.1%} of {history.base_accuracy.problems} held-out problems")
    if history.with_examples is not None:
        print(f"base with examples in the prompt: {history.with_examples.mean:.1%}")
    [played] = history.rounds
    print(f"round 1: {played.right} of {played.rollouts} rollouts right, {played.rows} rows trained on")
    change = played.difference  # paired over problems, with a 95% interval by bootstrap
    print(
        f"trained: {played.accuracy.mean:.1%}, a change of {change.mean:+.1%} ({change.low:+.1%} to {change.high:+.1%})"
    )
    print(f"{'kept' if played.kept else 'rolled back'}; policy: {history.policy}")


if __name__ == "__main__":
    main(*sys.argv[1:])
