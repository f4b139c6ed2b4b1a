"""The repositories over a database that a test has for itself, and what only tests ask of them."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, create_engine, event, func, select, text

from app.core.entities.audit import AuditEntry, AuditFilter
from app.core.entities.models import ModelVersion
from app.extensions import Base
from app.repositories.api_keys import SqlKeyRepository
from app.repositories.audit import SqlAuditRepository
from app.repositories.database import Database, configure_engine, migrate_empty
from app.repositories.datasets import SqlDatasetRepository
from app.repositories.idempotency import SqlIdempotencyRepository
from app.repositories.jobs import SqlJobRepository
from app.repositories.mapping import version_entity, version_row
from app.repositories.model_versions import SqlModelVersionRepository
from app.repositories.sessions import SqlSessionRepository
from app.repositories.tables import KeptRequestRow, ModelVersionRow, ProjectRow
from app.repositories.usage import SqlUsageRepository
from app.repositories.users import SqlUserRepository
from app.repositories.webhooks import SqlWebhookRepository

OTHER_PROJECT = "other"


def fill_empty(engine: Engine) -> None:
    """Bring a database to this code's schema, with the projects ``default`` and ``other``."""
    migrate_empty(engine)
    with Database(engine).write() as session:
        session.add(ProjectRow(id=OTHER_PROJECT, name=OTHER_PROJECT, created_at=datetime.now(UTC)))


def copy_database(template: Path, file: Path) -> Engine:
    """Open a copy of a SQLite file that nobody has open. A power cut may spoil it: tests wait for no disk."""
    engine = create_engine(f"sqlite:///{shutil.copyfile(template, file)}", pool_size=20)
    configure_engine(engine)
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    return engine


class Versions(SqlModelVersionRepository):
    """Versions that no job has trained."""

    def publish(self, version: ModelVersion) -> ModelVersion:
        """Keep it under the next number of its model."""
        of_model = (ModelVersionRow.project_id == version.project_id, ModelVersionRow.name == version.name)
        newest = select(func.max(ModelVersionRow.number)).where(*of_model)
        with self._database.write() as session:
            numbered = replace(version, number=1 + (session.scalar(newest) or 0))
            session.add(version_row(numbered))
        return numbered

    @property
    def kept(self) -> Sequence[ModelVersion]:
        """Of all projects, the oldest first."""
        query = select(ModelVersionRow).where(ModelVersionRow.deleted_at.is_(None)).order_by(text("rowid"))
        with self._database.read() as session:
            return [version_entity(row) for row in session.scalars(query)]


class Audit(SqlAuditRepository):
    @property
    def kept(self) -> Sequence[AuditEntry]:
        """The oldest first."""
        return self.page(None, AuditFilter(), limit=1000)[::-1]


class KeptRequests(SqlIdempotencyRepository):
    @property
    def kept(self) -> Sequence[object]:
        """Rows, with all that is in them."""
        with self._database.read() as session:
            return session.execute(select(KeptRequestRow.__table__)).all()


class Repositories:
    """All of them, over one database."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)
        self.jobs = SqlJobRepository(engine)
        self.versions = Versions(engine)
        self.users = SqlUserRepository(engine)
        self.datasets = SqlDatasetRepository(engine)
        self.usage = SqlUsageRepository(engine)
        self.audit = Audit(engine)
        self.keys = SqlKeyRepository(engine)
        self.sessions = SqlSessionRepository(engine)
        self.webhooks = SqlWebhookRepository(engine)
        self.kept_requests = KeptRequests(engine)

    def claim(self, job_id: str | None = None) -> int:
        """The fence of a claim that must succeed."""
        claim = self.jobs.claim("worker", 30, job_id)
        assert claim is not None
        return claim.fence

    def change(self, row: type[Base], row_id: str, **values: object) -> None:
        """Write into a row what no repository would."""
        with self._database.write() as session:
            for name, value in values.items():
                setattr(session.get_one(row, row_id), name, value)

    def all_rows(self) -> str:
        """All that the database holds, to be compared."""
        with self._database.read() as session:
            return repr([session.execute(select(table)).all() for table in Base.metadata.sorted_tables])

    def job_count(self) -> int:
        return sum(self.jobs.count_by_state().values())
