"""Mapping: a row becomes a problem, or a bad row with its reason."""

from __future__ import annotations

from typing import Any

import orjson

from rollmill.files.rows import BadRow, Row
from rollmill.problems.cells import UnusableCellError, read_answer, read_fields, read_id, read_prompt, read_response
from rollmill.problems.columns import Columns, get, without
from rollmill.problems.images import ImageStore
from rollmill.records import Problem

_SHOWN = 2000


class RowMapper:
    """Maps the rows of one data set with the columns that were chosen for it."""

    def __init__(self, columns: Columns, images: ImageStore) -> None:
        self._columns = columns
        self._images = images
        self._used = [column for column in columns if column is not None]

    def map(self, number: int, position: int, row: Row) -> Problem | BadRow:
        """`number` is the row's own (see `BadRow`); `position` counts from 0, and makes an id where there is none."""
        prompt, answer, identity, images = self._columns
        try:
            return Problem(
                instance_id=f"row-{position}" if identity is None else read_id(get(row, identity), identity),
                prompt=read_prompt(get(row, prompt), prompt),
                answer=read_response(get(row, prompt), prompt)
                if answer is None
                else read_answer(get(row, answer), answer),
                fields=read_fields(without(row, self._used)),
                images=() if images is None else self._images.keep_all(get(row, images), images),
            )
        except UnusableCellError as error:
            return BadRow(number, error.field, str(error), show(row))


def show(row: Row) -> str:
    """The beginning of a row, for people."""
    try:
        return orjson.dumps(row, default=_name_kind, option=orjson.OPT_NON_STR_KEYS)[:_SHOWN].decode("utf-8", "ignore")
    except TypeError:  # nested too deeply, or text that UTF-8 cannot hold
        return f"a row with the columns {', '.join(map(str, row))}"[:_SHOWN]


def _name_kind(value: Any) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else f"<{type(value).__name__}>"
