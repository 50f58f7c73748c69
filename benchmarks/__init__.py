"""Scripts that measure what the README claims, each run as `python -m benchmarks.<name>`; loopback only."""
