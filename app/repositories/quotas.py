"""What a project has, counted against what it may have."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.entities.jobs import RUNNING_STATES, WAITING_STATES
from app.core.entities.limits import ProjectLimits, ProjectUse
from app.core.errors import Forbidden
from app.repositories.claiming import count_jobs, locked_project, project_limits
from app.repositories.tables import DatasetVersionRow, ModelVersionRow, ProjectRow


def use_of(session: Session, project_id: str) -> ProjectUse:
    return ProjectUse(
        running=count_jobs(session, project_id, RUNNING_STATES),
        queued=count_jobs(session, project_id, WAITING_STATES),
        storage_bytes=_dataset_bytes(session, project_id) + _published(session, project_id)[1],
        versions=_published(session, project_id)[0],
    )


def keep_quotas(session: Session, project_id: str, otherwise: ProjectLimits, more: ProjectUse) -> None:
    """``Forbidden`` (quota_exceeded) where ``more`` finds no room; else until this transaction ends nobody else
    takes it. A project without quotas is not locked, nor counted."""
    project = session.get(ProjectRow, project_id)
    limits = otherwise if project is None else project_limits(project).or_else(otherwise)
    if limits.storage_bytes is None and limits.versions is None:
        return
    limits = project_limits(locked_project(session, project_id)).or_else(otherwise)
    _check(use_of(session, project_id), limits, more)


def new_bytes(session: Session, project_id: str, digest: str, size: int) -> int:
    """Of a dataset's version: what the project has already is there once."""
    of_it = (DatasetVersionRow.project_id == project_id, DatasetVersionRow.digest == digest)
    return 0 if session.scalar(select(DatasetVersionRow.number).where(*of_it).limit(1)) else size


def _check(use: ProjectUse, limits: ProjectLimits, more: ProjectUse) -> None:
    for what, used, needed, allowed in (
        ("bytes of datasets and published versions", use.storage_bytes, more.storage_bytes, limits.storage_bytes),
        ("published versions", use.versions, more.versions, limits.versions),
    ):
        if allowed is not None and needed and used + needed > allowed:
            message = (
                f"this project has {used:,} of the {allowed:,} {what} that it may have, and this needs {needed:,} "
                "more: an operator of this service can raise that"
            )
            raise Forbidden(message, code="quota_exceeded")


def _dataset_bytes(session: Session, project_id: str) -> int:
    columns = select(DatasetVersionRow.digest, DatasetVersionRow.size)
    files = columns.where(DatasetVersionRow.project_id == project_id).distinct().subquery()
    return int(session.scalar(select(func.sum(files.c.size))) or 0)


def _published(session: Session, project_id: str) -> tuple[int, int]:
    columns = select(func.count(), func.sum(ModelVersionRow.size))
    there = (ModelVersionRow.project_id == project_id, ModelVersionRow.deleted_at.is_(None))
    count, size = session.execute(columns.where(*there)).one()
    return count, int(size or 0)
