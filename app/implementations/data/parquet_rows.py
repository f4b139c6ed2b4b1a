"""Rows of a parquet file, unpacked in a child process.

A few hostile bytes can make the library that reads them take gigabytes, whatever the footer says, or end the
process that it runs in. The child has limits of memory and processor time, and its end is a fault of the file.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from app.core.entities.datasets import DataLimits
from app.core.errors import Fault
from app.implementations.data.json_rows import NumberedRow
from app.implementations.data.parquet_unpacking import unpack
from app.implementations.data.raw_file import RawFile, Unreadable
from app.implementations.data.validation import Faults
from app.utils.project import ROOT

MEMORY_BYTES = 2 * 1024**3
CPU_SECONDS = 60  # and one more for each megabyte of the file
_ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve far more than they use, and that counts
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def parquet_rows(raw: RawFile, limits: DataLimits, faults: Faults) -> Iterator[NumberedRow]:
    """See ``unpack``. ``raw`` is a file of the system."""
    with _child(raw, limits) as lines:
        for line in lines:
            told = json.loads(line)
            yield from enumerate(told.get("rows", ()), start=told["place"])
            raw.tell_progress(told["done"])
            if told.get("fault"):
                faults.take(Fault(*told["fault"]))
            if told.get("ended") or faults.hopeless:
                return
    message = "is not a sound parquet file: its reader came to grief over it: write it anew, or split it"
    raise Unreadable(Fault("file", "invalid_parquet", message))


@contextmanager
def _child(raw: RawFile, limits: DataLimits) -> Iterator[Iterator[bytes]]:
    """What it writes, a JSON object a line."""
    seconds = CPU_SECONDS + raw.size // 1_000_000
    command = [sys.executable, "-m", __name__, json.dumps(asdict(limits)), str(MEMORY_BYTES), str(seconds)]
    with subprocess.Popen(
        command,
        stdin=raw.file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **_ENVIRONMENT},
    ) as process:
        try:
            yield process.stdout or iter(())
        finally:
            process.kill()


def _main() -> None:
    limits, memory, seconds = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    file = sys.stdin.buffer
    size = os.fstat(file.fileno()).st_size
    place = 1
    try:
        for piece, share in unpack(file, DataLimits(**json.loads(limits))):
            if isinstance(piece, Fault):
                _tell(place=place, done=int(size * share), fault=_listed(piece))
                place += 1
            else:
                _tell(place=place, done=int(size * share), rows=piece)
                place += len(piece)
        _tell(place=place, done=size, ended=True)
    except Unreadable as end:
        _tell(place=place, done=size, fault=_listed(end.fault), ended=True)


def _listed(fault: Fault) -> list[str]:
    return [fault.where, fault.code, fault.message]


def _tell(**what: Any) -> None:
    sys.stdout.buffer.write(json.dumps(what, ensure_ascii=False).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    _main()
