"""Convert Arrow columns to JSON values, by their types and by the features of `datasets`, at any depth.

Null fields of structs are left out, since a field that one row has is null in all others of the column. Types that JSON
does not have are converted: decimals and durations (in seconds) to numbers, dates and times to ISO 8601, bytes to text,
or to base64 where they are not UTF-8. NaN and Infinity remain as Python's `json` writes them, for the code that decodes
the row to handle.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from datetime import date, datetime, time
from itertools import islice
from typing import Any

import orjson

from rollmill.files.rows import Row

_FILES = ("bytes", "data")
_SECONDS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def json_columns(schema: Any, texts: frozenset[str] = frozenset()) -> Callable[[Any], list[Row]]:
    """Return a function that converts record batches of a schema to rows of values that orjson can write.

    In the columns named in `texts`, binary values must be UTF-8 text, too, except files under `bytes` or `data`. The
    function raises `ValueError` for text that is not UTF-8 or not JSON, and `OverflowError` for dates out of Python's
    range.
    """
    features = _features(schema)

    def rows(batch: Any) -> list[Row]:
        names = batch.schema.names
        for name in texts.intersection(names):
            _check_text(batch.column(name), name)
        columns = [_values(column, features.get(name)) for name, column in zip(names, batch.columns, strict=True)]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    return rows


def _check_text(array: Any, name: str) -> None:
    """Raise `ValueError` where a binary value is not UTF-8 text, at any depth."""
    import pyarrow as pa

    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        _check_text(array.storage, name)
    elif pa.types.is_dictionary(kind):
        _check_text(array.dictionary_decode(), name)
    elif pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            if kind.field(index).name not in _FILES:
                _check_text(array.field(index), name)
    elif pa.types.is_map(kind):
        _check_text(array.items, name)
    elif pa.types.is_nested(kind) and not pa.types.is_union(kind):
        _check_text(array.flatten(), name)
    elif "binary" in str(kind):
        for value in array.to_pylist():
            try:
                (value or b"").decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{name} has bytes that are not text: {error}") from None


def _features(schema: Any) -> dict[str, Any]:
    """Return the features of `datasets` in a schema's metadata; empty where another program wrote the file."""
    try:
        features = orjson.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, orjson.JSONDecodeError):
        return {}
    return features if isinstance(features, dict) else {}


def _values(array: Any, feature: Any) -> list[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if isinstance(array, pa.ChunkedArray):
        return [value for chunk in array.chunks for value in _values(chunk, feature)]
    if (isinstance(feature, dict) and feature.get("_type") == "Json") or getattr(
        kind, "extension_name", ""
    ) == "arrow.json":
        return _json(array.storage if isinstance(kind, pa.BaseExtensionType) else array)
    if isinstance(kind, pa.BaseExtensionType):
        return _extension(array, feature)
    if pa.types.is_dictionary(kind):
        return _values(array.dictionary_decode(), feature)
    if pa.types.is_run_end_encoded(kind):
        return _values(pc.run_end_decode(array), feature)
    if pa.types.is_struct(kind):
        return _structs(array, feature)
    if pa.types.is_map(kind):
        return _maps(array, feature)
    if pa.types.is_nested(kind) and not pa.types.is_union(kind):
        return _lists(array, feature)
    return _scalars(array)


def _json(array: Any) -> list[Any]:
    """Return the values of a column of JSON text. Arrow's null and the JSON text `null` are both None."""
    return [None if value is None else _fragment(value) for value in _scalars(array)]


def _fragment(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError as error:
        if not is_json_of_python(value):
            raise ValueError(f"a column of JSON holds {value[:80]!r}: {error}") from error
    return orjson.Fragment(value)


def is_json_of_python(text: str) -> bool:
    """Return whether Python's `json` can parse a text, which includes NaN and lone surrogates."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _extension(array: Any, feature: Any) -> list[Any]:
    name = getattr(array.type, "extension_name", "")
    if name == "arrow.uuid":
        return [None if value is None else str(value) for value in array.to_pylist()]
    values = _values(array.storage, feature)
    return [None if value is None else bool(value) for value in values] if name == "arrow.bool8" else values


def _structs(array: Any, feature: Any) -> list[Any]:
    names = [array.type.field(index).name for index in range(array.type.num_fields)]
    inner = feature if isinstance(feature, dict) else {}
    columns = [_values(array.field(index), inner.get(name)) for index, name in enumerate(names)]
    rows = zip(*columns, strict=True) if columns else (() for _ in range(len(array)))
    return [
        {name: value for name, value in zip(names, values, strict=True) if value is not None} if valid else None
        for values, valid in zip(rows, array.is_valid().to_pylist(), strict=True)
    ]


def _lists(array: Any, feature: Any) -> list[Any]:
    import pyarrow.compute as pc

    # `List` and similar features have that of their items under `feature`; in older versions they are lists of one.
    inner = feature.get("feature") if isinstance(feature, dict) else None
    if isinstance(feature, list):
        inner = feature[0]
    items = iter(_values(array.flatten(), inner))
    lengths = pc.list_value_length(array).to_pylist()
    return [None if length is None else list(islice(items, length)) for length in lengths]


def _maps(array: Any, feature: Any) -> list[Any]:
    import pyarrow as pa

    pairs = pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])
    items = _lists(array.cast(pa.list_(pairs)), {"feature": {"value": feature}})
    return [
        None if pairs is None else {str(pair.get("key")): pair.get("value") for pair in pairs if pair}
        for pairs in items
    ]


def _scalars(array: Any) -> list[Any]:
    import pyarrow as pa

    kind = array.type
    if pa.types.is_decimal(kind):
        return [None if value is None else orjson.Fragment(format(value, "f")) for value in array.to_pylist()]
    if pa.types.is_floating(kind):
        return [_number(value) for value in array.to_pylist()]
    if pa.types.is_duration(kind):
        parts = _SECONDS[kind.unit]
        return [None if value is None else value / parts for value in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return _scalars(array.cast(pa.timestamp("us", kind.tz), safe=False))
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return _scalars(array.cast(pa.time64("us"), safe=False))
    return [_scalar(value) for value in array.to_pylist()]


def _number(value: Any) -> Any:
    if value is None:
        return None
    number = float(value)
    if math.isfinite(number):
        return number
    if math.isnan(number):
        return orjson.Fragment("NaN")
    return orjson.Fragment("Infinity" if number > 0 else "-Infinity")


def _scalar(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return value if value is None or isinstance(value, (str, bool, int)) else str(value)
