"""Which job is claimed next: fair share between projects, then state, priority and age within one."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Select, and_, case, func, select
from sqlalchemy.orm import Session

from app.core.entities.jobs import RUNNING_STATES, WAITING_STATES, JobState
from app.core.entities.limits import ProjectLimits
from app.core.errors import no_project
from app.repositories.tables import JobRow, ProjectRow


def next_of_all(
    session: Session, offered: ColumnElement[bool], limits: ProjectLimits, *, is_light: bool
) -> JobRow | None:
    """The job to claim, its row locked, and its project's turn taken; jobs of the foreground are passed over.

    Of light kinds any number of a project run at once: there are few slots for them, and each soon ends.
    """
    for project_id, own in _projects_in_turn(session, offered, is_light):
        most = None if is_light else own.or_else(limits).running
        room = most is None or count_jobs(session, project_id, RUNNING_STATES) < most
        states = WAITING_STATES if room else (JobState.VALIDATING_FILES,)
        row = session.scalar(_first_of(project_id, states, offered))
        if row is None:  # another worker has it in hand
            continue
        project = locked_project(session, project_id)
        # Whoever claimed one of this project's since we counted had its row locked, and has let go of it.
        full = most is not None and count_jobs(session, project_id, RUNNING_STATES) >= most
        if full and row.state == JobState.QUEUED:
            continue
        project.last_turn = 1 + (session.scalar(select(func.max(ProjectRow.last_turn))) or 0)
        return row
    return None


def one_that_waits(job_id: str) -> Select[JobRow]:
    return _locked(select(JobRow.id).where(JobRow.id == job_id, _waits(WAITING_STATES)))


def locked_project(session: Session, project_id: str) -> ProjectRow:
    """FOR NO KEY UPDATE, as a plain FOR UPDATE would wait for every insert that refers to the project.

    Whoever locks a job's row and its project's locks the job's first. ``NotFound`` (project_not_found).
    """
    query = select(ProjectRow).where(ProjectRow.id == project_id).with_for_update(key_share=True)
    project = session.scalar(query.execution_options(populate_existing=True))
    if project is None:
        raise no_project(project_id)
    return project


def project_limits(project: ProjectRow) -> ProjectLimits:
    return ProjectLimits(
        running=project.max_running,
        queued=project.max_queued,
        requests=project.max_requests,
        tokens=project.max_tokens,
        storage_bytes=project.max_bytes,
        versions=project.max_versions,
    )


def count_jobs(session: Session, project_id: str, states: Sequence[JobState], *, is_light: bool = False) -> int:
    of_weight = (JobRow.project_id == project_id, JobRow.is_light.is_(is_light))
    query = select(func.count()).where(*of_weight, JobRow.state.in_(states))
    return session.scalar(query) or 0


def _projects_in_turn(
    session: Session, offered: ColumnElement[bool], is_light: bool
) -> Sequence[tuple[str, ProjectLimits]]:
    """Of those with a job to claim: the fewest jobs held first, then the turn that is the longest ago."""
    of_project = JobRow.project_id == ProjectRow.id
    held = and_(of_project, JobRow.owner.is_not(None), JobRow.is_light.is_(is_light))
    count = select(func.count()).where(held).scalar_subquery()
    waiting = select(JobRow.id).where(of_project, _waits(WAITING_STATES), offered).exists()
    query = select(ProjectRow).where(waiting).order_by(count, ProjectRow.last_turn, ProjectRow.id)
    return [(project.id, project_limits(project)) for project in session.scalars(query)]


def _first_of(project_id: str, states: Sequence[JobState], offered: ColumnElement[bool]) -> Select[JobRow]:
    order = case({state.value: place for place, state in enumerate(WAITING_STATES)}, value=JobRow.state)
    query = select(JobRow.id).where(JobRow.project_id == project_id, _waits(states), offered)
    return _locked(query.order_by(order, JobRow.priority.desc(), JobRow.created_at, JobRow.id))


def _locked(ids: Select[str]) -> Select[JobRow]:
    """The row of the first id that nobody has locked. The ids are sorted without the rows, which are large."""
    first = ids.limit(1).with_for_update(skip_locked=True).scalar_subquery()
    return select(JobRow).where(JobRow.id == first)


def _waits(states: Sequence[JobState]) -> ColumnElement[bool]:
    idle = (JobRow.owner.is_(None), JobRow.cancel_requested.is_(False), JobRow.blockers == 0)
    return and_(JobRow.state.in_(states), *idle)


def offered(queues: Sequence[str] | None, kinds: Sequence[str] | None, is_light: bool) -> ColumnElement[bool]:
    """Say which jobs a worker's slot may take; those of the foreground none may."""
    terms = [JobRow.created_by.is_not(None), JobRow.is_light.is_(is_light)]
    if queues is not None:
        terms.append(JobRow.queue.in_(queues))
    if kinds is not None:
        terms.append(JobRow.kind.in_(kinds))
    return and_(*terms)
