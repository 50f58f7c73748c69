"""A day's bookings merged: prints a digest of the union and of the gaps."""

import hashlib
import os
import random

from spanset import Span, gaps, merge

COUNT, LENGTH, WIDTH = 1500, 1_000_000, 500


def main():
    rng = random.Random(os.environ.get("BENCH_SEED", "0"))
    starts = [rng.randrange(LENGTH) for _ in range(COUNT)]
    spans = [Span(start, start + rng.randrange(WIDTH)) for start in starts]
    spans += [Span(spans[n].stop, spans[n].stop + 3) for n in range(0, COUNT, 9)]
    print("union", digest(merge(spans)))
    print("gaps", digest(gaps(spans, Span(0, LENGTH))))


def digest(spans):
    return hashlib.sha256(repr([tuple(span) for span in spans]).encode()).hexdigest()


if __name__ == "__main__":
    main()
