"""Jobs, their attempts and events, in a SQL database."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime

from sqlalchemy import Engine, Exists, Select, column, delete, exists, func, select, tuple_
from sqlalchemy.orm import Session, aliased, object_session

from app.core.entities.dataset_versions import DatasetVersion
from app.core.entities.jobs import (
    FINAL_STATES,
    LOST_WORKER,
    WAITING_STATES,
    Claim,
    FineTuningJob,
    JobError,
    JobEvent,
    JobState,
    Lease,
    Order,
    Progress,
    after_loss,
    after_pause,
    after_stop,
    check_end,
    check_move,
    check_resume,
    check_room,
    order_for,
    stale,
)
from app.core.entities.limits import NOTHING, ProjectLimits, ProjectUse
from app.core.entities.metrics import MetricCurve
from app.core.entities.models import ModelVersion
from app.core.errors import Conflict, NotFound, no_dataset, unknown_page
from app.core.interfaces.job_kinds import Finished
from app.core.interfaces.storage import NO_LIMITS, JobRepository
from app.repositories.claiming import (
    count_jobs,
    locked_project,
    next_of_all,
    offered,
    one_that_waits,
    project_limits,
)
from app.repositories.database import Database
from app.repositories.datasets import add_dataset_version
from app.repositories.job_metrics import add_to_chunks, catch_up, read_curve
from app.repositories.mapping import error_json, event_entity, event_row, job_entity, job_row, version_row
from app.repositories.outbox import tell_of_end
from app.repositories.quotas import keep_quotas, use_of
from app.repositories.tables import (
    DatasetRow,
    JobEventRow,
    JobMetricChunkRow,
    JobNeedRow,
    JobRow,
    ModelVersionRow,
    ProjectRow,
)
from app.repositories.types import Text


class SqlJobRepository(JobRepository):
    """Whoever changes a job has locked its row first: FOR UPDATE on PostgreSQL, the whole database on SQLite."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def add(
        self,
        jobs: Sequence[FineTuningJob],
        limits: ProjectLimits = NO_LIMITS,
        *,
        since: datetime | None = None,
        needs: ProjectUse = NOTHING,
    ) -> Sequence[FineTuningJob]:
        project_id = jobs[0].project_id
        with self._database.write() as session:
            states = _lock_needed(session, jobs)  # before the project: whoever locks both locks jobs first
            project = locked_project(session, project_id)
            if since is not None and (there := session.scalar(_same_request(jobs[0], since))) is not None:
                return [job_entity(there)]
            limits = project_limits(project).or_else(limits)
            for is_light in {job.is_light for job in jobs} if limits.queued is not None else ():
                more = sum(job.is_light == is_light for job in jobs)
                waiting = count_jobs(session, project_id, WAITING_STATES, is_light=is_light)
                check_room(waiting + more - 1, limits)
            keep_quotas(session, project_id, limits, needs)
            for job in jobs:
                _keep_dataset(session, job)
                session.add(row := job_row(job))
                session.flush()
                _wait_for(session, row, job.after, states)
                states[job.id] = job.state
            return jobs

    def get(self, project_id: str, job_id: str) -> FineTuningJob | None:
        with self._database.read() as session:
            row = session.scalar(_of_project(project_id, job_id))
            return None if row is None else job_entity(row)

    def list(
        self,
        project_id: str,
        *,
        state: JobState | None = None,
        kind: str | None = None,
        metadata: Mapping[str, str] = {},
        limit: int = 20,
        after: str | None = None,
    ) -> Sequence[FineTuningJob]:
        place = tuple_(JobRow.created_at, JobRow.id)
        query = select(JobRow).where(JobRow.project_id == project_id)
        if state is not None:
            query = query.where(JobRow.state == state)
        if kind is not None:
            query = query.where(JobRow.kind == kind)
        with self._database.read() as session:
            for key, value in metadata.items():
                query = query.where(_has_metadata(session, key, value))
            if after is not None:
                last = session.scalar(_of_project(project_id, after))
                if last is None:
                    raise unknown_page("job", after)
                query = query.where(place < (last.created_at, last.id))
            rows = session.scalars(query.order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit))
            return [job_entity(row) for row in rows]

    def count_by_state(self) -> Mapping[JobState, int]:
        with self._database.read() as session:
            rows = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
            counts = dict(rows.all())
        return {state: counts.get(state, 0) for state in JobState}

    def request_cancel(self, project_id: str, job_id: str) -> FineTuningJob | None:
        with self._database.write() as session:
            row = session.scalar(_of_project(project_id, job_id).with_for_update())
            if row is None:
                return None
            if row.state not in FINAL_STATES:
                row.cancel_requested = True
                if row.owner is None:
                    _move(row, JobState.CANCELLED)
            return job_entity(row)

    def request_pause(self, project_id: str, job_id: str) -> FineTuningJob | None:
        with self._database.write() as session:
            row = session.scalar(_of_project(project_id, job_id).with_for_update())
            if row is None:
                return None
            row.state = after_pause(job_entity(row)).value
            return job_entity(row)

    def resume(self, project_id: str, job_id: str) -> FineTuningJob | None:
        with self._database.write() as session:
            row = session.scalar(_of_project(project_id, job_id).with_for_update())
            if row is None:
                return None
            check_resume(JobState(row.state))
            _move(row, JobState.QUEUED)
            return job_entity(row)

    def claim(
        self,
        owner: str,
        lease_seconds: float,
        job_id: str | None = None,
        *,
        queues: Sequence[str] | None = None,
        limits: ProjectLimits = NO_LIMITS,
        is_light: bool = False,
        kinds: Sequence[str] | None = None,
    ) -> Claim | None:
        with self._database.write() as session:
            if job_id is None:
                row = next_of_all(session, offered(queues, kinds, is_light), limits, is_light=is_light)
            else:
                row = session.scalar(one_that_waits(job_id))
            if row is None:
                return None
            if row.state == JobState.QUEUED:
                _move(row, JobState.RUNNING)
                row.attempts += 1
                row.started_at = row.started_at or datetime.now(UTC)
            row.owner, row.lease_seconds = owner, lease_seconds
            row.fence += 1
            row.heartbeat = 0
            return Claim(job_entity(row), row.fence, owner, lease_seconds)

    def renew(self, job_id: str, fence: int) -> Order:
        with self._database.write() as session:
            row = _held(session, job_id, fence)
            row.heartbeat += 1
            return order_for(JobState(row.state), row.cancel_requested)

    def ingest(
        self,
        job_id: str,
        fence: int,
        events: Sequence[JobEvent],
        progress: Progress | None,
        *,
        said_in: int | None = None,
    ) -> None:
        claim = fence if said_in is None else said_in
        with self._database.write() as session:
            row = _held(session, job_id, fence)
            fresh = {event.seq: event for event in events}
            if fresh:
                of_attempt = (JobEventRow.job_id == job_id, JobEventRow.fence == claim)
                known = select(JobEventRow.seq).where(*of_attempt, JobEventRow.seq.between(min(fresh), max(fresh)))
                for seq in session.scalars(known):
                    fresh.pop(seq, None)
            chunks_have_all = row.last_chunked == row.last_event
            numbered = []
            for seq in sorted(fresh):
                row.last_event += 1
                session.add(event_row(fresh[seq], row, claim, row.last_event))
                numbered.append(replace(fresh[seq], seq=row.last_event))
            if chunks_have_all:  # else whoever looks at them first brings them up to date
                add_to_chunks(session, row, claim, numbered)
                row.last_chunked = row.last_event
            if progress is not None:
                row.progress = asdict(progress)

    def last_seq(self, job_id: str, fence: int) -> int:
        of_claim = (JobEventRow.job_id == job_id, JobEventRow.fence == fence)
        with self._database.read() as session:
            return session.scalar(select(func.max(JobEventRow.seq)).where(*of_claim)) or 0

    def set_run_folder(self, job_id: str, fence: int, run_folder: str) -> None:
        with self._database.write() as session:
            _held(session, job_id, fence).run_folder = run_folder

    def move(self, job_id: str, fence: int, to: JobState, error: JobError | None = None) -> None:
        with self._database.write() as session:
            row = _held(session, job_id, fence)
            check_end(JobState(row.state), to)
            if to is JobState.QUEUED and row.cancel_requested:
                to = JobState.CANCELLED
            _let_go(row, to, error)

    def give_back(self, job_id: str, fence: int) -> JobState:
        with self._database.write() as session:
            row = _held(session, job_id, fence)
            return _let_go(row, after_stop(job_entity(row)))

    def give_up(self, job_id: str, fence: int, error: JobError, max_attempts: int) -> JobState:
        with self._database.write() as session:
            return _lose(_held(session, job_id, fence), error, max_attempts, has_worker=True)

    def bind(self, job: FineTuningJob, fence: int) -> None:
        with self._database.write() as session:
            row = _held(session, job.id, fence)
            _keep_dataset(session, job)
            row.name, row.config, row.base_model = job.name, dict(job.config), job.base_model
            row.dataset_digest, row.dataset_id = job.dataset_digest, job.dataset_id
            row.dataset_number, row.inputs = job.dataset_number, {}

    def succeed(
        self, job_id: str, fence: int, finished: Finished, limits: ProjectLimits = NO_LIMITS
    ) -> Sequence[str]:
        with self._database.write() as session:
            row = _held(session, job_id, fence)
            session.execute(_those_who_wait(row.id))  # locked before the project, as in ``add``
            made: list[str] = []
            for version in finished.made:
                if version.project_id != row.project_id:
                    raise Conflict("a job publishes in its own project")
                if isinstance(version, DatasetVersion):
                    made.append(add_dataset_version(session, version, limits).reference)
                else:
                    made.append(_publish(session, row, version, limits).reference)
            _move(row, JobState.SUCCEEDED)
            row.result, row.made, row.owner = dict(finished.result), made, None
            return made

    def has_succeeded(self, job_id: str, fence: int) -> bool:
        ended = (JobRow.id == job_id, JobRow.fence == fence, JobRow.state == JobState.SUCCEEDED)
        with self._database.read() as session:
            return session.scalar(select(JobRow.id).where(*ended)) is not None

    def forget(self, kind: str, before: datetime, most: int = 100) -> Sequence[str]:
        old = (JobRow.kind == kind, JobRow.finished_at < before)
        with self._database.write() as session:
            waiting = aliased(JobRow)
            needs = select(JobNeedRow.needed_id).join(waiting, waiting.id == JobNeedRow.job_id)
            needed = needs.where(JobNeedRow.needed_id == JobRow.id, waiting.finished_at.is_(None)).exists()
            query = select(JobRow.id).where(*old, ~needed).limit(most)
            ids = session.scalars(query.with_for_update(skip_locked=True)).all()
            for table in (JobEventRow, JobMetricChunkRow, JobNeedRow):
                session.execute(delete(table).where(table.job_id.in_(ids)))
            session.execute(delete(JobNeedRow).where(JobNeedRow.needed_id.in_(ids)))
            session.execute(delete(JobRow).where(JobRow.id.in_(ids)))
            return ids

    def leases(self) -> Sequence[Lease]:
        columns = select(JobRow.id, JobRow.fence, JobRow.heartbeat, JobRow.lease_seconds)
        with self._database.read() as session:
            rows = session.execute(columns.where(JobRow.owner.is_not(None)).order_by(JobRow.id))
            return [Lease(*row) for row in rows]

    def release_lost(self, lease: Lease, max_attempts: int) -> JobState | None:
        with self._database.write() as session:
            row = session.get(JobRow, lease.job_id, with_for_update=True)
            if row is None or row.owner is None or (row.fence, row.heartbeat) != (lease.fence, lease.heartbeat):
                return None
            return _lose(row, LOST_WORKER, max_attempts, has_worker=False)

    def use(self, project_id: str) -> ProjectUse:
        with self._database.read() as session:
            return use_of(session, project_id)

    def limits(self, project_id: str) -> ProjectLimits | None:
        with self._database.read() as session:
            project = session.get(ProjectRow, project_id)
            return None if project is None else project_limits(project)

    def set_limits(self, project_id: str, limits: ProjectLimits) -> None:
        with self._database.write() as session:
            project = locked_project(session, project_id)
            project.max_running, project.max_queued = limits.running, limits.queued
            project.max_requests, project.max_tokens = limits.requests, limits.tokens
            project.max_bytes, project.max_versions = limits.storage_bytes, limits.versions

    def events(self, project_id: str, job_id: str, *, after: int = 0, limit: int = 100) -> Sequence[JobEvent]:
        of_job = (JobEventRow.project_id == project_id, JobEventRow.job_id == job_id)
        query = select(JobEventRow).where(*of_job, JobEventRow.number > after)
        with self._database.read() as session:
            return [event_entity(row) for row in session.scalars(query.order_by(JobEventRow.number).limit(limit))]

    def latest_events(
        self, project_id: str, job_id: str, *, before: int | None = None, limit: int = 100
    ) -> Sequence[JobEvent]:
        query = select(JobEventRow).where(JobEventRow.project_id == project_id, JobEventRow.job_id == job_id)
        if before is not None:
            query = query.where(JobEventRow.number < before)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(JobEventRow.number.desc()).limit(limit))
            return [event_entity(row) for row in rows]

    def metrics(self, project_id: str, job_id: str, *, most: int) -> MetricCurve:
        of_project = select(JobRow).where(JobRow.project_id == project_id, JobRow.id == job_id)
        behind = of_project.where(JobRow.last_chunked < JobRow.last_event)
        while True:
            with self._database.read() as session:
                if session.scalar(behind) is None:
                    return read_curve(session, project_id, job_id, most)
            with self._database.write() as session:
                if (row := session.scalar(behind.with_for_update())) is not None:
                    catch_up(session, row)


def _of_project(project_id: str, job_id: str) -> Select[JobRow]:
    return select(JobRow).where(JobRow.project_id == project_id, JobRow.id == job_id)


def _has_metadata(session: Session, key: str, value: str) -> Exists:
    """Make the condition that a job's request has that pair; the database looks, so that no other row is read.

    Pairs are compared, and no path is made of the key: SQLite's paths know no way to quote a quote.
    """
    if session.get_bind().dialect.name == "sqlite":
        pairs = func.json_each(JobRow.request, "$.metadata")
    else:
        pairs = func.json_each_text(JobRow.request["metadata"])
    pair = pairs.table_valued(column("key", Text), column("value", Text))
    return exists().where(pair.c.key == key, pair.c.value == value)


def _same_request(job: FineTuningJob, since: datetime) -> Select[JobRow]:
    same = (JobRow.project_id == job.project_id, JobRow.request_key == job.request_key)
    query = select(JobRow).where(*same, JobRow.created_at >= since).order_by(JobRow.created_at).limit(1)
    return query if job.is_retry else query.where(JobRow.is_retry)


def _held(session: Session, job_id: str, fence: int) -> JobRow:
    row = session.get(JobRow, job_id, with_for_update=True)
    if row is None or row.owner is None or row.fence != fence:
        raise stale(job_id)
    return row


def _move(row: JobRow, to: JobState) -> None:
    check_move(JobState(row.state), to)
    row.state = to.value
    if to in FINAL_STATES:
        row.finished_at = datetime.now(UTC)
        tell_of_end(row, to, row.finished_at)
        _tell_those_who_wait(row, to)


def _lock_needed(session: Session, jobs: Sequence[FineTuningJob]) -> dict[str, JobState]:
    """Lock the jobs that these wait for and return their states: until this transaction ends none ends unheard."""
    needed = {job_id for job in jobs for job_id in job.after}
    if not needed:
        return {}
    of_project = (JobRow.project_id == jobs[0].project_id, JobRow.id.in_(needed))
    query = select(JobRow.id, JobRow.state).where(*of_project).order_by(JobRow.id).with_for_update()
    return {job_id: JobState(state) for job_id, state in session.execute(query)}


def _wait_for(session: Session, row: JobRow, needed: Sequence[str], states: Mapping[str, JobState]) -> None:
    """Have ``row`` wait for the jobs that it needs."""
    for job_id in needed:
        if job_id not in states:
            raise NotFound(f"after: there is no job {job_id[:80]!r} in this project", code="job_not_found")
        state = states[job_id]
        if state in FINAL_STATES - {JobState.SUCCEEDED}:
            raise Conflict(f"after: job {job_id} has {_ended(state)}", code="dependency_failed")
        session.add(JobNeedRow(job_id=row.id, needed_id=job_id, project_id=row.project_id))
        row.blockers += state is not JobState.SUCCEEDED


def _tell_those_who_wait(row: JobRow, state: JobState) -> None:
    """Let the jobs that wait for this one go on, or cancel them: what they were to work with will not come."""
    session = object_session(row)
    assert session is not None
    for other in session.scalars(_those_who_wait(row.id)):
        if other.state in FINAL_STATES:
            continue
        if state is JobState.SUCCEEDED:
            other.blockers -= 1
        else:
            message = f"job {row.id}, which it waits for, has {_ended(state)}"
            _let_go(other, JobState.CANCELLED, JobError("dependency_failed", message))


def _those_who_wait(job_id: str) -> Select[JobRow]:
    waiting = select(JobRow).join(JobNeedRow, JobNeedRow.job_id == JobRow.id).where(JobNeedRow.needed_id == job_id)
    return waiting.order_by(JobRow.id).with_for_update(of=JobRow)


def _ended(state: JobState) -> str:
    return "been cancelled" if state is JobState.CANCELLED else state.value


def _publish(session: Session, row: JobRow, version: ModelVersion, limits: ProjectLimits) -> ModelVersion:
    if version.job_id != row.id:
        raise Conflict("a job publishes under its own id")
    keep_quotas(session, row.project_id, limits, ProjectUse(storage_bytes=version.size, versions=1))
    numbered = replace(version, number=_next_number(session, row.project_id, version.name))
    session.add(version_row(numbered))
    row.model_version_id = version.id
    return numbered


def _let_go(row: JobRow, to: JobState, error: JobError | None = None) -> JobState:
    if to != row.state:
        _move(row, to)
    row.error = None if error is None else error_json(error)
    row.owner = None
    return to


def _lose(row: JobRow, error: JobError, max_attempts: int, *, has_worker: bool) -> JobState:
    row.lost += 1
    return _let_go(row, *after_loss(job_entity(row), error, max_attempts, has_worker=has_worker))


def _next_number(session: Session, project_id: str, name: str) -> int:
    """Until this transaction ends no other numbers a version of this project."""
    locked_project(session, project_id)
    of_model = (ModelVersionRow.project_id == project_id, ModelVersionRow.name == name)
    return (session.scalar(select(func.max(ModelVersionRow.number)).where(*of_model)) or 0) + 1


def _keep_dataset(session: Session, job: FineTuningJob) -> None:
    """Until this transaction ends nobody deletes it; ``NotFound`` if it is gone."""
    if job.dataset_id is None:
        return
    of_job = (DatasetRow.project_id == job.project_id, DatasetRow.id == job.dataset_id)
    query = select(DatasetRow.id).where(*of_job)
    if session.scalar(query.with_for_update(read=True, key_share=True)) is None:
        raise no_dataset(job.dataset_id)
