"""What a job's curve costs: ``python -m benchmarks.metrics``, on SQLite and on PostgreSQL.

Events are taken in as a worker does, in batches, with and without summing them up; then the curve is read, beside
the plain query over the events that does without chunks.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, create_engine, text, update

from app.core.entities.jobs import FineTuningJob, JobEvent, JobState, Progress
from app.repositories.database import Database, migrate_empty
from app.repositories.jobs import SqlJobRepository
from app.repositories.tables import JobRow
from benchmarks.arithmetic import markdown_table
from benchmarks.reporting import FIGURES

PLAIN = {  # the same width and one name, without superseded attempts
    "sqlite": """
        SELECT json_extract(data, '$.step') / :width AS point, min(json_extract(data, '$.loss')),
        max(json_extract(data, '$.loss')), avg(json_extract(data, '$.loss')) FROM job_events
        WHERE job_id = :job AND type = 'metrics' GROUP BY 1 ORDER BY 1""",
    "postgresql": """
        SELECT (data->>'step')::int / :width AS point, min((data->>'loss')::float), max((data->>'loss')::float),
        avg((data->>'loss')::float) FROM job_events
        WHERE job_id = :job AND type = 'metrics' GROUP BY 1 ORDER BY 1""",
}
READS = 5


def main() -> None:
    options = _options()
    rows = []
    for name, database in (("SQLite", _sqlite), ("PostgreSQL", _postgres)):
        with database() as engine:
            rows.append((name, *measure(engine, options.events, options.batch, options.points)))
    heads = (
        *("", f"events/s, {options.batch} at once", "without chunks", "job from before, events/s"),
        *(f"read {options.points} points, ms", "plain query, ms", "events, MB", "chunks, MB"),
    )
    print(markdown_table(heads, rows))


def measure(engine: Engine, count: int, batch: int, most: int) -> tuple[str, ...]:
    """The columns of a row of the table, from ``count`` events of two jobs each."""
    migrate_empty(engine)
    jobs = SqlJobRepository(engine)
    with_chunks = _ingest(engine, jobs, "summed-up", count, batch)
    without = _ingest(engine, jobs, "from-before", count, batch, behind=True)
    caught_up = _seconds(lambda: jobs.metrics("default", "from-before", most=most))
    curve = jobs.metrics("default", "summed-up", most=most)
    if curve.events != count or len(curve.points) > most:
        raise RuntimeError(f"{curve.events} events in {len(curve.points)} points")
    read = statistics.median(
        _seconds(lambda: jobs.metrics("default", "summed-up", most=most)) for _ in range(READS)
    )
    sizes = [_table_bytes(engine, table) / 1e6 for table in ("job_events", "job_metric_chunks")]
    return (
        *(f"{count / seconds:,.0f}" for seconds in (with_chunks, without, caught_up)),
        *(f"{1000 * seconds:,.0f}" for seconds in (read, _plain(engine, "summed-up", curve.width))),
        *(f"{size / 2:,.1f}" for size in sizes),
    )


def _ingest(
    engine: Engine, jobs: SqlJobRepository, job_id: str, count: int, batch: int, *, behind: bool = False
) -> float:
    """Seconds. A job that is ``behind`` has its events summed up by whoever looks at them first."""
    now = datetime.now(UTC)
    jobs.add([FineTuningJob(job_id, "default", "train", "run", JobState.QUEUED, {}, "user", now)])
    claim = jobs.claim("worker", 30, job_id)
    if claim is None:
        raise RuntimeError("the job cannot be claimed")
    first = JobEvent(1, "message", "info", "begins", now)
    jobs.ingest(job_id, claim.fence, [first], None)
    if behind:
        with Database(engine).write() as session:
            session.execute(update(JobRow).where(JobRow.id == job_id).values(last_chunked=0))
    spent = 0.0
    for start in range(1, count + 1, batch):
        events = [_event(step, count, now) for step in range(start, min(start + batch, count + 1))]
        progress = Progress(step=start)
        began = time.perf_counter()
        jobs.ingest(job_id, claim.fence, events, progress)
        spent += time.perf_counter() - began
    return spent


def _event(step: int, total: int, now: datetime) -> JobEvent:
    data = {**FIGURES, "step": step, "total_steps": total, "loss": 2 / math.sqrt(step)}
    return JobEvent(step + 1, "metrics", "info", f"step {step} of {total}", now, data)


def _plain(engine: Engine, job_id: str, width: int) -> float:
    query = text(PLAIN[engine.dialect.name])

    def read() -> None:
        with engine.connect() as connection:
            connection.execute(query, {"job": job_id, "width": width}).all()

    return statistics.median(_seconds(read) for _ in range(READS))


def _table_bytes(engine: Engine, table: str) -> int:
    """With its indexes."""
    queries = {
        "sqlite": """SELECT sum(pgsize) FROM dbstat WHERE name IN
            (SELECT name FROM sqlite_master WHERE tbl_name = :table)""",
        "postgresql": "SELECT pg_total_relation_size(:table)",
    }
    with engine.connect() as connection:
        return int(connection.execute(text(queries[engine.dialect.name]), {"table": table}).scalar_one())


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@contextmanager
def _sqlite() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{folder}/app.db")
        yield engine
        engine.dispose()


@contextmanager
def _postgres() -> Iterator[Engine]:
    from tests.servers import PostgresServer

    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        with PostgresServer(folder) as server:
            engine = create_engine(server.url)
            yield engine
            engine.dispose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.metrics", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="of each job (default 1,000,000)")
    parser.add_argument("--batch", type=int, default=1000, help="events taken in at once (default 1000)")
    parser.add_argument("--points", type=int, default=500, help="that are asked for (default 500)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
