"""A spreadsheet without the windows."""

from .formula import FormulaError
from .sheet import CycleError, Sheet

__all__ = ["CycleError", "FormulaError", "Sheet"]
