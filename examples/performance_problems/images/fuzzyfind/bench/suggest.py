"""Typing mistakes looked up in a vocabulary of made-up words; prints a digest of all suggestions."""

import hashlib
import os
import random
import string
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzzyfind import Vocabulary

WORDS, TYPED = 400, 20


def mistyped(rng, word):
    letters = list(word)
    for _ in range(rng.randrange(3)):
        letters[rng.randrange(len(letters))] = rng.choice(string.ascii_lowercase[:8])
    if rng.random() < 0.5:
        del letters[rng.randrange(len(letters))]
    return "".join(letters)


rng = random.Random(os.environ.get("BENCH_SEED", "0"))
words = ["".join(rng.choices(string.ascii_lowercase[:8], k=rng.randrange(4, 13))) for _ in range(WORDS)]
words += ["re" + word for word in words[::25]] + [word[1:] for word in words[::20]]
vocabulary = Vocabulary(words)
digest = hashlib.sha256()
for _ in range(TYPED):
    digest.update(repr(vocabulary.suggest(mistyped(rng, rng.choice(words)), most=3)).encode())
print("suggestions", digest.hexdigest())
