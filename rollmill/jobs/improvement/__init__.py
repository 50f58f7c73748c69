"""Improvement: rounds of rollouts, training and evaluation, kept only where they make the policy better."""
