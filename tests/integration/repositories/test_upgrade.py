"""A database of an earlier release, with rows in every table, under this code's schema: nothing is lost."""

from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import JSON, Boolean, DateTime, Float, Integer, MetaData, String, null, select

from app.core.entities.audit import AuditFilter
from app.core.entities.jobs import JobState
from app.extensions import Base
from app.repositories.api_keys import SqlKeyRepository
from app.repositories.audit import SqlAuditRepository
from app.repositories.database import Database, _alembic_config, schema_fault, schema_transaction
from app.repositories.datasets import SqlDatasetRepository
from app.repositories.jobs import SqlJobRepository
from app.repositories.model_versions import SqlModelVersionRepository
from app.repositories.users import SqlUserRepository
from app.repositories.webhooks import SqlWebhookRepository

EARLIER = "0010"
# Columns that have another name since: (table, then) → now.
RENAMED = {("jobs", "metrics"): "result"}
NOW = datetime(2026, 5, 5, 5, 5, 5, 55, tzinfo=UTC)
PROGRESS = {"step": 3, "total_steps": 9, "loss": 0.5}
FAULT = {"where": "row 3: 名", "code": "missing", "message": "no answer"}
ERROR = {"code": "invalid_data", "message": "the data has faults", "faults": [FAULT]}
ENDED = {"owner": None, "finished_at": NOW}
JOBS = {
    JobState.VALIDATING_FILES: {"owner": None, "started_at": None, "finished_at": None, "attempts": 0},
    JobState.QUEUED: {"owner": None, "started_at": None, "finished_at": None, "dataset_id": None},
    JobState.RUNNING: {"owner": "worker-1", "finished_at": None, "fence": 2, "heartbeat": 7},
    JobState.PAUSING: {"owner": "worker-2", "finished_at": None, "cancel_requested": True},
    JobState.PAUSED: {"owner": None, "finished_at": None},
    JobState.SUCCEEDED: {**ENDED, "metrics": {"eval_loss": 0.25, "名": None}, "model_version_id": "v1"},
    JobState.FAILED: {**ENDED, "error": ERROR},
    JobState.CANCELLED: {**ENDED, "retry_of": "job-failed", "request": {"metadata": {"team": "名"}}},
}
NOTHING = {"error": None, "model_version_id": None, "retry_of": None, "request": {}, "cancel_requested": False}
DONE = "job-succeeded"
# Of each table its rows, as far as they matter; the other columns are filled by their type.
ROWS = {
    "projects": [{"id": "other", "name": "other"}, {"id": "third", "name": "third", "max_running": None}],
    "users": [{"id": "user-1", "username": "zoe"}, {"id": "user-2", "username": "amy", "disabled_at": None}],
    "memberships": [
        {"user_id": "user-1", "project_id": "default", "role": "admin"},
        {"user_id": "user-2", "project_id": "other", "role": "viewer"},
    ],
    "api_keys": [{"id": "key-1", "user_id": "user-1", "scopes": ["train", "infer"]}],
    "sessions": [{"id": "session-1", "user_id": "user-1"}],
    "datasets": [{"id": "ds-1", "name": "support"}, {"id": "ds-2", "name": "support", "project_id": "other"}],
    "dataset_versions": [
        {"dataset_id": "ds-1", "number": 1, "parent": None, "pipeline": {}, "changes": []},
        {"dataset_id": "ds-1", "number": 2, "parent": 1, "pipeline": {"seed": 1}, "changes": [{"name": "clean"}]},
        {"dataset_id": "ds-2", "number": 1, "project_id": "other", "size": 2**40},
    ],
    "dataset_tags": [{"dataset_id": "ds-1", "tag": "reviewed", "number": 2}],
    "jobs": [
        {"id": f"job-{state}", "state": state.value, "progress": PROGRESS, **NOTHING, **own}
        for state, own in JOBS.items()
    ],
    "job_events": [
        {"job_id": DONE, "number": 1, "seq": 1, "type": "message", "data": {}},
        {"job_id": DONE, "number": 2, "seq": 2, "type": "metrics", "data": {"step": 3, "loss": 0.5}},
    ],
    "job_metric_chunks": [
        {"job_id": DONE, "width": 1, "place": 3, "figures": {"loss": [0.5, 0.5, 0.5, 1, 0]}},
    ],
    "model_versions": [
        {"id": "v1", "name": "assistant", "number": 1, "job_id": DONE, "deleted_at": None},
        {"id": "v2", "name": "assistant", "number": 2, "job_id": None},
    ],
    "model_aliases": [{"model": "assistant", "alias": "champion", "number": 1}],
    "usage": [{"version_id": "v1", "day": "2026-05-05", "error": None}],
    "kept_requests": [{"id": "kept-1", "headers": {"Location": "/api/v1/train/job-queued"}}],
    "webhooks": [{"id": "wh-1", "events": ["fine_tuning.job.succeeded"]}],
    "webhook_deliveries": [{"webhook_id": "wh-1", "event_id": "evt-1", "delivered_at": None}],
    "audit": [{"number": 1}, {"number": 2, "project_id": None}],
}


def sample(column, place):
    """A value of the column's type: another one for each column, and each row where they are texts."""
    kind, number = column.type, sum(map(ord, column.name))
    if isinstance(kind, Boolean):
        return True
    if isinstance(kind, JSON):
        return {column.name: [None, "名", 0.1 + 0.2]}
    if isinstance(kind, DateTime):
        return NOW + timedelta(seconds=number)
    if isinstance(kind, (Integer, Float)):
        return number
    assert isinstance(kind, String)
    return "default" if column.name == "project_id" else f"{column.name} {place} 名"


def written(value, is_sqlite):
    if value is None:
        return null()  # of JSON too: there None alone is JSON's null
    return value.replace(tzinfo=None) if is_sqlite and isinstance(value, datetime) else value


def reflected(engine):
    held = MetaData()
    held.reflect(engine)
    held.remove(held.tables["alembic_version"])
    return held


def contents(engine):
    held = reflected(engine)
    with engine.connect() as connection:
        return {
            name: [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]
            for name, table in held.tables.items()
        }


def migrate(engine, direction, revision):
    with schema_transaction(engine) as connection:
        config = _alembic_config()
        config.attributes["connection"] = connection
        direction(config, revision)


@pytest.fixture
def earlier(empty_engine):
    """What an earlier release left: (table → its rows)."""
    migrate(empty_engine, command.upgrade, EARLIER)
    is_sqlite = empty_engine.dialect.name == "sqlite"
    with empty_engine.begin() as connection:
        for table in reflected(empty_engine).sorted_tables:
            for place, given in enumerate(ROWS[table.name]):
                row = {column.name: sample(column, place) for column in table.columns} | given
                values = {name: written(value, is_sqlite) for name, value in row.items()}
                connection.execute(table.insert().values(values))
    return contents(empty_engine)


def found(row, table, columns):
    """The row as its columns are called now."""
    names = {name: RENAMED.get((table, name), name) for name in row}
    return {names[name] if names[name] in columns else name: value for name, value in row.items()}


def test_nothing_of_an_earlier_release_is_lost(empty_engine, earlier):
    assert all(earlier.values())
    migrate(empty_engine, command.upgrade, "head")
    assert schema_fault(empty_engine) is None
    today = contents(empty_engine)
    for table, rows in earlier.items():
        assert len(today[table]) == len(rows)
        for row in rows:
            kept = found(row, table, today[table][0])
            assert any(kept.items() <= one.items() for one in today[table]), (table, kept)
    with empty_engine.connect() as connection:
        if empty_engine.dialect.name == "sqlite":  # which checks none while tables are made anew
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
    migrate(empty_engine, command.downgrade, EARLIER)
    assert contents(empty_engine) == earlier


def test_this_code_reads_what_an_earlier_release_wrote(empty_engine, earlier):
    migrate(empty_engine, command.upgrade, "head")
    with Database(empty_engine).read() as session:
        for mapper in Base.registry.mappers:
            rows = session.scalars(select(mapper.class_)).all()
            assert len(rows) == len(earlier.get(mapper.local_table.name, [])), mapper
    jobs = SqlJobRepository(empty_engine)
    held = {job.state: job for job in jobs.list("default", limit=100)}
    assert held.keys() == JOBS.keys()
    assert held[JobState.SUCCEEDED].progress.loss == 0.5
    assert held[JobState.FAILED].error.faults[0].where == FAULT["where"]
    assert [job.state for job in jobs.list("default", metadata={"team": "名"})] == [JobState.CANCELLED]
    assert {lease.job_id for lease in jobs.leases()} == {"job-running", "job-pausing"}
    assert [event.data for event in jobs.events("default", DONE)] == [{}, {"step": 3, "loss": 0.5}]
    assert jobs.request_cancel("default", "job-paused").state is JobState.CANCELLED
    waiting = {jobs.claim("worker-3", 30, f"job-{state}").job.id for state in ("validating_files", "queued")}
    assert waiting == {"job-validating_files", "job-queued"}
    versions = SqlModelVersionRepository(empty_engine)
    assert versions.get("default", "v1").job_id == DONE
    assert [alias.alias for alias in versions.aliases("default", "assistant")] == ["champion"]
    datasets = SqlDatasetRepository(empty_engine)
    assert [version.number for version in datasets.versions("default", "ds-1")] == [2, 1]
    assert datasets.version("default", "ds-1", tag="reviewed").changes == [{"name": "clean"}]
    assert [user.username for user in SqlUserRepository(empty_engine).list()] == ["amy", "zoe"]
    assert [key.id for key in SqlKeyRepository(empty_engine).list("default")] == ["key-1"]
    assert [webhook.id for webhook in SqlWebhookRepository(empty_engine).list("default")] == ["wh-1"]
    assert [entry.number for entry in SqlAuditRepository(empty_engine).page(None, AuditFilter(), 9)] == [2, 1]
