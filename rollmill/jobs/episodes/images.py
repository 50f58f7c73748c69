"""Stores the images that environments show in the run's folder, named by their content."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from rollmill.generation.run import IMAGES
from rollmill.problems import to_openai
from rollmill.problems.images import ImageStore
from rollmill.records import Message


class ImageFolder:
    """The images of one run."""

    def __init__(self, directory: Path) -> None:
        """Store images in `directory`, the run's."""
        self._directory = directory
        # The environment's own code makes them, at every turn: to decode the pixels as a check would only take time.
        self._store = ImageStore(directory / IMAGES, None, decoded=False)
        self._lock = threading.Lock()  # two episodes may show the same image

    def store(self, messages: list[Message]) -> list[Message]:
        """Store the messages' images as files; return the messages as the journal has them, with paths of files.

        Raises `UnusableCellError` for an image part that is no image.
        """
        return [
            {**message, "content": [self._store_part(part) for part in message["content"]]}
            if isinstance(message["content"], list)
            else message
            for message in messages
        ]

    def to_openai(self, messages: list[Message]) -> list[Message]:
        """Return messages of `store` as the OpenAI API takes them, with the images as data."""
        return to_openai(messages, self._directory)

    def _store_part(self, part: dict[str, Any]) -> dict[str, Any]:
        if part.get("type") != "image":
            return part
        with self._lock:
            (image,) = self._store.keep_all(part["image"], "image")
        return {"type": "image", "image": image.path, "media_type": image.media_type}
