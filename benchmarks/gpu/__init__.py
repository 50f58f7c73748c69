"""Measurements on a GPU: `python -m benchmarks.gpu`. `--tiny` rehearses them on a CPU."""
