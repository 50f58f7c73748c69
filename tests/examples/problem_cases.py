"""Cases and answers of the performance problems, without the grader and its sandboxes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "examples/performance_problems"
ROWS: Mapping[str, Mapping[str, Any]] = {
    row["instance_id"]: row for row in json.loads((FOLDER / "dataset.json").read_bytes())
}


def copy_image(instance_id: str, folder: Path, solution: str = "") -> Path:
    """Copy the files of a problem's image to a new folder, and apply the `good` or the `wrong` patch if it is named."""
    image = FOLDER / "images" / ROWS[instance_id]["image_name"]
    shutil.copytree(image, folder, ignore=shutil.ignore_patterns("__pycache__", "build"))
    if solution:
        patch = FOLDER / "solutions" / instance_id / f"{solution}.patch"
        subprocess.run(["git", "apply", patch], cwd=folder, check=True, env={**os.environ, "GIT_DIR": "/dev/null"})
    return folder


def replace_text(file: Path, old: str, new: str) -> None:
    """Replace all occurrences, of which there has to be one."""
    text = file.read_text()
    assert old in text, old
    file.write_text(text.replace(old, new))


def print_cases(instance_id: str, part: str, seed: str) -> str:
    """Return the cases of a seed, one a line; `part` is `edge` or `speed`."""
    row = ROWS[instance_id]
    return subprocess.run(
        row["inputs_command"],
        shell=True,
        cwd=FOLDER / "images" / row["image_name"],
        env={"PATH": os.environ["PATH"], "BENCH_SEED": seed, "BENCH_PART": part, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def answer_cases(instance_id: str, folder: Path, cases: str, **environment: str) -> list[str]:
    """Return what the worker in a folder answers without waiting for `go`, up to its end, which may be early."""
    process = subprocess.run(
        f"{ROWS[instance_id]['worker_command']} --time",
        shell=True,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        input=cases,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=120,
    )
    return process.stdout.splitlines()
