"""Cells of csv files that we write and a spreadsheet opens."""

# What makes a spreadsheet take a cell for a formula, and run it: OWASP, "CSV Injection".
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_safe(cell: str) -> str:
    """The cell as a text that no spreadsheet computes: an apostrophe before what would begin a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
