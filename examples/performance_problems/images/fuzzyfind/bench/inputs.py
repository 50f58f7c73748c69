"""Prints the benchmark's cases, one a line; $BENCH_SEED decides them, $BENCH_PART whether they are `speed` or `edge`.

A case has words for a vocabulary, and the calls to make, in order: ["suggest", typed, most] or without `most`,
["distance", one, other], ["contains", word], ["length"], ["words"]; and changes: ["append", word] to the list that the
vocabulary was made of, ["renew"] makes another one of that list, ["spoil"] changes the last suggestions.
"""

import os
import random
import string
from json import dumps

LATIN = string.ascii_lowercase
SMALL_ALPHABETS = ("ab", "abc", "aAbB", "abcdefgh", "a-_ 1", LATIN)
SMALL_ALPHABETS += ("äöüß", "éèe\u0301\u0300", "\U0001f600\U0001f601x", "日本語")


def main():
    part = os.environ.get("BENCH_PART", "speed")
    rng = random.Random(f"{part} {os.environ.get('BENCH_SEED', '0')}")
    for case in edge_cases(rng, 260) if part == "edge" else speed_cases(rng):
        print(dumps(case))


def speed_cases(rng):
    """Vocabularies of several sizes and kinds of words, each asked a few times, and small cases in between."""
    cases = edge_cases(rng, 10)
    for count, letters, least, longest, typed in (
        (300, LATIN[:8], 4, 12, 24),
        (240, LATIN, 3, 11, 24),
        (150, LATIN[:4], 6, 10, 30),
        (80, LATIN[:12], 12, 24, 16),
        (40, LATIN[:6], 2, 8, 60),
    ):
        letters += rng.choice(("é", "ß", "日", "\U0001f600", "A", " "))
        words = some_words(rng, letters, count, least, longest)
        calls = []
        for _ in range(typed):
            calls.append(["suggest", mistyped(rng, rng.choice(words), letters), rng.choice((1, 2, 2, 3, 3, 4))])
        calls.insert(rng.randrange(len(calls)), ["suggest", rng.choice(words)])
        one, other, third = rng.choices(words, k=3)
        calls.insert(rng.randrange(len(calls)), ["distance", one * 2, other + third])
        cases.append({"words": words, "calls": calls})
    words = some_words(rng, LATIN[:10], 60, 5, 12)
    changed = mistyped(rng, rng.choice(words), LATIN[:10])
    calls = [["suggest", changed, 3], ["append", changed], ["renew"], ["suggest", changed, 3], ["suggest", "", 30]]
    cases.append({"words": words, "calls": calls})
    rng.shuffle(cases)
    return cases


def edge_cases(rng, count):
    """Short words and strange letters, most of which are near each other."""
    cases = [{"words": [], "calls": [["suggest", "abc"], ["suggest", "", 0], ["length"], ["suggest", "a", -1]]}]
    for letters in rng.sample(SMALL_ALPHABETS, 5):
        calls = [["distance", word(rng, letters, 0, 40), word(rng, letters, 15, 45)] for _ in range(4)]
        cases.append({"words": [calls[0][1]], "calls": [*calls, ["suggest", calls[1][2], rng.randrange(9, 60)]]})
    long = word(rng, "abc", 130, 150)
    near = mistyped(rng, mistyped(rng, long, "abc"), "abc")
    calls = [["distance", long, near], ["distance", word(rng, LATIN, 66, 80), long], ["suggest", near, 9]]
    cases.append({"words": [long, long[1:], long[:-4]], "calls": calls})
    while len(cases) < count:
        letters = rng.choice(SMALL_ALPHABETS)
        size, longest = rng.choice(((1, 3), (3, 3), (8, 4), (15, 5), (15, 7), (40, 6)))
        words = some_words(rng, letters, size, rng.randrange(2), longest)
        rng.shuffle(words)
        cases.append({"words": words, "calls": edge_calls(rng, words, letters)})
    rng.shuffle(cases)
    return cases[:count]


def edge_calls(rng, words, letters):
    calls = []
    for _ in range(rng.randrange(3, 9)):
        typed = rng.choice((mistyped(rng, rng.choice(words), letters), word(rng, letters, 0, 7)))
        other = rng.choice((typed[1:] + typed[:1], typed[::-1], word(rng, letters, 0, 7), typed.upper()))
        most = rng.choice((0, 1, 1, 2, 2, 3, 4, 6, 9, 100, -1, -7))
        if rng.random() < 0.2:
            typed, other = typed * 5 + other, other + typed * 4
        calls.append(
            rng.choice(
                (
                    ["suggest", typed, most],
                    ["suggest", typed, most],
                    ["suggest", typed],
                    ["distance", typed, other],
                    ["distance", other, typed],
                    ["contains", rng.choice((typed, rng.choice(words)))],
                    ["length"],
                    ["words"],
                )
            )
        )
        if rng.random() < 0.4:
            calls.append(rng.choice((["spoil"], ["append", typed], ["renew"])))
            calls.append(rng.choice(calls[:-1]))
    return calls


def some_words(rng, letters, count, least, longest):
    """Words, some of which begin or end like others; a few are there twice."""
    words = [word(rng, letters, least, longest) for _ in range(count)]
    for where in range(0, count - 1, 7):
        other = words[where + 1]
        words[where] = rng.choice((other, other[1:], letters[0] + other, other[:-1]))
    return words


def word(rng, letters, least, longest):
    return "".join(rng.choices(letters, k=rng.randrange(least, longest + 1)))


def mistyped(rng, word, letters):
    """The word with up to three letters changed, left out, doubled or swapped."""
    typed = list(word)
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(typed) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            typed[place : place + 1] = rng.choice(letters)
        elif kind == 1:
            del typed[place : place + 1]
        elif kind == 2:
            typed.insert(place, rng.choice(letters))
        else:
            typed[place : place + 2] = reversed(typed[place : place + 2])
    return "".join(typed)


if __name__ == "__main__":
    main()
