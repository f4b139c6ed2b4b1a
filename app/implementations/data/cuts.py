"""A split of an immutable cut, or all rows of a dataset version: a parquet file, decoded as it is asked for."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from app.core.entities.datasets import Conversation, Split, no_row

# A group of rows is written when it has so many, or so many bytes as JSON: the same rows, the same groups.
_GROUP_ROWS = 10_000
_GROUP_BYTES = 64 * 1024**2
_ZSTD_LEVEL = 3
_BATCH = 1000  # rows decoded at once
WHOLE = "rows"


def write_split(folder: Path, split: str, rows: Iterable[Conversation]) -> str:
    """``<split>.parquet``; for the split ``WHOLE``, rows that know their own.

    The answer is the digest of the rows, the same whatever wrote the file.

    It is the sha256 of each row's canonical JSON (keys in order, no spaces, ASCII) with a line break after it: the
    bytes of parquet depend on the library's version, which they name.
    """
    from pyarrow import parquet

    digest = hashlib.sha256()
    schema = _schema()
    with parquet.ParquetWriter(
        folder / f"{split}.parquet", schema, compression="zstd", compression_level=_ZSTD_LEVEL
    ) as writer:
        for group in _groups(map(_record, rows), digest):
            writer.write_table(_table(group, schema), row_group_size=_GROUP_ROWS)
    return digest.hexdigest()


def read_split(folder: Path, split: Split | str) -> Sequence[Conversation]:
    """The rows of one split of a cut, in the order of the raw file. They stay on the disk."""
    return SplitRows(_mapped(folder / f"{split}.parquet"), None if split == WHOLE else split)


def read_row(folder: Path, number: int) -> Conversation:
    """Find the first row of that number; nothing is unpacked but numbers, and the group that has the row.

    ``NotFound`` (row_not_found).
    """
    from pyarrow.parquet import ParquetFile

    numbers: list[int] = []
    with ParquetFile(folder / f"{WHOLE}.parquet") as file:
        for group in range(file.num_row_groups):
            held = file.read_row_group(group, columns=["row"], use_threads=False)["row"].to_pylist()
            if number in held:
                place = held.index(number)
                for batch in file.iter_batches(_BATCH, row_groups=[group], use_threads=False):
                    if place < len(batch):
                        return _conversation(None, **batch.slice(place, 1).to_pylist()[0])
                    place -= len(batch)
            numbers += (min(held), max(held))
    raise no_row(number, numbers)


def read_within(folder: Path, most_bytes: int) -> Sequence[Conversation] | None:
    """Read all rows of a version, a batch at a time; None as soon as they take more bytes than that unpacked."""
    from pyarrow.parquet import ParquetFile

    rows: list[Conversation] = []
    size = 0
    with ParquetFile(folder / f"{WHOLE}.parquet") as file:
        for batch in file.iter_batches(_BATCH, use_threads=False):
            size += batch.nbytes
            if size > most_bytes:
                return None
            rows += [_conversation(None, **values) for values in batch.to_pylist()]
    return rows


class SplitRows(Sequence[Conversation]):
    """Rows of a Hugging Face dataset; a slice of them decodes nothing either."""

    def __init__(self, held: Any, split: Any, places: range | None = None) -> None:
        self._held = held
        self._split = split
        self._places = range(len(held)) if places is None else places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Conversation: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Conversation]: ...

    def __getitem__(self, place: int | slice) -> Conversation | Sequence[Conversation]:
        if isinstance(place, slice):
            return SplitRows(self._held, self._split, self._places[place])
        return _conversation(self._split, **self._held[self._places[place]])

    def __iter__(self) -> Iterator[Conversation]:
        for start in range(0, len(self), _BATCH):
            columns = self._held[self._places[start : start + _BATCH]]
            for values in zip(*columns.values(), strict=True):
                yield _conversation(self._split, **dict(zip(columns, values, strict=True)))


def _conversation(of_split: Any, *, extra: str, split: Any, **columns: Any) -> Conversation:
    return Conversation(split=of_split or split, extra=json.loads(extra), **columns)


def _record(row: Conversation) -> dict[str, Any]:
    """``extra`` as ASCII: a column that is no message may hold lone surrogates, which UTF-8 cannot write."""
    return {
        "row": row.row,
        "messages": list(row.messages),
        "text": row.text,
        "label": row.label,
        "rejected": row.rejected,
        "split": row.split,
        "extra": _canonical(row.extra),
    }


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _groups(records: Iterable[dict[str, Any]], digest: Any) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for record in records:
        line = _canonical(record).encode() + b"\n"
        digest.update(line)
        group.append(record)
        size += len(line)
        if len(group) == _GROUP_ROWS or size > _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _schema() -> Any:
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    return pa.schema(
        [
            ("row", pa.int64()),
            ("messages", pa.list_(message)),
            ("text", pa.string()),
            ("label", pa.string()),
            ("rejected", message),
            ("split", pa.string()),
            ("extra", pa.string()),
        ]
    )


def _table(records: list[dict[str, Any]], schema: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(records, schema=schema)


def _mapped(parquet: Path) -> Any:
    """A Hugging Face dataset over an ``.arrow`` file beside the parquet file, made of it when it is first read.

    The system maps that file into memory and may drop its pages at any time; parquet must be unpacked first.
    """
    from datasets import Dataset

    arrow = parquet.with_suffix(".arrow")
    if not arrow.is_file():
        _unpack(parquet, arrow)
    return Dataset.from_file(str(arrow))


def _unpack(parquet: Path, arrow: Path) -> None:
    """Whole or not at all: another process may be at it too."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    temporary = arrow.with_name(f".{arrow.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as target, ParquetFile(parquet) as source:
            with pa.ipc.new_stream(target, source.schema_arrow) as writer:
                for batch in source.iter_batches(_BATCH, use_threads=False):
                    writer.write_batch(batch)
            target.flush()
            os.fsync(target.fileno())
        temporary.replace(arrow)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
