"""Files that mean no good: each has its report, and none a traceback."""

import io
import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow.parquet import write_table

from app.core.entities.datasets import DataLimits, DatasetCheck
from app.core.errors import Fault, Invalid
from app.implementations.data import parquet_rows
from app.implementations.data.parquet_unpacking import unpack
from app.implementations.data.raw_file import Unreadable
from app.implementations.data.store import FileDatasetStore
from app.registries import DATA_FORMATS

HOSTILE = Path(__file__).parents[3] / "data" / "hostile"
EXPECTED: dict[str, Any] = json.loads((HOSTILE / "expected.json").read_text())
ROW = {"question": "q", "answer": "a"}

Put = Callable[..., str]


def places(check: DatasetCheck) -> list[tuple[str, str]]:
    return [(fault.where, fault.code) for fault in check.faults]


def limited(data_dir: Path, **limits: int) -> FileDatasetStore:
    formats = [DATA_FORMATS.create(name) for name in DATA_FORMATS.names()]
    return FileDatasetStore(data_dir, formats, 10**8, replace(DataLimits(), **limits))


def parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    target = io.BytesIO()
    write_table(pyarrow.Table.from_pylist(rows), target, **options)
    return target.getvalue()


def test_each_hostile_file_has_its_report() -> None:
    assert sorted(EXPECTED) == sorted(file.name for file in HOSTILE.iterdir() if file.name != "expected.json")


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_hostile_file(store: FileDatasetStore, put: Put, name: str) -> None:
    check = store.check(put((HOSTILE / name).read_bytes(), name))
    assert [list(place) for place in places(check)] == EXPECTED[name]["faults"]
    assert check.rows == EXPECTED[name]["rows"]
    assert all(fault.message for fault in check.faults)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), kind=st.sampled_from(["json", "jsonl", "csv"]))
@example(content=b"[[[[", kind="jsonl")
@example(content=b'{"messages":[{"role":"user","content":"\\ud800"}]}', kind="jsonl")
@example(content=b'"', kind="csv")
@example(content=b"a,b\n\xf0\x9f", kind="csv")
def test_any_bytes(store: FileDatasetStore, put: Put, content: bytes, kind: str) -> None:
    assert isinstance(store.check(put(content, f"a.{kind}")), DatasetCheck)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_damaged_parquet_file(data: st.DataObject) -> None:
    sound = bytearray(parquet([{**ROW, "n": n, "tags": ["a", None]} for n in range(20)]))
    for _ in range(data.draw(st.integers(1, 4))):
        sound[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(sound[: data.draw(st.integers(0, len(sound)))]) if data.draw(st.booleans()) else bytes(sound)
    with suppress(Unreadable):
        for piece, _ in unpack(io.BytesIO(content), DataLimits(bytes=10**8)):
            json.dumps(piece)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_no_parquet_file(content: bytes) -> None:
    with pytest.raises(Unreadable):
        list(unpack(io.BytesIO(content), DataLimits()))


def test_a_reader_that_ends_is_a_fault(store: FileDatasetStore, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(parquet([ROW]), "a.parquet")
    monkeypatch.setitem(parquet_rows._ENVIRONMENT, "PYTHONPATH", "/nowhere")
    monkeypatch.setitem(parquet_rows._ENVIRONMENT, "PYTHONHOME", "/nowhere")
    assert places(store.check(path)) == [("file", "invalid_parquet")]


def test_a_billion_times_the_same_takes_no_more_than_the_reader_may(
    data_dir: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row with a list of 12 million texts, in a few kilobytes."""
    count = 12_000_000
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.repeat(pyarrow.scalar(0, pyarrow.int8()), count), ["abc"])
    row = pyarrow.ListArray.from_arrays(pyarrow.array([0, count], pyarrow.int32()), texts)
    target = io.BytesIO()
    write_table(pyarrow.table({"text": ["t"], "x": row}), target, store_schema=False)
    assert len(target.getvalue()) < 200_000
    monkeypatch.setattr(parquet_rows, "MEMORY_BYTES", 256 * 2**20)
    check = limited(data_dir).check(put(target.getvalue(), "bomb.parquet"))
    assert places(check) == [("file", "too_large")]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_a_row_of_ten_megabytes_is_taken(data_dir: Path, put: Put, kind: str) -> None:
    row = {"question": "q", "answer": "ä" * 5 * 1024**2}
    content: Any = {
        "json": json.dumps([row], ensure_ascii=False).encode(),
        "jsonl": json.dumps(row, ensure_ascii=False).encode(),
        "csv": "question,answer\nq,{answer}\n".format(**row).encode(),
    }.get(kind) or parquet([row])
    assert limited(data_dir).check(put(content, f"a.{kind}")).rows == 1


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_a_row_beyond_the_limit_is_named(data_dir: Path, put: Put, kind: str) -> None:
    rows = [ROW, {"question": "q", "answer": "ä" * 700}, ROW]
    content: Any = {
        "json": json.dumps(rows, ensure_ascii=False).encode(),
        "jsonl": b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows),
        "csv": "\n".join(["question,answer", *(f"{row['question']},{row['answer']}" for row in rows)]).encode(),
    }.get(kind) or parquet(rows)
    check = limited(data_dir, row_bytes=1200).check(put(content, f"a.{kind}"))
    assert places(check) == [("row 3" if kind == "csv" else "row 2", "row_too_large")]
    assert "data_max_row_bytes" in check.faults[0].message
    assert check.rows == (2 if kind in ("jsonl", "parquet") else 1)  # the other two end there


def test_limits_are_named(data_dir: Path, put: Put) -> None:
    def faults(content: object, **limits: int) -> list[tuple[str, str]]:
        path = put(content)
        check = limited(data_dir, **limits).check(path)
        assert f"data_max_{next(iter(limits))}" in check.faults[-1].message
        return places(check)

    turn = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert faults([ROW] * 4, rows=3) == [("file", "too_many_rows")]
    assert faults([{"messages": turn * 3}], turns=5) == [("row 1", "too_many_turns")]
    assert faults([{**ROW, "x": [[[1]]]}], depth=3) == [("row 1", "too_deep")]
    with pytest.raises(Invalid, match="data_max_bytes") as caught:
        limited(data_dir, bytes=2000).check(str(data_dir / put([ROW] * 100).removeprefix("data/")), trusted=True)
    assert caught.value.code == "dataset_too_large"


def test_a_parquet_bomb_is_refused_by_its_footer(store: FileDatasetStore, put: Put) -> None:
    bomb = parquet([{**ROW, "answer": "a" * 2_000_000}], compression="zstd", use_dictionary=False)
    assert len(bomb) < 10_000
    check = store.check(put(bomb, "bomb.parquet"))  # which may read 100,000 bytes
    assert places(check) == [("file", "too_large")]
    assert places(limited(store._raw.parent, rows=5).check(put(parquet([ROW] * 6), "a.parquet"))) == [
        ("file", "too_many_rows")
    ]


def test_a_text_that_a_parquet_file_says_a_thousand_times_is_not_unpacked_at_once() -> None:
    """The footer counts it once: unpacked it is a gigabyte."""
    same = pyarrow.repeat(pyarrow.scalar(0, pyarrow.int8()), 1000)
    answers = pyarrow.DictionaryArray.from_arrays(same, ["a" * 1_000_000])
    target = io.BytesIO()
    write_table(pyarrow.table({"answer": answers}), target, compression="zstd", store_schema=False)
    bomb = target.getvalue()
    assert len(bomb) < 20_000
    pool = pyarrow.default_memory_pool()
    before = pool.max_memory()
    tracemalloc.start()
    try:
        pieces = [piece for piece, _ in unpack(io.BytesIO(bomb), DataLimits(row_bytes=10_000))]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [piece.where for piece in pieces if isinstance(piece, Fault)] == [f"row {n}" for n in range(1, 1001)]
    assert peak < 50_000_000
    assert pool.max_memory() <= max(before, 50_000_000)


def test_a_truncated_parquet_file(store: FileDatasetStore, put: Put) -> None:
    content = parquet([ROW] * 10)
    assert places(store.check(put(content[:-20], "a.parquet"))) == [("file", "invalid_parquet")]
