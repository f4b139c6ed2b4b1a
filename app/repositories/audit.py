"""The audit log in a SQL database, whose triggers refuse to change or delete an entry."""

from collections.abc import Sequence

from sqlalchemy import Engine, or_, select

from app.core.entities.audit import AuditEntry, AuditFilter
from app.core.interfaces.storage import AuditRepository
from app.repositories.database import Database
from app.repositories.mapping import audit_entity, audit_row
from app.repositories.tables import AuditRow


class SqlAuditRepository(AuditRepository):
    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def add(self, entry: AuditEntry) -> None:
        with self._database.write() as session:
            session.add(audit_row(entry))

    def page(
        self, project_id: str | None, wanted: AuditFilter, limit: int, after: int | None = None
    ) -> Sequence[AuditEntry]:
        query = select(AuditRow).order_by(AuditRow.number.desc()).limit(limit)
        if project_id is not None:
            query = query.where(AuditRow.project_id == project_id)
        if after is not None:
            query = query.where(AuditRow.number < after)
        if wanted.since is not None:
            query = query.where(AuditRow.created_at >= wanted.since)
        if wanted.until is not None:
            query = query.where(AuditRow.created_at < wanted.until)
        if wanted.actor is not None:
            named = (AuditRow.actor, AuditRow.user_id, AuditRow.key_id)
            query = query.where(or_(*(column == wanted.actor for column in named)))
        if wanted.action is not None:
            verbs = AuditRow.action.startswith(f"{wanted.action}.", autoescape=True)
            query = query.where(or_(AuditRow.action == wanted.action, verbs))
        if wanted.object_id is not None:
            parts = AuditRow.object_id.startswith(f"{wanted.object_id}/", autoescape=True)
            query = query.where(or_(AuditRow.object_id == wanted.object_id, parts))
        if wanted.outcome is not None:
            statuses = wanted.outcome.statuses
            query = query.where(AuditRow.status.between(statuses.start, statuses.stop - 1))
        with self._database.read() as session:
            return [audit_entity(row) for row in session.scalars(query)]
