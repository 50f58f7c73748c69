"""Sandboxes and grading for other machines, by HTTP."""
