"""Published versions, in a SQL database."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Engine, delete, func, select, update

from app.core.entities.models import ModelAlias, ModelSummary, ModelVersion
from app.core.errors import Conflict, Fault, NotFound
from app.core.interfaces.storage import ModelVersionRepository
from app.repositories.claiming import locked_project
from app.repositories.database import Database
from app.repositories.mapping import alias_entity, alias_rows, version_entity
from app.repositories.tables import ModelAliasRow, ModelVersionRow


class SqlModelVersionRepository(ModelVersionRepository):
    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def get(self, project_id: str, version_id: str) -> ModelVersion | None:
        query = select(ModelVersionRow).where(*_published(project_id), ModelVersionRow.id == version_id)
        with self._database.read() as session:
            row = session.scalar(query)
            return None if row is None else version_entity(row)

    def find(self, project_id: str, name: str, number: int | None = None) -> ModelVersion | None:
        query = select(ModelVersionRow).where(*_published(project_id), ModelVersionRow.name == name)
        if number is not None:
            query = query.where(ModelVersionRow.number == number)
        with self._database.read() as session:
            row = session.scalar(query.order_by(ModelVersionRow.number.desc()).limit(1))
            return None if row is None else version_entity(row)

    def pin(self, project_id: str, version_id: str, pinned: bool) -> None:
        row = ModelVersionRow
        change = update(row).where(row.project_id == project_id, row.id == version_id).values(pinned=pinned)
        with self._database.write() as session:
            session.execute(change)

    def delete(self, project_id: str, version_id: str) -> bool:
        query = select(ModelVersionRow).where(*_published(project_id), ModelVersionRow.id == version_id)
        with self._database.write() as session:
            locked_project(session, project_id)  # nobody sets an alias meanwhile
            row = session.scalar(query)
            if row is None:
                return False
            of_model = (ModelAliasRow.project_id == project_id, ModelAliasRow.model == row.name)
            carrying = select(ModelAliasRow.alias).where(*of_model, ModelAliasRow.number == row.number)
            if aliases := ", ".join(sorted(session.scalars(carrying))):
                raise Conflict(
                    f"{row.name}:{row.number} stays while an alias carries it: move or remove {aliases} first",
                    code="version_has_alias",
                )
            row.deleted_at = datetime.now(UTC)
            return True

    def alias(self, project_id: str, model: str, alias: str) -> ModelAlias | None:
        query = select(ModelAliasRow).where(*_rows_of(project_id, model, alias))
        with self._database.read() as session:
            found = _aliases(session.scalars(query))
            return found[0] if found else None

    def aliases(self, project_id: str, model: str) -> Sequence[ModelAlias]:
        of_model = (ModelAliasRow.project_id == project_id, ModelAliasRow.model == model)
        with self._database.read() as session:
            return _aliases(session.scalars(select(ModelAliasRow).where(*of_model)))

    def set_alias(self, alias: ModelAlias) -> None:
        of_model = (*_published(alias.project_id), ModelVersionRow.name == alias.model)
        known = select(ModelVersionRow.number).where(*of_model, ModelVersionRow.number.in_(list(alias.weights)))
        with self._database.write() as session:
            locked_project(session, alias.project_id)  # of two at once, one after the other
            if missing := set(alias.weights) - set(session.scalars(known)):
                raise _no_versions(alias.model, sorted(missing))
            session.execute(delete(ModelAliasRow).where(*_rows_of(alias.project_id, alias.model, alias.alias)))
            session.add_all(alias_rows(alias))

    def remove_alias(self, project_id: str, model: str, alias: str) -> bool:
        with self._database.write() as session:
            removed = session.execute(
                delete(ModelAliasRow).where(*_rows_of(project_id, model, alias)).returning(ModelAliasRow.number)
            )
            return bool(removed.all())

    def models(self, project_id: str) -> Sequence[ModelSummary]:
        counted = (
            select(
                ModelVersionRow.name,
                func.count().label("versions"),
                func.max(ModelVersionRow.number).label("latest"),
            )
            .where(*_published(project_id))
            .group_by(ModelVersionRow.name)
            .subquery()
        )
        newest = (ModelVersionRow.name == counted.c.name) & (ModelVersionRow.number == counted.c.latest)
        query = select(ModelVersionRow, counted.c.versions).join(counted, newest).where(*_published(project_id))
        with self._database.read() as session:
            found = [
                ModelSummary(row.name, row.base_model, versions, row.number, row.created_at, row.metrics)
                for row, versions in session.execute(query)
            ]
        # Here and not in the database, whose collation may sort by another alphabet.
        return sorted(found, key=lambda summary: summary.name)

    def versions(self, project_id: str, name: str) -> Sequence[ModelVersion]:
        query = select(ModelVersionRow).where(*_published(project_id), ModelVersionRow.name == name)
        with self._database.read() as session:
            return [version_entity(row) for row in session.scalars(query.order_by(ModelVersionRow.number.desc()))]


def _no_versions(model: str, numbers: Sequence[int]) -> NotFound:
    faults = [Fault(f"{model}:{number}", "model_not_found", "there is no such version") for number in numbers]
    named = ", ".join(fault.where for fault in faults)
    return NotFound(f"not in this project: {named}", code="model_not_found", faults=faults)


def _published(project_id: str) -> tuple[ColumnElement[bool], ...]:
    return ModelVersionRow.project_id == project_id, ModelVersionRow.deleted_at.is_(None)


def _rows_of(project_id: str, model: str, alias: str) -> tuple[ColumnElement[bool], ...]:
    row = ModelAliasRow
    return row.project_id == project_id, row.model == model, row.alias == alias


def _aliases(rows: Iterable[ModelAliasRow]) -> list[ModelAlias]:
    """By name. All rows of an alias are written at once, and say the same of who and when."""
    by_name: dict[str, list[ModelAliasRow]] = {}
    for row in sorted(rows, key=lambda row: (row.alias, row.number)):
        by_name.setdefault(row.alias, []).append(row)
    return [alias_entity(found) for found in by_name.values()]
