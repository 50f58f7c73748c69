"""Images: found in a row, recognised by their bytes, kept beside the problems under the hash of their content."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from rollmill.files.whole import write_bytes_whole
from rollmill.problems.cells import UnusableCellError
from rollmill.problems.columns import MISSING
from rollmill.records import Image

_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def media_type(content: bytes) -> str | None:
    """What an image's first bytes say it is: png, jpeg, gif, webp, bmp or tiff; None for anything else."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    if content.startswith(b"BM") and content[6:10] == bytes(4):  # two letters alone begin many a text
        return "image/bmp"
    if content.startswith((b"II*\x00", b"MM\x00*")):
        return "image/tiff"
    return None


class ImageStore:
    """Keeps images in a folder, each once, as `<sha256>.<extension>`."""

    def __init__(self, folder: Path, beside: Path | None) -> None:
        """`beside`: the folder from which a row's relative paths start; None where there is no such folder."""
        self._folder = folder
        self._beside = beside

    def keep_all(self, value: Any, field: str) -> tuple[Image, ...]:
        """Keeps the images of one cell, in order; a cell that is missing, null or an empty list holds none.

        A cell is an image or a list of them; an image is bytes, `{"bytes", "path"}`, a path or a data URL.
        Raises `UnusableCellError`.
        """
        if value is MISSING or value is None:
            return ()
        cells = value if isinstance(value, list) else [value]
        return tuple(self._keep(self._read(cell, field), field) for cell in cells)

    def _read(self, cell: Any, field: str) -> bytes:
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes | bytearray | memoryview):
            return bytes(cell)
        if not isinstance(cell, str) or not cell:
            raise UnusableCellError(field, "expected an image", f"found {type(cell).__name__}")
        if cell.startswith("data:"):
            return _read_data_url(cell, field)
        if cell.startswith("file://"):
            cell = unquote(cell.removeprefix("file://"))
        elif _SCHEME.match(cell):
            raise UnusableCellError(field, "image URLs are not fetched", cell[:200])
        return self._read_path(cell, field)

    def _read_path(self, cell: str, field: str) -> bytes:
        path = Path(cell)
        if not path.is_absolute():
            if self._beside is None:
                raise UnusableCellError(field, "a relative image path has no folder to start from", cell[:200])
            path = self._beside / path
        try:
            return path.read_bytes()
        except (OSError, ValueError) as error:
            detail = f"{str(path)[:200]} ({getattr(error, 'strerror', None) or error})"
            raise UnusableCellError(field, "image file cannot be read", detail) from error

    def _keep(self, content: bytes, field: str) -> Image:
        kind = media_type(content)
        if kind is None:
            raise UnusableCellError(field, "not a png, jpeg, gif, webp, bmp or tiff image", f"begins {content[:12]!r}")
        sha256 = hashlib.sha256(content).hexdigest()
        path = self._folder / f"{sha256}.{_EXTENSIONS[kind]}"
        if not path.exists():
            write_bytes_whole(path, content)
        return Image(path=f"{self._folder.name}/{path.name}", media_type=kind, sha256=sha256)


def _read_data_url(url: str, field: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise UnusableCellError(field, "not a data URL", url[:60])
    if not head.endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode("".join(unquote(body).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableCellError(field, "not a data URL", str(error)) from error
