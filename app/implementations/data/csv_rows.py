"""Rows of a csv file, which its first line names the columns of."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.core.entities.datasets import DataLimits
from app.core.errors import Fault
from app.implementations.data.json_rows import NumberedRow, RowDecoder
from app.implementations.data.raw_file import RawFile, Unreadable, not_utf8, row_too_large
from app.implementations.data.validation import Faults

_OUTPUTS = frozenset({"preferred_output", "non_preferred_output"})
_STRUCTURED = _OUTPUTS | {"messages", "conversations"}  # their cells hold JSON


def csv_rows(
    raw: RawFile, limits: DataLimits, faults: Faults, columns: Mapping[str, str]
) -> Iterator[NumberedRow]:
    """Rows of texts, each numbered by the line that it begins on. A cell of a structured column is JSON.

    ``columns``: their name → our name.
    """
    csv.field_size_limit(max(csv.field_size_limit(), limits.row_bytes))  # of the process; _Lines has our own
    lines = _Lines(raw, limits.row_bytes)
    rows = csv.reader(lines, strict=True)
    header: list[str] = []
    decoder = RowDecoder()
    while not faults.hopeless:
        lines.begin_row()
        try:
            cells = next(rows, None)
        except csv.Error as error:
            message = (
                f"is not CSV: {error}: put a cell that has quotes in quotes, and write each quote in it twice"
            )
            faults.add(f"row {lines.first}", "invalid_csv", message)
            continue
        if cells is None:
            return
        if not header:
            header = _header(cells)
            structured = _structured(header, columns)
        elif len(cells) == len(header):
            row: dict[str, Any] = dict(zip(header, cells, strict=True))
            if _decode(row, structured, decoder, lines.first, faults):
                yield lines.first, row
        elif cells:
            message = f"has {len(cells)} cells, and the first line names {len(header)} columns: put a cell that "
            faults.add(f"row {lines.first}", "cells", f"{message}has commas or line breaks in quotes")


class _Lines:
    """The lines of the file as ``csv.reader`` asks for them: a row takes several where a cell has line breaks."""

    def __init__(self, raw: RawFile, limit: int) -> None:
        self.first = 1  # line of the row at hand
        self._lines = raw.lines(limit)
        self._limit = limit
        self._number = 0
        self._bytes = 0

    def begin_row(self) -> None:
        self.first, self._bytes = self._number + 1, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._number, line = next(self._lines)
        self._bytes += len(line or b"")
        if line is None or self._bytes > self._limit:
            raise Unreadable(row_too_large(self.first, self._limit))
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise Unreadable(not_utf8(error, self._number, error.start + 1)) from None


def _header(cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for separator in (";", "\t"):
        if len(names) == 1 and separator in names[0]:
            message = f"separates cells with {separator!r}: save the file with commas between them"
            raise Unreadable(Fault("line 1", "separator", message))
    for name, count in Counter(names).items():
        if count > 1:
            message = f"names {count} columns {name[:50]!r}: give each a name of its own"
            raise Unreadable(Fault("line 1", "duplicate_column", message))
    return names


def _structured(header: Sequence[str], columns: Mapping[str, str]) -> Mapping[str, str]:
    """Columns of JSON, and what they are called in the end."""
    ours = {name: columns.get(name, name) for name in header}
    wanted = _STRUCTURED if _OUTPUTS.isdisjoint(ours.values()) else _STRUCTURED | {"input"}
    return {name: known for name, known in ours.items() if known in wanted}


def _decode(
    row: dict[str, Any], structured: Mapping[str, str], decoder: RowDecoder, number: int, faults: Faults
) -> bool:
    before = len(faults)
    if row.get("split") == "":
        row["split"] = None  # an empty cell: no split is named
    for name, known in structured.items():
        where = f"row {number}: {known}"
        try:
            row[name] = decoder.decode(row[name])
        except json.JSONDecodeError as error:
            faults.add(where, "invalid_json", f"is not JSON: {error.msg} at character {error.pos + 1} of the cell")
        except RecursionError:
            faults.add(where, "too_deep", "is nested too deep")
        else:
            decoder.tell(where, faults)
    return len(faults) == before
