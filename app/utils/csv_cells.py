"""Cells of csv files that we write and a spreadsheet opens."""

# What makes a spreadsheet take a cell for a formula, and run it: OWASP, "CSV Injection". Some take the full-width
# letters for the plain ones. An apostrophe of the cell's own gets another, so that one can be taken off again.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")


def csv_safe(cell: str) -> str:
    """The cell as a text that no spreadsheet computes: an apostrophe before what would begin a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
