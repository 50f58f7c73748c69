"""Reports on a made-up log of one day; prints a digest of the report."""

import hashlib
import os
import random
import tempfile

from logtally.report import render, summarize

REQUESTS, ENDPOINTS = 3000, 36


def write_log(rng, log):
    endpoints = [f"/api/v{rng.randrange(4)}/{rng.randrange(10**6):x}" for _ in range(ENDPOINTS)]
    for second in range(REQUESTS):
        endpoint = endpoints[min(rng.randrange(ENDPOINTS), rng.randrange(ENDPOINTS))]
        query = "?page=2" if rng.random() < 0.3 else ""
        status = rng.choice((200, 200, 200, 304, 400, 404, 503))
        took = "-" if rng.random() < 0.02 else int(rng.expovariate(0.02))
        log.write(f"{second} GET {endpoint}{query} {status} {rng.randrange(9000)} {took}\n")


def main():
    rng = random.Random(os.environ.get("BENCH_SEED", "0"))
    with tempfile.NamedTemporaryFile("w", suffix=".log", encoding="utf-8") as log:
        write_log(rng, log)
        log.flush()
        lines = render(summarize(log.name))
    print(len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest())


if __name__ == "__main__":
    main()
