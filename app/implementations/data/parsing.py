"""A raw file to rows, as a stream: every fault with its place, and never the whole file in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import BinaryIO

from app.core.entities.datasets import DataLimits
from app.core.interfaces.components import ByteProgress
from app.implementations.data.csv_rows import csv_rows
from app.implementations.data.json_rows import NumberedRow, json_array, json_lines
from app.implementations.data.parquet_rows import parquet_rows
from app.implementations.data.raw_file import RawFile, Unreadable, too_many_rows
from app.implementations.data.validation import Faults

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")


def read_rows(
    file: BinaryIO,
    suffix: str,
    faults: Faults,
    limits: DataLimits,
    columns: Mapping[str, str] | None = None,
    progress: ByteProgress | None = None,
) -> Iterator[NumberedRow]:
    """Rows of any JSON type; what cannot be read is added to ``faults`` (``where``: file, row, line and column).

    ``columns`` (their name → our name) tells which cells of a csv file hold JSON; it renames nothing here.
    """
    readers: Mapping[str, Callable[[RawFile, DataLimits, Faults], Iterator[NumberedRow]]] = {
        ".json": json_array,
        ".jsonl": json_lines,
        ".csv": partial(csv_rows, columns=columns or {}),
        ".parquet": parquet_rows,
    }
    raw = RawFile(file, progress)
    if not raw.size:
        faults.add("file", "no_rows", "is empty")
        return
    before, count = len(faults), 0
    try:
        for row in readers[suffix](raw, limits, faults):
            count += 1
            if count > limits.rows:
                raise Unreadable(too_many_rows(limits.rows))
            yield row
    except Unreadable as end:
        faults.take(end.fault)
    if not count and len(faults) == before:
        faults.add("file", "no_rows", "has no rows")
