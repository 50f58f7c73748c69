"""Mix two language models token by token: q* in numbers, then text that is sampled from it.

    python examples/python/optimal_sampling.py
    python examples/python/optimal_sampling.py models/SmolLM2-135M-Instruct    # after scripts/demo_model

q is proportional to pi_theta^alpha * pi_t^(1 - alpha): alpha weighs theta, the policy; t is the target. With
`kl_symmetry` alpha is where q is as far from one as from the other. With a model, theta gets a question, and t
the same question with a hint: the weights are loaded once, and each token of the answer is drawn from q.
"""

import sys

import torch

from rollmill.optimal_sampling import compute_alpha, create_optimal_sampling_model, log_mixture, token_diagnostics

TOKENS = [" yes", " no", " maybe", " never"]
THETA = [0.70, 0.15, 0.10, 0.05]
TARGET = [0.10, 0.80, 0.05, 0.05]


def mix_distributions() -> None:
    """Print alpha, q and the distances for one step, by every method."""
    log_theta, log_t = torch.tensor([THETA]).log(), torch.tensor([TARGET]).log()  # [batch, vocabulary]
    print(f"{'':22}", *(f"{token:>7}" for token in TOKENS))
    print(f"{'pi_theta':22}", *(f"{p:7.3f}" for p in THETA))
    print(f"{'pi_t':22}", *(f"{p:7.3f}" for p in TARGET))
    for method in ("kl_symmetry", "reverse_kl_symmetry", "ess_balance", "entropy", "fixed"):
        alpha = compute_alpha(log_theta, log_t, method=method)
        log_q, _ = log_mixture(log_theta, log_t, alpha)
        step = token_diagnostics(log_theta, log_t, log_q, alpha)
        print(
            f"q, {method:19}",
            *(f"{p:7.3f}" for p in log_q.exp()[0].tolist()),
            f"  alpha {alpha.item():.3f}  KL(q||theta) {step.kl_theta.item():.3f}  KL(q||t) {step.kl_t.item():.3f}",
        )


def sample_text(path: str) -> None:
    """Print an answer that is drawn from q*, and how much theta weighed in it."""
    question = "Which number is larger, 17 or 71?"
    prompt = [{"role": "user", "content": question}]
    hinted = [{"role": "user", "content": f"{question} The answer is 71."}]
    with create_optimal_sampling_model(path, alpha_method="kl_symmetry") as model:
        output = model.generate([prompt], prompts_t=[hinted], max_new_tokens=16, seed=1)
    print(f"\n{question} {output.generated_texts[0]!r}")
    if output.diagnostics is not None:
        alpha, kl_theta, kl_t = (output.diagnostics[name][0] for name in ("alpha", "kl_theta", "kl_t"))  # [tokens]
        print(f"{output.lengths[0]} tokens, alpha {alpha.min():.2f} to {alpha.max():.2f}, mean {alpha.mean():.2f};")
        print(f"mean KL(q||theta) {kl_theta.mean():.4f}, mean KL(q||t) {kl_t.mean():.4f}")


if __name__ == "__main__":
    mix_distributions()
    for model_path in sys.argv[1:]:
        sample_text(model_path)
