"""Grading: whether a change to a repository is allowed, right and faster."""
