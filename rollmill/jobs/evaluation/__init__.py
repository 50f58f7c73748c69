"""Evaluation: how often a policy is right on problems, and whether another is better."""
