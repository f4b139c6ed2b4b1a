"""Published versions, in a SQL database."""

from collections.abc import Sequence

from sqlalchemy import Engine, func, select

from app.core.entities.models import ModelSummary, ModelVersion
from app.core.interfaces.storage import ModelVersionRepository
from app.repositories.database import Database
from app.repositories.mapping import version_entity
from app.repositories.tables import ModelVersionRow


class SqlModelVersionRepository(ModelVersionRepository):
    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def get(self, project_id: str, version_id: str) -> ModelVersion | None:
        query = select(ModelVersionRow).where(
            ModelVersionRow.project_id == project_id, ModelVersionRow.id == version_id
        )
        with self._database.read() as session:
            row = session.scalar(query)
            return None if row is None else version_entity(row)

    def find(self, project_id: str, name: str, number: int | None = None) -> ModelVersion | None:
        query = select(ModelVersionRow).where(
            ModelVersionRow.project_id == project_id, ModelVersionRow.name == name
        )
        if number is not None:
            query = query.where(ModelVersionRow.number == number)
        with self._database.read() as session:
            row = session.scalar(query.order_by(ModelVersionRow.number.desc()).limit(1))
            return None if row is None else version_entity(row)

    def models(self, project_id: str) -> Sequence[ModelSummary]:
        counted = (
            select(
                ModelVersionRow.name,
                func.count().label("versions"),
                func.max(ModelVersionRow.number).label("latest"),
            )
            .where(ModelVersionRow.project_id == project_id)
            .group_by(ModelVersionRow.name)
            .subquery()
        )
        newest = (ModelVersionRow.name == counted.c.name) & (ModelVersionRow.number == counted.c.latest)
        query = (
            select(ModelVersionRow, counted.c.versions)
            .join(counted, newest)
            .where(ModelVersionRow.project_id == project_id)
        )
        with self._database.read() as session:
            found = [
                ModelSummary(row.name, row.base_model, versions, row.number, row.created_at, row.metrics)
                for row, versions in session.execute(query)
            ]
        # Here and not in the database, whose collation may sort by another alphabet.
        return sorted(found, key=lambda summary: summary.name)

    def versions(self, project_id: str, name: str) -> Sequence[ModelVersion]:
        query = select(ModelVersionRow).where(
            ModelVersionRow.project_id == project_id, ModelVersionRow.name == name
        )
        with self._database.read() as session:
            return [version_entity(row) for row in session.scalars(query.order_by(ModelVersionRow.number.desc()))]
