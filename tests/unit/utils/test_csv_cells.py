"""Formulas in csv files that we write."""

import pytest

from app.utils.csv_cells import csv_safe


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=HYPERLINK(x)", "\n=1", "＝1", "＠x", "'=1"]
)
def test_what_a_spreadsheet_would_compute_becomes_a_text(cell: str) -> None:
    assert csv_safe(cell) == "'" + cell


@pytest.mark.parametrize("cell", ["", "1", "a=b", " =1", "état", "👍"])
def test_other_cells_stay(cell: str) -> None:
    assert csv_safe(cell) == cell
