"""Sandboxes: isolated environments for untrusted commands."""
