"""Statistics of rollouts: accuracy, pass@k, maj@k, confidence intervals, summaries."""
