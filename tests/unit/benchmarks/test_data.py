"""The rows that the check of data is measured with."""

from pathlib import Path

import pytest

from benchmarks.data import KINDS, Reading, table
from benchmarks.measure_data import check, make, parse


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_file_holds_sound_rows(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"rows.{kind}"
    assert make(file, 40) == 40
    assert check(file) == 40
    if kind != "parquet":
        assert parse(file) == 40


def test_rows_are_about_a_kilobyte(tmp_path: Path) -> None:
    make(tmp_path / "rows.jsonl", 500)
    assert 800 < (tmp_path / "rows.jsonl").stat().st_size / 500 < 1300


def test_the_table_is_markdown() -> None:
    lines = table(1000, [Reading("jsonl", "a reader", 1000.4, 20_000.0, 10**8)]).splitlines()
    assert lines[0] == "1,000 chats, one core"
    assert lines[-1] == "| jsonl | 1,000 | a reader | 20,000 | 100 |"
    assert {line.count("|") for line in lines[2:]} == {6}
