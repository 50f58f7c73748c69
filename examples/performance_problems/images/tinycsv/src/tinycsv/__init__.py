"""CSV as RFC 4180 has it."""

from tinycsv.errors import CSVError
from tinycsv.reading import parse, table
from tinycsv.writing import format_rows

__all__ = ["CSVError", "format_rows", "parse", "table"]
