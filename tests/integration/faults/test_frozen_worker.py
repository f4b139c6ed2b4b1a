"""Workers that stop dead (SIGSTOP) and wake when somebody else has their job."""

import os
import signal
import sqlite3
import subprocess
from contextlib import closing

import psutil
import psycopg

from app.core.entities.jobs import JobState
from tests.integration.faults.conftest import Stack, attempts_of, refusals, trainers_of
from tests.running_service import Developer, MakeService, Service, at_large, wait_until


def test_late_writes_of_a_frozen_worker_are_refused(stack: Stack) -> None:
    service = stack.make()
    first = service.worker()
    job_id = service.submit("double-slow", num_epochs=200)
    wait_until(lambda: service.marks(job_id), service.log)
    trainers = trainers_of(service)
    assert len(trainers) == 1
    second = service.worker()
    freeze_outside_transactions(service, first)
    wait_until(lambda: len(service.marks(job_id)) == 2, service.log)
    assert not at_large(trainers[0])

    assert refusals(service, job_id) == []
    os.kill(first.pid, signal.SIGCONT)
    wait_until(lambda: refusals(service, job_id), service.log)
    assert refusals(service, job_id) == [2]  # claim 1 was for its validation
    held = service.job(job_id)
    assert (held.state, held.attempts) == (JobState.RUNNING, 2)
    service.services.jobs.cancel(Developer, job_id)
    assert service.wait_for(job_id).state is JobState.CANCELLED
    assert attempts_of(service, job_id) == ["start", "start", "end"]

    second.kill()  # and the one that woke is a worker like any other
    assert service.wait_for(service.submit("double-ok")).state is JobState.SUCCEEDED


AT_WORK = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
)

# Stops itself with a job's row locked; woken, it ends its transaction.
STOP_INSIDE = """
import os, signal, sys
from sqlalchemy import create_engine, select
from app.core.errors import Unavailable
from app.repositories.database import Database
from app.repositories.tables import JobRow

try:
    with Database(create_engine(os.environ["DATABASE_URL"])).write() as session:
        row = session.scalar(select(JobRow).with_for_update())
        os.kill(os.getpid(), signal.SIGSTOP)
        row.name = "written too late"
except Unavailable:
    sys.exit(7)
"""


def test_a_worker_frozen_inside_a_transaction_holds_nothing_up(
    make_service: MakeService, postgres_database: str
) -> None:
    service = make_service(database_url=postgres_database)
    job_id = service.submit("double-ok")
    frozen = service.start("-c", STOP_INSIDE)
    wait_until(lambda: is_stopped(frozen), service.log)
    service.worker()
    job = service.wait_for(job_id)
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)
    os.kill(frozen.pid, signal.SIGCONT)
    assert frozen.wait() == 7
    assert service.job(job_id).name == "double-ok"


def freeze_outside_transactions(service: Service, process: subprocess.Popen[bytes]) -> None:
    """Inside one it would hold up everybody on SQLite, and lose its connection on PostgreSQL."""
    if service.settings.database_url is None:
        with closing(sqlite3.connect(service.settings.instance_dir / "app.db", isolation_level=None)) as database:
            database.execute("PRAGMA busy_timeout = 30000")
            database.execute("BEGIN IMMEDIATE")
            freeze(process)
            database.execute("ROLLBACK")
        return
    url = service.settings.database_url.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as database:
        freeze(process)
        while database.execute(AT_WORK).fetchone() != (0,):
            os.kill(process.pid, signal.SIGCONT)
            freeze(process)


def freeze(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(process))


def is_stopped(process: subprocess.Popen[bytes]) -> bool:
    return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
