"""Images: found in a row, recognised by their bytes, kept beside the problems under the hash of their content."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from rollmill.files.atomic import atomic_write_bytes
from rollmill.files.confined import ConfinedFileError, read_confined
from rollmill.problems.cells import MISSING, UnusableCellError
from rollmill.records import Image

_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
}
LARGEST_IMAGE = 64 << 20
"""Bytes of one image, packed as it is in its file."""
MOST_PIXELS = 89_478_485
"""Pixels of one image, a third of a gigabyte once they are decoded: where Pillow begins to warn of bombs."""
_MOST_SCANS = 200
"""Scans of one JPEG: each goes through all of its blocks again, in some bytes."""
_LARGEST_TILE = 1 << 24
"""Pixels of a TIFF's tile, where the picture has fewer: tiles are unpacked whole."""
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_SHORTEST_BASE64 = 32
"""Characters that hold the beginning of any image."""
_LONGEST_DATA_URL = 3 * LARGEST_IMAGE  # every byte may be written as `%XX`
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|file:/", re.IGNORECASE)  # files may have a colon in their name


def media_type(content: bytes) -> str | None:
    """Return what an image's first bytes say it is: png, jpeg, gif, webp, bmp or tiff; None for anything else."""
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


def check_picture(content: bytes, kind: str) -> str | None:
    """Return why an image of a media type cannot be used: it is too large, or does not decode. None where it can.

    The size is read from the head before anything is unpacked, and only the first frame is decoded.
    """
    from PIL import Image as Pictures

    if fault := _too_large(content):
        return fault
    if kind == "image/jpeg" and _has_many_scans(content):
        return f"image has more than {_MOST_SCANS} scans"
    try:
        with Pictures.open(io.BytesIO(content), formats=[kind.removeprefix("image/")]) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                return f"image has more than {MOST_PIXELS:,} pixels"
            if kind == "image/tiff" and _tile_pixels(picture) > max(_LARGEST_TILE, 2 * width * height):
                return "image has tiles that are far larger than it is"
            picture.draft(None, (width // 8 or 1, height // 8 or 1))  # a JPEG is decoded to an eighth, which is faster
            picture.load()
    except (Pictures.DecompressionBombError, Pictures.DecompressionBombWarning):
        return f"image has more than {MOST_PIXELS:,} pixels"
    except Exception as error:  # decoders raise whatever they meet; what they say may show what the file holds
        return f"image cannot be decoded ({type(error).__name__})"
    return None


def _has_many_scans(content: bytes) -> bool:
    """Return whether a JPEG has more than `_MOST_SCANS`, found as its decoder finds them.

    Other parts may hold such bytes.
    """
    at, scans = 2, 0
    while marker := _MARKER.search(content, at):
        kind, at = marker[1][0], marker.end()
        if kind == 0xD9:  # the end
            return False
        if kind == 0xDA:
            scans += 1
            if scans > _MOST_SCANS:
                return True
        if kind != 0x01 and not 0xD0 <= kind <= 0xD8:  # these have no length
            at += int.from_bytes(content[at : at + 2], "big")
    return False


def _tile_pixels(picture: Any) -> int:
    """Of a TIFF; 0 where it has strips. Raises where a side is not a number."""
    return int(picture.tag_v2.get(322, 0)) * int(picture.tag_v2.get(323, 0))


def _too_large(content: bytes) -> str | None:
    return f"image has more than {LARGEST_IMAGE:,} bytes" if len(content) > LARGEST_IMAGE else None


class ImageStore:
    """Keeps images in a folder, each once, as `<sha256>.<extension>`."""

    def __init__(
        self,
        folder: Path,
        beside: Path | None,
        further: Sequence[Path] = (),
        *,
        decoded: bool = True,
        advice: str = " (--image_folders names further ones)",
    ) -> None:
        """Keep images in `folder`.

        Args:
            folder: where they are kept.
            beside: the folder in which rows may name files, and from which relative paths start; None for no such.
            further: more folders in which rows may name files. Files anywhere else are never opened.
            decoded: only images that decode are kept; see `check_picture`.
            advice: what a user may do about a file that lies elsewhere.
        """
        self._advice = advice  # a part of the reason, which is what a summary shows
        self._folder = folder
        self._decoded = decoded
        self._folders = [*([] if beside is None else [beside]), *further]

    def keep_all(self, value: Any, field: str) -> tuple[Image, ...]:
        """Keep the images of one cell, in order; a cell that is missing, null or an empty list holds none.

        A cell is an image or a list of them; an image is bytes, `{"bytes", "path"}`, a path, a data URL or base64.
        Raises `UnusableCellError`.
        """
        if value is MISSING or value is None:
            return ()
        cells = value if isinstance(value, list) else [value]
        return tuple(self.keep(cell, field) for cell in cells)

    def keep(self, cell: Any, field: str) -> Image:
        """Keep one image; see `keep_all`. Raises `UnusableCellError`."""
        content, named = self._read(cell, field)
        kind = media_type(content)
        if kind is None:
            # Of a file that the row merely names nothing is shown, not even how it begins.
            shown = f"begins {content[:12]!r}" if named is None else named[:200]
            raise UnusableCellError(field, "not a png, jpeg, gif, webp, bmp or tiff image", shown)
        sha256 = hashlib.sha256(content).hexdigest()
        path = self._folder / f"{sha256}.{_EXTENSIONS[kind]}"
        if not path.exists():
            fault = check_picture(content, kind) if self._decoded else _too_large(content)
            if fault:
                raise UnusableCellError(field, fault, (named or "")[:200])
            atomic_write_bytes(path, content)
        return Image(path=f"{self._folder.name}/{path.name}", media_type=kind, sha256=sha256)

    def _read(self, cell: Any, field: str) -> tuple[bytes, str | None]:
        """Return the bytes of one image, and the name of the file that they are from, where they are from one."""
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes | bytearray | memoryview):
            return bytes(cell), None
        if not isinstance(cell, str) or not cell:
            raise UnusableCellError(field, "expected an image", f"found {type(cell).__name__}")
        if cell[:5].lower() == "data:":
            return _read_data_url(cell, field), None
        if cell[:7].lower() != "file://" and _SCHEME.match(cell):
            raise UnusableCellError(field, "image URLs are not fetched", cell[:200])
        if (content := _read_base64(cell)) is not None:
            return content, None
        return self._read_path(cell, field), cell

    def _read_path(self, cell: str, field: str) -> bytes:
        if not self._folders:
            reason = f"image files of this data set are not read{self._advice}"
            raise UnusableCellError(field, reason, f"{cell[:200]} has no folder to start from")
        try:
            return read_confined(cell, self._folders, limit=LARGEST_IMAGE)
        except ConfinedFileError as error:
            advice = self._advice if "outside" in error.reason else ""
            raise UnusableCellError(field, f"image {error.reason}{advice}", error.detail) from None


def _read_base64(text: str) -> bytes | None:
    """Return the image that a text is in base64; None where it is none, as a path is."""
    if len(text) < _SHORTEST_BASE64 or len(text) > 2 * LARGEST_IMAGE:
        return None
    try:
        if media_type(base64.b64decode(text[:_SHORTEST_BASE64])) is None:
            return None
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _read_data_url(url: str, field: str) -> bytes:
    if len(url) > _LONGEST_DATA_URL:
        raise UnusableCellError(field, f"image has more than {LARGEST_IMAGE:,} bytes", url[:60])
    head, comma, body = url.partition(",")
    if not comma:
        raise UnusableCellError(field, "not a data URL", url[:60])
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode("".join(unquote(body).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableCellError(field, "not a data URL", str(error)) from error
