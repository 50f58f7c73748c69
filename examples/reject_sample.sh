#!/usr/bin/env bash
# Rejection sampling as configured by the environment: MODEL_PATH, MODEL_NAME, NUM_ROLLOUT, MAX_DATA, ...
# (`python -m flows.reject_sampling --help` lists all). More flags may follow on the command line.
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python -m flows.reject_sampling "$@"
