"""Scripts that measure what docs/benchmarks.md quotes, each run as `python -m benchmarks.<name>`; loopback only."""
