"""Datasets and their versions, in a SQL database."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Engine, delete, func, or_, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.entities.dataset_versions import Dataset, DatasetSummary, DatasetVersion
from app.core.entities.jobs import FINAL_STATES
from app.core.entities.limits import ProjectLimits, ProjectUse
from app.core.errors import Conflict, no_dataset, unknown_page
from app.core.interfaces.storage import NO_LIMITS, DatasetRepository
from app.repositories.database import Database
from app.repositories.mapping import dataset_entity, dataset_row, dataset_version_entity, dataset_version_row
from app.repositories.quotas import keep_quotas, new_bytes
from app.repositories.tables import DatasetRow, DatasetTagRow, DatasetVersionRow, JobRow


class SqlDatasetRepository(DatasetRepository):
    """Whoever changes a dataset has locked its row first: FOR UPDATE on PostgreSQL, all of it on SQLite."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def add(self, dataset: Dataset, version: DatasetVersion, limits: ProjectLimits = NO_LIMITS) -> DatasetVersion:
        first = replace(version, number=1)
        try:
            with self._database.write() as session:
                _keep_quota(session, version, limits)
                session.add(dataset_row(dataset))
                session.flush()
                session.add(dataset_version_row(first))
        except IntegrityError:
            raise Conflict(
                f"a dataset named {dataset.name!r} is there already: upload to it as a new version, "
                "or choose another name",
                code="dataset_name_taken",
            ) from None
        return first

    def add_version(self, version: DatasetVersion, limits: ProjectLimits = NO_LIMITS) -> DatasetVersion:
        with self._database.write() as session:
            return add_dataset_version(session, version, limits)

    def get(self, project_id: str, dataset_id: str) -> DatasetSummary | None:
        query = select(DatasetRow).where(DatasetRow.project_id == project_id, DatasetRow.id == dataset_id)
        with self._database.read() as session:
            row = session.scalar(query)
            return None if row is None else _summaries(session, [row])[0]

    def list(
        self, project_id: str, *, limit: int = 20, after: str | None = None, oldest_first: bool = False
    ) -> Sequence[DatasetSummary]:
        columns = DatasetRow.created_at, DatasetRow.id
        place = tuple_(*columns)
        query = select(DatasetRow).where(DatasetRow.project_id == project_id)
        with self._database.read() as session:
            if after is not None:
                last = session.scalar(query.where(DatasetRow.id == after))
                if last is None:
                    raise unknown_page("dataset", after)
                there = (last.created_at, last.id)
                query = query.where(place > there if oldest_first else place < there)
            ordered = columns if oldest_first else [column.desc() for column in columns]
            rows = session.scalars(query.order_by(*ordered).limit(limit))
            return _summaries(session, rows.all())

    def versions(self, project_id: str, dataset_id: str) -> Sequence[DatasetVersion]:
        query = _versions(project_id, dataset_id).order_by(DatasetVersionRow.number.desc())
        with self._database.read() as session:
            return [dataset_version_entity(row) for row in session.scalars(query)]

    def version(
        self, project_id: str, dataset_id: str, number: int | None = None, tag: str | None = None
    ) -> DatasetVersion | None:
        query = _versions(project_id, dataset_id)
        if number is not None:
            query = query.where(DatasetVersionRow.number == number)
        if tag is not None:
            named = select(DatasetTagRow.number).where(
                DatasetTagRow.dataset_id == dataset_id, DatasetTagRow.tag == tag
            )
            query = query.where(DatasetVersionRow.number == named.scalar_subquery())
        with self._database.read() as session:
            row = session.scalar(query.order_by(DatasetVersionRow.number.desc()).limit(1))
            return None if row is None else dataset_version_entity(row)

    def tag(self, project_id: str, dataset_id: str, tag: str, number: int | None) -> bool:
        with self._database.write() as session:
            if _locked(session, project_id, dataset_id) is None:
                return False
            row = session.get(DatasetTagRow, (dataset_id, tag))
            if number is None:
                if row is not None:
                    session.delete(row)
                return row is not None
            if session.get(DatasetVersionRow, (dataset_id, number)) is None:
                return False
            if row is None:
                session.add(DatasetTagRow(dataset_id=dataset_id, tag=tag, project_id=project_id, number=number))
            else:
                row.number = number
            return True

    def delete(self, project_id: str, dataset_id: str) -> Sequence[str] | None:
        with self._database.write() as session:
            row = _locked(session, project_id, dataset_id)
            if row is None:
                return None
            # What trained on it refers to it for good, another job until it has ended.
            needs_it = or_(JobRow.kind == "train", JobRow.state.not_in(FINAL_STATES))
            refers = select(JobRow.id).where(JobRow.dataset_id == dataset_id, needs_it).limit(1)
            if session.scalar(refers) is not None:
                message = f"{dataset_id} is what a job trains on, or trained a model version on: it stays"
                raise Conflict(message, code="dataset_in_use")
            of_it = DatasetVersionRow.dataset_id == dataset_id
            digests = session.scalars(select(DatasetVersionRow.digest).where(of_it).distinct()).all()
            for table in (DatasetTagRow, DatasetVersionRow):
                session.execute(delete(table).where(table.dataset_id == dataset_id))
            session.delete(row)
            return digests

    def is_kept(self, digest: str) -> bool:
        query = select(DatasetVersionRow.number).where(DatasetVersionRow.digest == digest).limit(1)
        with self._database.read() as session:
            return session.scalar(query) is not None


def add_dataset_version(session: Session, version: DatasetVersion, limits: ProjectLimits) -> DatasetVersion:
    """Add it under the next number of its dataset. ``NotFound``, ``Forbidden`` (quota_exceeded)."""
    _keep_quota(session, version, limits)  # first, as whoever adds a job: the project, then the dataset
    if _locked(session, version.project_id, version.dataset_id) is None:
        raise no_dataset(version.dataset_id)
    of_it = DatasetVersionRow.dataset_id == version.dataset_id
    newest = session.scalar(select(func.max(DatasetVersionRow.number)).where(of_it))
    numbered = replace(version, number=(newest or 0) + 1)
    session.add(dataset_version_row(numbered))
    return numbered


def _locked(session: Session, project_id: str, dataset_id: str) -> DatasetRow | None:
    query = select(DatasetRow).where(DatasetRow.project_id == project_id, DatasetRow.id == dataset_id)
    return session.scalar(query.with_for_update())


def _keep_quota(session: Session, version: DatasetVersion, limits: ProjectLimits) -> None:
    more = new_bytes(session, version.project_id, version.digest, version.size)
    keep_quotas(session, version.project_id, limits, ProjectUse(storage_bytes=more))


def _versions(project_id: str, dataset_id: str):  # type: ignore[no-untyped-def]  # Select's own is longer than it
    return select(DatasetVersionRow).where(
        DatasetVersionRow.project_id == project_id, DatasetVersionRow.dataset_id == dataset_id
    )


def _summaries(session: Session, rows: Sequence[DatasetRow]) -> list[DatasetSummary]:
    ids = [row.id for row in rows]
    newest = (
        select(DatasetVersionRow.dataset_id, func.max(DatasetVersionRow.number).label("number"))
        .where(DatasetVersionRow.dataset_id.in_(ids))
        .group_by(DatasetVersionRow.dataset_id)
        .subquery()
    )
    joined = select(DatasetVersionRow).join(
        newest,
        (DatasetVersionRow.dataset_id == newest.c.dataset_id) & (DatasetVersionRow.number == newest.c.number),
    )
    versions = {version.dataset_id: dataset_version_entity(version) for version in session.scalars(joined)}
    tags: dict[str, dict[str, int]] = {}
    for tag in session.scalars(
        select(DatasetTagRow).where(DatasetTagRow.dataset_id.in_(ids)).order_by(DatasetTagRow.tag)
    ):
        tags.setdefault(tag.dataset_id, {})[tag.tag] = tag.number
    return [DatasetSummary(dataset_entity(row), versions[row.id], tags.get(row.id, {})) for row in rows]
