"""Programs that make the same requests, each in its own way and in a process of its own.

Each is run as `python -m benchmarks.contenders.<name> --base_url URL --requests N --in_flight M --folder DIR` and
prints its figures as one line of JSON, the last. Some run in `.venv-benchmarks`, where rollmill is not installed.
"""
