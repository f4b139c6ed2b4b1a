"""Transactions over one SQLAlchemy engine, and its schema, on SQLite as on PostgreSQL."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event, inspect, text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from app.core.errors import Unavailable
from app.core.interfaces.storage import DatabaseHealth

BUSY_MILLISECONDS = 30_000
# PostgreSQL ends the transaction of a process that says nothing for so long: one that is frozen, or whose host is
# gone, would keep a job's row from everybody.
IDLE_MILLISECONDS = 10_000
POSTGRES_DISK_FULL = "53100"
MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
UPGRADE = "run `flask --app run db upgrade`"
ADVISORY_LOCK = 0x6C6C6D66  # any number, the same in every process that migrates this database


class Database:
    """Opens units of work. Keep none open while waiting or streaming: SQLite has one writer."""

    def __init__(self, engine: Engine) -> None:
        configure_engine(engine)
        self._engine = engine
        self._writing_engine = engine.execution_options(sqlite_begin="IMMEDIATE")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One snapshot; nothing is saved. ``Unavailable`` when the database does not answer."""
        with _outage_is_unavailable(), Session(self._engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Committed when the block ends, rolled back when it raises. ``Unavailable`` as in ``read``.

        On SQLite the transaction begins IMMEDIATE: one that reads first and writes later fails at once, busy
        timeout or not, if another has committed in between.
        """
        with _outage_is_unavailable(), Session(self._writing_engine) as session, session.begin():
            yield session


class SqlDatabaseHealth(DatabaseHealth):
    def __init__(self, engine: Engine) -> None:
        configure_engine(engine)
        self._engine = engine

    def check(self) -> str | None:
        try:
            return schema_fault(self._engine)
        except SQLAlchemyError:
            return "the database does not answer: check that it runs and that DATABASE_URL names it"


def configure_engine(engine: Engine) -> None:
    """Set the database up, before the engine's first connection; again, it does nothing.

    Left to itself SQLite's driver begins a transaction at the first write, DEFERRED, and 400 claims took 157
    distinct jobs. So its own transactions are off, and SQLAlchemy's ``begin`` says how to begin.
    """
    if engine.dialect.name != "sqlite":
        if not event.contains(engine, "connect", _limit_idleness):
            event.listen(engine, "connect", _limit_idleness)
    elif not event.contains(engine, "begin", _begin):
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _begin)


def _limit_idleness(connection: Any, _record: object) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = {IDLE_MILLISECONDS}")
    connection.commit()


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    _use_wal(connection)
    connection.execute("PRAGMA foreign_keys = ON")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Two processes that turn a new file to WAL at once: one fails, as the busy timeout does not cover this."""
    deadline = time.monotonic() + BUSY_MILLISECONDS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin(connection: Connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


@contextmanager
def _outage_is_unavailable() -> Iterator[None]:
    try:
        yield
    except (OperationalError, PoolTimeout) as error:
        if _found_no_room(error):
            message = "the disk of the database is full: make room there, then try again"
            raise Unavailable(message, code="disk_full", retry_after=60) from error
        raise Unavailable("the database does not answer: try again", retry_after=5) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable("the database does not answer: try again", retry_after=5) from error
        raise


def _found_no_room(error: SQLAlchemyError) -> bool:
    cause = getattr(error, "orig", None)
    on_sqlite = getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return on_sqlite or getattr(cause, "sqlstate", None) == POSTGRES_DISK_FULL


@contextmanager
def schema_transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction in which the schema may change, and one process at a time: a second waits here."""
    configure_engine(engine)
    sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        connection.execution_options(sqlite_begin="IMMEDIATE")
        # A batch migration drops and remakes a table, which would delete the rows that point at it.
        # The switch does nothing inside a transaction.
        raw: Any = connection.connection.driver_connection
        if sqlite:
            raw.execute("PRAGMA foreign_keys = OFF")
        try:
            with connection.begin():
                if not sqlite:
                    connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
                yield connection
        finally:
            if sqlite:
                raw.execute("PRAGMA foreign_keys = ON")


def migrate_empty(engine: Engine) -> bool:
    """Bring a database without any table to this code's schema; True if it was empty. Safe to call at once."""
    with schema_transaction(engine) as connection:
        if inspect(connection).get_table_names():
            return False
        config = _alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return True


def schema_fault(engine: Engine) -> str | None:
    """None where the schema is this code's, else one line that says what is wrong and what mends it."""
    configure_engine(engine)
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    known = _revisions()
    if found == known[0]:
        return None
    if found is None:
        return f"the database has no schema: {UPGRADE}"
    if found in known:
        return f"the database's schema ({found}) is older than this code ({known[0]}): {UPGRADE}"
    return (
        f"the database's schema ({found}) is newer than this code ({known[0]}): start the code that made it, "
        f"or there run `flask --app run db downgrade {known[0]}`"
    )


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


@cache
def _revisions() -> tuple[str, ...]:
    """All that this code knows, the newest first."""
    scripts = ScriptDirectory.from_config(_alembic_config()).walk_revisions()
    return tuple(script.revision for script in scripts)
