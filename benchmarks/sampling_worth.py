"""Compares training data: the same model trained on as many samples of q*, of pi_t and of pi_theta.

pi_theta is a small real model on bare problems; pi_t is the same with worked examples in its prompt. Each training is a
LoRA on the bare problems with the drawn answers. Then, on held-out problems: the loss on answers that pi_t draws there,
and the drift: KL from the trained model to pi_theta, per token of those answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from benchmarks.contender_process import ROOT, scratch_folder
from benchmarks.machine import machine
from benchmarks.optimal_sampling import MODEL
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.files.rows import BadRow
from rollmill.jobs.optimal_sampling.mixture import kl
from rollmill.jobs.optimal_sampling.model import OptimalSamplingModel
from rollmill.jobs.training.parameters import TrainLora
from rollmill.jobs.training.training import run_training
from rollmill.problems.data_files import read_data_file

DRAWN = {"q* (kl_symmetry)": ("kl_symmetry", 0.5), "pi_t": ("fixed", 0.0), "pi_theta": ("fixed", 1.0)}


class Answers(NamedTuple):
    """Problems with one answer each."""

    prompts: list[str]
    texts: list[str]
    tokens: list[list[int]]


class Worth(NamedTuple):
    """The held-out evaluation of one trained model."""

    loss_under_t: float
    """Nats per token of pi_t's held-out answers."""
    drift: float
    """KL(trained || pi_theta), nats per token."""


def draw(options: argparse.Namespace, prompts: list[str], method: str, alpha: float, seed: int) -> Answers:
    """Draw one answer to each problem from q*.

    Args:
        options: Of the command line.
        prompts: The problems.
        method: Of alpha.
        alpha: Weight of pi_theta, for the method `fixed`.
        seed: Of the sampling.
    """
    model = OptimalSamplingModel(
        str(options.model), alpha_method=method, fixed_alpha=alpha, device="cpu", dtype="float32", batch_size=16
    )
    examples = [row for _, row in read_data_file(str(options.few_shot)) if not isinstance(row, BadRow)]
    shown = [
        turn
        for example in examples
        for turn in (message("user", example["prompt"]), message("assistant", example["answer"]))
    ]
    drawn = model.generate(
        [[message("user", prompt)] for prompt in prompts],
        max_new_tokens=options.tokens,
        seed=seed,
        return_diagnostics=False,
        prompts_t=[[*shown, message("user", prompt)] for prompt in prompts],
    )
    return Answers(prompts, drawn.generated_texts, drawn.token_ids)


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def train(options: argparse.Namespace, answers: Answers, folder: Path) -> Path:
    """Train an adapter on the bare problems with these answers."""
    rows = [
        {"messages": [message("user", prompt), message("assistant", text)]}
        for prompt, text in zip(answers.prompts, answers.texts, strict=True)
        if text.strip()
    ]
    folder.mkdir()
    (folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    parameters = TrainLora(
        model_path=str(options.model), train_data=[str(folder / "rows.jsonl")], output_dir=str(folder / "adapter"),
        num_train_epochs=options.epochs, per_device_train_batch_size=8, gradient_accumulation_steps=1,
        learning_rate=3e-4, lora_r=16, lora_alpha=16, num_gpus=0,
    )  # fmt: skip
    return run_training(parameters).directory


def judge(model: Any, adapter: Path | None, tokenizer: Any, held_out: Answers) -> Worth:
    """Compute loss and drift of a trained model, or of the base itself, on pi_t's answers.

    Args:
        model: The base.
        adapter: The trained adapter; None for the base.
        tokenizer: The base's.
        held_out: Problems and pi_t's answers.
    """
    judged = model if adapter is None else PeftModel.from_pretrained(model, adapter).eval()
    losses, drifts = [], []
    for prompt, tokens in zip(held_out.prompts, held_out.tokens, strict=True):
        prompt_ids = tokenizer.apply_chat_template(
            [message("user", prompt)], add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        input_ids = torch.cat([prompt_ids, torch.tensor([tokens])], dim=1)
        with torch.inference_mode():
            log_probs = judged(input_ids).logits[0, prompt_ids.shape[1] - 1 : -1].log_softmax(-1)
            if adapter is None:
                base = log_probs
            else:
                with judged.disable_adapter():
                    base = judged(input_ids).logits[0, prompt_ids.shape[1] - 1 : -1].log_softmax(-1)
        losses.append(-log_probs.gather(1, torch.tensor(tokens)[:, None]).mean().item())
        drifts.append(kl(log_probs, base).mean().item())
    if adapter is not None:
        judged.unload()
    return Worth(sum(losses) / len(losses), sum(drifts) / len(drifts))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="directory of a model; scripts/demo_model makes one")
    parser.add_argument(
        "--few_shot", type=Path, default=ROOT / "examples/improve/few_shot.jsonl", help="pi_t's examples"
    )
    parser.add_argument("--train", type=Path, default=ROOT / "examples/improve/train.jsonl", help="problems")
    parser.add_argument("--held_out", type=Path, default=ROOT / "examples/improve/held_out.jsonl", help="problems")
    parser.add_argument("--samples", type=int, default=96, help="drawn from each")
    parser.add_argument("--judged", type=int, default=48, help="held-out problems")
    parser.add_argument("--tokens", type=int, default=24, help="longest answer")
    parser.add_argument("--epochs", type=int, default=2, help="of each training")
    options = parser.parse_args()
    if not options.model.is_dir():
        parser.error(f"there is no model in {options.model}: make one with scripts/demo_model, or name another")
    where = machine()
    prompts = {
        name: [str(row["prompt"]) for _, row in read_data_file(str(path)) if not isinstance(row, BadRow)][:count]
        for name, path, count in (
            ("train", options.train, options.samples), ("held_out", options.held_out, options.judged),
        )
    }  # fmt: skip
    held_out = draw(options, prompts["held_out"], *DRAWN["pi_t"], seed=1)
    with scratch_folder() as folder:
        adapters = {
            name: train(options, draw(options, prompts["train"], *how, seed=0), folder / str(number))
            for number, (name, how) in enumerate(DRAWN.items())
        }
        tokenizer = OptimalSamplingModel(str(options.model), device="cpu").spec.theta.tokenizer
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
        worths = {"untrained": judge(model, None, tokenizer, held_out)}
        worths |= {name: judge(model, adapter, tokenizer, held_out) for name, adapter in adapters.items()}
    show(
        f"trained on {options.samples} samples, {options.epochs} epochs, on {where}",
        [
            {
                "samples of": name,
                "loss under pi_t": f"{worth.loss_under_t:.3f}",
                "drift from pi_theta": f"{worth.drift:.3f}",
            }
            for name, worth in worths.items()
        ],
    )
    targets = Targets()
    q, t = worths["q* (kl_symmetry)"], worths["pi_t"]
    targets.at_most(
        "q*'s loss under pi_t over the untrained model's", q.loss_under_t / worths["untrained"].loss_under_t, 1
    )
    targets.at_most("q*'s drift over that of pi_t's samples", q.drift / t.drift, 1)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
