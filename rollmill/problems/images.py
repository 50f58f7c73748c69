"""Read the images of a row, check them, and store them beside the problems under the hash of their content."""

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
"""Largest size of an image file, in bytes."""
MOST_PIXELS = 89_478_485
"""Most pixels of one image, a third of a gigabyte decoded; Pillow warns of decompression bombs from here."""
_MOST_SCANS = 200
"""Most scans of a progressive JPEG: a scan of a few bytes makes the decoder process all blocks again."""
_LARGEST_TILE = 1 << 24
"""Most pixels of a TIFF tile if the picture has fewer: a tile is always decoded in full."""
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_SHORTEST_BASE64 = 32
"""Base64 characters that contain the signature of every media type."""
_LONGEST_DATA_URL = 3 * LARGEST_IMAGE  # every byte may be written as `%XX`
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|file:/", re.IGNORECASE)  # files may have a colon in their name


def media_type(content: bytes) -> str | None:
    """Return the media type by an image's first bytes: png, jpeg, gif, webp, bmp or tiff; None for anything else."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    if content.startswith(b"BM") and content[6:10] == bytes(4):  # "BM" alone also begins texts
        return "image/bmp"
    if content.startswith((b"II*\x00", b"MM\x00*")):
        return "image/tiff"
    return None


def check_picture(content: bytes, kind: str) -> str | None:
    """Return why an image cannot be used (too large, or not decodable); None if it can.

    The dimensions are read from the header before anything is decoded, and only the first frame is decoded.
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
            picture.draft(None, (width // 8 or 1, height // 8 or 1))  # decode a JPEG at 1/8 scale, which is faster
            picture.load()
    except (Pictures.DecompressionBombError, Pictures.DecompressionBombWarning):
        return f"image has more than {MOST_PIXELS:,} pixels"
    except Exception as error:  # decoders raise anything; their message is not shown, as it may quote the file
        return f"image cannot be decoded ({type(error).__name__})"
    return None


def _has_many_scans(content: bytes) -> bool:
    """Return whether a JPEG has more than `_MOST_SCANS` scans.

    Follows the markers as the decoder does, since other segments may contain the bytes of a scan marker.
    """
    at, scans = 2, 0
    while marker := _MARKER.search(content, at):
        kind, at = marker[1][0], marker.end()
        if kind == 0xD9:  # end of image
            return False
        if kind == 0xDA:  # start of scan
            scans += 1
            if scans > _MOST_SCANS:
                return True
        if kind != 0x01 and not 0xD0 <= kind <= 0xD8:  # those are markers without a length field
            at += int.from_bytes(content[at : at + 2], "big")
    return False


def _tile_pixels(picture: Any) -> int:
    """Return the pixels of a TIFF's tile; 0 if it has strips. Raises where a side is not a number."""
    return int(picture.tag_v2.get(322, 0)) * int(picture.tag_v2.get(323, 0))


def _too_large(content: bytes) -> str | None:
    return f"image has more than {LARGEST_IMAGE:,} bytes" if len(content) > LARGEST_IMAGE else None


class ImageStore:
    """Stores images in a folder, each once, as `<sha256>.<extension>`."""

    def __init__(
        self,
        folder: Path,
        beside: Path | None,
        further: Sequence[Path] = (),
        *,
        decoded: bool = True,
        advice: str = " (--image_folders names further ones)",
    ) -> None:
        """Store images in `folder`.

        Args:
            folder: Folder of the stored images.
            beside: Folder of the data, in which rows may name files and to which relative paths refer; None if the
                data have no local folder.
            further: More folders in which rows may name files. Files anywhere else are never opened.
            decoded: Whether images that do not decode are refused; see `check_picture`.
            advice: What the user may do about a file in another folder; ends the message.
        """
        self._advice = advice  # a part of the reason, which is what a summary shows
        self._folder = folder
        self._decoded = decoded
        self._folders = [*([] if beside is None else [beside]), *further]

    def keep_all(self, value: Any, field: str) -> tuple[Image, ...]:
        """Store the images of one cell, in order; a cell that is missing, null or an empty list has none.

        A cell is an image or a list of images; an image is bytes, `{"bytes", "path"}`, a path, a data URL or base64.
        Raises `UnusableCellError`.
        """
        if value is MISSING or value is None:
            return ()
        cells = value if isinstance(value, list) else [value]
        return tuple(self.keep(cell, field) for cell in cells)

    def keep(self, cell: Any, field: str) -> Image:
        """Store one image; see `keep_all`. Raises `UnusableCellError`."""
        content, named = self._read(cell, field)
        kind = media_type(content)
        if kind is None:
            # Never show the content of a named file: the row may name one that is not the author's to read.
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
        """Return the bytes of one image, and the path as the row gives it if they come from a file, else None."""
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
    """Decode a text that is an image in base64; None if it is not, such as a path."""
    if len(text) < _SHORTEST_BASE64 or len(text) > 2 * LARGEST_IMAGE:
        return None
    try:
        # The signature first, so that long texts of another kind are not decoded.
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
