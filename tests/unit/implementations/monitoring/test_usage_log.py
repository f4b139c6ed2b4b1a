"""Rows wait for their batch, and for the database; the process ends with none left."""

import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import create_engine

from app.core.entities.usage import Usage
from app.core.errors import Unavailable
from app.core.interfaces.storage import UsageRepository
from app.implementations.monitoring.usage_log import BatchedUsageLog
from app.repositories.database import migrate_empty
from app.repositories.usage import SqlUsageRepository

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW = Usage("default", "u1", "support:1", "v1", "tiny", 10, 5, None, 0.5, "stop", None, DAY)
NEVER = 3600.0


class Database(UsageRepository):
    def __init__(self) -> None:
        self.kept: list[Usage] = []
        self.away = False
        self.batches: list[int] = []
        self.written = threading.Event()

    def add(self, rows):
        if self.away:
            raise Unavailable("the database does not answer: try again")
        self.kept.extend(rows)
        self.batches.append(len(rows))
        self.written.set()

    def sums(self, *arguments, **options):
        raise NotImplementedError


@pytest.fixture
def database() -> Database:
    return Database()


def numbered(*numbers: int) -> list[Usage]:
    return [replace(ROW, prompt_tokens=number) for number in numbers]


def dropped() -> float:
    return REGISTRY.get_sample_value("usage_rows_dropped_total") or 0.0


def test_one_thread_writes_what_waits_in_one_batch(database):
    log = BatchedUsageLog(database, seconds=0.01)
    before = threading.active_count()
    for row in numbered(1, 2, 3):
        log.record(row)
    assert threading.active_count() == before + 1
    while sum(database.batches) < 3:
        assert database.written.wait(20)
        database.written.clear()
    assert database.kept == numbered(1, 2, 3)
    log.close()


def test_nothing_begins_before_the_first_row(database):
    before = threading.active_count()
    log = BatchedUsageLog(database, seconds=0.01)
    log.flush()
    assert (threading.active_count(), database.batches) == (before, [])


def test_rows_wait_in_order_while_the_database_is_away(database, caplog):
    log = BatchedUsageLog(database, NEVER)
    log.record(*numbered(1))
    database.away = True
    log.flush()
    assert "1 rows wait: the database does not answer" in caplog.text
    log.record(*numbered(2))
    database.away = False
    log.flush()
    assert database.kept == numbered(1, 2)
    assert database.batches == [2]


def test_the_oldest_go_when_there_is_no_place_and_are_counted(database, caplog):
    log = BatchedUsageLog(database, NEVER, most_waiting=3)
    before = dropped()
    for row in numbered(1, 2, 3, 4, 5):
        log.record(row)
    log.flush()
    assert database.kept == numbered(3, 4, 5)
    assert dropped() - before == 2
    assert [line for line in caplog.messages if "dropped" in line] == [
        "usage: too many rows waited; 2 of the oldest were dropped"
    ]


def test_rows_that_cannot_be_written_do_not_stop_the_others(database, caplog, monkeypatch):
    log = BatchedUsageLog(database, NEVER)
    with monkeypatch.context() as patch:
        patch.setattr(database, "add", lambda rows: 1 / 0)
        log.record(*numbered(1))
        log.flush()
    assert "1 rows cannot be written" in caplog.text
    log.record(*numbered(2))
    log.flush()
    assert database.kept == numbered(2)


END = """
import sys
from sqlalchemy import create_engine
from tests.unit.implementations.monitoring.test_usage_log import NEVER, ROW
from app.implementations.monitoring.usage_log import BatchedUsageLog
from app.repositories.usage import SqlUsageRepository
log = BatchedUsageLog(SqlUsageRepository(create_engine(sys.argv[1])), NEVER)
log.record(ROW)
log.record(ROW)
"""


def test_a_process_that_ends_writes_what_waits(tmp_path):
    url = f"sqlite:///{tmp_path / 'app.db'}"
    engine = create_engine(url)
    migrate_empty(engine)
    done = subprocess.run([sys.executable, "-c", END, url], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    [found] = SqlUsageRepository(engine).sums("default", "model", date(2026, 3, 1), date(2026, 3, 1))
    assert (found.key, found.requests) == ("support:1", 2)
    engine.dispose()
