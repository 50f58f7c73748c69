"""Evaluation: the accuracy of a policy on held-out problems, and the comparison of two policies."""
