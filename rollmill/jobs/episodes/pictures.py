"""Images that environments show: kept in the run's folder, named by their content."""

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
        """Keep images in `directory`, the run's."""
        self._directory = directory
        # An environment's code makes them, as bytes, at every turn: they need no look at their pixels.
        self._store = ImageStore(directory / IMAGES, None, decoded=False)
        self._one_at_a_time = threading.Lock()  # two episodes may show the same picture

    def keep(self, messages: list[Message]) -> list[Message]:
        """Keep the messages' images as files. Raises `UnusableCellError` for no image.

        Returns the messages as the journal holds them: image parts name files.
        """
        return [
            {**message, "content": [self._keep_part(part) for part in message["content"]]}
            if isinstance(message["content"], list)
            else message
            for message in messages
        ]

    def sent(self, messages: list[Message]) -> list[Message]:
        """Return the kept messages as the OpenAI API takes them."""
        return to_openai(messages, self._directory)

    def _keep_part(self, part: dict[str, Any]) -> dict[str, Any]:
        if part.get("type") != "image":
            return part
        with self._one_at_a_time:
            (image,) = self._store.keep_all(part["image"], "image")
        return {"type": "image", "image": image.path, "media_type": image.media_type}
