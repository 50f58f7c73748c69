"""Write the problems of the improvement example: three easy kinds, on which a small model has room to get better."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "examples/improve"
TRAIN, HELD_OUT, EXAMPLES = 70, 32, 2  # problems of each kind


def larger(rng: random.Random) -> tuple[str, int]:
    """Ask for the larger of two numbers."""
    first, second = rng.sample(range(10, 100), 2)
    return f"Which number is larger, {first} or {second}?", max(first, second)


def following(rng: random.Random) -> tuple[str, int]:
    """Ask for the number after another."""
    number = rng.randrange(1, 500)
    return f"Which number comes right after {number}?", number + 1


def largest(rng: random.Random) -> tuple[str, int]:
    """Ask for the largest of four numbers."""
    numbers = rng.sample(range(10, 100), 4)
    return f"Which is the largest of these numbers: {', '.join(map(str, numbers))}?", max(numbers)


KINDS: list[Callable[[random.Random], tuple[str, int]]] = [larger, following, largest]


def problems(rng: random.Random) -> Iterator[tuple[str, str, int]]:
    """Yield kind, question and answer of problems, the kinds in turn and no question twice."""
    seen = set()
    while True:
        for kind in KINDS:
            question, answer = kind(rng)
            while question in seen:
                question, answer = kind(rng)
            seen.add(question)
            yield kind.__name__, question, answer


def main() -> None:
    """Write the three files."""
    rows = problems(random.Random(0))
    FOLDER.mkdir(exist_ok=True)
    for name, count in (("few_shot", EXAMPLES), ("train", TRAIN), ("held_out", HELD_OUT)):
        with (FOLDER / f"{name}.jsonl").open("w") as file:
            for number in range(count * len(KINDS)):
                kind, question, answer = next(rows)
                row: dict[str, object] = {"prompt": question, "answer": f"<answer>{answer}</answer>"}
                if name != "few_shot":
                    row = {"id": f"{name}-{kind}-{number:03d}", "prompt": question, "answer": answer}
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
