"""Improvement loop: rounds of rollouts, training and evaluation; a round is kept only if the policy is better."""
