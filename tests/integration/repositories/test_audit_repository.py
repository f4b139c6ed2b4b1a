"""What every AuditRepository does, and that the databases refuse to forget."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.core.entities.audit import AuditEntry, AuditFilter, Outcome
from app.repositories.audit import SqlAuditRepository
from app.repositories.database import migrate_empty

TIME = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENTRY = AuditEntry(
    *("default", TIME, "alice", "u1", None, "192.0.2.7", "keys.create_key", "key", "key-1", 201, "request-1")
)
ALL = AuditFilter()


@pytest.fixture
def audit(repositories):
    return repositories.audit


def numbers(found):
    return [entry.number for entry in found]


def test_the_newest_first_in_pages(audit):
    for _ in range(5):
        audit.add(ENTRY)
    assert audit.page("default", ALL, 2) == [replace(ENTRY, number=5), replace(ENTRY, number=4)]
    assert numbers(audit.page("default", ALL, 9, after=4)) == [3, 2, 1]


def test_a_projects_own_and_all(audit):
    for project in ("default", "other", None):
        audit.add(replace(ENTRY, project_id=project))
    assert numbers(audit.page("default", ALL, 9)) == [1]
    assert numbers(audit.page("other", ALL, 9)) == [2]
    assert numbers(audit.page(None, ALL, 9)) == [3, 2, 1]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (AuditFilter(since=TIME + timedelta(hours=1)), [3, 2]),
        (AuditFilter(until=TIME + timedelta(hours=1)), [1]),
        (AuditFilter(actor="bob"), [2]),
        (AuditFilter(actor="key-9"), [3]),
        (AuditFilter(actor="u1"), [3, 2, 1]),
        (AuditFilter(action="keys"), [3, 1]),
        (AuditFilter(action="keys.create_key"), [3, 1]),
        (AuditFilter(action="key"), []),
        (AuditFilter(action="%"), []),
        (AuditFilter(object_id="support"), [2]),
        (AuditFilter(object_id="support/champion"), [2]),
        (AuditFilter(object_id="sup"), []),
        (AuditFilter(outcome=Outcome.DONE), [1]),
        (AuditFilter(outcome=Outcome.REFUSED), [2]),
        (AuditFilter(outcome=Outcome.FAILED), [3]),
        (AuditFilter(actor="u1", outcome=Outcome.FAILED), [3]),
    ],
)
def test_filters(audit, wanted, found):
    later = TIME + timedelta(hours=1)
    alias = {"action": "models.set_alias", "object_id": "support/champion"}
    audit.add(ENTRY)
    audit.add(replace(ENTRY, created_at=later, actor="bob", **alias, status=403))
    audit.add(replace(ENTRY, created_at=later + timedelta(hours=1), key_id="key-9", status=503))
    assert numbers(audit.page("default", wanted, 9)) == found


def test_the_database_refuses_to_change_an_entry(empty_engine):
    migrate_empty(empty_engine)
    audit = SqlAuditRepository(empty_engine)
    audit.add(ENTRY)
    statements = ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"]
    if empty_engine.dialect.name == "postgresql":
        statements.append("TRUNCATE audit")
    for statement in statements:
        with pytest.raises(DBAPIError, match="append-only"), empty_engine.begin() as connection:
            connection.execute(text(statement))
    assert audit.page(None, ALL, 9) == [replace(ENTRY, number=1)]
