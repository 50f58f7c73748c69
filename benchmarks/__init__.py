"""Benchmarks of the documented figures, each run as `python -m benchmarks.<name>`; they use loopback only."""
