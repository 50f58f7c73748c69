"""Stores the images that environments show in the run's folder, named by their content."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from rollmill.generation.run import IMAGES
from rollmill.problems import to_openai
from rollmill.problems.images import ImageStore
from rollmill.records import Message


class PictureFolder:
    """The images of one run."""

    def __init__(self, directory: Path) -> None:
        """Store images in `directory`, the run's."""
        self._directory = directory
        # Made by an environment's code, at every turn: decoding the pixels to check them would only take time.
        self._store = ImageStore(directory / IMAGES, None, decoded=False)
        self._lock = threading.Lock()  # two episodes may show the same image

    def keep(self, messages: list[Message]) -> list[Message]:
        """Store the messages' images as files; return the messages as in the journal, with the names of files.

        Raises `UnusableCellError` for an image part that is no image.
        """
        return [
            {**message, "content": [self._keep_part(part) for part in message["content"]]}
            if isinstance(message["content"], list)
            else message
            for message in messages
        ]

    def sent(self, messages: list[Message]) -> list[Message]:
        """Return messages of `keep` as the OpenAI API takes them."""
        return to_openai(messages, self._directory)

    def _keep_part(self, part: dict[str, Any]) -> dict[str, Any]:
        if part.get("type") != "image":
            return part
        with self._lock:
            (image,) = self._store.keep_all(part["image"], "image")
        return {"type": "image", "image": image.path, "media_type": image.media_type}
