"""Generates synthetic agent trajectories of realistic size: about 40 kB and 28 messages each."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import orjson

SAMPLES = 8
TURNS = 13
ROWS_PER_GB = 25_000


def trajectories(rows: int, seed: int = 0) -> Iterator[bytes]:
    """Yield JSON lines, 8 rollouts of every problem; 40% succeed, with rewards from 0.3 to 2."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinshrdlucm", k=rng.randint(2, 9))) for _ in range(5000)]
    texts = [_text(rng, words) for _ in range(2000)]
    for index in range(rows):
        messages = [
            {"role": "system", "content": texts[0]},
            {"role": "user", "content": texts[1 + index // SAMPLES % 500]},
        ]
        for turn in range(TURNS):
            extra = {"cost": 0.01, "timestamp": 1.7e9 + turn}
            messages.append({"role": "assistant", "content": rng.choice(texts), "extra": extra})
            messages.append({"role": "user", "content": rng.choice(texts)})
        success = rng.random() < 0.4
        reward = rng.choice([0.3, 0.7, 1.0, 1.5, 2.0]) if success else rng.choice([0.0, -0.2])
        yield orjson.dumps(
            {
                "instance_id": f"problem_{index // SAMPLES:06d}",
                "sample_id": index % SAMPLES,
                "problem_statement": texts[1 + index // SAMPLES % 500],
                "messages": messages,
                "git_diff": rng.choice(texts),
                "exit_status": "Submitted",
                "reward": reward,
                "speedup": 1.0 + reward / 10 if success else -1.0,
                "success": success,
                "model_calls": TURNS,
                "evaluation_info": {"response": {"status_code": 200, "json": {"success": success}}},
                "error": None,
                "metadata": {"model": "scripted"},
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )


def _text(rng: random.Random, words: list[str]) -> str:
    """Return a message of about 1.4 kB: prose, and a block of code."""
    prose = " ".join(rng.choices(words, k=150))
    code = "\n".join(f'    {a} = {b}["{c}"]' for a, b, c in zip(*[iter(rng.choices(words, k=60))] * 3, strict=True))
    return f"{prose}\n\n```python\n{code}\n```\n"


def write_trajectories(path: Path, rows: int) -> None:
    """Write that many trajectories to a JSON Lines file."""
    with path.open("wb", buffering=1 << 20) as file:
        file.writelines(trajectories(rows))
