"""A database that takes no writes for a while stops no training."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from app.core.entities.jobs import JobState
from tests.running_service import Developer, MakeService, Service, wait_until

STEPS = 40
MISSED = 15  # steps made while the database is locked


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def kept(service: Service, job_id: str) -> list[int]:
    return [event.seq for event in service.services.job_records.events(Developer, job_id, limit=1000)]


def test_a_locked_database_stops_no_training_and_loses_no_event(make_service: MakeService) -> None:
    service = make_service(lease_seconds=60.0)
    service.worker()
    job_id = service.submit("double-slow", num_epochs=STEPS)
    service.wait_for(job_id, JobState.RUNNING)
    wait_until(lambda: service.job(job_id).progress.step, service.log)
    (file,) = service.settings.results_dir.glob("*/attempts/*/events.ndjson")
    with closing(sqlite3.connect(service.settings.instance_dir / "app.db", isolation_level=None)) as database:
        database.execute("PRAGMA busy_timeout = 30000")
        database.execute("BEGIN IMMEDIATE")
        before = kept(service, job_id)
        written = lines(file)
        wait_until(lambda: lines(file) >= written + MISSED, service.log)
        assert kept(service, job_id) == before
        database.execute("ROLLBACK")

    job = service.wait_for(job_id)
    assert (job.state, job.attempts, job.lost, job.progress.step) == (JobState.SUCCEEDED, 1, 0, STEPS)
    assert [word for word, _ in service.marks(job_id)] == ["start", "end"]
    assert kept(service, job_id) == list(range(1, STEPS + 3))  # with the ledger, and the trainer's first word
    said = [json.loads(line)["message"] for line in file.read_text().splitlines()]
    assert [e.message for e in service.services.job_records.events(Developer, job_id, limit=1000)][1:] == said
