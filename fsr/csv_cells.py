"""Cells of CSV files that spreadsheets show instead of computing them."""

from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\n")  # how a text begins that a spreadsheet takes for a formula, or runs


def cell(value: Any) -> Any:
    """The value; a text that a spreadsheet would take for a formula, with an apostrophe before it.

    Line breaks of all kinds become one kind: csv.writer puts no quotes around a carriage return, and behind one a new
    cell begins.
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.startswith(FORMULA) else text
