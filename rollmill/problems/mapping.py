"""Map a row to a problem, or to a bad row with the reason."""

from __future__ import annotations

from typing import Any

import orjson

from rollmill.files.rows import BadRow, Row
from rollmill.problems.cells import (
    PLACEHOLDER,
    UnusableCellError,
    read_answers,
    read_fields,
    read_id,
    read_prompt,
    read_response,
)
from rollmill.problems.columns import Columns, ImageColumns, get, without
from rollmill.problems.images import ImageStore
from rollmill.records import Image, Problem

_SHOWN = 2000


class RowMapper:
    """Maps the rows of one data set to problems, by the columns chosen for it."""

    def __init__(self, columns: Columns, images: ImageStore, image_field: str) -> None:
        self._columns = columns
        self._images = images
        self._image_columns = ImageColumns(columns, image_field)
        self._refuses_images = not image_field
        self._used = [column for column in columns if column is not None]
        self._shown: dict[str, None] = {} if columns.images is None else {columns.images: None}

    def map(self, number: int, position: int, row: Row) -> Problem | BadRow:
        """Map a row to a problem, or to a bad row.

        Args:
            number: Line or row number in the source, 1-based; see `BadRow`.
            position: 0-based position among the rows read, which makes an id where there is no id column.
            row: The row.
        """
        prompt, answer, identity, _ = self._columns
        parts: list[Any] = []
        try:
            columns = self._image_columns.of(row)
            value = get(row, prompt)
            question = read_prompt(value, prompt, parts)
            response = read_response(value, prompt) if answer is None else None
            answers = (response,) if answer is None else read_answers(get(row, answer), answer)
            return Problem(
                instance_id=f"row-{position}" if identity is None else read_id(get(row, identity), identity),
                prompt=question,
                answer=answers[0],
                equivalent_answers=answers[1:],
                fields=read_fields(without(row, [*self._used, *columns])),
                images=self._keep(row, columns, parts),
            )
        except UnusableCellError as error:
            return BadRow(number, error.field, str(error), show(row))

    @property
    def fields(self) -> dict[str, str]:
        """Return the column used for each role; for images, the columns in which the rows so far had some."""
        fields = self._columns.to_fields()
        return fields | {"images": ", ".join(self._shown)} if self._shown else fields

    @property
    def lacks_images(self) -> bool:
        """Return whether no row so far had the image column that the user named."""
        return self._image_columns.is_missing

    def _keep(self, row: Row, columns: list[str], parts: list[Any]) -> tuple[Image, ...]:
        """Store a row's images in the order in which its messages show them.

        Images of the columns that no message shows come after them, without duplicates of those in the messages.

        Args:
            row: The row.
            columns: Its image columns.
            parts: Cells of the image parts in its messages; `PLACEHOLDER` takes the next image of the columns.
        """
        prompt = self._columns.prompt
        if parts and self._refuses_images:
            raise UnusableCellError(prompt, "holds images where only text is read")
        listed = [(column, image) for column in columns for image in self._images.keep_all(get(row, column), column)]
        rest = iter(image for _, image in listed)
        shown: list[Image] = []
        for cell in parts:
            image = next(rest, None) if cell is PLACEHOLDER else self._images.keep(cell, prompt)
            if image is None:
                raise UnusableCellError(prompt, "shows an image that is nowhere in the row")
            shown.append(image)
        inside = {image.sha256 for image in shown}
        others = [image for image in rest if image.sha256 not in inside]
        self._shown.update(dict.fromkeys(column for column, _ in listed))
        if len(shown) > len(listed) - len(others):  # some images came from the messages themselves
            self._shown[prompt] = None
        return (*shown, *others)


def show(row: Row) -> str:
    """Return a row as truncated JSON text, for messages and the quarantine."""
    try:
        return orjson.dumps(row, default=_name_kind, option=orjson.OPT_NON_STR_KEYS)[:_SHOWN].decode("utf-8", "ignore")
    except TypeError:  # nested too deeply, or text that UTF-8 cannot hold
        return f"a row with the columns {', '.join(map(str, row))}"[:_SHOWN]


def _name_kind(value: Any) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else f"<{type(value).__name__}>"
