"""What a step costs a trainer in reporting: ``python -m benchmarks.reporting``.

The trainer's own writer of events, alone and beside a process that takes them into SQLite as a worker does; that
process' CPU time comes on top where the two share their cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import select
import tempfile
import threading
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

from sqlalchemy import create_engine

from app.core.entities.jobs import FineTuningJob, JobState, Progress
from app.implementations.queue.event_file import EventFile
from app.processes.trainer import EventWriter
from app.repositories.database import migrate_empty
from app.repositories.jobs import SqlJobRepository
from benchmarks.arithmetic import markdown_table

FIGURES = {
    "loss": 1.2345678,
    "learning_rate": 0.00059,
    "grad_norm": 0.4321,
    "tokens_per_second": 812.3,
    "eta_seconds": 123.4,
    "cpu_percent": 198.1,
    "memory_bytes": 2.1e9,
    "gpu_memory_bytes": None,
    "gpu_utilization": None,
}
BATCH_SECONDS = 0.1  # as a worker waits between two batches


def main() -> None:
    options = _options()
    step = options.step_ms / 1000
    rows = []
    for name, ingests, pause in (
        ("written as fast as it goes", False, 0.0),
        ("the same, while a worker takes them in", True, 0.0),
        (f"a step each {options.step_ms:g} ms, while a worker takes them in", True, step),
    ):
        count = options.paced if pause else options.events
        writing, worker = _measure(count, ingests, pause)
        of_step = f"{100 * writing / step:.3f} %"
        rows.append(
            (name, f"{count:,}", f"{writing * 1e6:.0f}", of_step, f"{worker * 1e6:.0f}" if ingests else "")
        )
    heads = ("", "events", "µs an event", f"of a step of {options.step_ms:g} ms", "CPU µs an event in the worker")
    print(markdown_table(heads, rows))


def _measure(count: int, ingests: bool, pause: float) -> tuple[float, float]:
    """Seconds an event: of the writer's wall clock within its calls, and of the worker's CPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.ndjson"
        heard, ring = os.pipe()
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        worker = context.Process(target=_ingest, args=(Path(folder), heard, count, theirs))
        if ingests:
            worker.start()
            ours.recv()
        writer = EventWriter(path, ring, threading.Event())
        within = 0.0
        for step in range(1, count + 1):
            started = time.perf_counter()
            writer.metrics(step, count, FIGURES)
            within += time.perf_counter() - started
            if pause:
                time.sleep(pause)
        cpu = 0.0
        if ingests:
            cpu = ours.recv()
            worker.join()
        if writer._file is not None:
            writer._file.close()
        for end in (ours, theirs):
            end.close()
        os.close(heard)
        os.close(ring)
        return within / count, cpu / count


def _ingest(folder: Path, ring: int, count: int, answer: Connection) -> None:
    """Every event into a new SQLite database, woken by the ring; then the CPU time that it took."""
    engine = create_engine(f"sqlite:///{folder / 'app.db'}")
    migrate_empty(engine)
    jobs = SqlJobRepository(engine)
    now = datetime.now(UTC)
    jobs.add([FineTuningJob("job", "default", "train", "run", JobState.QUEUED, {}, "user", now)])
    claim = jobs.claim("worker", 30)
    if claim is None:
        raise RuntimeError("the job cannot be claimed")
    file = EventFile(folder / "events.ndjson")
    answer.send("ready")
    before = time.process_time()
    taken = 0
    while taken < count:
        select.select([ring], [], [])
        os.read(ring, 65536)
        while events := file.read():
            jobs.ingest("job", claim.fence, events, Progress(step=taken))
            taken += len(events)
        time.sleep(BATCH_SECONDS)
    answer.send(time.process_time() - before)
    engine.dispose()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.reporting", description=__doc__)
    parser.add_argument("--events", type=int, default=20_000, help="written one after the other (default 20,000)")
    parser.add_argument("--paced", type=int, default=200, help="written a step apart (default 200)")
    parser.add_argument("--step-ms", type=float, default=50.0, help="of a step (default 50)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
