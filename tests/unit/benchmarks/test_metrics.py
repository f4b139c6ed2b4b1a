"""The benchmark of curves reads back every event that it takes in."""

from pathlib import Path

from sqlalchemy import create_engine

from benchmarks.metrics import measure


def test_every_column_of_a_row(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    row = measure(engine, count=3000, batch=500, most=20)
    engine.dispose()
    assert len(row) == 7
    assert all(float(cell.replace(",", "")) >= 0 for cell in row)
