.PHONY: setup demo improve up down test test-setup test-fast check benchmarks

# Everything that is needed, installed: the project in .venv, the inference server in .venv-vllm.
setup:
	@scripts/setup

# From nothing to scored rollouts of a small real model on real problems.
demo: setup
	@scripts/demo_model
	@examples/demo.sh

# A small real model gets better on its own filtered attempts.
improve: setup
	@scripts/demo_model
	@examples/improve.sh

# Prefect at this machine: server, worker, everything registered; UP="--gpu_runs 4" for more. `down` ends it all.
up: setup
	@.venv/bin/python -m deployments.local up $(UP)

down:
	@.venv/bin/python -m deployments.local down $(DOWN)

# A file's tests run one after the other, see tests/scheduling.py; what was skipped is listed at the end, with why.
PYTEST = .venv/bin/python -m pytest -p tests.scheduling --numprocesses logical --dist loadfile --no-loadscope-reorder -rfEs

# Tests start hundreds of processes: where PYTHONDONTWRITEBYTECODE is set, each would compile the sources again.
COMPILE = .venv/bin/python -m compileall -q -j 0 benchmarks blocks deployments flows rollmill tasks tests

# What tests need besides: the small real model, and Debian packages.
test-setup: setup
	@scripts/demo_model
	@scripts/debian_packages requirements/debian-tests.txt "the tests that need them are skipped"

# All tests, real vLLM and Docker included; a few that fail (status 1) are run once more, alone.
test: test-setup
	$(COMPILE)
	rm -f .pytest_cache/v/cache/lastfailed
	$(PYTEST) --durations 30 || { [ $$? = 1 ] && .venv/bin/python -m tests.repeat_failed; }

# Without those that take long, or start vLLM or Docker.
test-fast: setup
	$(COMPILE)
	$(PYTEST) -m "not slow and not vllm and not docker"

check: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	scripts/documentation
	.venv/bin/python scripts/check_language.py

# What docs/benchmarks.md quotes.
benchmarks: setup
	scripts/benchmarks
