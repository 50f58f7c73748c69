"""Adapter of reasoning-gym: generates its procedural problems, and regenerates single entries for scoring."""

from __future__ import annotations

import ast
import decimal
import difflib
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import orjson

from rollmill.errors import InputError
from rollmill.files.rows import BadRow
from rollmill.problems.gym_config import config_fault
from rollmill.records import Problem

PREFIX = "reasoning_gym:"
DEFAULT_SIZE = 500
DEFAULT_SEED = 42

# Their generators iterate over sets, whose order depends on Python's hash seed (measured on 0.1.25: 41 problems of each
# of 105 data sets under two hash seeds).
_FOLLOW_HASH_SEED = frozenset(
    {
        "codeio",
        "intermediate_integration",
        "isomorphic_strings",
        "knight_swap",
        "polynomial_multiplication",
        "ransom_note",
        "word_ladder",
    }
)


def known_names() -> list[str]:
    """Return the names of reasoning-gym's data sets. Imports it, which takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' SyntaxWarnings
        from reasoning_gym.factory import DATASETS
    return sorted(DATASETS)


def close_names(name: str) -> list[str]:
    """Return up to three registered names similar to `name`."""
    return difflib.get_close_matches(name, known_names(), n=3)


def read_problems(spec: str, max_problems: int | None) -> Iterator[tuple[int, Problem | BadRow]]:
    """Yield (1-based position, problem) of `NAME?size=100&seed=7&min_digits=1`, with or without `reasoning_gym:`.

    There are `size` problems (default 500), at most `max_problems`. Problem i does not depend on these two.
    `fields["reasoning_gym"]` holds the `name`, `config` and `index` from which `make_entry` regenerates the entry. An
    entry without an answer, which only reasoning-gym can score, becomes a problem without one. Raises `InputError` for
    an unknown name and a bad configuration.
    """
    name, _, query = spec.removeprefix(PREFIX).partition("?")
    config = _parse_query(name, query)
    _check_name(name)
    size = config.get("size", DEFAULT_SIZE)
    seed = config.get("seed", DEFAULT_SEED)
    for key, value in (("size", size), ("seed", seed)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"reasoning_gym {name}: {key} must be an integer, found {value!r}")
    if size < 1:
        raise InputError(f"reasoning_gym {name}: size must be at least 1, found {size}")
    # A few data sets (acre) generate other problems for another size. With at least the default size, a small data set
    # is a prefix of the default one.
    rest = {key: config[key] for key in sorted(config) if key not in {"seed", "size"}}
    config = {**rest, "seed": seed, "size": max(size, DEFAULT_SIZE)}
    dataset = create_dataset(name, config)
    return _make_all(dataset, name, config, min(size, max_problems or size))


def create_dataset(name: str, config: dict[str, Any]) -> Any:
    """Create a reasoning-gym data set, without its warnings. Raises `InputError` for a configuration it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import reasoning_gym
        from reasoning_gym.factory import DATASETS

        if name in DATASETS and (fault := config_fault(name, DATASETS[name][1], config)):
            raise InputError(f"reasoning_gym {name} refuses its configuration: {fault}")
        try:
            return reasoning_gym.create_dataset(name, **config)
        except Exception as error:  # its data sets check with assertions, and raise anything else for what those miss
            raise InputError(f"reasoning_gym {name} refuses its configuration {config}: {error}") from error


def make_entry(dataset: Any, index: int) -> dict[str, Any]:
    """Generate one entry of a data set (`question`, `answer`, `metadata`), deterministically.

    Some generators (list_functions) also draw from Python's global random state, so it is seeded per entry.
    """
    with _restored_state(dataset), warnings.catch_warnings():
        random.seed(f"{dataset.seed}-{index}")
        warnings.simplefilter("ignore")
        entry: dict[str, Any] = dataset[index]
        return entry


def score_answer(dataset: Any, answer: Any, entry: dict[str, Any]) -> float:
    """Return the data set's score of an answer to one of its entries, independent of earlier calls."""
    # A copy: knight_swap's scorer writes the boards of a right answer into the metadata.
    entry = {**entry, "metadata": dict(entry["metadata"])}
    with _restored_state(dataset):
        return float(dataset.score_answer(answer, entry))


@contextmanager
def _restored_state(dataset: Any) -> Iterator[None]:
    """Restore the process's global random states and decimal context, which generators and scorers change.

    decimal_arithmetic sets the precision of its configuration when it generates an entry, and relies on it when it
    scores one; all other data sets rely on Python's default.
    """
    import numpy

    states = random.getstate(), numpy.random.get_state()  # the global one, which pool_matrix seeds
    try:
        with decimal.localcontext(decimal.Context(prec=getattr(dataset.config, "precision", None))):
            yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])


def _make_all(dataset: Any, name: str, config: dict[str, Any], count: int) -> Iterator[tuple[int, Problem | BadRow]]:
    """Yield (1-based position, problem) of the first entries.

    Args:
        dataset: The data set created from `name` and `config`.
        name: reasoning-gym's name of it.
        config: Its configuration, which each problem records.
        count: Number of entries.
    """
    for index in range(count):
        source = {"name": name, "config": config, "index": index}
        try:
            entry = make_entry(dataset, index)
        except Exception as error:  # a generator that gives up on one entry
            yield (
                index + 1,
                BadRow(index + 1, None, f"reasoning_gym raised {type(error).__name__}: {error}", str(source)),
            )
            continue
        answer = entry["answer"]
        yield (
            index + 1,
            Problem(
                instance_id=f"{name}-{index}",
                prompt=str(entry["question"]),
                answer=None if answer is None else str(answer),
                fields={"reasoning_gym": source},
            ),
        )


def _check_name(name: str) -> None:
    if name not in known_names():
        close = close_names(name)
        advice = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(known_names())}"
        raise InputError(f"reasoning_gym has no data set {name!r}: {advice}")
    if name in _FOLLOW_HASH_SEED and os.environ.get("PYTHONHASHSEED", "random") in {"", "random"}:
        raise InputError(
            f"reasoning_gym {name} makes other problems in every process, because its generator follows Python's "
            "hash seed: set PYTHONHASHSEED=0 in the environment and start again"
        )


def _parse_query(name: str, query: str) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        key, equals, text = pair.partition("=")
        if not equals or not key or key in config:
            raise InputError(f"reasoning_gym {name}: expected key=value pairs joined by &, each once, found {pair!r}")
        config[key] = _parse_value(unquote(text))
    return config


def _parse_value(text: str) -> Any:
    """Parse a value as JSON or as a Python literal (`true`, `[1, 2]`, `None`); return other text unchanged."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        value = ast.literal_eval(text)
        orjson.dumps(value)  # the configuration is recorded with each problem
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return value
