"""Streams of bytes to rows: what is read does not depend on where the pieces end."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.entities.datasets import DataLimits
from app.core.errors import Fault
from app.implementations.data import raw_file
from app.implementations.data.parquet_unpacking import unpack
from app.implementations.data.parsing import read_rows
from app.implementations.data.raw_file import Unreadable
from app.implementations.data.validation import Faults

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def read(content: bytes, suffix: str, **limits: int) -> tuple[list[tuple[int, Any]], list[tuple[str, str]]]:
    faults = Faults()
    rows = list(read_rows(io.BytesIO(content), suffix, faults, DataLimits(**limits)))
    return rows, [(fault.where, fault.code) for fault in faults.listed("file")]


@pytest.fixture(params=[1, 2, 7, 64])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_file, "_CHUNK", request.param)


@pytest.mark.parametrize("size", [1, 2, 7, 64])
@settings(deadline=None)
@given(values=st.lists(VALUES, min_size=1, max_size=5), indent=st.sampled_from([None, 1]), ascii=st.booleans())
def test_an_array_in_pieces_of_any_size(size: int, values: list[Any], indent: int | None, ascii: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_file, "_CHUNK", size)
        content = json.dumps(values, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
        rows, faults = read(content, ".json")
    assert faults == []
    assert rows == list(enumerate(values, start=1))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"a": 1},\n {"é": 2},\n {"b" 3}]', ("line 3, column 7", "invalid_json")),
        ('[\n"a",\n"b"\n"c"]', ("line 4, column 1", "invalid_json")),
        ("[1,\n2", ("line 2, column 2", "invalid_json")),
        ('[1,\n"abc', ("line 2, column 1", "invalid_json")),
        ("[1]\n\n x", ("line 3, column 2", "invalid_json")),
        ('["a\nb"]', ("line 1, column 4", "invalid_json")),
    ],
)
def test_the_place_of_a_fault_does_not_depend_on_the_pieces(
    piece: None, content: str, expected: tuple[str, str]
) -> None:
    assert read(content.encode(), ".json")[1] == [expected]


def test_the_byte_that_is_no_utf8_is_found_in_any_piece(piece: None) -> None:
    content = '[{"é": 1},\n{"ü": '.encode() + b"\xff}]"
    assert read(content, ".json")[1] == [("line 2, byte 8", "encoding")]


@settings(deadline=None)
@given(
    cells=st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1)] * 2), max_size=5
    )
)
def test_csv_is_what_the_csv_module_writes(cells: list[tuple[str, str]]) -> None:
    target = io.StringIO(newline="")
    csv.writer(target).writerows([("first", "second"), *cells])
    rows, faults = read(target.getvalue().encode(), ".csv")
    assert faults == ([] if cells else [("file", "no_rows")])
    assert [(row["first"], row["second"]) for _, row in rows] == cells


def test_a_csv_row_is_named_by_the_line_that_it_begins_on() -> None:
    rows, _ = read(b'a,b\n1,"x\ny\nz"\n\n2,w\n', ".csv")
    assert rows == [(2, {"a": "1", "b": "x\ny\nz"}), (6, {"a": "2", "b": "w"})]


def test_an_open_quote_does_not_take_the_rest_of_a_large_file() -> None:
    rows, faults = read(b'a,b\n1,"' + b"line\n" * 1000, ".csv", row_bytes=1024)
    assert (rows, faults) == ([], [("row 2", "row_too_large")])


def unpacked(content: bytes) -> list[dict[str, Any]]:
    pieces = [piece for piece, _ in unpack(io.BytesIO(content), DataLimits())]
    return [row for piece in pieces if not isinstance(piece, Fault) for row in piece]


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    target = io.BytesIO()
    write_table(pa.table(columns), target, **options)
    return target.getvalue()


def test_parquet_values_are_those_of_json() -> None:
    from datetime import UTC, date, datetime
    from decimal import Decimal

    import pyarrow as pa

    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None}]
    rows = unpacked(
        parquet(
            {
                "messages": [chat, None, []],
                "n": [1, None, 3],
                "x": [0.5, float("nan"), None],
                "on": [True, False, None],
                "day": [date(2026, 1, 31), None, None],
                "at": pa.array([datetime(2026, 1, 31, 12, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
                "price": [Decimal("1.50"), None, None],
                "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
                "tags": [["a", None], [], None],
                "none": pa.nulls(3),
            }
        )
    )
    assert len(rows) == 3
    assert rows[0] == {
        "messages": chat,
        "n": 1,
        "x": 0.5,
        "on": True,
        "day": "2026-01-31",
        "at": rows[0]["at"],
        "price": "1.50",
        "kind": "a",
        "tags": ["a", None],
        "none": None,
    }
    assert rows[0]["at"].startswith("2026-01-31 12:00:00")
    assert [rows[1][name] for name in ("messages", "x", "tags")] == [None, None, []]
    assert rows[2]["messages"] == []


@pytest.mark.parametrize(
    ("columns", "where", "code"),
    [
        ({"text": [b"bytes"]}, "column text", "unsupported_column"),
        ({"text": ["a"], "x": [[{"y": b"z"}]]}, "column x.y", "unsupported_column"),
        ({"text": ["a"], "x": [float("inf")]}, "column x", "invalid_number"),
    ],
)
def test_columns_that_json_has_no_likeness_of(columns: dict[str, Any], where: str, code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        unpacked(parquet(columns))
    assert (caught.value.fault.where, caught.value.fault.code) == ("file", code)
    assert caught.value.fault.message.startswith(where)


def test_rows_of_many_groups_keep_their_numbers(tmp_path: Path) -> None:
    texts = [f"text {place} " + "x" * (place % 50) for place in range(2500)]
    file = tmp_path / "a.parquet"
    file.write_bytes(parquet({"text": texts}, row_group_size=700))
    faults = Faults()
    with file.open("rb") as opened:
        rows = list(read_rows(opened, ".parquet", faults, DataLimits()))
    assert not faults
    assert rows == [(place, {"text": text}) for place, text in enumerate(texts, start=1)]
