"""A database that goes away under load, or that somebody else keeps locked."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from app.core.entities.jobs import JobState
from tests.integration.faults.conftest import (
    Stack,
    attempts_of,
    check_taken_up_once,
    steps_of,
    trainers_of,
    wait_for_all,
)
from tests.running_service import MakeService, Service, wait_until
from tests.servers import PostgresServer

LOCKED_SECONDS = 10.0
MODEL = "helper"


def test_postgres_restarted_under_load(
    make_service: MakeService, postgres_server: PostgresServer, postgres_database: str
) -> None:
    service = make_service(database_url=postgres_database, worker_slots=2, max_attempts=5)
    workers = [service.worker(), service.worker()]
    ids = [service.submit(f"double-{number}", model_name=MODEL) for number in range(24)]
    slow = service.submit("double-slow", num_epochs=100, model_name=MODEL)

    wait_until(lambda: service.count_of_marks() >= 10, service.log)
    postgres_server.restart()
    wait_until(lambda: service.count_of_marks() >= 24, service.log)
    wait_until(lambda: service.marks(slow), service.log)
    with postgres_server.away():  # longer than any lease: then nobody may train
        wait_until(lambda: not trainers_of(service), service.log)

    wait_for_all(service, 120)
    check_taken_up_once(service, [*ids, slow], MODEL)
    assert attempts_of(service, slow)[:2] == ["start", "start"]
    assert [worker.poll() for worker in workers] == [None, None]


@pytest.mark.parametrize("lease", [3.0, 30.0])
def test_a_database_locked_for_ten_seconds(stack: Stack, lease: float) -> None:
    service = stack.make(lease_seconds=lease)
    workers = [service.worker(), service.worker()]
    job_id = service.submit("double-slow", num_epochs=40, model_name=MODEL)
    wait_until(lambda: service.marks(job_id), service.log)
    with locked(service):
        threading.Event().wait(LOCKED_SECONDS)
    job = service.wait_for(job_id)
    check_taken_up_once(service, [job_id], MODEL)
    if lease > LOCKED_SECONDS:  # training went on, and what it said in the meantime is not lost
        assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)
        assert steps_of(service, job_id) == list(range(1, 41))
    else:
        assert job.attempts == 2
        assert attempts_of(service, job_id) == ["start", "start", "end"]
    assert [worker.poll() for worker in workers] == [None, None]


@pytest.mark.parametrize("how", ["away", "frozen"])
def test_training_goes_on_without_its_database(
    make_service: MakeService, postgres_server: PostgresServer, postgres_database: str, how: str
) -> None:
    service = make_service(database_url=postgres_database, lease_seconds=60.0)
    worker = service.worker()
    job_id = service.submit("double-slow", num_epochs=50, model_name=MODEL)
    wait_until(lambda: steps_of(service, job_id), service.log)
    (events,) = service.settings.results_dir.glob("*/attempts/*/events.ndjson")
    with getattr(postgres_server, how)():
        so_far = lines_of(events)
        wait_until(lambda: lines_of(events) >= so_far + 30, service.log)
    job = service.wait_for(job_id)
    assert (job.state, job.attempts, job.lost) == (JobState.SUCCEEDED, 1, 0)
    check_taken_up_once(service, [job_id], MODEL)
    assert steps_of(service, job_id) == list(range(1, 51))
    assert worker.poll() is None


def lines_of(file: Path) -> int:
    return file.read_bytes().count(b"\n")


@contextmanager
def locked(service: Service) -> Iterator[None]:
    """Nobody writes in the block; on PostgreSQL nobody reads a job either."""
    url = service.settings.database_url
    if url is None:
        with closing(sqlite3.connect(service.settings.instance_dir / "app.db", isolation_level=None)) as database:
            database.execute("PRAGMA busy_timeout = 30000")
            database.execute("BEGIN IMMEDIATE")
            yield
            database.execute("ROLLBACK")
    else:
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            yield
            connection.rollback()
