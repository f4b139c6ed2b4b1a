"""A parquet file to rows as JSON has them, a bounded piece at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from app.core.entities.datasets import DataLimits
from app.core.errors import Fault
from app.implementations.data.raw_file import Unreadable, row_too_large, too_many_rows

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 1000
_TEXTS = ("STRING", "JSON", "ENUM", "NONE")


Row = dict[str, Any]


def unpack(file: BinaryIO, limits: DataLimits) -> Iterator[tuple[list[Row] | Fault, float]]:
    """Rows, or what is wrong with the next one; and how much of the file is done, up to 1.

    Dates, times and decimals become texts. ``Unreadable`` for what is damaged, beyond a limit, or of a type that
    JSON has no likeness of.
    """
    import pyarrow as pa

    place = 0
    try:
        opened = _open(file, limits)
        rows = max(1, opened.metadata.num_rows)
        for batch in opened.iter_batches(_BATCH_ROWS, use_threads=False):
            for piece in _pieces(batch, limits.row_bytes):
                before = place
                place += piece.num_rows
                if piece.num_rows == 1 and _text_bytes(piece) > limits.row_bytes:
                    yield row_too_large(place, limits.row_bytes), place / rows
                else:
                    yield _rows(piece, before), place / rows
    except UnicodeDecodeError:
        message = f"a text before row {place + 1} is not UTF-8: write the file anew with texts as UTF-8 strings"
        raise Unreadable(Fault("file", "encoding", message)) from None
    except MemoryError:
        message = "takes more memory to unpack than there is for it: split it, or write it in smaller row groups"
        raise Unreadable(Fault("file", "too_large", message)) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        said = str(error).split("\n")[0][:200]
        raise Unreadable(Fault("file", "invalid_parquet", f"is not a sound parquet file: {said}")) from None


def _open(source: BinaryIO, limits: DataLimits) -> Any:
    """Texts will be read as they are packed, each different one once: their size is known before it is taken."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    options = {"pre_buffer": False, "arrow_extensions_enabled": False}
    file = ParquetFile(pa.PythonFile(source, mode="r"), **options)
    _check_footer(file.metadata, limits)
    _check_names(file.schema_arrow)
    for field in file.schema_arrow:
        _check_type(field.type, field.name[:50], limits.depth)
    leaves = [file.schema.column(place) for place in range(len(file.schema))]
    texts = [
        leaf.path
        for leaf in leaves
        if leaf.physical_type == "BYTE_ARRAY" and str(leaf.logical_type.type) in _TEXTS
    ]
    return ParquetFile(pa.PythonFile(source, mode="r"), metadata=file.metadata, read_dictionary=texts, **options)


def _check_footer(footer: Any, limits: DataLimits) -> None:
    """What the file says of itself, before anything of it is unpacked.

    Not of its columns: pyarrow 26 ends the process over some damaged ones.
    """
    if footer.num_rows > limits.rows:
        raise Unreadable(too_many_rows(limits.rows))
    unpacked = sum(max(0, footer.row_group(place).total_byte_size) for place in range(footer.num_row_groups))
    if unpacked > limits.bytes:
        message = (
            f"unpacks to {unpacked:,} bytes, and at most {limits.bytes:,} are taken (data_max_bytes): split it"
        )
        raise Unreadable(Fault("file", "too_large", message))


def _check_names(fields: Iterable[Any]) -> None:
    for name, count in Counter(field.name for field in fields).items():
        if count > 1:
            message = f"has {count} columns {name[:50]!r}: give each a name of its own"
            raise Unreadable(Fault("file", "duplicate_column", message))


def _check_type(kind: pa.DataType, where: str, depth: int) -> None:
    from pyarrow import types

    if depth == 0:
        raise Unreadable(Fault("file", "too_deep", f"column {where} is nested too deep (data_max_depth)"))
    if types.is_list(kind) or types.is_large_list(kind):
        _check_type(kind.value_type, where, depth - 1)
    elif types.is_struct(kind):
        _check_names(kind)
        for field in kind:
            _check_type(field.type, f"{where}.{field.name[:50]}", depth - 1)
    elif types.is_dictionary(kind):
        _check_type(kind.value_type, where, depth)
    elif not any(
        known(kind)
        for known in (
            *(types.is_string, types.is_large_string, types.is_null, types.is_boolean),
            *(types.is_integer, types.is_floating, types.is_decimal, types.is_temporal),
        )
    ):
        message = f"column {where} holds {kind}, which no row of text has: leave it out, or store it as a text"
        raise Unreadable(Fault("file", "unsupported_column", message))


def _pieces(batch: pa.RecordBatch, limit: int) -> Iterator[pa.RecordBatch]:
    """Halves of halves, until each holds at most ``limit`` bytes of text or is a single row."""
    if batch.num_rows <= 1 or _text_bytes(batch) <= limit:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half), limit)
    yield from _pieces(batch.slice(half), limit)


def _text_bytes(batch: pa.RecordBatch) -> int:
    return sum(_size(column) for column in batch.columns)


def _size(array: pa.Array) -> int:
    """Bytes of the values, each counted as often as it stands."""
    from pyarrow import compute, types

    kind = array.type
    if types.is_list(kind) or types.is_large_list(kind):
        return _size(array.flatten())
    if types.is_struct(kind):
        return sum(map(_size, array.flatten()))
    if types.is_dictionary(kind) and (types.is_string(kind.value_type) or types.is_large_string(kind.value_type)):
        lengths = compute.binary_length(array.dictionary)
        return (compute.sum(lengths.take(array.indices)).as_py() or 0) + len(array)
    return array.nbytes


def _rows(batch: pa.RecordBatch, before: int) -> list[Row]:
    names = batch.schema.names
    columns = [_values(column, name, before) for name, column in zip(names, batch.columns, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(array: pa.Array, where: str, before: int) -> list[Any]:
    """As JSON has them. Five times faster than ``to_pylist``, which makes an object of each value on the way."""
    import pyarrow as pa
    from pyarrow import compute, types

    kind = array.type
    if types.is_dictionary(kind):
        return _values(array.dictionary_decode(), where, before)
    if types.is_list(kind) or types.is_large_list(kind):
        inside = iter(_values(array.flatten(), where, before))
        lengths = compute.list_value_length(array).to_pylist()
        return [None if length is None else list(islice(inside, length)) for length in lengths]
    if types.is_struct(kind):
        names = [field.name for field in kind]
        fields = [
            _values(field, f"{where}.{name}", before) for name, field in zip(names, array.flatten(), strict=True)
        ]
        found = [dict(zip(names, values, strict=True)) for values in zip(*fields, strict=True)]
        return [
            value if is_there else None
            for value, is_there in zip(found, array.is_valid().to_pylist(), strict=True)
        ]
    if types.is_floating(kind):
        return _numbers(array.cast(pa.float64()), where, before)
    if types.is_temporal(kind) or types.is_decimal(kind):
        return array.cast(pa.string()).to_pylist()
    return array.to_pylist()


def _numbers(array: pa.Array, where: str, before: int) -> list[float | None]:
    """NaN, with which pandas marks what is not there, is null."""
    from pyarrow import compute

    if compute.any(compute.is_inf(array)).as_py():
        message = f"column {where}: a number after row {before} is infinite: write null or leave it out"
        raise Unreadable(Fault("file", "invalid_number", message))
    return [None if number != number else number for number in array.to_pylist()]
