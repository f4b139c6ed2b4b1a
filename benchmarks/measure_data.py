"""A process of ``benchmarks.data``: makes one raw file, or reads it in one way, on one core.

It prints ``{"rows", "seconds"}``: of the reading alone, imports left out.
"""

import csv
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.core.entities.datasets import DataLimits
from app.core.factories import DATA_FORMATS
from app.implementations.data.store import FileDatasetStore

_ENGLISH = "the order was sent on Monday and a parcel takes three days to reach you please write to the desk"
_OTHERS = "Rückgaben gelten für vierzehn Tage 退货 地址 在 包裹 里 café naïve 👍"
_BATCH = 10_000


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Chats of two to four questions, a kilobyte each; one in eight is not in English letters alone."""
    source = random.Random(42)  # noqa: S311  (no secret)
    words, more = _ENGLISH.split(), _OTHERS.split()
    plain = [" ".join(source.choices(words, k=28)) + "." for _ in range(2000)]
    mixed = [" ".join(source.choices([*words, *more], k=28)) + "." for _ in range(200)]
    for place in range(count):
        turns = source.choices(mixed if place % 8 == 0 else plain, k=2 * source.randint(2, 4))
        messages = [
            {"role": ("user", "assistant")[turn % 2], "content": f"{text} {place}"}
            for turn, text in enumerate(turns)
        ]
        yield {"id": place, "messages": messages}


def make(file: Path, count: int) -> int:
    _MAKERS[file.suffix](file, count)
    return count


def _make_lines(file: Path, count: int) -> None:
    with file.open("w", encoding="utf-8") as target:
        target.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(count))


def _make_array(file: Path, count: int) -> None:
    with file.open("w", encoding="utf-8") as target:
        for place, row in enumerate(rows(count)):
            target.write((",\n" if place else "[\n") + json.dumps(row, ensure_ascii=False))
        target.write("\n]\n")


def _make_csv(file: Path, count: int) -> None:
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["id", "messages"])
        for row in rows(count):
            writer.writerow([row["id"], json.dumps(row["messages"], ensure_ascii=False)])


def _make_parquet(file: Path, count: int) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema([("id", pa.int64()), ("messages", pa.list_(message))])
    with ParquetWriter(file, schema) as writer:
        made = rows(count)
        while group := [row for row, _ in zip(made, range(_BATCH), strict=False)]:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def check(file: Path) -> int:
    """This project's structural check, the digest of the file included."""
    formats = [DATA_FORMATS.create(name) for name in DATA_FORMATS.names()]
    limits = DataLimits(rows=10**9, bytes=10**12)
    found = FileDatasetStore(file.parent, formats, max_bytes=0, limits=limits).check(str(file), trusted=True)
    if found.faults:
        raise SystemExit(f"the rows have faults: {found.faults[0]}")
    return found.rows


def parse(file: Path) -> int:
    """The standard library, which checks nothing."""
    if file.suffix == ".json":
        return len(json.loads(file.read_bytes()))
    with file.open(encoding="utf-8", newline="") as lines:
        if file.suffix == ".csv":
            return sum(1 for row in csv.DictReader(lines) if json.loads(row["messages"]))
        return sum(1 for line in lines if json.loads(line))


def load_dataset(file: Path) -> int:
    """Hugging Face datasets, which checks that types agree, and writes its cache on the way."""
    import datasets

    datasets.disable_progress_bars()
    kind = {".jsonl": "json"}.get(file.suffix, file.suffix[1:])
    cache = str(file.parent / f"cache{file.suffix}")
    return int(datasets.load_dataset(kind, data_files=str(file), cache_dir=cache, split="train").num_rows)


_MAKERS: dict[str, Callable[[Path, int], None]] = {
    ".jsonl": _make_lines,
    ".json": _make_array,
    ".csv": _make_csv,
    ".parquet": _make_parquet,
}
READERS: dict[str, Callable[[Path], int]] = {"check": check, "json.loads": parse, "load_dataset": load_dataset}


def main() -> None:
    what, file, *count = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if what == "load_dataset":
        import datasets  # noqa: F401  (its import is not what is measured)
    started = time.perf_counter()
    done = make(Path(file), int(count[0])) if what == "make" else READERS[what](Path(file))
    print(json.dumps({"rows": done, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
