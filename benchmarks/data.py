"""The structural check of data beside its peers: ``python -m benchmarks.data`` (``make bench-data``).

A million chats of a kilobyte are written as jsonl, json, csv and parquet. Each file is checked, and read by
others, in a process of its own on one core: rows a second, and the most memory that the process held.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import run, say, tail

KINDS = ("jsonl", "json", "csv", "parquet")
READERS = {
    "check": "this project's check",
    "json.loads": "`json.loads`, no check",
    "load_dataset": "`datasets.load_dataset`",
}


@dataclass(frozen=True, slots=True)
class Reading:
    kind: str
    reader: str
    megabytes: float
    rows_per_second: float
    peak_bytes: int


def main() -> None:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="bench-data-", dir=options.folder))
    try:
        readings = [reading for kind in options.only for reading in _measure(folder, kind, options.rows)]
    finally:
        shutil.rmtree(folder)
    print(table(options.rows, readings))


def _measure(folder: Path, kind: str, rows: int) -> list[Reading]:
    file = folder / f"rows.{kind}"
    _process(folder, f"making {file.name}", "make", str(file), str(rows))
    size = file.stat().st_size
    found = []
    for reader, title in READERS.items():
        if reader == "json.loads" and kind == "parquet":
            continue
        rate, peak = _process(folder, f"{title}: {file.name}", reader, str(file))
        found.append(Reading(kind, title, size / 1e6, rate, peak))
        shutil.rmtree(folder / f"cache.{kind}", ignore_errors=True)
    file.unlink()
    return found


def _process(folder: Path, title: str, *arguments: str) -> tuple[float, int]:
    """Rows a second, and the peak of memory."""
    say(title)
    log, answers = folder / "log.txt", folder / "answer.json"
    answers.unlink(missing_ok=True)
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.measure_data", *arguments]
    finished = run(title, command, log, threads=1, answers=answers)
    if finished.status:
        raise SystemExit(f"{title} failed:\n{tail(log)}")
    answer = json.loads(answers.read_text("utf-8"))
    return answer["rows"] / answer["seconds"], finished.peak_bytes


def table(rows: int, readings: Sequence[Reading]) -> str:
    lines = [f"{rows:,} chats, one core", "", "| file | MB | reader | rows/s | peak memory, MB |"]
    lines.append("| --- | ---: | --- | ---: | ---: |")
    for one in readings:
        figures = f"{one.megabytes:,.0f} | {one.reader} | {one.rows_per_second:,.0f} | {one.peak_bytes / 1e6:,.0f}"
        lines.append(f"| {one.kind} | {figures} |")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.data", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each file (default 1,000,000: about 1 GB)")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="kinds of files")
    parser.add_argument("--folder", type=Path, help="where the files are made and removed (4 GB; default: /tmp)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
