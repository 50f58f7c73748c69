"""A hash of a tokenizer's vocabulary: token ids are interchangeable between models with the same hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from rollmill.errors import InputError

_FAST = "tokenizer.json"
_OTHERS = ("tokenizer.model", "tekken.json", "spiece.model", "vocab.json", "vocab.txt", "qwen.tiktoken")
"""Vocabulary files of models without a `tokenizer.json`: SentencePiece, Mistral, tiktoken."""
_DIGITS = 16


def tokenizer_hash(model_path: str) -> str | None:
    """Return a hash of 16 hexadecimal digits of a tokenizer's vocabulary; None where it is not on this machine.

    It is equal for equal tokens at equal ids, even if the files differ because a trainer saved them again. `model_path`
    is a folder, or a hub id in the cache. Raises `InputError` for a `tokenizer.json` that cannot be read.
    """
    if (fast := _file(model_path, _FAST)) is not None:
        return _digits(orjson.dumps(sorted(set(_tokens(fast)))))
    for name in _OTHERS:
        if (file := _file(model_path, name)) is not None:
            return _digits(file.read_bytes())
    return None


def _digits(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _file(model_path: str, name: str) -> Path | None:
    folder = Path(model_path)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model_path, name)
    except HFValidationError:  # a server's name for a model, or a path that does not exist
        return None
    return Path(cached) if isinstance(cached, str) else None


def _tokens(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (id, token) of a `tokenizer.json`, with added tokens. Raises `InputError` for an invalid file."""
    try:
        content: dict[str, Any] = orjson.loads(path.read_bytes())
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, dict):  # BPE, WordPiece, WordLevel
            yield from ((int(index), str(token)) for token, index in vocabulary.items())
        else:  # Unigram: a list of [token, score], indexed by id
            yield from ((index, str(token)) for index, (token, _) in enumerate(vocabulary))
        yield from ((int(added["id"]), str(added["content"])) for added in content.get("added_tokens") or ())
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"cannot read the tokenizer {path}: {type(error).__name__}: {error}") from error
