"""Draw boards as PNG images with a legend."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

WHITE, DARK, GREY, BLACK = "#ffffff", "#3d3d3d", "#d9d9d9", "#000000"
BLUE, GREEN, BROWN, RED = "#1f5fd1", "#2a9d4a", "#a8682a", "#c62828"

_SIDE = 40
"""Side of a cell in pixels."""
_MARGIN = 28
_FONT = 20


class Tile(NamedTuple):
    """Appearance of one cell."""

    fill: str
    shape: Literal["", "disc", "ring", "box"] = ""
    ink: str = BLACK
    """Colour of the shape and the text; text in a shape is white."""
    text: str = ""


class Picture(NamedTuple):
    """A board: rows of cells, top first, and a legend."""

    rows: Sequence[Sequence[Tile]]
    legend: Sequence[tuple[Tile, str]]
    numbered: bool = False
    """Draw the numbers of rows and columns, from 1."""
    block: tuple[int, int] = (0, 0)
    """Number of rows and columns between thick lines; 0 for no lines."""


def draw(picture: Picture) -> bytes:
    """Draw the board with its legend below, as a PNG; the same picture gives the same bytes."""
    from PIL import Image, ImageDraw

    height, width = len(picture.rows), len(picture.rows[0])
    board = (2 * _MARGIN + width * _SIDE, 2 * _MARGIN + height * _SIDE)
    texts = [int(_font().getlength(text)) for _, text in picture.legend]
    size = (
        max(board[0], 2 * _MARGIN + _SIDE + 10 + max(texts, default=0)),
        board[1] + len(picture.legend) * (_SIDE + 6) + 6,
    )
    image = Image.new("RGB", size, WHITE)
    canvas = ImageDraw.Draw(image)
    for r, row in enumerate(picture.rows):
        for c, tile in enumerate(row):
            _draw_tile(canvas, tile, _MARGIN + c * _SIDE, _MARGIN + r * _SIDE)
    if picture.numbered:
        for c in range(width):
            _write(canvas, str(c + 1), _MARGIN + (c + 0.5) * _SIDE, _MARGIN / 2, DARK)
        for r in range(height):
            _write(canvas, str(r + 1), _MARGIN / 2, _MARGIN + (r + 0.5) * _SIDE, DARK)
    _draw_block_lines(canvas, picture, height, width)
    for number, (tile, text) in enumerate(picture.legend):
        top = board[1] + number * (_SIDE + 6)
        _draw_tile(canvas, tile, _MARGIN, top)
        canvas.text((_MARGIN + _SIDE + 10, top + _SIDE / 2), text, BLACK, _font(), anchor="lm")
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _draw_tile(canvas: ImageDraw.ImageDraw, tile: Tile, left: float, top: float) -> None:
    """Draw one cell.

    Args:
        canvas: Canvas to draw on.
        tile: Appearance of the cell.
        left: Left edge in pixels.
        top: Top edge in pixels.
    """
    canvas.rectangle((left, top, left + _SIDE, top + _SIDE), tile.fill, "#8c8c8c")
    inner = (left + 7, top + 7, left + _SIDE - 7, top + _SIDE - 7)
    if tile.shape == "disc":
        canvas.ellipse(inner, tile.ink)
    elif tile.shape == "ring":
        canvas.ellipse(inner, None, tile.ink, 5)
    elif tile.shape == "box":
        canvas.rectangle(inner, tile.ink, BLACK, 2)
    if tile.text:
        _write(canvas, tile.text, left + _SIDE / 2, top + _SIDE / 2, WHITE if tile.shape else tile.ink)


def _draw_block_lines(canvas: ImageDraw.ImageDraw, picture: Picture, height: int, width: int) -> None:
    """Draw the thick lines between blocks.

    Args:
        canvas: Canvas to draw on.
        picture: Picture whose `block` is drawn.
        height: Rows of the board.
        width: Columns of the board.
    """
    rows, columns = picture.block
    right, bottom = _MARGIN + width * _SIDE, _MARGIN + height * _SIDE
    for r in range(0, height + 1, rows) if rows else ():
        canvas.line((_MARGIN, _MARGIN + r * _SIDE, right, _MARGIN + r * _SIDE), BLACK, 3)
    for c in range(0, width + 1, columns) if columns else ():
        canvas.line((_MARGIN + c * _SIDE, _MARGIN, _MARGIN + c * _SIDE, bottom), BLACK, 3)


def _write(canvas: ImageDraw.ImageDraw, text: str, x: float, y: float, ink: str) -> None:
    """Write a centred text.

    Args:
        canvas: Canvas to draw on.
        text: The text.
        x: Horizontal centre in pixels.
        y: Vertical centre in pixels.
        ink: Colour.
    """
    canvas.text((x, y), text, ink, _font(), anchor="mm")


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    font = ImageFont.load_default(_FONT)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, so that no text can be drawn")
    return font
